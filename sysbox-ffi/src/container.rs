//! `sysbox_container_t`: one container.

use crate::boundary::{self, document_of, text_of, Failure, Handle, Out, Outcome};
use crate::buffer::Buf;
use crate::context::{spec_of, Context};
use crate::error::{c_text, Error};
use crate::limit::limit;
use crate::options::{self, CreateOptions, DeleteOptions, StartOptions, WaitOptions};
use crate::status::Status;
use crate::streams::{streams, Given};
use serde_json::json;
use std::ffi::{c_char, CString};
use std::os::fd::IntoRawFd;
use std::sync::atomic::AtomicBool;
use sysbox_core::error::SysResult;
use sysbox_core::{Exit, Kind};

/// One container. Any number of threads may use it at a time, and kill it while others wait for it. It says what the container is when
/// it is asked: other handles and other processes may start, pause and delete it. Freeing it does nothing to the container.
#[derive(Debug)]
pub struct Container {
    poisoned: AtomicBool,
    pub(crate) container: sysbox_core::Container,
    id: CString,
}

impl Handle for Container {
    const NAME: &'static str = "container";
    fn poisoned(&self) -> &AtomicBool {
        &self.poisoned
    }
}

impl Container {
    fn new(container: sysbox_core::Container) -> Self {
        let id = c_text(container.id().as_bytes());
        Container { poisoned: AtomicBool::new(false), container, id }
    }
}

/// Makes a container whose program waits for `sysbox_container_start`. Blocks until its namespaces, control groups and mounts exist
/// and its `createRuntime` and `createContainer` hooks are done.
///
/// Its init is a child of this process. `sysbox_container_wait` does not need the SIGCHLD; a process that reaps all its children
/// may do so (see there).
///
/// If it fails, is canceled, or takes too long, nothing is left behind. If this process is killed meanwhile, `sysbox_container_open`
/// and `sysbox_container_delete` with force, from any process, clean up.
///
/// @param id its name: 1 to 240 ASCII letters, digits and _ + - . Its control group is /sysbox-NAME unless `linux.cgroupsPath` says
/// otherwise, so that it should be the host's only container of that name
/// @param config an OCI config.json, 1.0 to 1.3. Copied. NULL, with size 0: the one in `bundle`
/// @param config_size its size in bytes
/// @param bundle what relative paths in the configuration are relative to. NULL, if `config` is given: /
/// @param options NULL: all defaults; in particular, the container has the caller's standard streams
/// @param[out] container the new handle, to be freed with `sysbox_container_free`
/// @return `SYSBOX_ERR_EXISTS` for an id in use; `SYSBOX_ERR_INVALID_CONFIG` and `SYSBOX_ERR_REFUSED` for the configuration;
/// `SYSBOX_ERR_PROGRAM_NOT_FOUND`, `SYSBOX_ERR_PROGRAM_NOT_EXECUTABLE`; `SYSBOX_ERR_EXHAUSTED` if there are no IDs; and others
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_create(
    context: *const Context,
    id: *const c_char,
    config: *const u8,
    config_size: usize,
    bundle: *const c_char,
    options: *const CreateOptions,
    container: *mut *mut Container,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Context| unsafe {
        let out = Out::new(container, "container")?;
        let id = text_of(id, "id")?;
        let o = options::read(options)?;
        let limit = limit(o.cancel, o.timeout_ms)?;
        let given = Given { streams: [o.stdin_fd, o.stdout_fd, o.stderr_fd], console: o.console_fd };
        let stdio = streams(given, o.fds, o.fd_count)?;
        let (spec, bundle) = spec_of(config, config_size, bundle)?;
        let made = c.runtime.create_within(id, &spec, bundle, sysbox_core::CreateOptions { stdio }, &limit)?;
        out.give(Container::new(made));
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(context, err, body) }
}

/// Finds a container by its name, whoever made it: also one whose making was cut short, and one whose state is damaged.
///
/// @param[out] container the new handle, to be freed with `sysbox_container_free`
/// @return `SYSBOX_ERR_NOT_FOUND` if there is none
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_open(
    context: *const Context,
    id: *const c_char,
    container: *mut *mut Container,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Context| unsafe {
        let out = Out::new(container, "container")?;
        out.give(Container::new(c.runtime.open(text_of(id, "id")?)?));
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(context, err, body) }
}

/// Frees a handle. Nothing happens to the container. NULL is fine.
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_free(container: *mut Container) {
    // SAFETY: by the rules of the header.
    unsafe { boundary::free(container) }
}

/// Its name, borrowed until the handle is freed; empty if `container` is NULL.
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_id(container: *const Container) -> *const c_char {
    // SAFETY: by the rules of the header.
    unsafe { boundary::at(container, "container") }.map_or(c"".as_ptr(), |c| c.id.as_ptr())
}

/// Lets its program run. Blocks until it has been executed and the `poststart` hooks are done. Any process may do it, not only
/// the creator.
///
/// One that is canceled, or takes too long, leaves the container created if it had not begun, and otherwise stopped: its init is
/// killed. It is still to be deleted.
///
/// @param options NULL: all defaults
/// @return `SYSBOX_ERR_WRONG_STATE` unless it is created; `SYSBOX_ERR_PROGRAM_NOT_FOUND`, `SYSBOX_ERR_PROGRAM_NOT_EXECUTABLE`, and
/// those of a `startContainer` hook: the container is stopped then; those of a `poststart` hook: the program runs nevertheless
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_start(
    container: *const Container,
    options: *const StartOptions,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Container| unsafe {
        let o = options::read(options)?;
        Ok(c.container.start_within(&limit(o.cancel, o.timeout_ms)?)?)
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(container, err, body) }
}

/// Waits until its init has ended, and says how. If init is a child of this process, it is reaped.
///
/// Any number of threads may wait with one handle, and again afterwards. Where somebody else has reaped it (a program that calls
/// wait4(-1), or ignores SIGCHLD, say), and where it is no child of this process, the kernel is asked, which can tell from Linux 6.15
/// on. Of another process's child it tells when that process has reaped it, which is waited for, and not before.
///
/// @param options NULL: waits without a limit
/// @param[out] exit_code the exit code; 128 plus the number if a signal ended it. May be NULL
/// @param[out] exit_signal the number of that signal, 0 if it was none. A container that powers off ends by SIGINT, one that reboots
/// by SIGHUP. May be NULL
/// @return `SYSBOX_ERR_TIMED_OUT` and `SYSBOX_ERR_CANCELED` change nothing; `SYSBOX_ERR_WRONG_STATE` if it had ended before the
/// handle was made; `SYSBOX_ERR_UNSUPPORTED` if its exit status is lost
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_wait(
    container: *const Container,
    options: *const WaitOptions,
    exit_code: *mut i32,
    exit_signal: *mut i32,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Container| unsafe {
        let out = ExitOut::new(exit_code, exit_signal)?;
        let o = options::read(options)?;
        out.set(c.container.wait_within(&limit(o.cancel, o.timeout_ms)?)?);
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(container, err, body) }
}

/// Where an exit status goes.
pub(crate) struct ExitOut(Option<Out<i32>>, Option<Out<i32>>);

impl ExitOut {
    /// # Safety
    /// Each is NULL or may be written for as long as this lives.
    pub(crate) unsafe fn new(code: *mut i32, signal: *mut i32) -> Outcome<Self> {
        // SAFETY: by this function's contract.
        unsafe { Ok(ExitOut(Out::maybe(code, "exit_code")?, Out::maybe(signal, "exit_signal")?)) }
    }

    pub(crate) fn set(self, exit: Exit) {
        let signal = if let Exit::Signal(s) = exit { s } else { 0 };
        if let Some(out) = self.0 {
            out.set(exit.code());
        }
        if let Some(out) = self.1 {
            out.set(signal);
        }
    }
}

/// Sends a signal to its init. As everywhere, pid 1 gets only signals that it handles, SIGKILL and SIGSTOP. Does not wait for the
/// effect.
///
/// @param signal a SIG* number; 0 only looks whether it could be sent
/// @return `SYSBOX_ERR_WRONG_STATE` if init has ended
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_kill(
    container: *const Container,
    signal: i32,
    err: *mut *mut Error,
) -> Status {
    let body = |c: &Container| Ok(c.container.kill(signal)?);
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(container, err, body) }
}

/// Sends a signal to every process of it, those of containers inside included. That one of them ends meanwhile is no failure.
///
/// @param signal a SIG* number
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_kill_all(
    container: *const Container,
    signal: i32,
    err: *mut *mut Error,
) -> Status {
    let body = |c: &Container| Ok(c.container.kill_all(signal)?);
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(container, err, body) }
}

/// Freezes all its processes, and waits until they are frozen.
///
/// @return `SYSBOX_ERR_WRONG_STATE` unless it is created or running
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_pause(container: *const Container, err: *mut *mut Error) -> Status {
    let body = |c: &Container| Ok(c.container.pause()?);
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(container, err, body) }
}

/// Lets frozen processes go on.
///
/// @return `SYSBOX_ERR_WRONG_STATE` unless it is paused
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_resume(container: *const Container, err: *mut *mut Error) -> Status {
    let body = |c: &Container| Ok(c.container.resume()?);
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(container, err, body) }
}

/// Changes its limits: those that are given; the others stay.
///
/// @param resources a JSON object as `linux.resources` of an OCI config.json. Devices are not looked at. Copied
/// @param resources_size its size in bytes
/// @return `SYSBOX_ERR_WRONG_STATE` unless it is created, running or paused
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_update(
    container: *const Container,
    resources: *const u8,
    resources_size: usize,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Container| unsafe {
        let resources = parse(document_of(resources, resources_size, "resources")?, "resources")?;
        Ok(c.container.update(&resources)?)
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(container, err, body) }
}

/// A part of an OCI document.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(json: &[u8], name: &str) -> Outcome<T> {
    serde_json::from_slice(json).map_err(|e| sysbox_core::Error::invalid(format!("{name}: {e}")).into())
}

/// Its state just now.
///
/// @param[out] json an object as the OCI runtime specification has it ("ociVersion", "id", "status", "pid", "bundle", "annotations"),
/// with "rootfs" and "created" (nanoseconds since 1970, where known). "status" is "creating", "created", "running", "paused",
/// "stopped", or "damaged"; "pid" is there while init lives
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_state(
    container: *const Container,
    json: *mut *mut Buf,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Container| unsafe {
        Out::new(json, "json")?.json(&c.container.describe());
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(container, err, body) }
}

/// What it uses just now, all its processes together, those of containers inside included. Sizes are in bytes, times in
/// nanoseconds.
///
/// @param[out] json an object with "cpu", "memory", "pids", "io" (each null if its controller is not there) and "hugetlb"
/// @return `SYSBOX_ERR_WRONG_STATE` unless it is created, running or paused
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_stats(
    container: *const Container,
    json: *mut *mut Buf,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Container| unsafe {
        let out = Out::new(json, "json")?;
        out.json(&json!(c.container.stats()?));
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(container, err, body) }
}

/// Its processes, those of containers inside included.
///
/// @param[out] json an array of pids, as the host numbers processes
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_processes(
    container: *const Container,
    json: *mut *mut Buf,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Container| unsafe {
        let out = Out::new(json, "json")?;
        out.json(&json!(c.container.processes()?));
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(container, err, body) }
}

/// The configuration that it was made from, whole.
///
/// @param[out] json an OCI config.json
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_config(
    container: *const Container,
    json: *mut *mut Buf,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Container| unsafe {
        let out = Out::new(json, "json")?;
        out.json(c.container.spec()?.to_json());
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(container, err, body) }
}

/// Takes it away: processes, control groups, IDs, state. Its exit status is lost unless it was waited for. The handle stays, to be
/// freed.
///
/// One that is canceled, or takes too long, has changed nothing if it had not begun; otherwise it goes on where it was when it is
/// called again. `poststop` hooks are cut short, and are no reason for it to fail.
///
/// @param options NULL: all defaults
/// @return `SYSBOX_ERR_WRONG_STATE` for a running or paused container, `SYSBOX_ERR_DAMAGED` for a damaged one, without force;
/// `SYSBOX_ERR_NOT_FOUND` if it has been deleted; `SYSBOX_ERR_BUSY` while it is being made, or if a process does not die
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_delete(
    container: *const Container,
    options: *const DeleteOptions,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Container| unsafe {
        let o = options::read(options)?;
        if o.reserved != 0 {
            return Err(Failure::argument("reserved is not 0"));
        }
        Ok(c.container.delete_within(o.force != 0, &limit(o.cancel, o.timeout_ms)?)?)
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(container, err, body) }
}

/// The pid of its init, as the host numbers processes.
///
/// @param[out] pid the number
/// @return `SYSBOX_ERR_WRONG_STATE` if init has ended
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_pid(
    container: *const Container,
    pid: *mut i32,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Container| unsafe {
        let out = Out::new(pid, "pid")?;
        out.set(c.container.pid().ok_or_else(ended)?);
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(container, err, body) }
}

fn ended() -> Failure {
    sysbox_core::Error::new(Kind::WrongState, "container not running").into()
}

/// A descriptor of its init that becomes readable when it ends (pidfd_open(2)), for any event loop.
///
/// @param[out] pidfd a new descriptor, close-on-exec, that the caller closes
/// @return `SYSBOX_ERR_WRONG_STATE` if init had ended when the handle was made, or is not made yet
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_pidfd(
    container: *const Container,
    pidfd: *mut i32,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Container| unsafe {
        let out = Out::new(pidfd, "pidfd")?;
        let own = c.container.pidfd().ok_or_else(ended)?;
        out.set(own.try_clone_to_owned().op("dup")?.into_raw_fd());
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(container, err, body) }
}

/// Panics: for the tests.
#[cfg(feature = "test-panic")]
#[no_mangle]
pub unsafe extern "C" fn sysbox_test_panic(container: *const Container, err: *mut *mut Error) -> Status {
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(container, err, |_| panic!("forced by a test")) }
}
