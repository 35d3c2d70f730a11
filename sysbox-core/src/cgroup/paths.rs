//! The cgroups of an existing container: all that is kept of them, and what can be done with them.

use super::file::{apply, gone, read, write_raw};
use super::layout::Version;
use super::limits::{limits, Purpose};
use super::manager::open_dir;
use super::tree;
use crate::error::{Errno, Error, Kind, Result};
use crate::sys::pidfd;
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long removed processes may hold up the removal of their cgroup.
const REMOVE_PATIENCE: Duration = Duration::from_secs(2);
/// How many processes are held by descriptor at a time.
const BATCH: usize = 128;
/// How long killed processes may take to go.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// A container's own node in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// Which cgroup of the hierarchy is seen at the mount; mostly `/`.
    pub root: PathBuf,
    /// The node's directory, absolute.
    pub dir: PathBuf,
    /// The hierarchy's interface.
    pub version: Version,
    /// The hierarchy's controllers.
    pub controllers: Vec<String>,
}

impl Node {
    /// Whether systemd, where it runs, follows its units' processes by this hierarchy.
    pub fn is_tracked(&self) -> bool {
        self.version == Version::V2 || self.has("name=systemd")
    }

    /// Whether the node's hierarchy owns the controller, by its name in this version.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

/// Where a container's cgroups are; kept in its state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// The own node in every hierarchy.
    pub nodes: Vec<Node>,
    /// Name of the child that the container's first processes live in, on pure v2.
    pub leaf: Option<String>,
    /// systemd's unit that they belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

impl Paths {
    /// The node in the v2 hierarchy.
    pub fn unified(&self) -> Option<&Node> {
        self.nodes.iter().find(|n| n.version == Version::V2)
    }

    /// The node that a controller of this name accounts for.
    pub fn node(&self, controller: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| n.has(controller))
    }

    /// All processes of the container, also those in cgroups it has made itself: sorted, each once. One whose cgroups are
    /// gone has none.
    ///
    /// # Errors
    /// A `cgroup.procs` cannot be read.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let Some(node) = self.census() else { return Ok(Vec::new()) };
        let mut pids = tree::pids(&node.dir)?;
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Any hierarchy would do, since no process can leave the node of any; software inside makes the fewest in these.
    pub(crate) fn census(&self) -> Option<&Node> {
        ["freezer", "devices", "pids"].iter().find_map(|c| self.node(c)).or(self.nodes.first())
    }

    /// Sends a signal to every process of the container but the caller, and to no process outside of it. Does not wait for
    /// the effect; what is born meanwhile may be missed, but not by SIGKILL where the host has cgroup v2 alone (Linux 5.14).
    ///
    /// # Errors
    /// A `cgroup.procs` cannot be read.
    pub fn signal(&self, signal: i32) -> Result<()> {
        // Only where every process is for certain in the v2 node, and the caller not among them.
        if let ([n], libc::SIGKILL) = (self.nodes.as_slice(), signal) {
            if n.version == Version::V2 && write_raw(&n.dir.join("cgroup.kill"), "1").is_ok() {
                return Ok(());
            }
        }
        send(&self.others()?, signal, || self.pids())
    }

    /// All processes but the caller.
    fn others(&self) -> Result<Vec<u32>> {
        let me = std::process::id();
        Ok(self.pids()?.into_iter().filter(|p| *p != me).collect())
    }

    /// Kills every process of the container and waits until they are gone. The caller itself is spared.
    ///
    /// A frozen v1 container is thawed, since nothing frozen there can die.
    ///
    /// # Errors
    /// [`Kind::Busy`] if some process survives for ten seconds.
    pub fn kill_all(&self) -> Result<()> {
        let end = Instant::now() + KILL_PATIENCE;
        let mut pause = Duration::from_micros(100);
        loop {
            let pids = self.others()?;
            if pids.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                let e = Error::new(Kind::Busy, format!("kill the container's processes: {} do not die", pids.len()));
                return Err(e.at(self.census().map_or(Path::new(""), |n| &n.dir)));
            }
            self.signal(libc::SIGKILL)?;
            if let Some(n) = self.nodes.iter().find(|n| n.version == Version::V1 && n.has("freezer")) {
                // With those that software inside has made and frozen.
                let _ = tree::thaw(&n.dir);
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Removes nodes that nothing is in, and touches no others.
    pub fn remove_empty(&self) {
        for node in &self.nodes {
            if let Some(leaf) = self.leaf.as_ref().filter(|_| node.version == Version::V2) {
                let _ = std::fs::remove_dir(node.dir.join(leaf));
            }
            let _ = std::fs::remove_dir(&node.dir);
        }
    }

    /// Removes the container's nodes with everything the container has made below them. Parents stay. What is gone already
    /// is fine.
    ///
    /// # Errors
    /// [`Kind::Busy`] if a node still has processes after two seconds; all other nodes are removed nevertheless.
    pub fn remove(&self) -> Result<()> {
        let end = Instant::now() + REMOVE_PATIENCE;
        let mut first = Ok(());
        for node in &self.nodes {
            let done = remove(&node.dir, end);
            if first.is_ok() {
                first = done;
            }
        }
        first
    }

    /// Changes limits; device rules are not looked at.
    ///
    /// # Errors
    /// Those of [`limits`]; [`Kind::Busy`] if a memory limit is below what is in use and `checkBeforeUpdate` is set, or the kernel
    /// cannot reclaim as much.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        let new = limits(&self.nodes, resources, Purpose::Update)?;
        if let Some(memory) = resources.memory().filter(|m| m.check_before_update() == Some(true)) {
            if let (Some(max @ 1..), Some(node)) = (memory.limit(), self.node("memory")) {
                let file = if node.version == Version::V1 { "memory.usage_in_bytes" } else { "memory.current" };
                let path = node.dir.join(file);
                let used: u64 = read(&path)?.trim().parse().unwrap_or(0);
                if used > max.unsigned_abs() {
                    let what = format!("linux.resources.memory.limit {max} is below the {used} bytes in use");
                    return Err(Error::new(Kind::Busy, what));
                }
            }
        }
        apply(&self.nodes, &new.writes)
    }

    /// The v2 cgroup that a process executed in the container belongs into, as a directory for `clone3(CLONE_INTO_CGROUP)`: the
    /// own node; on pure v2 the leaf, or where the container's init is now if software inside has removed the leaf. `None`
    /// where there is no v2.
    ///
    /// # Errors
    /// The leaf is gone and so is init, or the cgroup cannot be opened.
    pub fn open_exec_unified(&self, init_pid: u32) -> Result<Option<OwnedFd>> {
        let Some(node) = self.unified() else { return Ok(None) };
        let Some(leaf) = &self.leaf else { return open_dir(&node.dir).map(Some) };
        match open_dir(&node.dir.join(leaf)) {
            Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::ENODEV)) => self.open_init_unified(init_pid),
            r => r.map(Some),
        }
    }

    /// The v2 cgroup that the container's init is in now, which is the node or below it.
    ///
    /// # Errors
    /// init is gone, or the cgroup cannot be opened.
    pub fn open_init_unified(&self, init_pid: u32) -> Result<Option<OwnedFd>> {
        let Some(node) = self.unified() else { return Ok(None) };
        let open = || open_dir(&current(node, init_pid)?);
        // It may move on between the look and the open, and remove what it leaves.
        open().or_else(|_| open()).or_else(|_| open()).map(Some)
    }
}

/// Signals those processes that `members` still lists once there is a descriptor of them: a number that has gone to somebody else
/// before is not listed, and one that goes afterwards is not the descriptor's.
fn send(pids: &[u32], signal: i32, members: impl Fn() -> Result<Vec<u32>>) -> Result<()> {
    for some in pids.chunks(BATCH) {
        let held: Vec<(u32, OwnedFd)> =
            some.iter().filter_map(|p| Some((*p, pidfd::open(i32::try_from(*p).ok()?).ok()?))).collect();
        let members = members()?;
        for (_, fd) in held.iter().filter(|(p, _)| members.binary_search(p).is_ok()) {
            // One that has ended since is none of ours to signal.
            let _ = pidfd::kill(fd.as_fd(), signal);
        }
    }
    Ok(())
}

/// Where in this hierarchy (v2) a process is now; always within the node.
fn current(node: &Node, pid: u32) -> Result<PathBuf> {
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    current_in(node, &read(&path)?).ok_or_else(|| {
        Error::new(Kind::WrongState, format!("process {pid} is not in the container's cgroup")).at(&node.dir)
    })
}

fn current_in(node: &Node, proc_cgroup: &str) -> Option<PathBuf> {
    let path = Path::new(proc_cgroup.lines().find_map(|l| l.strip_prefix("0::"))?);
    let dir = node.mount.join(path.strip_prefix(&node.root).ok()?);
    let inside = dir.strip_prefix(&node.dir).ok()?.components().all(|c| matches!(c, Component::Normal(_)));
    inside.then_some(dir)
}

/// Removes one node with everything below.
pub(super) fn remove(dir: &Path, end: Instant) -> Result<()> {
    let mut pause = Duration::from_micros(100);
    loop {
        let e = match std::fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if gone(&e) => return Ok(()),
            Err(e) => e,
        };
        if !matches!(e.errno(), libc::EBUSY | libc::ENOTEMPTY) || Instant::now() > end {
            let kind = if e.errno() == libc::EBUSY { Kind::Busy } else { Kind::System };
            return Err(Error::sys("remove cgroup", e.errno()).at(dir).kinded(kind));
        }
        // A walk that trips over a change underneath it is repeated like any other round.
        let _ = tree::prune(dir);
        match std::fs::remove_dir(dir) {
            Err(e) if !gone(&e) => {}
            _ => return Ok(()),
        }
        // The kernel lets go of a dead process's cgroup a moment after the process is reaped.
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_somebody_elses_by_now_is_not_signalled() {
        let mut sleepers: Vec<_> =
            (0..2).map(|_| std::process::Command::new("sleep").arg("1000").spawn().unwrap()).collect();
        let pids: Vec<u32> = sleepers.iter().map(std::process::Child::id).collect();
        // Both were listed; when looked at again, only one is still in the cgroup.
        send(&pids, libc::SIGKILL, || Ok(vec![pids[1]])).unwrap();
        assert!(!sleepers[1].wait().unwrap().success());
        assert!(sleepers[0].try_wait().unwrap().is_none());
        send(&pids[..1], libc::SIGKILL, || Ok(vec![pids[0]])).unwrap();
        sleepers[0].wait().unwrap();
    }

    #[test]
    fn current_cgroup_stays_within_the_node() {
        let node = |root: &str| Node {
            mount: "/sys/fs/cgroup".into(),
            root: root.into(),
            dir: "/sys/fs/cgroup/a".into(),
            version: Version::V2,
            controllers: vec![],
        };
        let at = |n: &Node, p: &str| current_in(n, &format!("3:cpu:/x\n0::{p}\n"));
        assert_eq!(at(&node("/"), "/a/b").unwrap(), Path::new("/sys/fs/cgroup/a/b"));
        assert_eq!(at(&node("/"), "/a").unwrap(), Path::new("/sys/fs/cgroup/a"));
        assert_eq!(at(&node("/r"), "/r/a/b").unwrap(), Path::new("/sys/fs/cgroup/a/b"));
        for p in ["/", "/ab", "/../a", "/a/../b", "/r/a"] {
            assert_eq!(at(&node("/"), p), None, "{p}");
        }
        assert_eq!(current_in(&node("/"), "3:cpu:/a\n"), None);
    }
}
