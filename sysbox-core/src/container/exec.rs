//! Programs run in a container beside its init.

use super::end::Process;
use super::{Container, DEATH_MS};
use crate::error::{Error, Kind, Result, SysResult};
use crate::limit::Limit;
use crate::plan::process_for_exec;
use crate::protocol::{Exec, Fd, Reply, Work};
use crate::runtime::Stdio;
use crate::state::Status;
use crate::sys::pidfd::{self, Exit};
use oci_spec::runtime as oci;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How a program is run in a container.
#[derive(Debug, Default)]
pub struct ExecOptions {
    /// Its streams.
    pub stdio: Stdio,
}

/// A program running in a container; a child of this process, which must wait for it: while it is a zombie the container's
/// init cannot end. Dropping the handle buries it if it has ended; see [`Child::leave`].
#[derive(Debug)]
pub struct Child {
    pid: i32,
    process: Process,
    left: bool,
}

impl Container {
    /// Runs a program in it. Blocks until it has been executed; it is then a child of this process.
    ///
    /// It gets the namespaces, the capabilities, the seccomp profile and the cgroup of a process of the container. Limits
    /// (`rlimits`) and the OOM score that `process` does not give are those of this process. Needs Linux 5.8 (setns(2) by pidfd).
    ///
    /// # Errors
    /// [`Kind::WrongState`] unless it is created or running; [`Kind::Busy`] if it is frozen so that this cannot be seen beforehand,
    /// after some time; [`Kind::InvalidConfig`] if `process` is malformed, or has a terminal
    /// and no console socket is given, or the other way round; [`Kind::ProgramNotFound`] and [`Kind::ProgramNotExecutable`]; and
    /// those of every system call on the way.
    pub fn exec(&self, process: &oci::Process, options: ExecOptions) -> Result<Child> {
        self.exec_within(process, options, &Limit::none())
    }

    /// As [`Container::exec`], until `limit` is over: then the program does not run, or runs no more.
    ///
    /// # Errors
    /// [`Kind::TimedOut`], [`Kind::Canceled`], and those of [`Container::exec`].
    pub fn exec_within(&self, process: &oci::Process, options: ExecOptions, limit: &Limit) -> Result<Child> {
        limit.check()?;
        // First: what this opens itself must not get the number of a stream that the caller has closed.
        let has_console = options.stdio.console.is_some();
        let mut fds = options.stdio.into_fds()?;
        self.expect_fit()?;
        let record = self.record()?;
        let spec = self.spec()?;
        let process = process_for_exec(process, &record.maps, spec.oci())?;
        if process.terminal != has_console {
            return Err(Error::invalid("a console socket goes with process.terminal, and only with it"));
        }
        let init = self.found().init.ok_or_else(|| Error::new(Kind::WrongState, "the container has no init"))?;
        let pidfd = pidfd::open(init.pid).op("pidfd_open")?;
        self.expect_fit()?;
        self.refresh_root();
        self.mend_monitor();
        let exec = Exec {
            state: self.state(),
            process,
            cgroup: record.cgroup.clone(),
            init: init.pid,
            root: record.maps.root(),
        };
        fds.push((Fd::Init, pidfd));
        fds.extend(self.trap_line(limit)?.map(|line| (Fd::Monitor, line)));
        let mut stage = self.runtime.spawn(Work::Exec(Box::new(exec)), fds, limit)?;
        let reply = stage.reply_within(limit);
        let over = stage.over();
        stage.finish();
        let (reply, fds) = reply?;
        if let Err(over) = over {
            fds.iter().for_each(|fd| drop(pidfd::kill(fd.as_fd(), libc::SIGKILL)));
            bury(&fds);
            return Err(over);
        }
        match (reply, fds) {
            (Reply::Done(Some(pid)), fds) => fds
                .into_iter()
                .next()
                .map(|pidfd| Child { pid, process: Process::new(pidfd), left: false })
                .ok_or_else(|| Error::new(Kind::Protocol, "the stage sent no pidfd")),
            (Reply::Failed(e), fds) => {
                bury(&fds);
                Err(e)
            }
            _ => Err(Error::new(Kind::Protocol, "the stage answers something else")),
        }
    }

    fn expect_fit(&self) -> Result<()> {
        // It would be frozen as well, and its creator with it.
        if self.status() == Status::Paused {
            return Err(Error::new(Kind::WrongState, "cannot exec in a paused container").hint("resume it first"));
        }
        self.expect_status(&[Status::Running, Status::Created], "exec in")
    }
}

/// Waits for the end of a child that has failed.
fn bury(fds: &[OwnedFd]) {
    for fd in fds {
        let _ = pidfd::wait_gone(fd.as_fd(), DEATH_MS);
        let _ = pidfd::reap(fd.as_fd());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.left {
            let _ = self.process.reap();
        }
    }
}

impl Child {
    /// Leaves it, even if it has ended already, to whoever adopts it when this process ends (PR_SET_CHILD_SUBREAPER): an engine's
    /// shim waits for the end of what it has had started.
    pub fn leave(mut self) {
        self.left = true;
    }

    /// Its pid on the host.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends it a signal (`SIG*` number).
    ///
    /// # Errors
    /// [`Kind::System`]: it has ended (ESRCH), or the number is invalid.
    pub fn kill(&self, signal: i32) -> Result<()> {
        pidfd::kill(self.process.as_fd(), signal).op(format!("send signal {signal}"))
    }

    /// A descriptor that becomes readable when it ends (pidfd_open(2)).
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// Waits, without limit, until it has ended, says how, and reaps it. Any number of threads may wait, and again afterwards.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] if somebody else reaped it, on a kernel that does not keep the status (before 6.15).
    pub fn wait(&self) -> Result<Exit> {
        self.wait_within(&Limit::none())
    }

    /// As [`Child::wait`], until `limit` is over, which changes nothing.
    ///
    /// # Errors
    /// [`Kind::TimedOut`], [`Kind::Canceled`], and those of [`Child::wait`].
    pub fn wait_within(&self, limit: &Limit) -> Result<Exit> {
        self.process.wait(limit)
    }
}
