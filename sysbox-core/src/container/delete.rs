//! Takes a container away.

use super::{monitor, Container, Process, DEATH_MS};
use crate::cgroup::Paths;
use crate::error::{Error, Kind, Result};
use crate::limit::Limit;
use crate::runtime::CLEANING;
use crate::state::{Init, Status};
use crate::sys::pidfd;
use std::os::fd::AsFd;
use std::time::Duration;

impl Container {
    /// Takes everything away: processes, cgroups, IDs, state. `poststop` hooks run in between; that one fails is only logged.
    ///
    /// A created container's init is killed; a running or paused one's only with `force`. Its exit status is lost unless it was
    /// waited for. Waits up to ten seconds for each of: a stage at work, init's death, the death of the other processes.
    ///
    /// # Errors
    /// [`Kind::WrongState`] for a running or paused container without `force`, [`Kind::Damaged`] for a damaged one; [`Kind::Busy`] while it is being made by a
    /// process that lives, or if a process does not die. Whatever it is, calling it again goes on where it failed.
    pub fn delete(&self, force: bool) -> Result<()> {
        self.delete_within(force, &Limit::none())
    }

    /// As [`Container::delete`], until `limit` is over: then nothing has changed, if it had not begun; otherwise hooks are cut short,
    /// and it goes on to the end unless it has to wait for init to die.
    ///
    /// # Errors
    /// [`Kind::TimedOut`], [`Kind::Canceled`], and those of [`Container::delete`].
    pub fn delete_within(&self, force: bool, limit: &Limit) -> Result<()> {
        // Whoever makes it holds the lock; so does its stage, which outlives a killed creator by moments.
        let lock = self.dir.lock_within(limit)?;
        // The name may have gone to another container since this handle was made, and even its directory's inode.
        let now = self.dir.load()?;
        if self.found().is_another(&now) || self.dir.identity()? != self.identity {
            return Err(Error::new(Kind::NotFound, format!("container {} has been deleted", self.id)));
        }
        if !force {
            if let Some(damage) = self.damage() {
                return Err(damage.clone());
            }
            self.expect_status(&[Status::Stopped, Status::Created], "delete")?;
        }
        // Made while we waited for the lock.
        let reopened;
        let this = if self.found().init.is_none() {
            reopened = self.runtime.open(&self.id)?;
            &reopened
        } else {
            self
        };
        let claim = this.dir.claimed();
        let cgroups = claim.as_ref().ok().and_then(Option::as_ref);
        let recorded = this.found().record.as_ref().map(|r| &r.cgroup);
        limit.check()?;
        this.end_init(recorded.or(cgroups), limit)?;
        this.keep_inner_marks();
        this.refresh_root();
        if recorded.is_some() {
            // Docker and runc go on when one fails; the container goes away in any case.
            if let Err(e) = this.host_hooks("poststop", limit) {
                tracing::warn!(id = self.id, "{e}");
            }
        }
        if let Some(recorded) = recorded.filter(|_| cgroups.is_none()) {
            // A creation was cut short before it could claim its cgroups: nothing has been in them. Or the claim is damaged, and
            // they may be somebody else's by now.
            recorded.remove_empty();
        }
        this.runtime.clean(&this.dir, CLEANING)?;
        drop(lock);
        Ok(())
    }

    fn end_init(&self, cgroups: Option<&Paths>, limit: &Limit) -> Result<()> {
        // One that has ended by itself, and that nobody has waited for, is still to be buried.
        let Some(init) = self.found().init.filter(Init::exists) else { return Ok(()) };
        let Ok(pidfd) = pidfd::open(init.pid) else { return Ok(()) };
        if !init.exists() {
            return Ok(());
        }
        let _ = pidfd::kill(pidfd.as_fd(), libc::SIGKILL);
        // With all that it started, and thawed: what is frozen does not die, and init waits for its children's end.
        cgroups.map_or(Ok(()), Paths::kill_all)?;
        monitor::end(&self.dir);
        let patience = limit.clone().at_most(Duration::from_millis(DEATH_MS.unsigned_abs().into()));
        if patience.wait_readable(pidfd.as_fd()).is_err() {
            limit.check()?;
            return Err(Error::new(
                Kind::Busy,
                format!("init of container {} (pid {}) does not die", self.id, init.pid),
            )
            .hint("an exec that its caller has not waited for keeps it, or a process in uninterruptible sleep"));
        }
        // If it is our child, its zombie must not stay.
        let _ = self.init().map_or_else(|| pidfd::reap(pidfd.as_fd()), Process::reap);
        Ok(())
    }
}
