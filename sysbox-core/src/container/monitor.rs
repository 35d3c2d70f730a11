//! The container's nodes of /proc and /sys, and the monitor that serves the live ones.

use super::Container;
use crate::error::{Error, Kind, Result, SysResult};
use crate::limit::Limit;
use crate::monitor::ALIVE;
use crate::mountinfo;
use crate::procfs::attach::LIVE_SOURCE;
use crate::procfs::NodeState;
use crate::protocol::{Fd, Look, Reply, Restart, Work};
use crate::runtime::listen;
use crate::state::{Init, Record, StateDir, Status, MONITOR_SOCKET};
use crate::sys::pidfd;
use nix::sys::socket::{connect, socket, AddressFamily, SockFlag, SockType, UnixAddr};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long a monitor may take to say that it lives, on a host that has too much to do. One that is replaced takes the listener of
/// the programs that run with it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same for one that is stopped, which may be for a moment only: by somebody who traces it, say.
const STOPPED: Duration = Duration::from_secs(1);

/// How a container's monitor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonitorStatus {
    /// It has none and needs none: also if it has unmounted all that the monitor served, or has ended.
    None,
    /// It answers; its pid on the host.
    Serves(i32),
    /// It exists and does not answer: readers of live nodes wait, on Linux 6.14 and later for 45 seconds at most.
    Stuck(i32),
    /// It has died: reading live nodes is an error.
    Dead,
}

impl Container {
    /// Asks the monitor whether it serves; waits up to five seconds for the answer, and up to one if it is stopped.
    pub fn monitor(&self) -> MonitorStatus {
        if !self.monitored() || self.pid().is_none() {
            return MonitorStatus::None;
        }
        let gone = || if self.is_wanted() { MonitorStatus::Dead } else { MonitorStatus::None };
        let Some(monitor) = self.dir.monitor().filter(Init::alive) else { return gone() };
        if self.ping(&Limit::none()).is_some() {
            MonitorStatus::Serves(monitor.pid)
        } else if monitor.alive() {
            MonitorStatus::Stuck(monitor.pid)
        } else {
            gone()
        }
    }

    /// Whether the container has kept anything of what a monitor serves. One that has unmounted all its live nodes wants none.
    fn is_wanted(&self) -> bool {
        let traps = self.found().record.as_ref().is_some_and(|r| r.traps);
        let path = format!("/proc/{}/mountinfo", self.pid().unwrap_or(0));
        traps || mountinfo::select(path.as_ref(), |m| m.source == LIVE_SOURCE).is_ok_and(|left| !left.is_empty())
    }

    /// A connection to a monitor that answers.
    fn ping(&self, limit: &Limit) -> Option<UnixStream> {
        let patience = if self.dir.monitor().is_some_and(|m| m.stopped()) { STOPPED } else { PATIENCE };
        let handle = std::fs::File::open(self.dir.path()).ok()?;
        let path = format!("/proc/self/fd/{}/{MONITOR_SOCKET}", handle.as_raw_fd());
        // One that has been stopped for long has as many connections waiting as may be: then this fails at once.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path.as_str()).ok()?).ok()?;
        let mut socket = UnixStream::from(socket);
        socket.set_nonblocking(false).ok()?;
        limit.clone().at_most(patience).wait_readable(socket.as_fd()).ok()?;
        socket.set_read_timeout(Some(patience)).ok()?;
        let mut answer = vec![0; ALIVE.len()];
        socket.read_exact(&mut answer).ok().filter(|()| answer == ALIVE)?;
        Some(socket)
    }

    fn monitored(&self) -> bool {
        self.found().record.as_ref().is_some_and(Record::monitored)
    }

    /// Where a program that is to be run leaves the listener of its traps, if it is to have any.
    pub(super) fn trap_line(&self, limit: &Limit) -> Result<Option<OwnedFd>> {
        if !self.record()?.traps {
            return Ok(None);
        }
        // One that answers and is not the container's yet has not put its nodes in place. Whoever is about that is waited for. Init attaches
        // its leaves until the start.
        let is_well = || self.status() == Status::Created || self.is_well();
        let socket = match self.ping(limit).filter(|_| is_well()) {
            Some(socket) => Ok(Some(socket)),
            None => {
                limit.check()?;
                self.restart_monitor().map(|()| self.ping(limit))
            }
        };
        limit.check()?;
        let silent = || "the container's monitor, which is to serve its trapped calls, does not answer";
        let socket = socket.and_then(|s| s.ok_or_else(|| Error::new(Kind::Busy, silent())));
        let cure = || format!("start another: sysbox-runc nodes --repair {}, or Container::restart_monitor", self.id);
        socket.map(|s| Some(s.into())).map_err(|e| e.hint(cure()))
    }

    /// Puts another monitor in the place of one that is stuck or dead, which is killed, without the container's noticing but for
    /// errors of reads that were under way. Nothing happens if it serves, or if there is to be none.
    ///
    /// # Errors
    /// [`Kind::WrongState`] unless the container is running or paused; the new monitor cannot be started, or the container has
    /// made its /proc something that files cannot be put in; [`Kind::Busy`] if a file system of its own hangs, or another process has
    /// been replacing the monitor for half a minute.
    pub fn restart_monitor(&self) -> Result<()> {
        if !self.monitored() {
            return Ok(());
        }
        self.expect_status(&[Status::Running, Status::Paused], "restart the monitor of")?;
        // Whoever is about it asks the monitor, ends it, and starts another.
        let end = Instant::now() + 6 * PATIENCE;
        let _lock = loop {
            if let Some(lock) = self.dir.try_lock_monitor()? {
                break lock;
            }
            if Instant::now() > end {
                return Err(Error::new(Kind::Busy, "another process is replacing the monitor of the container"));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        self.replace_monitor()
    }

    /// The lock is held.
    fn replace_monitor(&self) -> Result<()> {
        if !matches!(self.monitor(), MonitorStatus::Stuck(_) | MonitorStatus::Dead) {
            return Ok(());
        }
        end(&self.dir);
        let record = self.record()?;
        let gone = || Error::new(Kind::WrongState, format!("container {} has ended", self.id));
        let (init, pidfd) = (self.pid().ok_or_else(gone)?, self.pidfd().ok_or_else(gone)?);
        let _ = std::fs::remove_file(self.dir.path().join(MONITOR_SOCKET));
        let fds: Vec<(Fd, OwnedFd)> =
            vec![(Fd::Init, pidfd.try_clone_to_owned().op("dup")?), (Fd::Control, listen(&self.dir, MONITOR_SOCKET)?)];
        let work = Restart {
            leaves: record.live.clone(),
            cgroups: record.cgroup.clone(),
            init,
            root: record.maps.root(),
            traps: record.traps,
        };
        let mut stage = self.runtime.spawn(Work::Monitor(Box::new(work)), fds, &Limit::none())?;
        let mut born = None;
        let result = loop {
            match stage.reply() {
                Ok((Reply::Monitor(monitor), fds)) => born = monitor.zip(fds.into_iter().next()),
                // Only now: until all leaves are in place it is not the container's monitor.
                Ok((Reply::Done(_), _)) => break born.iter().try_for_each(|(m, _)| self.dir.save_monitor(m)),
                Ok((Reply::Failed(e), _)) | Err(e) => break Err(e),
                Ok((other, _)) => break Err(Error::new(Kind::Protocol, format!("the stage answers {other:?}"))),
            }
        };
        stage.finish();
        if let (Err(_), Some((_, pidfd))) = (&result, born) {
            let _ = pidfd::kill(pidfd.as_fd(), libc::SIGKILL);
        }
        self.dir.set_monitor_lost(result.is_err());
        result
    }

    /// A reader of a monitor that is stopped does not die before that does.
    pub(super) fn release_readers(&self) {
        if self.dir.monitor().is_some_and(|m| m.stopped()) {
            end(&self.dir);
        }
    }

    /// At the cost of a look at two files.
    fn is_well(&self) -> bool {
        self.dir.monitor().is_some_and(|m| m.alive() && !m.stopped())
    }

    /// As [`Container::restart_monitor`], by the way of a call that does something else: a monitor that is dead or stopped is
    /// replaced, at the cost of a look at two files if it is neither. Once that has failed it is not tried again: a container that has
    /// made its /proc something that hangs must not delay every call.
    pub(super) fn mend_monitor(&self) {
        // Init attaches its leaves until the start.
        if !self.monitored() || self.is_well() || self.dir.monitor_lost() || self.status() == Status::Created {
            return;
        }
        let mended = match self.dir.try_lock_monitor() {
            Ok(Some(_lock)) => self.replace_monitor(),
            // Somebody is about it.
            Ok(None) => Ok(()),
            Err(e) => Err(e),
        };
        if let Err(e) = mended {
            tracing::warn!(id = self.id, "{e}");
        }
    }

    /// The nodes of this runtime's table as they are in the container, with the values that its root reads.
    ///
    /// # Errors
    /// [`Kind::WrongState`] if it has ended; its mounts cannot be read; [`Kind::Busy`] if a file system of the container's own hangs.
    pub fn nodes(&self) -> Result<Vec<NodeState>> {
        let gone = || Error::new(Kind::WrongState, format!("container {} has ended", self.id));
        let (init, pidfd) = (self.pid().ok_or_else(gone)?, self.pidfd().ok_or_else(gone)?);
        let serves = matches!(self.monitor(), MonitorStatus::Serves(_));
        let nodes = self.runtime.table().iter().cloned().collect();
        let fds = vec![(Fd::Init, pidfd.try_clone_to_owned().op("dup")?)];
        let mut stage = self.runtime.spawn(Work::Look(Box::new(Look { nodes, init, serves })), fds, &Limit::none())?;
        let reply = stage.reply();
        stage.finish();
        match reply? {
            (Reply::Nodes(states), _) => Ok(states),
            (Reply::Failed(e), _) => Err(e),
            (other, _) => Err(Error::new(Kind::Protocol, format!("the stage answers {other:?}"))),
        }
    }
}

/// Kills a container's monitor, if there is one, and waits until it is gone: readers wait no longer than that.
pub(crate) fn end(dir: &StateDir) {
    let Some(monitor) = dir.monitor().filter(Init::alive) else { return };
    let Ok(fd) = pidfd::open(monitor.pid) else { return };
    // Between the look and the open the number may have changed hands.
    if monitor.alive() {
        let _ = pidfd::kill(fd.as_fd(), libc::SIGKILL);
        let _ = pidfd::wait_gone(fd.as_fd(), super::DEATH_MS);
    }
}
