//! Processes by descriptor.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// How a process ended (waitid(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Exit {
    /// It called exit with this code.
    Code(i32),
    /// A signal ended it. A container that powers off ends by SIGINT, one that reboots by SIGHUP (reboot(2)).
    Signal(i32),
}

impl Exit {
    /// The code a shell reports: 128 plus the number for a signal.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(c) => c,
            Exit::Signal(s) => 128 + s,
        }
    }

    fn from_wait_status(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            Exit::Signal(libc::WTERMSIG(status))
        } else {
            Exit::Code(libc::WEXITSTATUS(status))
        }
    }
}

/// pidfd_open(2).
pub(crate) fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: integer arguments only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just created it for us.
    super::fd::above(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// pidfd_send_signal(2).
pub(crate) fn kill(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo is documented to act as kill(2).
    let r = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Waits until the process has ended; `None` after `timeout_ms` (−1: never gives up).
pub(crate) fn wait_gone(pidfd: BorrowedFd<'_>, timeout_ms: i32) -> io::Result<Option<()>> {
    let end =
        (timeout_ms >= 0).then(|| std::time::Instant::now() + std::time::Duration::from_millis(timeout_ms as u64));
    loop {
        let left = end.map_or(-1, |e| {
            i32::try_from(e.saturating_duration_since(std::time::Instant::now()).as_millis()).unwrap_or(i32::MAX)
        });
        let mut p = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd that outlives the call.
        match unsafe { libc::poll(std::ptr::addr_of_mut!(p), 1, left) } {
            0 => return Ok(None),
            n if n > 0 => return Ok(Some(())),
            _ => {
                let e = io::Error::last_os_error();
                if e.raw_os_error() != Some(libc::EINTR) {
                    return Err(e);
                }
            }
        }
    }
}

/// Reaps a child that has ended. `None` if it is not ours or somebody else has reaped it.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<Exit>> {
    // SAFETY: siginfo is plain data; zero means "nothing".
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` outlives the call. __WALL: a child made with CLONE_PARENT may have no exit signal.
    let r = unsafe {
        libc::waitid(libc::P_PIDFD, pidfd.as_raw_fd() as u32, &mut info, libc::WEXITED | libc::WNOHANG | libc::__WALL)
    };
    if r < 0 {
        let e = io::Error::last_os_error();
        return if e.raw_os_error() == Some(libc::ECHILD) { Ok(None) } else { Err(e) };
    }
    // SAFETY: waitid filled the SIGCHLD part, or left it zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    Ok(Some(if info.si_code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) }))
}

/// What the kernel says of the end of a process, whoever its parent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It was reaped, and ended so.
    Exit(Exit),
    /// It was not reaped yet.
    Later,
    /// The kernel has not kept it.
    Nothing,
}

/// What `PIDFD_GET_INFO` (Linux 6.13) knows of the exit of a process (Linux 6.15): once it was reaped, by whomever.
pub(crate) fn exit_info(pidfd: BorrowedFd<'_>) -> Known {
    #[repr(C)]
    #[derive(Default)]
    struct PidfdInfo {
        mask: u64,
        cgroupid: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    // _IOWR(0xFF, 11, struct of 64 bytes)
    const PIDFD_GET_INFO: libc::c_ulong = (3 << 30) | (64 << 16) | (0xFF << 8) | 11;
    const _: () = assert!(std::mem::size_of::<PidfdInfo>() == 64);
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..Default::default() };
    // SAFETY: the ioctl writes at most the 64 bytes its number encodes into a structure of that size.
    let r = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, std::ptr::addr_of_mut!(info)) };
    match r {
        0 if info.mask & PIDFD_INFO_EXIT != 0 => Known::Exit(Exit::from_wait_status(info.exit_code)),
        0 => Known::Later,
        // ENOTTY: the kernel is older. ESRCH: the process is gone, and the kernel does not keep more.
        _ => Known::Nothing,
    }
}
