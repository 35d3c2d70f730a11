//! What a container uses, and whether it runs out of memory.

use super::Container;
use crate::cgroup::{OomWatch, Stats};
use crate::error::Result;
use crate::state::Status;

const LIVING: [Status; 3] = [Status::Running, Status::Created, Status::Paused];

impl Container {
    /// What it uses now, all its processes together, those of inner containers included. Units and what may be absent: see
    /// [`Stats`]. Only files of its cgroups are read; neither it nor its root file system is touched.
    ///
    /// # Errors
    /// [`Kind::WrongState`](crate::Kind::WrongState) unless it is created, running or paused; a file that is there cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        self.expect_status(&LIVING, "measure")?;
        self.record()?.cgroup.stats()
    }

    /// Watches it for running out of memory, from now on. `None` where no memory controller looks after it.
    ///
    /// # Errors
    /// [`Kind::WrongState`](crate::Kind::WrongState) unless it is created, running or paused; the kernel refuses to report.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>> {
        self.expect_status(&LIVING, "watch")?;
        self.record()?.cgroup.watch_oom()
    }
}
