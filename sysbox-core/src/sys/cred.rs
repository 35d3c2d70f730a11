//! Credentials, limits and other attributes of the calling process.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;

fn check(r: libc::c_long) -> io::Result<()> {
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Takes the identity `uid`:`gid` for file system access while all capabilities stay.
///
/// Without `SECBIT_NO_SETUID_FIXUP` the kernel drops the file system capabilities when fsuid becomes non-zero.
pub(crate) fn set_fs_identity(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: integer arguments only.
    check(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, libc::SECBIT_NO_SETUID_FIXUP, 0, 0, 0) }.into())?;
    // SAFETY: integer arguments only. The return value is the previous id; whether it took is checked below.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
    // SAFETY: an invalid id changes nothing and returns the current one.
    let now = unsafe { (libc::setfsuid(u32::MAX) as u32, libc::setfsgid(u32::MAX) as u32) };
    if now != (uid, gid) {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(())
}

/// Sets real, effective and saved ids and the supplementary groups; the calling thread's, which is the only one.
pub(crate) fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the slice is valid for its length; the raw call avoids glibc's broadcast to other threads.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    // SAFETY: integer arguments only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: integer arguments only.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })
}

/// `PR_SET_DUMPABLE`.
pub(crate) fn set_dumpable(on: bool) -> io::Result<()> {
    // SAFETY: integer arguments only.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(on), 0, 0, 0) }.into())
}

/// `PR_SET_NAME`: what ps(1) shows, up to 15 bytes.
pub(crate) fn set_name(name: &CStr) -> io::Result<()> {
    // SAFETY: the string ends with a NUL byte and outlives the call.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) }.into())
}

/// `PR_SET_NO_NEW_PRIVS`.
pub(crate) fn set_no_new_privs() -> io::Result<()> {
    // SAFETY: integer arguments only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())
}

/// `PR_SET_KEEPCAPS`: permitted capabilities survive the change to a user other than root.
pub(crate) fn set_keepcaps(on: bool) -> io::Result<()> {
    // SAFETY: integer arguments only.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(on), 0, 0, 0) }.into())
}

/// The five capability sets of a process, as bit masks by capability number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CapSets {
    pub(crate) bounding: u64,
    pub(crate) permitted: u64,
    pub(crate) effective: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

/// Highest capability number the kernel knows.
pub(crate) fn last_cap() -> u32 {
    let mut last = 0;
    // SAFETY: integer arguments only.
    while last < 63 && unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(last + 1), 0, 0, 0) } >= 0 {
        last += 1;
    }
    last
}

/// Drops from the bounding set what `keep` lacks. Needs CAP_SETPCAP, so it comes before [`set_caps`].
pub(crate) fn limit_bounding(keep: u64) -> io::Result<()> {
    for cap in 0..=last_cap() {
        if keep & (1 << cap) == 0 {
            // SAFETY: integer arguments only.
            check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(cap), 0, 0, 0) }.into())?;
        }
    }
    Ok(())
}

/// Sets permitted, effective and inheritable, then ambient.
pub(crate) fn set_caps(sets: &CapSets) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let half = |shift: u32| Data {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let mut header = Header { version: VERSION_3, pid: 0 };
    let data = [half(0), half(32)];
    // SAFETY: version 3 takes a header and two data elements of this layout (capset(2)).
    check(unsafe { libc::syscall(libc::SYS_capset, std::ptr::addr_of_mut!(header), data.as_ptr()) })?;
    // SAFETY: integer arguments only.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }.into())?;
    for cap in 0u32..64 {
        if sets.ambient & (1 << cap) != 0 {
            let raise = libc::PR_CAP_AMBIENT_RAISE;
            // SAFETY: integer arguments only.
            let r = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, libc::c_ulong::from(cap), 0, 0) };
            check(r.into())?;
        }
    }
    Ok(())
}

/// Whether this process has a capability in effect, by number.
pub(crate) fn has_cap(cap: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|v| u64::from_str_radix(v.trim(), 16).ok())
        .unwrap_or(0);
    mask & (1 << cap) != 0
}

/// Joins a new session keyring of that name, so that the creator's keys are out of reach.
pub(crate) fn new_session_keyring(name: &CStr) -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })
}

/// setdomainname(2).
pub(crate) fn set_domainname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length of one string.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }.into())
}

/// prlimit(2) on another process: `resource` is a `RLIMIT_*` number.
pub(crate) fn set_rlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let new = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `new` outlives the call; the old limit is not asked for.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource,
            std::ptr::addr_of!(new),
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    })
}

/// Raises a process's hard limit to at least `hard`, for which only the host's root has the right, and leaves the soft one alone.
pub(crate) fn raise_hard_limit(pid: i32, resource: u32, hard: u64) -> io::Result<()> {
    let mut now = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `now` outlives the call; no new limit is given.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource,
            std::ptr::null::<libc::rlimit64>(),
            std::ptr::addr_of_mut!(now),
        )
    })?;
    if hard > now.rlim_max {
        set_rlimit(pid, resource, now.rlim_cur, hard)?;
    }
    Ok(())
}

/// Resets every signal to its default action and unblocks all: both survive exec.
pub(crate) fn reset_signals() {
    /// At least as large as any kernel's `struct sigaction`.
    const DEFAULT: [u64; 8] = [0; 8];
    for sig in 1..=64 {
        if sig == libc::SIGKILL || sig == libc::SIGSTOP {
            continue;
        }
        // By hand: the C library keeps 32 and 33 to itself, and its posix_spawn leaves them ignored.
        // SAFETY: the default action runs none of our code, and zeroes say so in whatever order the kernel has the fields.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, sig, DEFAULT.as_ptr(), std::ptr::null_mut::<u64>(), 8usize) };
    }
    // SAFETY: the set is initialised by sigemptyset before use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

/// Blocks a signal for this thread, and for what it forks.
pub(crate) fn block_signal(signal: i32) -> io::Result<()> {
    // SAFETY: the set is initialised by sigemptyset before use, and outlives the call.
    check(
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, signal);
            libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut())
        }
        .into(),
    )
}

/// Replaces the program. Returns only on failure.
pub(crate) fn exec(path: &CStr, args: &[std::ffi::CString], env: &[std::ffi::CString]) -> io::Error {
    let ptrs = |v: &[std::ffi::CString]| {
        v.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect::<Vec<_>>()
    };
    let (argv, envp) = (ptrs(args), ptrs(env));
    // SAFETY: both vectors are NULL-terminated arrays of NUL-terminated strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Undoes [`set_fs_identity`] for a child that will run somebody else's program.
pub(crate) fn reset_fs_identity() -> io::Result<()> {
    // SAFETY: integer arguments only.
    check(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, 0, 0, 0, 0) }.into())?;
    // SAFETY: integer arguments only; root may take any fsuid.
    unsafe {
        libc::setfsuid(0);
        libc::setfsgid(0);
    }
    Ok(())
}

/// Sets real, effective and saved IDs, those for file access, and the supplementary groups, while the permitted capabilities stay
/// what they are. The effective ones may be gone.
pub(crate) fn take_identity(uid: [u32; 4], gid: [u32; 4], groups: &[u32]) -> io::Result<()> {
    set_keepcaps(true)?;
    // SAFETY: the slice is valid for its length; the raw call avoids glibc's broadcast to other threads.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    // SAFETY: integer arguments only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid[0], gid[1], gid[2]) })?;
    // SAFETY: integer arguments only. It returns the former ID; whether it took is checked below.
    unsafe { libc::setfsgid(gid[3]) };
    // SAFETY: integer arguments only.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid[0], uid[1], uid[2]) })?;
    // SAFETY: an invalid ID changes nothing and returns the current one.
    let now = unsafe { (libc::setfsuid(uid[3]), libc::setfsuid(u32::MAX) as u32, libc::setfsgid(u32::MAX) as u32) };
    if (now.1, now.2) != (uid[3], gid[3]) {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(())
}

/// `PR_SET_PDEATHSIG`: this process is killed when its parent ends. The kernel forgets it at every change of identity.
pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: integer arguments only.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0) }.into())
}

/// SIGALRM for this process in so many seconds, which kills it.
pub(crate) fn alarm(seconds: u32) {
    // SAFETY: integer arguments only; signals have their default action.
    unsafe { libc::alarm(seconds) };
}
