//! Waiting for the end of a process, and keeping how it ended.

use crate::error::{Error, Kind, Result, SysResult};
use crate::limit::Limit;
use crate::sys::pidfd::{self, Exit, Known};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long to wait for the parent of a process to bury it before looking again: whether it has become ours to bury, say.
const TURN: Duration = Duration::from_millis(200);

/// A process that may be waited for by any number of threads, any number of times. The kernel tells how it ended once only, before
/// Linux 6.15.
#[derive(Debug)]
pub(super) struct Process {
    pidfd: OwnedFd,
    /// Held while it is reaped: who comes second finds what the first has learned.
    exit: Mutex<Option<Exit>>,
}

impl Process {
    pub(super) fn new(pidfd: OwnedFd) -> Self {
        Process { pidfd, exit: Mutex::default() }
    }

    /// Reaps it if it has ended and is a child of this process. How it ended, if this or an earlier call was the one to reap it.
    pub(super) fn reap(&self) -> io::Result<Option<Exit>> {
        let mut exit = self.exit.lock().unwrap_or_else(PoisonError::into_inner);
        if exit.is_none() {
            *exit = pidfd::reap(self.as_fd())?;
        }
        Ok(*exit)
    }

    pub(super) fn wait(&self, limit: &Limit) -> Result<Exit> {
        limit.wait_readable(self.as_fd())?;
        loop {
            if let Some(exit) = self.reap().op("waitid")? {
                return Ok(exit);
            }
            match pidfd::exit_info(self.as_fd()) {
                Known::Exit(exit) => return Ok(exit),
                // The child of another process, which has not waited for it. The kernel tells others only then.
                Known::Later => limit.wait_hang_up(self.as_fd(), TURN)?,
                Known::Nothing => {
                    let what = "the process has ended, and how is not known: it is another process's child, or was reaped by somebody else";
                    return Err(Error::new(Kind::Unsupported, what)
                        .hint("Linux 6.15 keeps the status; before, wait in the process that created the container"));
                }
            }
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn how_it_ended_is_kept_whatever_the_kernel_keeps() {
        let mut child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let process = Process::new(pidfd::open(child.id() as i32).unwrap());
        pidfd::wait_gone(process.as_fd(), 10_000).unwrap().unwrap();
        // The kernel is not asked for what it keeps here.
        std::thread::scope(|s| {
            for _ in 0..16 {
                s.spawn(|| assert_eq!(process.reap().unwrap(), Some(Exit::Code(7))));
            }
        });
        assert_eq!(pidfd::reap(process.as_fd()).unwrap(), None);
        assert_eq!(process.wait(&Limit::none()).unwrap(), Exit::Code(7));
        assert!(child.wait().is_err(), "not reaped");
    }
}
