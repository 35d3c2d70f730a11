//! Namespaces given by path: whose they are decides what can be done with them.
//!
//! A namespace belongs to the user namespace it was made in, and only root of that one may configure it. So a network that
//! belongs to the host's is no use to a system container, and one that belongs to another system container means to share
//! that container's IDs. See ioctl_ns(2), user_namespaces(7).

use crate::error::{Error, Kind, Result, SysResult};
use crate::idmap::{IdMap, Maps};
use crate::sys::ns;
use oci_spec::runtime as oci;
use oci_spec::runtime::LinuxNamespaceType as Ns;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Whose a namespace is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// The host's.
    Host,
    /// That of a user namespace with these maps.
    Container {
        /// Inode of the user namespace.
        userns: u64,
        /// Its maps; `None` if no process in it was found that tells.
        maps: Option<Maps>,
    },
}

/// Which namespaces of another container to join, and where they are. Its user namespace is joined in any case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Network.
    pub network: Option<PathBuf>,
    /// System V IPC and POSIX message queues.
    pub ipc: Option<PathBuf>,
    /// Host name.
    pub uts: Option<PathBuf>,
    /// User.
    pub user: Option<PathBuf>,
}

impl Join {
    /// All of them: type and path.
    fn entries(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let all = [("network", &self.network), ("ipc", &self.ipc), ("uts", &self.uts), ("user", &self.user)];
        all.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?)))
    }

    /// The paths of all of them.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.entries().map(|(_, path)| path)
    }

    /// What a configuration asks to join. Pure; others than these are [`super::plan`]'s to refuse.
    pub(crate) fn of(linux: &oci::Linux) -> Option<Join> {
        let path = |typ| linux.namespaces().iter().flatten().find(|n| n.typ() == typ)?.path().clone();
        let join = Join { network: path(Ns::Network), ipc: path(Ns::Ipc), uts: path(Ns::Uts), user: path(Ns::User) };
        (join != Join::default()).then_some(join)
    }
}

/// Whose the namespace at `path` is. `is_user`: it is a user namespace itself.
///
/// # Errors
/// It cannot be opened, or is none.
pub fn owner(path: &Path, is_user: bool) -> Result<Owner> {
    let userns = open_userns(path, is_user)?;
    let inode = |f: &File| f.metadata().map(|m| m.ino());
    let own = std::fs::metadata("/proc/self/ns/user").op_at("stat", "/proc/self/ns/user")?.ino();
    let userns = inode(&File::from(userns)).op_at("stat", path)?;
    if userns == own {
        return Ok(Owner::Host);
    }
    Ok(Owner::Container { userns, maps: maps(path, userns) })
}

/// The user namespace of the namespace at `path`.
pub(crate) fn open_userns(path: &Path, is_user: bool) -> Result<OwnedFd> {
    let file = File::open(path).op_at("open the namespace", path)?;
    if is_user {
        return Ok(file.into());
    }
    ns::owner(file.as_fd()).op_at("ask who owns the namespace", path)
}

/// The maps of a user namespace are told by its processes: most likely the one whose namespace this is.
fn maps(path: &Path, userns: u64) -> Option<Maps> {
    let near = path.strip_prefix("/proc").ok().and_then(|p| p.components().next()).map(|c| Path::new("/proc").join(c));
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|e| e.path());
    near.into_iter().chain(all).find_map(|process| {
        let of = std::fs::metadata(process.join("ns/user")).ok().filter(|m| m.ino() == userns);
        of.and_then(|_| read_maps(&process).ok())
    })
}

/// The maps of a process, as this one sees them.
pub(crate) fn read_maps(process: &Path) -> Result<Maps> {
    let read = |name: &str| {
        let path = process.join(name);
        std::fs::read_to_string(&path).op_at("read", &path).and_then(|text| IdMap::parse(&text))
    };
    Ok(Maps { uid: read("uid_map")?, gid: read("gid_map")? })
}

/// The maps that come with what is joined. Pure.
///
/// # Errors
/// [`Kind::Refused`] for a namespace of the host's, or of more than one container; [`Kind::InvalidConfig`] for one that does not
/// exist; each names the field and the cure.
pub(crate) fn joined_maps(join: &Join, owner: impl Fn(&Path) -> Option<Owner>) -> Result<Maps> {
    let mut found: Option<(u64, Option<Maps>)> = None;
    for (name, path) in join.entries() {
        let (userns, maps) = match owner(path) {
            None => {
                let what = format!("linux.namespaces: whose the {name} namespace is cannot be found out:");
                return Err(Error::new(Kind::Refused, what).at(path).hint("does it exist?"));
            }
            Some(Owner::Host) => return Err(of_the_host(name, path)),
            Some(Owner::Container { userns, maps }) => (userns, maps),
        };
        if found.as_ref().is_some_and(|f| f.0 != userns) {
            return Err(Error::new(
                Kind::Refused,
                "linux.namespaces: the namespaces to join belong to different containers; also",
            )
            .at(path));
        }
        found = Some((userns, maps));
    }
    let maps = found.and_then(|(_, maps)| maps).ok_or_else(|| {
        Error::new(Kind::Refused, "linux.namespaces: the container whose namespaces are to be joined has no process")
            .hint("start it first")
    })?;
    maps.check_usable().map_err(|e| e.within("linux.namespaces: the user namespace of what is to be joined"))?;
    Ok(maps)
}

fn of_the_host(name: &str, path: &Path) -> Error {
    Error::new(
        Kind::Refused,
        format!(
            "linux.namespaces: this {name} namespace belongs to the host's user namespace, where the container's root \
             could not configure it:"
        ),
    )
    .at(path)
    .hint(
        "run it without --network=host, or join one of another system container; or let the engine make it inside a user namespace (podman run \
         --userns=auto, hostUsers: false) or let the runtime make it, by leaving the path away",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(userns: u64) -> Option<Owner> {
        let maps = Maps { uid: IdMap::single(100_000, 65536).unwrap(), gid: IdMap::single(200_000, 65536).unwrap() };
        Some(Owner::Container { userns, maps: Some(maps) })
    }

    #[test]
    fn who_owns_it_decides() {
        let join = Join { network: Some("/n".into()), ipc: Some("/i".into()), ..Join::default() };
        assert_eq!(joined_maps(&join, |_| other(7)).unwrap().root(), (100_000, 200_000));
        let host = joined_maps(&join, |p| if p == Path::new("/n") { other(7) } else { Some(Owner::Host) }).unwrap_err();
        assert_eq!(host.kind(), Kind::Refused);
        assert!(host.to_string().contains("/i") && host.to_string().contains("--userns=auto"));
        let two =
            joined_maps(&join, |p| other(p.as_os_str().len() as u64 + u64::from(p == Path::new("/n")))).unwrap_err();
        assert!(two.to_string().contains("different containers"));
        assert!(joined_maps(&join, |_| None).unwrap_err().to_string().contains("/n"));
        let empty = joined_maps(&join, |_| Some(Owner::Container { userns: 7, maps: None })).unwrap_err();
        assert!(empty.to_string().contains("no process"));
    }

    #[test]
    fn ones_own_are_the_hosts() {
        assert_eq!(owner(Path::new("/proc/self/ns/uts"), false).unwrap(), Owner::Host);
        assert_eq!(owner(Path::new("/proc/self/ns/user"), true).unwrap(), Owner::Host);
        assert!(owner(Path::new("/dev/null"), false).is_err());
    }
}
