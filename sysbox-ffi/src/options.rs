//! Option structures. They grow at the end and say their own size, as those of openat2(2) do.

use crate::boundary::{Failure, Outcome};
use crate::cancel::Cancel;
use std::ffi::c_char;

/// Largest structure that is looked at.
const MAX_SIZE: usize = 4096;

/// A structure of options that begins with its size.
///
/// # Safety
/// The type is `repr(C)`, begins with a `usize`, and is valid whatever its bytes are: integers and raw pointers only.
pub(crate) unsafe trait Options: Copy {
    /// Size of the first version of it.
    const FIRST: usize;
    /// What error messages call it.
    const NAME: &'static str;
}

/// What the caller has given: defaults for NULL and for fields that its header did not know.
///
/// # Safety
/// `p` is NULL or points to as many bytes as its first word says.
pub(crate) unsafe fn read<T: Options>(p: *const T) -> Outcome<T> {
    // SAFETY: all zero is valid by the trait's contract, and means defaults.
    let mut options: T = unsafe { std::mem::zeroed() };
    if p.is_null() {
        return Ok(options);
    }
    if !p.is_aligned() {
        return Err(Failure::argument(format!("{} is not aligned", T::NAME)));
    }
    // SAFETY: the first word is there by this function's contract.
    let size = unsafe { p.cast::<usize>().read() };
    if size < T::FIRST || size > MAX_SIZE {
        let what = format!("{}.size is {size}, which is no size that it has had", T::NAME);
        return Err(Failure::argument(what));
    }
    let known = size_of::<T>().min(size);
    // SAFETY: `size` bytes are there by this function's contract, and both types are plain bytes.
    unsafe {
        std::ptr::copy_nonoverlapping(p.cast::<u8>(), std::ptr::addr_of_mut!(options).cast::<u8>(), known);
        let rest = std::slice::from_raw_parts(p.cast::<u8>().add(known), size - known);
        if rest.iter().any(|b| *b != 0) {
            let what = format!("{}: an option is set that this library is too old for", T::NAME);
            return Err(Failure::argument(what));
        }
    }
    Ok(options)
}

macro_rules! options {
    ($($type:ident $name:literal)*) => {$(
        // SAFETY: `repr(C)`, begins with a usize, and has integers and raw pointers only.
        unsafe impl Options for $type {
            const FIRST: usize = size_of::<$type>();
            const NAME: &'static str = $name;
        }
    )*};
}

options! {
    ContextOptions "sysbox_context_options_t"
    CreateOptions "sysbox_create_options_t"
    ExecOptions "sysbox_exec_options_t"
    StartOptions "sysbox_start_options_t"
    WaitOptions "sysbox_wait_options_t"
    DeleteOptions "sysbox_delete_options_t"
    MountOptions "sysbox_mount_options_t"
}

/// The library makes the control groups itself. `linux.cgroupsPath` is a path.
pub const SYSBOX_CGROUP_DIRECT: i32 = 0;
/// systemd makes the control groups, as a scope unit for each container. `linux.cgroupsPath` is `slice:prefix:name`.
pub const SYSBOX_CGROUP_SYSTEMD: i32 = 1;

/// How a context works. All zero, but for `size`, is the default. Strings are copied.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ContextOptions {
    /// sizeof(sysbox_context_options_t).
    pub size: usize,
    /// Directory with the state of the containers; made when needed, mode 0711. NULL: /run/sysbox.
    pub state_dir: *const c_char,
    /// The program sysbox-stage of this very build. NULL: the one carried in the library, if there is one
    /// (`sysbox_features_json`).
    pub stage_path: *const c_char,
    /// User whose entries in the two files below are ranges for containers, by name or number; needs no account. NULL: "sysbox".
    pub subid_user: *const c_char,
    /// See subuid(5). Without an entry for the user a range is used that the file gives to nobody. NULL: /etc/subuid.
    pub subuid_file: *const c_char,
    /// See subgid(5). NULL: /etc/subgid.
    pub subgid_file: *const c_char,
    /// IDs that a container gets, of users and of groups each. 0: 65536.
    pub subid_size: u32,
    /// Who makes the control groups: `SYSBOX_CGROUP_*`.
    pub cgroup_manager: i32,
}

/// As a standard stream: /dev/null.
pub const SYSBOX_FD_NULL: i32 = -1;

/// A descriptor for a program in a container.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct PassedFd {
    /// The caller's descriptor. It is duplicated; the caller keeps it.
    pub fd: i32,
    /// The number that it gets in the container, from 3 on.
    pub number: i32,
}

/// How a container is made. All zero, but for `size`, is the default. The descriptors are duplicated: the caller keeps its own and
/// may close them as soon as the call returns.
///
/// A standard stream that is a pipe is given to the container's root (fchown(2)), so that software inside can open it by /dev/stdout.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CreateOptions {
    /// sizeof(sysbox_create_options_t).
    pub size: usize,
    /// Standard input. 0: the caller's own. `SYSBOX_FD_NULL`: /dev/null.
    pub stdin_fd: i32,
    /// Standard output. 0: the caller's own. `SYSBOX_FD_NULL`: /dev/null.
    pub stdout_fd: i32,
    /// Standard error. 0: the caller's own. `SYSBOX_FD_NULL`: /dev/null.
    pub stderr_fd: i32,
    /// A connected Unix socket that is sent the terminal's master (SCM_RIGHTS). Goes with `process.terminal`, and only with it; the
    /// terminal takes the place of the three streams. 0: none.
    pub console_fd: i32,
    /// `fd_count` further descriptors. May be NULL if there are none. Copied.
    pub fds: *const PassedFd,
    /// How many; at most 240.
    pub fd_count: usize,
    /// Ends the call early. NULL: nothing does. Must live until the call returns.
    pub cancel: *const Cancel,
    /// Milliseconds after which the call gives up. 0: it has no limit of its own. Below 0: it fails at once.
    pub timeout_ms: i64,
}

/// How a program is run in a container: as in `sysbox_create_options_t`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ExecOptions {
    /// sizeof(sysbox_exec_options_t).
    pub size: usize,
    /// Standard input. 0: the caller's own. `SYSBOX_FD_NULL`: /dev/null.
    pub stdin_fd: i32,
    /// Standard output. 0: the caller's own. `SYSBOX_FD_NULL`: /dev/null.
    pub stdout_fd: i32,
    /// Standard error. 0: the caller's own. `SYSBOX_FD_NULL`: /dev/null.
    pub stderr_fd: i32,
    /// A connected Unix socket that is sent the terminal's master, if `terminal` is set in the process. 0: none.
    pub console_fd: i32,
    /// `fd_count` further descriptors. May be NULL if there are none. Copied.
    pub fds: *const PassedFd,
    /// How many; at most 240.
    pub fd_count: usize,
    /// Ends the call early. NULL: nothing does. Must live until the call returns.
    pub cancel: *const Cancel,
    /// Milliseconds after which the call gives up. 0: it has no limit of its own. Below 0: it fails at once.
    pub timeout_ms: i64,
}

/// How long a start may take. All zero, but for `size`, is the default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct StartOptions {
    /// sizeof(sysbox_start_options_t).
    pub size: usize,
    /// Ends the call early. NULL: nothing does. Must live until the call returns.
    pub cancel: *const Cancel,
    /// Milliseconds after which the call gives up. 0: it has no limit of its own. Below 0: it fails at once.
    pub timeout_ms: i64,
}

/// How long to wait. All zero, but for `size`, is the default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct WaitOptions {
    /// sizeof(sysbox_wait_options_t).
    pub size: usize,
    /// Ends the call early. NULL: nothing does. Must live until the call returns.
    pub cancel: *const Cancel,
    /// Milliseconds after which the call gives up. 0: it has no limit of its own. Below 0: it only looks.
    pub timeout_ms: i64,
}

/// How a container is deleted. All zero, but for `size`, is the default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DeleteOptions {
    /// sizeof(sysbox_delete_options_t).
    pub size: usize,
    /// Not 0: also if it is running, paused or damaged.
    pub force: i32,
    /// Must be 0.
    pub reserved: i32,
    /// Ends the call early. NULL: nothing does. Must live until the call returns.
    pub cancel: *const Cancel,
    /// Milliseconds after which the call gives up. 0: it has no limit of its own. Below 0: it fails at once.
    pub timeout_ms: i64,
}

/// How an ID-mapped mount is made. All zero, but for `size`, is the default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct MountOptions {
    /// sizeof(sysbox_mount_options_t).
    pub size: usize,
    /// `MOUNT_ATTR_*` of <linux/mount.h> to set, such as MOUNT_ATTR_RDONLY. Not MOUNT_ATTR_IDMAP, which goes without saying.
    pub attributes: u64,
    /// Not 0: with all mounts below. Every one of them must be of a file system that can be ID-mapped.
    pub recursive: i32,
    /// Must be 0.
    pub reserved: i32,
}
