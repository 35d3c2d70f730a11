//! What is known of a container outside of it: files in its state directory.

use crate::cgroup;
use crate::error::{Error, Kind, Result, SysResult};
use crate::idmap::Maps;
use crate::inner_data::InnerData;
use crate::limit::Limit;
use crate::plan::Hook;
use crate::procfs::Leaf;
use crate::sys::fd::above;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Holds the [`Claim`] on the cgroups that were made for this container.
pub(crate) const CLAIM: &str = "cgroups-made";

/// Who the container's monitor is, and where it is asked whether it answers.
pub(crate) const MONITOR: &str = "monitor.json";
pub(crate) const MONITOR_SOCKET: &str = "monitor.sock";
/// Held while the monitor is replaced.
const MONITOR_LOCK: &str = "monitor.lock";
/// There if it could not be replaced by the way: only who asks for it tries again.
const MONITOR_LOST: &str = "monitor.lost";

/// A stage that lost its caller needs moments; one that makes a container, seconds at most.
const LOCK_PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// State of a container as the OCI runtime specification has it (runtime.md#state).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciState {
    /// Version of the specification.
    pub oci_version: String,
    /// The container's name.
    pub id: String,
    /// What it is doing.
    pub status: Status,
    /// Pid of init on the host, unless it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// Annotations of the configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made.
    Creating,
    /// Made; its program has not been started.
    Created,
    /// Its program runs.
    Running,
    /// Frozen.
    Paused,
    /// Its program has ended, or its making was cut short.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// `state.json` and `init.json`: all that later calls need. The second is a file of its own because it is known only later,
/// and because replacing a file makes some file systems write it to the disk at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) oci_version: String,
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) annotations: BTreeMap<String, String>,
    /// Nanoseconds since 1970: also tells containers of one name apart.
    pub(crate) created: u64,
    pub(crate) maps: Maps,
    /// The root is an overlay, stacked a second time.
    #[serde(default)]
    pub(crate) restacked: bool,
    #[serde(default)]
    pub(crate) inner_data: Option<InnerData>,
    pub(crate) cgroup: cgroup::Paths,
    /// Live nodes: those that a monitor serves.
    #[serde(default)]
    pub(crate) live: Vec<Leaf>,
    /// Its programs have calls trapped, which its monitor serves.
    #[serde(default)]
    pub(crate) traps: bool,
    pub(crate) poststart: Vec<Hook>,
    pub(crate) poststop: Vec<Hook>,
}

impl Record {
    /// It has a monitor.
    pub(crate) fn monitored(&self) -> bool {
        self.traps || !self.live.is_empty()
    }
}

/// A process that cannot be mistaken for another that got its number later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Init {
    pub(crate) pid: i32,
    /// In clock ticks since boot: field 22 of /proc/PID/stat.
    pub(crate) start_time: u64,
}

impl Init {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        proc_stat(pid).map(|(_, start_time)| Init { pid, start_time })
    }

    /// It exists, if only as a zombie.
    pub(crate) fn exists(&self) -> bool {
        proc_stat(self.pid).is_some_and(|(_, start)| start == self.start_time)
    }

    /// It has been stopped by a signal, or is being traced.
    pub(crate) fn stopped(&self) -> bool {
        proc_stat(self.pid).is_some_and(|(state, start)| start == self.start_time && matches!(state, 'T' | 't'))
    }

    /// It exists and is not a zombie.
    pub(crate) fn alive(&self) -> bool {
        proc_stat(self.pid).is_some_and(|(state, start)| start == self.start_time && !matches!(state, 'Z' | 'X'))
    }
}

/// State letter and start time.
fn proc_stat(pid: i32) -> Option<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&text)
}

fn parse_stat(text: &str) -> Option<(char, u64)> {
    // The name is in parentheses and may hold anything, parentheses included.
    let rest = text.rsplit_once(')')?.1;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// What a state directory holds of a container.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// `None`: making it was cut short before it was written, or it is damaged.
    pub(crate) record: Option<Record>,
    pub(crate) init: Option<Init>,
    /// Why one of the two cannot be read.
    pub(crate) damage: Option<Error>,
}

impl Found {
    /// What was found later, under the same name, is another container.
    pub(crate) fn is_another(&self, later: &Found) -> bool {
        match (&self.record, &later.record) {
            (Some(then), Some(now)) => then.created != now.created,
            (Some(_), None) => later.damage.is_none(),
            _ => false,
        }
    }
}

/// Cgroups and their inodes: a later cgroup of the same path is not this container's. It needs no other file, so that
/// cleaning up does not depend on what else is damaged.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Claim {
    paths: cgroup::Paths,
    inodes: Vec<u64>,
}

impl Claim {
    /// On cgroups as they are now.
    pub(crate) fn on(paths: cgroup::Paths) -> Result<Vec<u8>> {
        use std::os::unix::fs::MetadataExt;
        let inode = |n: &cgroup::Node| std::fs::metadata(&n.dir).map(|m| m.ino()).op_at("stat", &n.dir);
        let inodes = paths.nodes.iter().map(inode).collect::<Result<_>>()?;
        encode(&Claim { paths, inodes })
    }

    /// Those that are still the ones that were claimed.
    fn still(self) -> cgroup::Paths {
        use std::os::unix::fs::MetadataExt;
        let same = |dir: &Path, inode: u64| std::fs::metadata(dir).is_ok_and(|m| m.ino() == inode);
        let nodes = self.paths.nodes.into_iter().zip(self.inodes);
        let nodes: Vec<_> = nodes.filter(|(n, i)| same(&n.dir, *i)).map(|(n, _)| n).collect();
        // A unit that has lost its cgroup has ended, and a later one of its name is not ours either.
        let unit = self.paths.unit.filter(|_| nodes.iter().any(cgroup::paths::Node::is_tracked));
        cgroup::Paths { nodes, leaf: self.paths.leaf, unit }
    }
}

/// A container's directory below the state root.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(PathBuf);

impl StateDir {
    pub(crate) fn new(root: &Path, id: &str) -> Self {
        StateDir(root.join(id))
    }

    /// Device and inode of the directory, which no two containers share at a time.
    pub(crate) fn identity(&self) -> Result<(u64, u64)> {
        use std::os::unix::fs::MetadataExt;
        let m = std::fs::metadata(&self.0).op_at("stat", &self.0)?;
        Ok((m.dev(), m.ino()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where init waits for the start. Exists exactly while the container is created and not started.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("start.sock")
    }

    /// The same before the container is finished.
    pub(crate) fn unfinished_socket(&self) -> PathBuf {
        self.0.join("init.sock")
    }

    /// Declares the container created.
    pub(crate) fn finish(&self) -> Result<()> {
        std::fs::rename(self.unfinished_socket(), self.socket()).op_at("rename to", self.socket())
    }

    /// Makes the directory; its name is the container's, so this decides who owns it.
    pub(crate) fn create(&self) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        if let Some(root) = self.0.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o711).create(root).op_at("create", root)?;
        }
        std::fs::DirBuilder::new().mode(0o700).create(&self.0).map_err(|e| {
            if e.kind() == std::io::ErrorKind::AlreadyExists {
                Error::new(Kind::Exists, "a container of that name exists already:").at(&self.0)
            } else {
                Error::sys("create", e.raw_os_error().unwrap_or(libc::EIO)).at(&self.0)
            }
        })
    }

    /// Takes the lock that is held while the container is being made or deleted: of the directory itself. `None` if
    /// somebody else holds it.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if the directory is gone, or another container's by now.
    pub(crate) fn try_lock(&self) -> Result<Option<std::fs::File>> {
        use std::os::unix::fs::MetadataExt;
        let gone = || Error::new(Kind::NotFound, "container does not exist:").at(&self.0);
        let file = match std::fs::File::open(&self.0) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(gone()),
            r => r.op_at("open", &self.0)?,
        };
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(Error::sys("flock", e.raw_os_error()).at(&self.0)),
        }
        // Whoever held it may have deleted the container, and a new one may have its name.
        let (held, named) = (file.metadata().op_at("stat", &self.0)?, std::fs::metadata(&self.0).map_err(|_| gone())?);
        if (held.dev(), held.ino()) != (named.dev(), named.ino()) {
            return Err(gone());
        }
        // It is held for as long as a container takes to be made.
        Ok(Some(above(file.into()).op("dup")?.into()))
    }

    /// As [`StateDir::try_lock`], waiting for up to ten seconds.
    ///
    /// # Errors
    /// [`Kind::Busy`] after that.
    pub(crate) fn lock(&self) -> Result<std::fs::File> {
        self.lock_within(&Limit::none())
    }

    /// As [`StateDir::lock`], until `limit` is over if that is earlier.
    pub(crate) fn lock_within(&self, limit: &Limit) -> Result<std::fs::File> {
        let end = std::time::Instant::now() + LOCK_PATIENCE;
        loop {
            if let Some(lock) = self.try_lock()? {
                return Ok(lock);
            }
            if std::time::Instant::now() > end {
                return Err(Error::new(Kind::Busy, "another process is making or deleting the container:").at(&self.0));
            }
            limit.check()?;
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    /// Lets those who watch the directory know that something is new.
    pub(crate) fn tell(&self) {
        use rustix::fs::{utimensat, AtFlags, Timestamps, CWD, UTIME_NOW};
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        let _ = utimensat(CWD, &self.0, &times, AtFlags::empty());
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let (path, tmp) = (self.0.join(name), self.0.join(format!("{name}.new")));
        std::fs::write(&tmp, content).op_at("write", &tmp)?;
        std::fs::rename(&tmp, &path).op_at("rename to", &path)
    }

    pub(crate) fn save(&self, record: &Record) -> Result<()> {
        self.write("state.json", &encode(record)?)
    }

    pub(crate) fn save_init(&self, init: &Init) -> Result<()> {
        self.write("init.json", &encode(init)?)
    }

    /// Takes the lock that is held while the monitor is replaced. `None` if somebody else holds it.
    pub(crate) fn try_lock_monitor(&self) -> Result<Option<std::fs::File>> {
        let path = self.0.join(MONITOR_LOCK);
        let file =
            std::fs::File::options().write(true).create(true).truncate(false).open(&path).op_at("open", &path)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(Error::sys("flock", e.raw_os_error()).at(&path)),
        }
    }

    /// Whether the monitor is given up.
    pub(crate) fn monitor_lost(&self) -> bool {
        self.0.join(MONITOR_LOST).exists()
    }

    /// Gives it up, or no longer.
    pub(crate) fn set_monitor_lost(&self, lost: bool) {
        let path = self.0.join(MONITOR_LOST);
        // Either is of use only for the next time.
        let _ = if lost { std::fs::write(path, "") } else { std::fs::remove_file(path) };
    }

    pub(crate) fn save_monitor(&self, monitor: &Init) -> Result<()> {
        self.write(MONITOR, &encode(monitor)?)
    }

    /// The container's monitor, if it has had one; a damaged file reads as none.
    pub(crate) fn monitor(&self) -> Option<Init> {
        self.read(MONITOR).ok().flatten()
    }

    /// What is known of the container. Damage is no error here: what is left must do to take the container away.
    ///
    /// # Errors
    /// [`Kind::NotFound`]; the files may not be read.
    pub(crate) fn load(&self) -> Result<Found> {
        let mut found = Found::default();
        match self.read("state.json") {
            Err(e) if e.kind() == Kind::Damaged => found.damage = Some(e),
            r => found.record = r?,
        }
        if found.record.is_none() && found.damage.is_none() && !self.0.is_dir() {
            return Err(Error::new(Kind::NotFound, "container does not exist:").at(&self.0));
        }
        // Absent: not known yet, or being deleted.
        match self.read("init.json") {
            Err(e) if e.kind() == Kind::Damaged => drop(found.damage.get_or_insert(e)),
            r => found.init = r?,
        }
        Ok(found)
    }

    /// Those cgroups that were made for the container and are still the same; `None` if there is no claim on any.
    ///
    /// # Errors
    /// [`Kind::Damaged`]; the file may not be read.
    pub(crate) fn claimed(&self) -> Result<Option<cgroup::Paths>> {
        Ok(self.read::<Claim>(CLAIM)?.map(Claim::still))
    }

    fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.0.join(name);
        let damaged = |why: String| {
            Error::new(Kind::Damaged, format!("the container's state is damaged ({why}):"))
                .at(&path)
                .hint("it can only be taken away: delete it with --force")
        };
        match std::fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map(Some).map_err(|e| damaged(e.to_string())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EIO | libc::EISDIR | libc::ELOOP)) => {
                Err(damaged(e.to_string()))
            }
            r => r.op_at("read", &path).map(|_| None),
        }
    }

    pub(crate) fn remove(&self) -> Result<()> {
        match std::fs::remove_dir_all(&self.0) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::sys("remove", e.raw_os_error().unwrap_or(libc::EIO)).at(&self.0))
            }
            _ => Ok(()),
        }
    }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::new(Kind::System, format!("encode state: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_hostile_names() {
        let tail = (0..18).map(|i| i.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(parse_stat(&format!("7 (a) R) 1 (x) S {tail} 4242 0")), Some(('S', 4242)));
        assert_eq!(parse_stat("7 (a) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn this_process_is_alive_and_its_successor_is_not_it() {
        let me = Init::of(std::process::id() as i32).unwrap();
        assert!(me.alive());
        assert!(!Init { start_time: me.start_time + 1, ..me }.alive());
    }
}
