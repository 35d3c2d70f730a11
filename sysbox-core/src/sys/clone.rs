//! clone3(2) as a fork, for single-threaded processes only.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// libc's constant has lost this bit to an int.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Who returned.
#[derive(Debug)]
pub(crate) enum Fork {
    /// The caller, with the child's pid (in the caller's pid namespace) and pidfd.
    Parent { pid: i32, pidfd: OwnedFd },
    /// The child.
    Child,
}

/// Whether this process has one thread only. unshare(2) of what only threads share does nothing then, and fails otherwise.
fn is_single_threaded() -> bool {
    // SAFETY: changes nothing, whatever the answer.
    unsafe { libc::unshare(libc::CLONE_THREAD) == 0 }
}

/// Forks with namespaces and other `flags` of clone3(2), into a v2 `cgroup` if one is given. Never with `CLONE_VM`, `CLONE_THREAD` or a stack.
///
/// Refuses a process that has several threads: the child would inherit locks that nobody releases.
pub(crate) fn fork(flags: i32, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    if !is_single_threaded() {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    let mut pidfd: libc::c_int = -1;
    let mut flags = (flags as u32 | libc::CLONE_PIDFD as u32).into();
    // SAFETY: clone_args is plain integers; all zero is its documented default.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    if let Some(dir) = cgroup {
        flags |= CLONE_INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    args.flags = flags;
    args.pidfd = std::ptr::addr_of_mut!(pidfd) as u64;
    // With CLONE_PARENT the kernel copies the exit signal of the caller and insists on zero here.
    args.exit_signal = if flags & libc::CLONE_PARENT as u64 != 0 { 0 } else { libc::SIGCHLD as u64 };
    // SAFETY: no CLONE_VM, so the child has its own copy of memory; the process has one thread, so no lock is held by a
    // thread that does not exist in the child; `args` outlives the call and `pidfd` is written in the parent only.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::addr_of_mut!(args), std::mem::size_of_val(&args)) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => {
            // SAFETY: the kernel has just created this descriptor for us and nobody else knows it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Fork::Parent { pid: pid as i32, pidfd })
        }
    }
}

/// Ends the process without running destructors or exit handlers, which belong to the parent's copy.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}
