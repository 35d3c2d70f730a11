//! mount_setattr(2), which neither nix nor rustix has, and mount(2) and move_mount(2) with whatever arguments.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Changes attributes (`MOUNT_ATTR_*`), propagation (`MS_*`) and ID mapping of one mount, or of all below it.
pub(crate) fn mount_setattr(
    dir: BorrowedFd<'_>,
    path: &CStr,
    recursive: bool,
    set: u64,
    clear: u64,
    propagation: u64,
    userns: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: set | userns.map_or(0, |_| libc::MOUNT_ATTR_IDMAP),
        attr_clr: clear,
        propagation,
        userns_fd: userns.map_or(0, |u| u.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `attr` is of the size given and outlives the call, `path` is NUL-terminated.
    let r = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::addr_of!(attr),
            std::mem::size_of_val(&attr),
        )
    };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The most that mount(2) takes of its `data`.
pub(crate) const DATA: usize = 4096;

/// mount(2) as it is.
pub(crate) fn mount(
    source: Option<&CStr>,
    target: &CStr,
    fstype: &CStr,
    flags: u64,
    data: Option<&[u8; DATA]>,
) -> io::Result<()> {
    // SAFETY: strings end with NUL bytes, `data` is as large as the kernel reads at most, and all outlive the call.
    let r = unsafe {
        libc::syscall(
            libc::SYS_mount,
            source.map_or(std::ptr::null(), CStr::as_ptr),
            target.as_ptr(),
            fstype.as_ptr(),
            flags,
            data.map_or(std::ptr::null(), |d| d.as_ptr()),
        )
    };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// move_mount(2) of something open as it is. `to` may be AT_FDCWD or any number.
pub(crate) fn move_mount(from: BorrowedFd<'_>, to: i32, path: &CStr, flags: u32) -> io::Result<()> {
    // SAFETY: strings that end with NUL bytes and outlive the call.
    let r = unsafe { libc::syscall(libc::SYS_move_mount, from.as_raw_fd(), c"".as_ptr(), to, path.as_ptr(), flags) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
