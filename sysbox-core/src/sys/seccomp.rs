//! Installs a compiled filter.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

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
