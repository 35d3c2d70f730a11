//! How init comes into being: in namespaces of its own, or with some of another container's.

use crate::cgroup::Entry;
use crate::error::{Error, Kind, Result, SysResult};
use crate::namespace::{open_userns, Join};
use crate::plan::Plan;
use crate::sys::channel::Channel;
use crate::sys::clone::{self, Fork};
use crate::sys::{fd, pidfd};
use nix::sched::{setns, CloneFlags};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Namespaces that init gets at birth. The others need what only exists later: its cgroup, its ID maps, its root.
const AT_BIRTH: i32 =
    libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWUTS | libc::CLONE_PARENT;

/// What init enters that is another container's.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// Type and descriptor of each.
    namespaces: Vec<(CloneFlags, File)>,
}

impl Joined {
    pub(super) fn has(&self, which: CloneFlags) -> bool {
        self.namespaces.iter().any(|(flag, _)| *flag == which)
    }

    /// Enters them all.
    pub(super) fn enter(&mut self) -> Result<()> {
        self.namespaces.drain(..).try_for_each(|(flag, file)| setns(file, flag).op("setns to a namespace to share"))
    }
}

/// Clones init, which is the caller's child. Returns in init and in the process that makes the rest of the container.
pub(super) fn clone_init(plan: &Plan, entry: Entry) -> Result<(Fork, Entry, Joined)> {
    let Some(join) = &plan.join else {
        let fork = clone::fork(AT_BIRTH, entry.unified()).op("clone init")?;
        return Ok((fork, entry, Joined::default()));
    };
    let (userns, joined) = open(join)?;
    let entry = entry.on_foot()?;
    let mut flags = AT_BIRTH & !libc::CLONE_NEWUSER;
    for (which, _) in &joined.namespaces {
        flags &= !which.bits();
    }
    // Whoever enters another user namespace leaves the host's rights behind, and only there can init be born. So a copy of
    // this process makes the container, and this one, whose parent init's must be, ends with it.
    let (ours, theirs) = Channel::pair()?;
    match clone::fork(0, None).op("fork")? {
        Fork::Child => {
            drop(ours);
            let (born, fds) = theirs.expect::<std::result::Result<i32, Error>>("the process that clones init")?;
            let pidfd = fds.into_iter().next().ok_or_else(|| Error::new(Kind::Protocol, "init has no descriptor"))?;
            Ok((Fork::Parent { pid: born?, pidfd }, entry, joined))
        }
        Fork::Parent { pidfd: worker, .. } => {
            drop(theirs);
            let born = setns(&userns, CloneFlags::CLONE_NEWUSER)
                .op("setns to the user namespace to share")
                .and_then(|()| clone::fork(flags, None).op("clone init"));
            // Nobody is left to tell if the copy has ended.
            let _ = match born {
                Ok(Fork::Child) => {
                    drop((ours, worker, userns));
                    return Ok((Fork::Child, entry, joined));
                }
                Ok(Fork::Parent { pid, pidfd }) => ours.send(&Ok::<i32, Error>(pid), &[pidfd.as_fd()]),
                Err(e) => ours.send(&Err::<i32, Error>(e), &[]),
            };
            // Others wait for the last copy of a descriptor to close: the caller for the socket and the lock, the copy for init's.
            // Their owners in this process are never dropped.
            let kept = worker.as_raw_fd() as u32;
            let _ = fd::close_range(0, kept - 1).and_then(|()| fd::close_range(kept + 1, u32::MAX));
            let _ = pidfd::wait_gone(worker.as_fd(), -1);
            let _ = pidfd::reap(worker.as_fd());
            clone::exit_now(0)
        }
    }
}

fn open(join: &Join) -> Result<(OwnedFd, Joined)> {
    let types = [
        (&join.network, CloneFlags::CLONE_NEWNET),
        (&join.ipc, CloneFlags::CLONE_NEWIPC),
        (&join.uts, CloneFlags::CLONE_NEWUTS),
    ];
    let mut joined = Joined::default();
    for (path, flag) in types {
        if let Some(path) = path {
            joined.namespaces.push((flag, File::open(path).op_at("open the namespace", path)?));
        }
    }
    let userns = match &join.user {
        Some(path) => open_userns(path, true)?,
        None => {
            let first = join.paths().next().ok_or_else(|| Error::new(Kind::Protocol, "nothing to join"))?;
            open_userns(first, false)?
        }
    };
    Ok((userns, joined))
}
