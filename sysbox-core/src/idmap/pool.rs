//! Exclusive ranges of host IDs for containers: one pool per host, whatever the state directories.
//!
//! The pool is a directory with small text files: `ranges` says who has what, `given` who has what the pool did not choose,
//! `next` where to look for room next. Every change is made under an exclusive flock(2) of `lock` and replaces a file by
//! rename(2), so that a process that dies between any two steps leaves either the old content or the new, and at worst a
//! stray `*.new` that the next change overwrites. No change needs two files to agree.
//! Nothing is synced to disk: after a restart of the host no container lives, and `/run` is empty.
//!
//! A range belongs to an [`Owner`], a container's state directory, and is free again as soon as that directory is gone.
//! So all callers must see the state directories under the same paths: call from the host's mount namespace.
//!
//! What was given back is given out again as late as possible: a session keyring outlives the last process of its user.
//!
//! Maps that a configuration brings are entered too ([`Pool::enter`]). The pool gives out none of their IDs, and they may
//! have none of those it has given out. They may overlap each other: an engine that remaps users gives all its containers one
//! map, and answers for it.

mod given;
mod ledger;
mod owner;
mod taken;

#[cfg(test)]
mod tests;

use super::span::Span;
use super::subid::{self, Windows};
use super::Maps;
use crate::error::{Error, Kind, Result, SysResult, Within};
use crate::limit::Limit;
use crate::lock;
use given::Given;
use ledger::{Ledger, Record};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use taken::Taken;

pub use owner::Owner;

/// Where the pool of a host is.
pub const DEFAULT_DIR: &str = "/run/sysbox-subid";

/// IDs that a container gets unless told otherwise; see [`super::USABLE_IDS`].
pub const DEFAULT_SIZE: u32 = super::USABLE_IDS;

/// Where the IDs come from, and how many a container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubidConfig {
    /// The user whose entries in the files are used, by name or number. Needs no account.
    pub user: String,
    /// See subuid(5). Need not exist.
    pub subuid: PathBuf,
    /// See subgid(5). Need not exist.
    pub subgid: PathBuf,
    /// IDs per container, of users and groups each. Pools of different sizes may share a directory.
    pub size: u32,
}

impl Default for SubidConfig {
    fn default() -> Self {
        SubidConfig {
            user: "sysbox".into(),
            subuid: "/etc/subuid".into(),
            subgid: "/etc/subgid".into(),
            size: DEFAULT_SIZE,
        }
    }
}

/// A range and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// Who.
    pub owner: Owner,
    /// What.
    pub maps: Maps,
    /// Nobody else has any of it: the pool has chosen it.
    pub exclusive: bool,
}

/// A handle on the pool of a host. It holds no descriptor and no memory of what the pool contains: any number, in
/// any threads and processes, work on the same pool.
#[derive(Debug, Clone)]
pub struct Pool {
    dir: PathBuf,
    config: SubidConfig,
    limit: Limit,
}

impl Pool {
    /// Opens the pool in `dir`, normally [`DEFAULT_DIR`], and creates the directory if there is none.
    ///
    /// # Errors
    /// [`Kind::InvalidConfig`] for a `user` or `size` that cannot be; [`Kind::Refused`] if others could write to `dir` and so
    /// hand one container another's IDs; [`Kind::System`] if it cannot be created or looked up.
    pub fn open(dir: &Path, config: SubidConfig) -> Result<Pool> {
        if config.size == 0 {
            return Err(Error::invalid("a container needs more than 0 subordinate IDs"));
        }
        let user = &config.user;
        if user.is_empty() || user.starts_with('#') || user.contains(|c: char| c == ':' || c.is_whitespace()) {
            return Err(Error::invalid(format!("{user:?} cannot be the name of a user with subordinate IDs")));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(dir).op_at("create the pool of subordinate IDs", dir)?;
        let meta = fs::symlink_metadata(dir).op_at("look up the pool of subordinate IDs", dir)?;
        let own = [0, nix::unistd::geteuid().as_raw()].contains(&meta.uid());
        if !meta.is_dir() || !own || meta.mode() & 0o022 != 0 {
            let what = "trust the pool of subordinate IDs: it must be a directory that nobody else can write to;";
            let hint = format!("make {} a directory of yours with mode 0700", dir.display());
            return Err(Error::new(Kind::Refused, what).at(dir).hint(hint));
        }
        Ok(Pool { dir: dir.to_owned(), config, limit: Limit::none() })
    }

    /// The same, with an end to waiting behind others: changes then also fail with [`Kind::TimedOut`] or [`Kind::Canceled`], and have
    /// changed nothing. [`Kind::Busy`] is for a holder of the lock who has kept it for ten seconds.
    #[must_use]
    pub fn within(mut self, limit: Limit) -> Pool {
        self.limit = limit;
        self
    }

    /// Gives `owner` a range of the configured size, or the one it has already, of whatever size that is.
    ///
    /// Takes the ranges of owners that are gone back first. IDs of users and of groups are placed independently of each
    /// other. Costs a reading of the directories above the state directories.
    ///
    /// # Errors
    /// [`Kind::Exhausted`] if there is no room, with what to do about it; [`Kind::NotFound`] if `owner` is gone itself, as
    /// its range would be anybody's; [`Kind::InvalidConfig`] for a bad line of our user in a file of subordinate IDs, for a
    /// damaged pool, and for a relative path; [`Kind::Busy`] if the lock stays taken; [`Kind::System`].
    pub fn allocate(&self, owner: &Owner) -> Result<Maps> {
        self.allocate_sized(owner, self.config.size)
    }

    /// As [`Pool::allocate`], for a container with a size of its own.
    ///
    /// # Errors
    /// As [`Pool::allocate`]; [`Kind::InvalidConfig`] if `size` is 0.
    pub fn allocate_sized(&self, owner: &Owner, size: u32) -> Result<Maps> {
        self.try_allocate(owner, size).within("allocate subordinate IDs")
    }

    /// Enters maps that the pool has not chosen. They are taken out again like what it has: by [`Pool::release`], or when `owner`
    /// is gone.
    ///
    /// # Errors
    /// [`Kind::Busy`], naming the container, if they have IDs that the pool has given to one that exists; [`Kind::Exists`] if
    /// `owner` has others; else as [`Pool::allocate`].
    pub fn enter(&self, owner: &Owner, maps: &Maps) -> Result<()> {
        self.try_enter(owner, maps, false).within("enter ID maps among subordinate IDs")
    }

    /// As [`Pool::enter`], for a container in the user namespace of another, whose maps these are: they stay taken until both are
    /// gone.
    ///
    /// # Errors
    /// As [`Pool::enter`], but that another container has them is none.
    pub fn share(&self, owner: &Owner, maps: &Maps) -> Result<()> {
        self.try_enter(owner, maps, true).within("enter shared ID maps among subordinate IDs")
    }

    /// Takes back what `owner` has. That it has nothing is not an error.
    ///
    /// # Errors
    /// [`Kind::InvalidConfig`] for a damaged pool, [`Kind::Busy`] if the lock stays taken, [`Kind::System`].
    pub fn release(&self, owner: &Owner) -> Result<()> {
        let release = || {
            let _lock = self.lock()?;
            let mut taken = self.load()?;
            if taken.placed.remove(owner) {
                self.save(&taken.placed)?;
            }
            if taken.given.remove(owner) {
                self.save_given(&taken.given)?;
            }
            Ok(())
        };
        release().within("release subordinate IDs")
    }

    /// What `owner` has. Needs no lock.
    ///
    /// # Errors
    /// [`Kind::InvalidConfig`] for a damaged pool, [`Kind::System`].
    pub fn lookup(&self, owner: &Owner) -> Result<Option<Maps>> {
        self.load()?.find(owner)
    }

    /// All ranges that are taken, those of owners that are gone and not taken back yet included: in the order of allocation, then
    /// given ones.
    ///
    /// # Errors
    /// [`Kind::InvalidConfig`] for a damaged pool, [`Kind::System`].
    pub fn list(&self) -> Result<Vec<Allocation>> {
        let taken = self.load()?;
        let placed = |r: &Record| Ok(Allocation { owner: r.owner.clone(), maps: r.maps()?, exclusive: true });
        let mut all = taken.placed.records().iter().map(placed).collect::<Result<Vec<_>>>()?;
        all.extend(taken.given.0.into_iter().map(|(owner, maps)| Allocation { owner, maps, exclusive: false }));
        Ok(all)
    }

    /// The maps that [`Pool::allocate`] would give just now. Takes nothing and writes nothing.
    ///
    /// # Errors
    /// As [`Pool::allocate`], but for the owner's.
    pub fn preview(&self) -> Result<Maps> {
        let (uid, gid) = self.choose(&self.load()?, self.config.size)?;
        Record { owner: Owner::default(), uid, gid, count: self.config.size }.maps()
    }

    /// Where a new range of `size` goes: users and groups.
    fn choose(&self, taken: &Taken, size: u32) -> Result<(u32, u32)> {
        let subuid = read_subid(&self.config.subuid)?;
        let subgid = read_subid(&self.config.subgid)?;
        let names = names(&self.config.user, &[&subuid, &subgid]);
        let take = |text: &str, file: &Path, used: &[Span], next: u32| {
            let windows = subid::windows(text, file, &names, size)?;
            windows.place(used, size, next).ok_or_else(|| exhausted(&windows, file, &names, size))
        };
        let next = self.next();
        let uid = take(&subuid, &self.config.subuid, &taken.uids(), next.0)?;
        let gid = take(&subgid, &self.config.subgid, &taken.gids(), next.1)?;
        Ok((uid, gid))
    }

    fn try_allocate(&self, owner: &Owner, size: u32) -> Result<Maps> {
        if size == 0 {
            return Err(Error::invalid("a container needs more than 0 subordinate IDs"));
        }
        let (_lock, mut taken) = self.open_for(owner)?;
        if let Some(maps) = taken.find(owner)? {
            return Ok(maps);
        }
        let forgotten = taken.forget_gone();
        let (uid, gid) = self.choose(&taken, size)?;
        let record = Record { owner: owner.clone(), uid, gid, count: size };
        let maps = record.maps()?;
        taken.placed.push(record);
        // First: who dies in between has skipped a range, which is nothing.
        self.replace("next", &format!("{} {}\n", uid.saturating_add(size), gid.saturating_add(size)))?;
        self.save(&taken.placed)?;
        if forgotten {
            self.save_given(&taken.given)?;
        }
        Ok(maps)
    }

    fn try_enter(&self, owner: &Owner, maps: &Maps, shared: bool) -> Result<()> {
        let (_lock, mut taken) = self.open_for(owner)?;
        match taken.find(owner)? {
            Some(same) if same == *maps => return Ok(()),
            Some(_) => {
                return Err(Error::new(Kind::Exists, "other IDs are this container's already:").at(&owner.state_dir))
            }
            None => {}
        }
        taken.forget_gone();
        if let Some(other) = taken.conflict(maps).filter(|_| !shared) {
            let name = other.state_dir.file_name().unwrap_or_default().to_string_lossy();
            let what = format!("some of the host's IDs in them belong to container {name}, whose state is in");
            let hint = "map to other IDs, or delete that container";
            return Err(Error::new(Kind::Busy, what).at(&other.state_dir).hint(hint));
        }
        taken.given.0.push((owner.clone(), maps.clone()));
        self.save_given(&taken.given)
    }

    /// What is taken, for a change that concerns `owner`, and the lock.
    fn open_for(&self, owner: &Owner) -> Result<(File, Taken)> {
        if !owner.state_dir.is_absolute() {
            return Err(Error::invalid("identify a container by the relative path").at(&owner.state_dir));
        }
        let lock = self.lock()?;
        let taken = self.load()?;
        if owner.is_gone() {
            let what = "find the state directory, which must exist before its IDs are allocated, at";
            return Err(Error::new(Kind::NotFound, what).at(&owner.state_dir));
        }
        Ok((lock, taken))
    }

    /// User and group ID from which on room is looked for. A hint: without it the search begins at the first.
    fn next(&self) -> (u32, u32) {
        let text = fs::read_to_string(self.dir.join("next")).unwrap_or_default();
        let mut numbers = text.split_whitespace().map(|n| n.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    fn lock(&self) -> Result<File> {
        lock::exclusive(&self.dir.join("lock"), "the pool of subordinate IDs", &self.limit)
    }

    fn load(&self) -> Result<Taken> {
        Ok(Taken { placed: self.read("ranges", Ledger::parse)?, given: self.read("given", Given::parse)? })
    }

    fn read<T: Default>(&self, name: &str, parse: impl Fn(&[u8]) -> Result<T, String>) -> Result<T> {
        let path = self.dir.join(name);
        match fs::read(&path) {
            Ok(bytes) => parse(&bytes).map_err(|why| damaged(&path, &why)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(T::default()),
            Err(e) => Err(e).op_at("read the pool of subordinate IDs", &path),
        }
    }

    fn save(&self, placed: &Ledger) -> Result<()> {
        self.replace("ranges", &placed.render())
    }

    fn save_given(&self, given: &Given) -> Result<()> {
        self.replace("given", &given.render())
    }

    /// The caller holds the lock, so that one name for the temporary file is enough.
    fn replace(&self, name: &str, content: &str) -> Result<()> {
        let (new, path) = (self.dir.join(format!("{name}.new")), self.dir.join(name));
        let mut open = OpenOptions::new();
        open.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = open.open(&new).op_at("create", &new)?;
        file.write_all(content.as_bytes()).op_at("write", &new)?;
        fs::rename(&new, &path).op_at("replace the pool of subordinate IDs", &path)
    }
}

fn damaged(path: &Path, why: &str) -> Error {
    let hint = "nothing is allocated until it is repaired: stop all system containers and remove the file; \
                removed earlier, it lets new containers get IDs of running ones";
    Error::invalid(format!("read the pool of subordinate IDs: {why} in")).at(path).hint(hint)
}

fn exhausted(windows: &Windows, file: &Path, names: &[String], size: u32) -> Error {
    let user = names.first().map_or("", String::as_str);
    let room = windows.capacity(size);
    let place = if windows.assigned { format!("the entries of {user:?} have") } else { "the default area has".into() };
    let taken = match windows.contested {
        0 => String::new(),
        n => format!(", {n} of their IDs being other users' too"),
    };
    let what = format!("find {size} free IDs: {place} room for {room} such ranges in all{taken};");
    let hint = format!("delete containers, or {}", subid::more(file, names, size));
    Error::new(Kind::Exhausted, what).at(file).hint(hint)
}

fn read_subid(file: &Path) -> Result<String> {
    match fs::read(file) {
        // A line that is not UTF-8 must not make the others unreadable.
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(e).op_at("read subordinate IDs", file),
    }
}

/// What our user is called in the files: as configured and, if it has an account, by its number or name as well.
/// The account is looked up only if it can matter, as a directory service may be slow to answer.
fn names(user: &str, texts: &[&str]) -> Vec<String> {
    let mut names = vec![user.to_owned()];
    if subid::is_number(user) {
        let uid = user.parse().ok().map(nix::unistd::Uid::from_raw);
        names.extend(uid.and_then(|u| nix::unistd::User::from_uid(u).ok().flatten()).map(|u| u.name));
    } else if texts.iter().any(|t| subid::has_numeric_user(t)) {
        names.extend(nix::unistd::User::from_name(user).ok().flatten().map(|u| u.uid.to_string()));
    }
    names
}
