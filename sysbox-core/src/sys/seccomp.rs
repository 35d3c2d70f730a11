//! Installs a compiled filter; answers calls that one hands over (seccomp_unotify(2)).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// seccomp(2) with SECCOMP_SET_MODE_FILTER: `insns` are `(code, jt, jf, k)`. A listener comes back if `flags` ask for it.
///
/// Needs no_new_privs or CAP_SYS_ADMIN in the caller's user namespace.
pub(crate) fn install(insns: &[(u16, u8, u8, u32)], flags: u32) -> io::Result<Option<OwnedFd>> {
    let mut filter: Vec<libc::sock_filter> =
        insns.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let len = u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let prog = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: `prog` points to `len` instructions that outlive the call; the kernel verifies and copies them.
    let r = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::addr_of!(prog)) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    if libc::c_ulong::from(flags) & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 {
        // SAFETY: with NEW_LISTENER the return value is a new descriptor.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(r as i32) }));
    }
    Ok(None)
}

/// A call that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Notification {
    pub(crate) id: u64,
    /// The calling thread, in the receiver's pid namespace.
    pub(crate) pid: u32,
    /// `AUDIT_ARCH_*`.
    pub(crate) arch: u32,
    pub(crate) nr: i32,
    pub(crate) args: [u64; 6],
}

/// What becomes of such a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It returns 0.
    Done,
    /// It fails.
    Errno(i32),
    /// The kernel makes it, as if there were no filter.
    Continue,
}

/// `_IOC` of linux/ioctl.h with the magic of seccomp.
const fn request(direction: u32, number: u32, size: usize) -> u32 {
    direction << 30 | (size as u32) << 16 | (b'!' as u32) << 8 | number
}

const RECEIVE: u32 = request(3, 0, size_of::<libc::seccomp_notif>());
const SEND: u32 = request(3, 1, size_of::<libc::seccomp_notif_resp>());
const ID_VALID: u32 = request(1, 2, 8);
const SET_FLAGS: u32 = request(1, 4, 8);

/// The ioctl(2) requests of this module.
pub(crate) const REQUESTS: [u32; 4] = [RECEIVE, SEND, ID_VALID, SET_FLAGS];

fn ioctl<T>(listener: BorrowedFd<'_>, request: u32, argument: *mut T) -> io::Result<()> {
    // SAFETY: all callers pass a pointer to a live object of the size that the request's number encodes.
    if unsafe { libc::ioctl(listener.as_raw_fd(), request as _, argument) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The next call. Does not wait if the listener is readable and nobody else receives. ENOENT: its thread has been killed.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> io::Result<Notification> {
    // SAFETY: plain integers, which must be zero (seccomp_unotify(2)).
    let mut n: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    ioctl(listener, RECEIVE, &mut n)?;
    Ok(Notification { id: n.id, pid: n.pid, arch: n.data.arch, nr: n.data.nr, args: n.data.args })
}

/// Answers. ENOENT: nobody waits any more.
pub(crate) fn answer(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> io::Result<()> {
    let (error, flags) = match answer {
        Answer::Done => (0, 0),
        Answer::Errno(n) => (-n, 0),
        Answer::Continue => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
    };
    let mut r = libc::seccomp_notif_resp { id, val: 0, error, flags };
    ioctl(listener, SEND, &mut r)
}

/// Whether the call still waits, so that what was found by its thread's number is its thread's.
pub(crate) fn is_waiting(listener: BorrowedFd<'_>, mut id: u64) -> bool {
    ioctl(listener, ID_VALID, &mut id).is_ok()
}

/// Has receiver and caller hand the CPU to each other (`SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`, Linux 6.6).
pub(crate) fn set_synchronous(listener: BorrowedFd<'_>) -> io::Result<()> {
    const SYNC_WAKE_UP: libc::c_ulong = 1;
    // SAFETY: this request takes its flags by value.
    if unsafe { libc::ioctl(listener.as_raw_fd(), SET_FLAGS as _, SYNC_WAKE_UP) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
