//! Scheduling attributes of a process.
#![allow(unsafe_code)]

use std::io;

/// sched_setattr(2); `pid` 0 is the caller.
pub(crate) fn set_scheduler(pid: i32, policy: u32, nice: i32, priority: u32) -> io::Result<()> {
    // SAFETY: zeroes are a valid value of each of its numbers.
    let mut attr: libc::sched_attr = unsafe { std::mem::zeroed() };
    attr.size = std::mem::size_of::<libc::sched_attr>() as u32;
    attr.sched_policy = policy;
    attr.sched_nice = nice;
    attr.sched_priority = priority;
    // SAFETY: `attr` says its size and outlives the call.
    if unsafe { libc::syscall(libc::SYS_sched_setattr, pid, std::ptr::addr_of!(attr), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// ioprio_set(2): class and level in one number; `pid` 0 is the caller.
pub(crate) fn set_io_priority(pid: i32, priority: i32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: integer arguments only.
    if unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid, priority) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// personality(2).
pub(crate) fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: integer arguments only.
    if unsafe { libc::personality(libc::c_ulong::from(domain)) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
