//! Starts the stage program: the only thing this library ever starts.

use super::StageProgram;
use crate::error::{Error, Kind, Result, SysResult};
use crate::protocol::{Fd, Reply, Request, Work, STAGE_NAME, VERSION};
use crate::sys::channel::Channel;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// A running stage. Killed if it is dropped before it is finished.
#[derive(Debug)]
pub(crate) struct Spawned {
    channel: Channel,
    child: std::process::Child,
}

impl Spawned {
    pub(crate) fn start(program: &StageProgram, work: Work, fds: Vec<(Fd, OwnedFd)>) -> Result<Self> {
        let path = match program {
            StageProgram::SelfExe => "/proc/self/exe".as_ref(),
            StageProgram::Path(p) => p.as_path(),
        };
        let (ours, theirs) = Channel::pair()?;
        // Nothing here may make std fork instead of spawn: no pre_exec, no uid, no groups. A fork of a large or threaded
        // process is slow and may hang.
        let child = Command::new(path)
            .arg0(STAGE_NAME)
            .env_clear()
            .stdin(Stdio::from(theirs.into_fd()))
            .stdout(Stdio::null())
            .spawn()
            .op_at("start the stage program", path)?;
        let spawned = Spawned { channel: ours, child };
        let (kinds, fds): (Vec<Fd>, Vec<OwnedFd>) = fds.into_iter().unzip();
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let request = Request { version: VERSION.into(), fds: kinds, work };
        spawned.channel.send(&request, &borrowed).map_err(|e| match e.errno() {
            Some(libc::EPIPE | libc::ECONNRESET) => Error::new(Kind::Protocol, "the stage program ended at once:")
                .at(path)
                .hint("it must call sysbox_core::stage::dispatch() first in main"),
            _ => e,
        })?;
        Ok(spawned)
    }

    pub(crate) fn reply(&mut self) -> Result<Reply> {
        self.channel.expect::<Reply>("the stage").map(|(r, _)| r)
    }

    /// Buries it. Its status says nothing; somebody else may have taken it.
    pub(crate) fn finish(mut self) {
        let _ = self.child.wait();
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // After `finish` the child is known to be gone, and kill does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
