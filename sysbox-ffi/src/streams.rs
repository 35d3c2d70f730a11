//! Descriptors that go into a container.

use crate::boundary::{slice_of, Failure, Outcome};
use crate::options::{PassedFd, SYSBOX_FD_NULL};
use std::os::fd::OwnedFd;
use sysbox_core::error::SysResult;
use sysbox_core::{dup_number, Stdio};

/// SCM_RIGHTS carries 253, some of which are the library's.
const MAX_FDS: usize = 240;

/// As in the options of create and exec.
pub(crate) struct Given {
    pub(crate) streams: [i32; 3],
    pub(crate) console: i32,
}

/// # Safety
/// `fds` is NULL or points to `count` entries.
pub(crate) unsafe fn streams(given: Given, fds: *const PassedFd, count: usize) -> Outcome<Stdio> {
    let [stdin, stdout, stderr] = given.streams;
    let console = if given.console == 0 { None } else { Some(copy(given.console, "console_fd")?) };
    // SAFETY: by this function's contract.
    let fds = unsafe { slice_of(fds, count, MAX_FDS, "fds") }?;
    Ok(Stdio {
        stdin: stream(stdin, "stdin_fd")?,
        stdout: stream(stdout, "stdout_fd")?,
        stderr: stream(stderr, "stderr_fd")?,
        console,
        preserved: fds.iter().map(|f| Ok((f.number, copy(f.fd, "fds")?))).collect::<Outcome<_>>()?,
    })
}

/// `None`: the caller's own.
fn stream(fd: i32, name: &str) -> Outcome<Option<OwnedFd>> {
    match fd {
        0 => Ok(None),
        SYSBOX_FD_NULL => {
            let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
            Ok(Some(null.op_at("open", "/dev/null")?.into()))
        }
        fd => copy(fd, name).map(Some),
    }
}

fn copy(fd: i32, name: &str) -> Outcome<OwnedFd> {
    dup_number(fd).map_err(|e| Failure::argument(format!("{name}: descriptor {fd}: {e}")))
}
