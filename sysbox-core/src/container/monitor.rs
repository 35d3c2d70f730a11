//! The container's nodes of /proc and /sys, and the monitor that serves the live ones.

use super::Container;
use crate::error::{Error, Kind, Result, SysResult};
use crate::monitor::ALIVE;
use crate::procfs::{Leaf, NodeState};
use crate::protocol::{Fd, Look, Relive, Reply, Work};
use crate::runtime::listen;
use crate::state::{Init, StateDir, Status, MONITOR_SOCKET};
use crate::sys::pidfd;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long a monitor may take to say that it lives.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a container's monitor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonitorStatus {
    /// It has none and needs none, or has ended.
    None,
    /// It answers; its pid on the host.
    Serves(i32),
    /// It exists and does not answer: readers of live nodes wait, on Linux 6.14 and later for 45 seconds at most.
    Stuck(i32),
    /// It has died: reading live nodes is an error.
    Dead,
}

impl Container {
    /// Asks the monitor whether it serves; waits up to a second for the answer.
    pub fn monitor(&self) -> MonitorStatus {
        if self.live().is_empty() || self.pid().is_none() {
            return MonitorStatus::None;
        }
        let Some(monitor) = self.dir.monitor().filter(Init::alive) else { return MonitorStatus::Dead };
        if self.ping().is_some() {
            MonitorStatus::Serves(monitor.pid)
        } else if monitor.alive() {
            MonitorStatus::Stuck(monitor.pid)
        } else {
            MonitorStatus::Dead
        }
    }

    fn ping(&self) -> Option<()> {
        let handle = std::fs::File::open(self.dir.path()).ok()?;
        let path = format!("/proc/self/fd/{}/{MONITOR_SOCKET}", handle.as_raw_fd());
        let mut socket = UnixStream::connect(path).ok()?;
        socket.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut answer = vec![0; ALIVE.len()];
        socket.read_exact(&mut answer).ok().filter(|()| answer == ALIVE)
    }

    fn live(&self) -> &[Leaf] {
        self.found.record.as_ref().map(|r| r.live.as_slice()).unwrap_or_default()
    }

    /// Puts another monitor in the place of one that is stuck or dead, which is killed, without the container's noticing but for
    /// errors of reads that were under way. Nothing happens if it serves, or if there is to be none.
    ///
    /// # Errors
    /// [`Kind::WrongState`] unless the container is created, running or paused; the new monitor cannot be started, or the container has made its
    /// /proc something that files cannot be put in ([`Kind::Busy`] if a file system of its own hangs).
    pub fn restart_monitor(&self) -> Result<()> {
        if self.live().is_empty() {
            return Ok(());
        }
        self.expect_status(&[Status::Created, Status::Running, Status::Paused], "restart the monitor of")?;
        // One at a time.
        let _lock = self.dir.lock()?;
        match self.monitor() {
            MonitorStatus::None | MonitorStatus::Serves(_) => Ok(()),
            MonitorStatus::Stuck(_) | MonitorStatus::Dead => self.replace_monitor(),
        }
    }

    fn replace_monitor(&self) -> Result<()> {
        end(&self.dir);
        let record = self.record()?;
        let gone = || Error::new(Kind::WrongState, format!("container {} has ended", self.id));
        let (init, pidfd) = (self.pid().ok_or_else(gone)?, self.pidfd.as_ref().ok_or_else(gone)?);
        let _ = std::fs::remove_file(self.dir.path().join(MONITOR_SOCKET));
        let fds: Vec<(Fd, OwnedFd)> =
            vec![(Fd::Init, pidfd.try_clone().op("dup")?), (Fd::Control, listen(&self.dir, MONITOR_SOCKET)?)];
        let work =
            Relive { leaves: record.live.clone(), cgroups: record.cgroup.clone(), init, root: record.maps.root() };
        let mut stage = self.runtime.spawn(Work::Monitor(Box::new(work)), fds)?;
        let result = loop {
            match stage.reply() {
                Ok((Reply::Monitor(pid), _)) => {
                    if let Some(Err(e)) = Init::of(pid).map(|m| self.dir.save_monitor(&m)) {
                        break Err(e);
                    }
                }
                Ok((Reply::Failed(e), _)) | Err(e) => break Err(e),
                Ok(_) => break Ok(()),
            }
        };
        stage.finish();
        result
    }

    /// A reader of a monitor that is stopped does not die before that does.
    pub(super) fn release_readers(&self) {
        if self.dir.monitor().is_some_and(|m| m.stopped()) {
            end(&self.dir);
        }
    }

    /// As [`Container::restart_monitor`], by the way of a call that does something else: a monitor that is dead or stopped is
    /// replaced, at the cost of a look at two files if it is neither.
    pub(super) fn mend_monitor(&self) {
        if self.live().is_empty() || self.dir.monitor().is_some_and(|m| m.alive() && !m.stopped()) {
            return;
        }
        if let Err(e) = self.restart_monitor() {
            tracing::warn!(id = self.id, "{e}");
        }
    }

    /// The nodes of this runtime's table as they are in the container, with the values that its root reads.
    ///
    /// # Errors
    /// [`Kind::WrongState`] if it has ended; its mounts cannot be read; [`Kind::Busy`] if a file system of the container's own hangs.
    pub fn nodes(&self) -> Result<Vec<NodeState>> {
        let gone = || Error::new(Kind::WrongState, format!("container {} has ended", self.id));
        let (init, pidfd) = (self.pid().ok_or_else(gone)?, self.pidfd.as_ref().ok_or_else(gone)?);
        let serves = matches!(self.monitor(), MonitorStatus::Serves(_));
        let nodes = self.runtime.table().iter().cloned().collect();
        let fds = vec![(Fd::Init, pidfd.try_clone().op("dup")?)];
        let mut stage = self.runtime.spawn(Work::Look(Box::new(Look { nodes, init, serves })), fds)?;
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
