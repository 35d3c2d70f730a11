//! proc and sysfs of the container, made by real root so that they can be locked.
//!
//! Both belong to the namespaces of the process that opens them: the pid namespace can be entered only by a child, so one
//! child enters both and hands back detached mounts. Made in a mount namespace of the host's, they are not subject to the
//! kernel's rule against revealing what is covered.

use crate::error::{Error, Result, SysResult};
use crate::mount::{new_fs, Attrs};
use crate::sys::channel::Channel;
use crate::sys::clone::{self, Fork};
use crate::sys::pidfd;
use nix::sched::{setns, CloneFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Detached mounts of proc and sysfs of the namespaces of `init`.
pub(super) fn proc_and_sys(init: BorrowedFd<'_>) -> Result<(OwnedFd, OwnedFd)> {
    let own_pid = std::fs::File::open("/proc/self/ns/pid").op_at("open", "/proc/self/ns/pid")?;
    setns(init, CloneFlags::CLONE_NEWPID).op("setns to the container's pid namespace")?;
    let (ours, theirs) = Channel::pair()?;
    let child = clone::fork(0, None).op("fork into the container's pid namespace")?;
    if matches!(child, Fork::Child) {
        let made = make(init);
        let _ = match &made {
            Ok((p, s)) => theirs.send(&None::<Error>, &[p.as_fd(), s.as_fd()]),
            Err(e) => theirs.send(&Some(e), &[]),
        };
        clone::exit_now(0);
    }
    setns(&own_pid, CloneFlags::CLONE_NEWPID).op("setns back to the host's pid namespace")?;
    drop(theirs);
    let (error, fds) = ours.expect::<Option<Error>>("the child that mounts proc")?;
    if let Fork::Parent { pidfd, .. } = child {
        let _ = pidfd::wait_gone(pidfd.as_fd(), -1);
        let _ = pidfd::reap(pidfd.as_fd());
    }
    if let Some(e) = error {
        return Err(e);
    }
    let mut fds = fds.into_iter();
    match (fds.next(), fds.next()) {
        (Some(p), Some(s)) => Ok((p, s)),
        _ => Err(Error::new(crate::Kind::Protocol, "the child that mounts proc sent no mounts")),
    }
}

fn make(init: BorrowedFd<'_>) -> Result<(OwnedFd, OwnedFd)> {
    let proc = new_fs("proc", None, &[], Attrs::empty())?;
    setns(init, CloneFlags::CLONE_NEWNET).op("setns to the container's network namespace")?;
    let sys = new_fs("sysfs", None, &[], Attrs::empty())?;
    Ok((proc, sys))
}
