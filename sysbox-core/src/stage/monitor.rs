//! Gives a container its monitor, and another where that has died.

use super::{tree, Fds};
use crate::cgroup::{Node, Paths, Version};
use crate::error::{Error, Kind, Result, SysResult};
use crate::fuse;
use crate::limit::Limit;
use crate::monitor::{self, Setup, Trapped};
use crate::mount::{self, Copyable, Root};
use crate::mountinfo;
use crate::procfs::{self, attach, Leaf};
use crate::protocol::{Fd, Look, Reply, Restart};
use crate::state::Init;
use crate::sys::channel::Channel;
use crate::sys::clone::{self, Fork};
use crate::sys::{cred, fd, pidfd};
use nix::sched::{setns, CloneFlags};
use rustix::fs::{Mode, OFlags};
use serde::de::DeserializeOwned;
use serde::Serialize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a monitor may take until it serves, and how long the look-up of paths inside a container may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A monitor that is on its way.
#[derive(Debug)]
pub(super) struct Started {
    pid: i32,
    pidfd: OwnedFd,
    channel: Channel,
    files: Option<OwnedFd>,
    places: Vec<usize>,
}

/// Starts one. To be called in the host's namespaces but for the mount namespace, which must be one of this process's own, and
/// while /proc is the host's.
pub(super) fn start(
    leaves: &[Leaf],
    cgroups: Paths,
    root: (u32, u32),
    (init, init_fd): (i32, BorrowedFd<'_>),
    control: OwnedFd,
    traps: Option<Trapped>,
) -> Result<Started> {
    let (places, nodes): (Vec<_>, Vec<_>) = leaves.iter().enumerate().filter_map(|(i, l)| Some((i, l.live()?))).unzip();
    let (dev, files) = match nodes.is_empty() {
        true => (None, None),
        false => fuse::mount(attach::LIVE_SOURCE).map(|(dev, files)| (Some(dev), Some(files))).map_err(without)?,
    };
    let setup = Setup {
        dev,
        init: init_fd.try_clone_to_owned().op("dup")?,
        control,
        cgroups,
        boottime_offset: boottime_offset(init)?,
        root,
        nodes,
        traps,
    };
    let (ours, theirs) = Channel::pair()?;
    match clone::fork(0, None).op("fork the monitor")? {
        Fork::Child => {
            drop((ours, files));
            monitor::run(setup, theirs)
        }
        // The device goes with `setup`: when the monitor dies, nobody must wait for it.
        Fork::Parent { pid, pidfd } => Ok(Started { pid, pidfd, channel: ours, files, places }),
    }
}

impl Started {
    /// Tells the caller who it is, while that cannot be another: this process is its parent.
    pub(super) fn tell(&self, caller: &Channel) -> Result<()> {
        caller.send(&Reply::Monitor(Init::of(self.pid)), &[self.pidfd.as_fd()])
    }

    /// Waits until it serves. For each live node that there is its place in the list of all, and a detached mount of its file.
    pub(super) fn leaves(self) -> Result<Vec<(usize, OwnedFd)>> {
        let served = hear::<Result<Vec<usize>>>(&self.channel, "the monitor")
            .and_then(|ready| ready)
            .and_then(|there| self.files.map_or(Ok(Vec::new()), |files| copies(files, &self.places, &there)));
        served.map_err(|e| {
            let _ = pidfd::kill(self.pidfd.as_fd(), libc::SIGKILL);
            without(e)
        })
    }
}

fn without(e: Error) -> Error {
    let hint = format!("without live nodes: annotation {}=stored", crate::plan::NODES);
    e.within("start the container's monitor").hint(hint)
}

/// Copies of the files that are `there`, as mounts of their own.
fn copies(files: OwnedFd, places: &[usize], there: &[usize]) -> Result<Vec<(usize, OwnedFd)>> {
    let files = Copyable::new(files, &Root::open(Path::new("/"))?, Path::new("/"))?;
    let copy = |(i, place): (usize, &usize)| {
        let name = monitor::file_name(i);
        let file = rustix::fs::openat(files.as_fd(), &name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        Ok((*place, mount::clone_fd(file.op_at("open", &name)?.as_fd(), false)?))
    };
    places.iter().enumerate().filter(|(i, _)| there.contains(i)).map(copy).collect()
}

/// What a monitor needs to serve traps.
pub(super) fn trapped(cgroups: &Paths, init: i32, furnished: bool) -> Result<Trapped> {
    // Absent is neither.
    let setting = |name: &str| std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    expect_servable(&setting("fs/suid_dumpable"), &setting("kernel/yama/ptrace_scope"))?;
    let limiting = |n: &&Node| ["memory", "cpu", "pids"].iter().any(|c| n.has(c));
    let (v1, v2): (Vec<_>, Vec<_>) = cgroups.nodes.iter().filter(limiting).partition(|n| n.version == Version::V1);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |n: &&Node| rustix::fs::open(&n.dir, flags, Mode::empty()).op_at("open", &n.dir);
    let unified = v2.first().map(|_| cgroups.open_exec_unified(init as u32)).transpose()?.flatten();
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let procs = |dir| rustix::fs::openat(dir, "cgroup.procs", flags, Mode::empty()).op("open cgroup.procs");
    let v1 = v1.iter().map(open).collect::<Result<_>>()?;
    Ok(Trapped { init, furnished, v1, v2: unified.map(procs).transpose()? })
}

/// Whether a monitor can serve traps on a host with these settings, and be safe from those whom it serves.
fn expect_servable(suid_dumpable: &str, ptrace_scope: &str) -> Result<()> {
    let (what, cure) = match (suid_dumpable.trim(), ptrace_scope.trim()) {
        ("1", _) => (
            "fs.suid_dumpable=1 lets a container trace what makes a mount for it",
            "sysctl -w fs.suid_dumpable=0, or 2",
        ),
        (_, "3") => (
            "kernel.yama.ptrace_scope=3 lets nobody read what a trapped call asks for",
            "do without the annotation: this setting stays until the host is booted again",
        ),
        _ => return Ok(()),
    };
    let name = crate::plan::NESTED_NODES;
    Err(Error::new(Kind::Unsupported, format!("annotation {name} on this host: {what}")).hint(cure))
}

/// Of the time namespace of init, or of the one that it will enter.
fn boottime_offset(init: i32) -> Result<i64> {
    let path = format!("/proc/{init}/timens_offsets");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(parse_boottime(&text)),
        // No time namespaces.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        r => r.op_at("read", path).map(|_| 0),
    }
}

fn parse_boottime(text: &str) -> i64 {
    let line = text.lines().find_map(|l| l.strip_prefix("boottime")).unwrap_or_default();
    let mut numbers = line.split_whitespace().map(|w| w.parse::<i64>().unwrap_or(0));
    let (seconds, nanos) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// Another monitor for a container that runs.
pub(super) fn restart(caller: &Channel, work: &Restart, mut fds: Fds) -> Result<()> {
    let lost = || Error::new(Kind::Protocol, "a monitor without its descriptors");
    let (init, control) = (fds.take(Fd::Init).ok_or_else(lost)?, fds.take(Fd::Control).ok_or_else(lost)?);
    tree::leave_host()?;
    let monitor = (work.init, init.as_fd());
    let traps = work.traps.then(|| trapped(&work.cgroups, work.init, true)).transpose()?;
    let started = start(&work.leaves, work.cgroups.clone(), work.root, monitor, control, traps)?;
    started.tell(caller)?;
    let pidfd = started.pidfd.try_clone().op("dup")?;
    let mounts = mountinfo::select(&mounts_of(work.init), |m| work.leaves.iter().any(|l| l.path == m.point))?;
    let ours: Vec<PathBuf> = work.leaves.iter().map(|l| l.path.clone()).filter(|p| is_ours(p, &mounts)).collect();
    let attached = started.leaves().and_then(|new| replace(&work.leaves, &new, &ours, init.as_fd()));
    if attached.is_err() {
        let _ = pidfd::kill(pidfd.as_fd(), libc::SIGKILL);
    }
    attached.and_then(|()| caller.send(&Reply::Done(None), &[]))
}

fn mounts_of(pid: i32) -> PathBuf {
    format!("/proc/{pid}/mountinfo").into()
}

/// Whether what is seen at a path is a monitor's: the container may have put something of its own there, or nothing.
fn is_ours(path: &Path, mounts: &[mountinfo::Entry]) -> bool {
    let top = mounts.iter().rfind(|m| m.point == path);
    top.is_some_and(|m| m.source == attach::LIVE_SOURCE && m.fstype.starts_with("fuse"))
}

/// Takes the leaves of the last monitor away, which are `ours`, and puts new ones in their place.
fn replace(leaves: &[Leaf], new: &[(usize, OwnedFd)], ours: &[PathBuf], init: BorrowedFd<'_>) -> Result<()> {
    inside(init, CloneFlags::empty(), |root| {
        let new = new.iter().filter_map(|(i, fd)| Some((leaves.get(*i)?, fd)));
        new.filter(|(leaf, _)| ours.contains(&leaf.path)).try_for_each(|(leaf, fd)| {
            attach::take_away(leaf);
            attach::live(leaf, fd.as_fd(), root)
        })
    })
}

/// Looks at the nodes of a container.
pub(super) fn look(caller: &Channel, work: &Look, mut fds: Fds) -> Result<()> {
    let init = fds.take(Fd::Init).ok_or_else(|| Error::new(Kind::Protocol, "nodes without a container"))?;
    let mounts = mountinfo::select(&mounts_of(work.init), |m| work.nodes.iter().any(|n| n.path == m.point))?;
    let namespaces = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    let states = inside(init.as_fd(), namespaces, |root| {
        Ok(work.nodes.iter().map(|n| procfs::look::at(n, &mounts, root, work.serves)).collect())
    })?;
    caller.send(&Reply::Nodes(states), &[])
}

/// Does something as the container's root, with no other rights, in its mount namespace and these others. It is a process of its own that
/// does it: that can be left behind if a file system of the container's hangs.
fn inside<T: Serialize + DeserializeOwned>(
    init: BorrowedFd<'_>,
    others: CloneFlags,
    what: impl FnOnce(&Root) -> Result<T>,
) -> Result<T> {
    let (ours, theirs) = Channel::pair()?;
    match clone::fork(0, None).op("fork")? {
        Fork::Child => {
            drop(ours);
            // The stage's line to its caller, who waits for it to close.
            let _ = fd::close_range(0, 0);
            // What a panic unwound to would be the stage, of which this is a copy.
            let done = catch_unwind(AssertUnwindSafe(|| enter(init, others).and_then(|root| what(&root))));
            let _ = done.map(|done| theirs.send(&done, &[]));
            clone::exit_now(0)
        }
        Fork::Parent { pidfd, .. } => {
            drop(theirs);
            let told = hear::<Result<T>>(&ours, "the process that looks at the container's files");
            told.map_err(|e| {
                let _ = pidfd::kill(pidfd.as_fd(), libc::SIGKILL);
                match e.kind() {
                    Kind::TimedOut => Error::new(Kind::Busy, "a file system of the container's own does not answer"),
                    _ => e,
                }
            })?
        }
    }
}

/// What a child says, if it says it in time.
fn hear<T: DeserializeOwned>(channel: &Channel, who: &str) -> Result<T> {
    let silent = || Error::new(Kind::Protocol, format!("{who} ended without a word"));
    channel.recv_within(&Limit::after(PATIENCE))?.map(|(said, _)| said).ok_or_else(silent)
}

/// Becomes the container's root, in its mount namespace.
fn enter(init: BorrowedFd<'_>, others: CloneFlags) -> Result<Root> {
    let namespaces = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | others;
    setns(init, namespaces).op("setns to the container's namespaces")?;
    cred::set_dumpable(false).op("prctl PR_SET_DUMPABLE")?;
    cred::become_user(0, 0, &[]).op("become the container's root")?;
    cred::set_dumpable(false).op("prctl PR_SET_DUMPABLE")?;
    Root::open(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_cannot_have_nested_nodes() {
        for (dumpable, scope) in [("0\n", "0\n"), ("2\n", "2\n"), ("0\n", ""), ("", "")] {
            assert!(expect_servable(dumpable, scope).is_ok());
        }
        let refused = |dumpable, scope| expect_servable(dumpable, scope).unwrap_err().to_string();
        assert!(refused("1\n", "0\n").contains("fs.suid_dumpable"));
        assert!(refused("2\n", "3\n").contains("kernel.yama.ptrace_scope"));
    }

    #[test]
    fn offsets_of_the_boot_clock() {
        assert_eq!(parse_boottime("monotonic         -5         0\nboottime        -100 500000000\n"), -99_500_000_000);
        assert_eq!(parse_boottime(""), 0);
    }
}
