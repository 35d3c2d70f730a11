//! The library by dlopen(3), as any program would have it.
#![allow(unsafe_code)]

use super::Lab;
use serde_json::Value;
use std::ffi::{c_char, c_void, CStr, CString};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{null, null_mut};

#[path = "../../src/status.rs"]
pub mod status;

/// What a call says when it fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub status: i32,
    pub errno: i32,
    pub stage: i32,
    pub message: String,
}

pub type Res<T> = Result<T, Failure>;

#[repr(C)]
pub struct ContextOptions {
    pub size: usize,
    pub state_dir: *const c_char,
    pub stage_path: *const c_char,
    pub subid_user: *const c_char,
    pub subuid_file: *const c_char,
    pub subgid_file: *const c_char,
    pub subid_size: u32,
    pub cgroup_manager: i32,
}

/// Of create and exec.
#[repr(C)]
pub struct StreamOptions {
    pub size: usize,
    pub stdin_fd: i32,
    pub stdout_fd: i32,
    pub stderr_fd: i32,
    pub console_fd: i32,
    pub fds: *const c_void,
    pub fd_count: usize,
    pub cancel: *const c_void,
    pub timeout_ms: i64,
}

/// Of start and wait.
#[repr(C)]
pub struct LimitOptions {
    pub size: usize,
    pub cancel: *const c_void,
    pub timeout_ms: i64,
}

#[repr(C)]
pub struct DeleteOptions {
    pub size: usize,
    pub force: i32,
    pub reserved: i32,
    pub cancel: *const c_void,
    pub timeout_ms: i64,
}

type H = *mut c_void;
type P = *const c_void;
type Err = *mut H;

macro_rules! exports {
    ($($name:ident($($arg:ty),*) $(-> $ret:ty)?;)*) => {
        #[allow(non_snake_case)]
        struct Exports { $($name: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)* }
        impl Exports {
            fn load(library: &Path) -> Self {
                let path = CString::new(library.as_os_str().as_bytes()).unwrap();
                // SAFETY: the library has no constructor, and is never closed.
                let handle = unsafe { nix::libc::dlopen(path.as_ptr(), nix::libc::RTLD_NOW | nix::libc::RTLD_LOCAL) };
                assert!(!handle.is_null(), "dlopen {path:?}");
                Exports { $($name: {
                    let symbol = CString::new(concat!("sysbox_", stringify!($name))).unwrap();
                    // SAFETY: `handle` is of a library that is loaded.
                    let at = unsafe { nix::libc::dlsym(handle, symbol.as_ptr()) };
                    assert!(!at.is_null(), "no {symbol:?}");
                    // SAFETY: the types are those of the header.
                    unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($arg),*) $(-> $ret)?>(at) }
                },)* }
            }
        }
    };
}

exports! {
    error_code(P) -> i32;
    error_errno(P) -> i32;
    error_stage(P) -> i32;
    error_message(P) -> *const c_char;
    error_free(H);
    buf_data(P) -> *const c_char;
    buf_size(P) -> usize;
    buf_free(H);
    cancel_new(*mut H, Err) -> i32;
    cancel_trigger(P) -> i32;
    cancel_free(H);
    context_new(*const ContextOptions, *mut H, Err) -> i32;
    context_free(H);
    context_check_host(P, *mut H, Err) -> i32;
    context_list(P, *mut H, Err) -> i32;
    context_plan(P, *const c_char, *const u8, usize, *const c_char, *mut H, Err) -> i32;
    context_plan_text(P, *const c_char, *const u8, usize, *const c_char, *mut H, Err) -> i32;
    container_create(P, *const c_char, *const u8, usize, *const c_char, *const StreamOptions, *mut H, Err) -> i32;
    container_open(P, *const c_char, *mut H, Err) -> i32;
    container_free(H);
    container_start(P, *const LimitOptions, Err) -> i32;
    container_exec(P, *const u8, usize, *const StreamOptions, *mut H, Err) -> i32;
    container_wait(P, *const LimitOptions, *mut i32, *mut i32, Err) -> i32;
    container_kill(P, i32, Err) -> i32;
    container_kill_all(P, i32, Err) -> i32;
    container_pause(P, Err) -> i32;
    container_resume(P, Err) -> i32;
    container_update(P, *const u8, usize, Err) -> i32;
    container_state(P, *mut H, Err) -> i32;
    container_stats(P, *mut H, Err) -> i32;
    container_processes(P, *mut H, Err) -> i32;
    container_config(P, *mut H, Err) -> i32;
    container_nodes(P, *mut H, Err) -> i32;
    container_delete(P, *const DeleteOptions, Err) -> i32;
    child_kill(P, i32, Err) -> i32;
    child_wait(P, *const LimitOptions, *mut i32, *mut i32, Err) -> i32;
    child_free(H);
}

/// The library, with a context on a lab.
pub struct Abi {
    e: Exports,
    context: H,
}

// SAFETY: every function of the library may be called from any thread.
unsafe impl Send for Abi {}
// SAFETY: as above.
unsafe impl Sync for Abi {}

/// A handle, freed at its end.
pub struct Handle<'a> {
    at: H,
    free: unsafe extern "C" fn(H),
    abi: &'a Abi,
}

// SAFETY: as above.
unsafe impl Send for Handle<'_> {}
// SAFETY: as above.
unsafe impl Sync for Handle<'_> {}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        // SAFETY: it is live, and nobody else has it.
        unsafe { (self.free)(self.at) }
    }
}

/// When a call is to give up.
#[derive(Clone, Copy, Default)]
pub struct Limit<'a> {
    pub ms: i64,
    pub cancel: Option<&'a Handle<'a>>,
}

impl Limit<'_> {
    fn cancel(&self) -> P {
        self.cancel.map_or(null(), |c| c.at)
    }

    fn options(&self) -> LimitOptions {
        LimitOptions { size: size_of::<LimitOptions>(), cancel: self.cancel(), timeout_ms: self.ms }
    }

    /// With /dev/null as input, and both outputs to a file.
    fn streams(&self, out: &File) -> StreamOptions {
        StreamOptions {
            size: size_of::<StreamOptions>(),
            stdin_fd: -1,
            stdout_fd: out.as_raw_fd(),
            stderr_fd: out.as_raw_fd(),
            console_fd: 0,
            fds: null(),
            fd_count: 0,
            cancel: self.cancel(),
            timeout_ms: self.ms,
        }
    }
}

pub fn ms(ms: i64) -> Limit<'static> {
    Limit { ms, cancel: None }
}

impl Abi {
    pub fn new(library: &Path, lab: &Lab) -> Abi {
        Abi::with_stage(library, lab, None)
    }

    pub fn with_stage(library: &Path, lab: &Lab, stage: Option<&Path>) -> Abi {
        Abi::open_context(library, &lab.state(), stage)
    }

    pub fn in_directory(library: &Path, state: &Path) -> Abi {
        Abi::open_context(library, state, None)
    }

    fn open_context(library: &Path, state: &Path, stage: Option<&Path>) -> Abi {
        let path = |p: &Path| CString::new(p.as_os_str().as_bytes()).unwrap();
        let (state, stage) = (path(state), stage.map(path));
        let options = ContextOptions {
            size: size_of::<ContextOptions>(),
            state_dir: state.as_ptr(),
            stage_path: stage.as_ref().map_or(null(), |s| s.as_ptr()),
            subid_user: null(),
            subuid_file: null(),
            subgid_file: null(),
            subid_size: 0,
            cgroup_manager: 0,
        };
        let mut abi = Abi { e: Exports::load(&library.join("libsysbox.so")), context: null_mut() };
        let mut context = null_mut();
        // SAFETY: all of it lives during the call.
        abi.call(|e, err| unsafe { (e.context_new)(&options, &mut context, err) }).unwrap();
        abi.context = context;
        abi
    }

    fn call(&self, f: impl FnOnce(&Exports, Err) -> i32) -> Res<()> {
        let mut err = null_mut();
        let status = f(&self.e, &mut err);
        if status == status::SYSBOX_OK {
            assert!(err.is_null());
            return Ok(());
        }
        let e = &self.e;
        // SAFETY: a failed call has made an error, which is this function's.
        unsafe {
            assert_eq!((e.error_code)(err), status);
            let message = CStr::from_ptr((e.error_message)(err)).to_str().unwrap().to_owned();
            let failure = Failure { status, errno: (e.error_errno)(err), stage: (e.error_stage)(err), message };
            (e.error_free)(err);
            Err(failure)
        }
    }

    fn make(&self, free: unsafe extern "C" fn(H), f: impl FnOnce(&Exports, *mut H, Err) -> i32) -> Res<Handle<'_>> {
        let mut at = null_mut();
        self.call(|e, err| f(e, &mut at, err))?;
        Ok(Handle { at, free, abi: self })
    }

    fn text(&self, f: impl FnOnce(&Exports, *mut H, Err) -> i32) -> Res<String> {
        let buf = self.make(self.e.buf_free, f)?;
        // SAFETY: the buffer is live until the end of this function.
        let text = unsafe { CStr::from_ptr((self.e.buf_data)(buf.at)) }.to_str().unwrap().to_owned();
        // SAFETY: as above.
        assert_eq!(text.len(), unsafe { (self.e.buf_size)(buf.at) });
        Ok(text)
    }

    fn json(&self, f: impl FnOnce(&Exports, *mut H, Err) -> i32) -> Res<Value> {
        self.text(f).map(|text| serde_json::from_str(&text).unwrap())
    }

    pub fn cancel(&self) -> Handle<'_> {
        // SAFETY: both pointers are live.
        self.make(self.e.cancel_free, |e, out, err| unsafe { (e.cancel_new)(out, err) }).unwrap()
    }

    // SAFETY, for all below: the handles are live, the texts end with NUL, and all of it lives during the call.
    pub fn check_host(&self) -> Res<Value> {
        // SAFETY: see above.
        self.json(|e, out, err| unsafe { (e.context_check_host)(self.context, out, err) })
    }

    pub fn list(&self) -> Res<Value> {
        // SAFETY: see above.
        self.json(|e, out, err| unsafe { (e.context_list)(self.context, out, err) })
    }

    pub fn plan(&self, id: &str, config: &str) -> Res<Value> {
        let id = CString::new(id).unwrap();
        let (p, n) = (config.as_ptr(), config.len());
        // SAFETY: see above.
        self.json(|e, out, err| unsafe { (e.context_plan)(self.context, id.as_ptr(), p, n, null(), out, err) })
    }

    pub fn plan_text(&self, id: &str, config: &str) -> Res<String> {
        let id = CString::new(id).unwrap();
        let (p, n) = (config.as_ptr(), config.len());
        // SAFETY: see above.
        self.text(|e, out, err| unsafe { (e.context_plan_text)(self.context, id.as_ptr(), p, n, null(), out, err) })
    }

    pub fn create(&self, id: &str, config: &str, out: &File, limit: Limit<'_>) -> Res<Handle<'_>> {
        let (id, o) = (CString::new(id).unwrap(), limit.streams(out));
        let (p, n) = (config.as_ptr(), config.len());
        let free = self.e.container_free;
        // SAFETY: see above.
        self.make(free, |e, h, err| unsafe {
            (e.container_create)(self.context, id.as_ptr(), p, n, null(), &o, h, err)
        })
    }

    pub fn open(&self, id: &str) -> Res<Handle<'_>> {
        let id = CString::new(id).unwrap();
        // SAFETY: see above.
        self.make(self.e.container_free, |e, h, err| unsafe { (e.container_open)(self.context, id.as_ptr(), h, err) })
    }
}

impl Drop for Abi {
    fn drop(&mut self) {
        // SAFETY: its handles borrow it, so that none is left.
        unsafe { (self.e.context_free)(self.context) }
    }
}

impl<'a> Handle<'a> {
    pub fn trigger(&self) {
        // SAFETY: it is a live cancellation.
        assert_eq!(unsafe { (self.abi.e.cancel_trigger)(self.at) }, 0);
    }

    pub fn start(&self, limit: Limit<'_>) -> Res<()> {
        // SAFETY: see above.
        self.abi.call(|e, err| unsafe { (e.container_start)(self.at, &limit.options(), err) })
    }

    pub fn exec(&self, process: &str, out: &File, limit: Limit<'_>) -> Res<Handle<'a>> {
        let o = limit.streams(out);
        let (p, n) = (process.as_ptr(), process.len());
        let free = self.abi.e.child_free;
        // SAFETY: see above.
        self.abi.make(free, |e, h, err| unsafe { (e.container_exec)(self.at, p, n, &o, h, err) })
    }

    /// Exit code, and signal.
    pub fn wait(&self, limit: Limit<'_>) -> Res<(i32, i32)> {
        let (mut code, mut signal) = (-7, -7);
        // SAFETY: see above.
        let wait =
            |e: &Exports, err| unsafe { (e.container_wait)(self.at, &limit.options(), &mut code, &mut signal, err) };
        self.abi.call(wait).map(|()| (code, signal))
    }

    pub fn wait_child(&self, limit: Limit<'_>) -> Res<(i32, i32)> {
        let (mut code, mut signal) = (-7, -7);
        // SAFETY: see above.
        let wait = |e: &Exports, err| unsafe { (e.child_wait)(self.at, &limit.options(), &mut code, &mut signal, err) };
        self.abi.call(wait).map(|()| (code, signal))
    }

    pub fn kill_child(&self, signal: i32) -> Res<()> {
        // SAFETY: see above.
        self.abi.call(|e, err| unsafe { (e.child_kill)(self.at, signal, err) })
    }

    pub fn kill(&self, signal: i32) -> Res<()> {
        // SAFETY: see above.
        self.abi.call(|e, err| unsafe { (e.container_kill)(self.at, signal, err) })
    }

    pub fn kill_all(&self, signal: i32) -> Res<()> {
        // SAFETY: see above.
        self.abi.call(|e, err| unsafe { (e.container_kill_all)(self.at, signal, err) })
    }

    pub fn pause(&self) -> Res<()> {
        // SAFETY: see above.
        self.abi.call(|e, err| unsafe { (e.container_pause)(self.at, err) })
    }

    pub fn resume(&self) -> Res<()> {
        // SAFETY: see above.
        self.abi.call(|e, err| unsafe { (e.container_resume)(self.at, err) })
    }

    pub fn update(&self, resources: &str) -> Res<()> {
        // SAFETY: see above.
        self.abi.call(|e, err| unsafe { (e.container_update)(self.at, resources.as_ptr(), resources.len(), err) })
    }

    pub fn state(&self) -> Res<Value> {
        // SAFETY: see above.
        self.abi.json(|e, out, err| unsafe { (e.container_state)(self.at, out, err) })
    }

    pub fn stats(&self) -> Res<Value> {
        // SAFETY: see above.
        self.abi.json(|e, out, err| unsafe { (e.container_stats)(self.at, out, err) })
    }

    pub fn processes(&self) -> Res<Value> {
        // SAFETY: see above.
        self.abi.json(|e, out, err| unsafe { (e.container_processes)(self.at, out, err) })
    }

    pub fn nodes(&self) -> Res<Value> {
        // SAFETY: see above.
        self.abi.json(|e, out, err| unsafe { (e.container_nodes)(self.at, out, err) })
    }

    pub fn config(&self) -> Res<Value> {
        // SAFETY: see above.
        self.abi.json(|e, out, err| unsafe { (e.container_config)(self.at, out, err) })
    }

    pub fn delete(&self, force: bool, limit: Limit<'_>) -> Res<()> {
        let o = DeleteOptions {
            size: size_of::<DeleteOptions>(),
            force: force.into(),
            reserved: 0,
            cancel: limit.cancel(),
            timeout_ms: limit.ms,
        };
        // SAFETY: see above.
        self.abi.call(|e, err| unsafe { (e.container_delete)(self.at, &o, err) })
    }
}
