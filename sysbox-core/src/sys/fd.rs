//! Descriptors: closing, duplicating to fixed numbers.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// close_range(2), inclusive. `from > to` closes nothing.
pub(crate) fn close_range(from: u32, to: u32) -> io::Result<()> {
    if from > to {
        return Ok(());
    }
    // SAFETY: the callers are about to exec or exit, and own every descriptor in the range or have leaked it on purpose.
    if unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Closes every descriptor from 0 on but `kept`. Their owners in this process must never be dropped.
pub(crate) fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut numbers: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    numbers.sort_unstable();
    let mut from = 0;
    for n in numbers {
        if n > from {
            close_range(from, n - 1)?;
        }
        from = n + 1;
    }
    close_range(from, u32::MAX)
}

/// dup2(2) to a fixed number, without close-on-exec.
pub(crate) fn dup_to(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: `number` is 0, 1, 2 or a preserved descriptor's number, which the caller has cleared of other owners.
    if fd.as_raw_fd() == number {
        // SAFETY: as above; clears close-on-exec, which dup2 onto itself would not.
        if unsafe { libc::fcntl(number, libc::F_SETFD, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
        return Ok(());
    }
    // SAFETY: as above.
    if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Duplicates to a number of at least `min`, close-on-exec.
pub(crate) fn dup_above(fd: BorrowedFd<'_>, min: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with an open descriptor.
    let new = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, min) };
    if new < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just created it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// The same descriptor at a number that no standard stream has: where the program that embeds this library has closed its own, new
/// descriptors get their numbers, and are taken for them.
pub(crate) fn above(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    dup_above(fd.as_fd(), 3)
}

/// Duplicates one of the caller's own descriptors by number (standard streams, `--preserve-fds`): to the lowest free number from 3
/// on, close-on-exec.
///
/// # Errors
/// EBADF if it is not open.
pub fn dup_number(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC on any number is safe: a closed one gives EBADF.
    let new = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if new < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just created it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// Takes over the descriptor at `number`, which the program was started with.
pub(crate) fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD on any number is safe.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by the contract of the stage program nobody else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
