//! Starts the stage program: the only thing this library ever starts.

use super::StageProgram;
use crate::error::{Error, Kind, Result, SysResult};
use crate::limit::Limit;
use crate::protocol::{Fd, Reply, Request, Work, STAGE_NAME, VERSION};
use crate::sys::channel::Channel;
use crate::sys::clone::{self, Fork};
use crate::sys::pidfd;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a stage may take to end, in milliseconds, before it is killed.
const END_MS: i32 = 10_000;
/// How long a stage that was told to stop may take to clean up, before it is killed.
const STOP: Duration = Duration::from_secs(5);
/// How long one that was killed may still have something to say, through a copy of itself.
const LAST: Duration = Duration::from_secs(1);

/// A running stage. Killed and buried if it is dropped before it is finished.
#[derive(Debug)]
pub(crate) struct Spawned {
    channel: Channel,
    child: OwnedFd,
    /// The caller's limit was over: it was told to stop.
    over: Option<Error>,
}

impl Spawned {
    /// Begins work, unless `limit` is over before it could be told.
    pub(crate) fn start(
        program: &StageProgram,
        work: Work,
        mut fds: Vec<(Fd, OwnedFd)>,
        limit: &Limit,
    ) -> Result<Self> {
        fds.extend(agent(&work)?);
        let (ours, theirs) = Channel::pair()?;
        let child = match program {
            StageProgram::SelfExe => execute("/proc/self/exe".as_ref(), theirs)?,
            StageProgram::Path(p) => execute(p, theirs)?,
            StageProgram::Fd(fd) => execute(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_ref(), theirs)?,
            StageProgram::Fork => match clone::fork(0, None).op("fork the stage")? {
                Fork::Parent { pidfd, .. } => pidfd,
                Fork::Child => clone::exit_now(crate::stage::main_on(theirs)),
            },
        };
        let spawned = Spawned { channel: ours, child, over: None };
        let (kinds, fds): (Vec<Fd>, Vec<OwnedFd>) = fds.into_iter().unzip();
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let request = Request { version: VERSION.into(), fds: kinds, work };
        spawned.channel.send_within(&request, &borrowed, limit).map_err(|e| match e.errno() {
            Some(libc::EPIPE | libc::ECONNRESET) => Error::new(Kind::Protocol, "the stage program ended at once")
                .hint("it must call sysbox_core::stage::dispatch() first in main"),
            _ => e,
        })?;
        Ok(spawned)
    }

    pub(crate) fn reply(&mut self) -> Result<(Reply, Vec<OwnedFd>)> {
        self.channel.expect::<Reply>("the stage")
    }

    /// As [`Spawned::reply`], until `limit` is over. From then on it is told to stop, and what it has to say nevertheless, init's
    /// descriptor among it, is still heard; [`Spawned::over`] tells.
    pub(crate) fn reply_within(&mut self, limit: &Limit) -> Result<(Reply, Vec<OwnedFd>)> {
        if self.over.is_none() {
            match limit.wait_readable(self.channel.as_fd()) {
                Ok(()) => return self.reply(),
                Err(e) => self.over = Some(e),
            }
            self.channel.hang_up();
        }
        let mut silent = Limit::after(STOP).wait_readable(self.channel.as_fd()).is_err();
        if silent {
            let _ = pidfd::kill(self.child.as_fd(), libc::SIGKILL);
            silent = Limit::after(LAST).wait_readable(self.channel.as_fd()).is_err();
        }
        let said = if silent { None } else { self.channel.recv::<Reply>()? };
        said.ok_or_else(|| self.outcome(Error::new(Kind::Protocol, "the stage ended without a word")))
    }

    /// What ended the work: the caller's limit, if that was over, and `failure` otherwise.
    pub(crate) fn outcome(&self, failure: Error) -> Error {
        self.over.clone().unwrap_or(failure)
    }

    /// Why it was told to stop, if it was.
    pub(crate) fn over(&self) -> Result<()> {
        self.over.clone().map_or(Ok(()), Err)
    }

    /// Lets it come to its end after its last answer, which takes a moment, and buries it.
    pub(crate) fn finish(self) {
        let _ = pidfd::wait_gone(self.child.as_fd(), END_MS);
    }
}

/// The agent that the seccomp filter of the process to run asks for.
fn agent(work: &Work) -> Result<Option<(Fd, OwnedFd)>> {
    let process = match work {
        Work::Create(plan) => &plan.process,
        Work::Exec(exec) => &exec.process,
        _ => return Ok(None),
    };
    let Some(listener) = process.seccomp.as_ref().and_then(|f| f.listener.as_ref()) else { return Ok(None) };
    let socket = UnixStream::connect(&listener.path).op_at("linux.seccomp.listenerPath: connect to", &listener.path)?;
    Ok(Some((Fd::Agent, socket.into())))
}

fn execute(path: &Path, theirs: Channel) -> Result<OwnedFd> {
    // Nothing here may make std fork instead of spawn: no pre_exec, no uid, no groups. A fork of a large or threaded
    // process is slow and may hang.
    let mut child = Command::new(path)
        .arg0(STAGE_NAME)
        .env_clear()
        .stdin(Stdio::from(theirs.into_fd()))
        .stdout(Stdio::null())
        .spawn()
        .op_at("start the stage program", path)?;
    match pidfd::open(child.id() as i32) {
        // Whoever reaps all children of this process has: there is nobody to be killed.
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {
            Err(Error::new(Kind::Protocol, "the stage program ended at once"))
        }
        Err(e) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(e).op("pidfd_open of the stage")
        }
        // Dropping the handle of std neither kills nor waits.
        Ok(pidfd) => Ok(pidfd),
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // Its status says nothing, and a caller that reaps all its children may have taken it: each of these may fail.
        let _ = pidfd::kill(self.child.as_fd(), libc::SIGKILL);
        let _ = pidfd::wait_gone(self.child.as_fd(), -1);
        let _ = pidfd::reap(self.child.as_fd());
    }
}
