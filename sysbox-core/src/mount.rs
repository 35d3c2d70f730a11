//! Mounts as descriptors: made detached, given their attributes, then attached.
//!
//! Nothing here resolves a path inside a container's root by the caller's own root: targets are found with
//! openat2(2) below the root's descriptor, so that a symbolic link in an image leads nowhere else.

mod root;

use crate::error::{Error, Kind, Result, SysResult};
use crate::sys;
use rustix::fs::AtFlags;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

bitflags::bitflags! {
    /// `MOUNT_ATTR_*` of mount_setattr(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
    #[serde(transparent)]
    pub struct Attrs: u64 {
        /// Read-only.
        const RDONLY = 0x1;
        /// Set-user-ID bits are ignored.
        const NOSUID = 0x2;
        /// Device nodes cannot be opened.
        const NODEV = 0x4;
        /// Programs cannot be executed.
        const NOEXEC = 0x8;
        /// Access times are not kept.
        const NOATIME = 0x10;
        /// Access times are always kept.
        const STRICTATIME = 0x20;
        /// No access times of directories.
        const NODIRATIME = 0x80;
        /// Symbolic links are not followed.
        const NOSYMFOLLOW = 0x0020_0000;
    }
}

pub(crate) use root::Root;

/// All access time modes together: they are one field, cleared whole before it is set.
const ATIME: u64 = 0x70;

/// How mount events travel (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// To and from peers. Becomes `Slave` where it crosses into a user namespace.
    Shared,
    /// From the master only.
    Slave,
    /// Not at all.
    Private,
    /// Not at all, and it cannot be bind-mounted.
    Unbindable,
}

impl Propagation {
    fn flag(self) -> u64 {
        match self {
            Propagation::Shared => libc::MS_SHARED,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// A copy of the mount at `path`, detached; with `recursive`, of all mounts below it as well.
pub(crate) fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(rustix::fs::CWD, path, flags).op_at("open_tree", path)
}

/// As [`clone_tree`] for something already open.
pub(crate) fn clone_fd(fd: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(fd, "", flags).op("open_tree")
}

/// Sets and clears attributes.
pub(crate) fn set_attrs(mount: BorrowedFd<'_>, set: Attrs, clear: Attrs, recursive: bool) -> Result<()> {
    if set.is_empty() && clear.is_empty() {
        return Ok(());
    }
    let mut clr = clear.bits();
    if (set | clear).bits() & ATIME != 0 {
        clr |= ATIME;
    }
    sys::mount::mount_setattr(mount, c"", recursive, set.bits(), clr & !(set.bits() & !ATIME), 0, None)
        .op("mount_setattr")
}

/// Sets how mount events travel.
pub(crate) fn set_propagation(mount: BorrowedFd<'_>, p: Propagation, recursive: bool) -> Result<()> {
    sys::mount::mount_setattr(mount, c"", recursive, 0, 0, p.flag(), None).op("mount_setattr propagation")
}

/// ID-maps a detached mount by the maps of a user namespace (Linux 5.12; the file system must support it).
pub(crate) fn idmap(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> std::io::Result<()> {
    sys::mount::mount_setattr(mount, c"", false, 0, 0, 0, Some(userns))
}

/// A mount of `path` in which IDs appear as a user namespace maps them, attached nowhere: who has the descriptor may attach it
/// (move_mount(2)) or open files below it. With `recursive`, all mounts below come along, and each must support it. Needs
/// CAP_SYS_ADMIN, Linux 5.12 and a file system that can be mapped (mount_setattr(2)). Changes nothing of this process.
///
/// # Errors
/// [`Kind::Unsupported`] if a file system cannot be mapped, or is mapped already; the path cannot be opened; the kernel refuses the
/// attributes, or the initial user namespace.
pub fn idmapped(path: &Path, userns: BorrowedFd<'_>, attrs: Attrs, recursive: bool) -> Result<OwnedFd> {
    let mount = clone_tree(path, recursive)?;
    set_attrs(mount.as_fd(), attrs, Attrs::empty(), recursive)?;
    match sys::mount::mount_setattr(mount.as_fd(), c"", recursive, 0, 0, 0, Some(userns)) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            Err(Error::sys("ID-map the mount of", libc::EINVAL).at(path).kinded(Kind::Unsupported))
        }
        r => r.op_at("ID-map the mount of", path).map(|()| mount),
    }
}

/// Attaches a detached mount on top of `target`.
pub(crate) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>, name: &Path) -> Result<()> {
    rustix::mount::move_mount(
        mount,
        "",
        target,
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
    .op_at("move_mount to", name)
}

/// A new file system instance as a detached mount (fsopen(2), Linux 5.2). Options are `key` or `key=value`.
pub(crate) fn new_fs(fstype: &str, source: Option<&str>, options: &[String], attrs: Attrs) -> Result<OwnedFd> {
    let fs = rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).op(format!("fsopen {fstype}"))?;
    let fail = |what: String, e: rustix::io::Errno| {
        let log = kernel_log(fs.as_fd());
        let e = Error::sys(what, e.raw_os_error());
        if log.is_empty() {
            e
        } else {
            e.within(format!("the kernel says \"{log}\""))
        }
    };
    // As mount(8) would show it: software greps for "proc on /proc".
    let source = source.unwrap_or(fstype);
    rustix::mount::fsconfig_set_string(fs.as_fd(), "source", source)
        .map_err(|e| fail(format!("fsconfig {fstype} source={source}"), e))?;
    for o in options {
        match o.split_once('=') {
            Some((k, v)) => rustix::mount::fsconfig_set_string(fs.as_fd(), k, v),
            None => rustix::mount::fsconfig_set_flag(fs.as_fd(), o.as_str()),
        }
        .map_err(|e| fail(format!("mount option {o} of {fstype}"), e))?;
    }
    rustix::mount::fsconfig_create(fs.as_fd()).map_err(|e| fail(format!("create {fstype}"), e))?;
    let attrs = MountAttrFlags::from_bits_retain(attrs.bits() as u32);
    rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attrs).op(format!("fsmount {fstype}"))
}

/// What a file system context has to say about a failure: its messages, without their one-letter class.
fn kernel_log(fs: BorrowedFd<'_>) -> String {
    let mut out = Vec::new();
    let mut buf = [0u8; 512];
    while let Ok(n) = rustix::io::read(fs, &mut buf) {
        if n == 0 || out.len() > 4 {
            break;
        }
        let text = String::from_utf8_lossy(&buf[..n]);
        out.push(text.trim_end().trim_start_matches(['e', 'w', 'i']).trim_start().to_owned());
    }
    out.join("; ")
}

/// A file system whose files can be made mounts of their own. Before Linux 6.15 those of a detached mount cannot: until this
/// is dropped it is then attached at a place.
#[derive(Debug)]
pub(crate) struct Copyable {
    fs: OwnedFd,
    attached: bool,
}

impl Copyable {
    /// `place` is a path below `root`, for lack of a better.
    pub(crate) fn new(fs: OwnedFd, root: &Root, place: &Path) -> Result<Self> {
        let attached = clone_fd(fs.as_fd(), false).is_err();
        if attached {
            attach(fs.as_fd(), root.find(place)?.as_fd(), place)?;
        }
        Ok(Copyable { fs, attached })
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fs.as_fd()
    }
}

impl Drop for Copyable {
    fn drop(&mut self) {
        use std::os::fd::AsRawFd;
        if self.attached {
            let path = format!("/proc/self/fd/{}", self.fs.as_raw_fd());
            let _ = nix::mount::umount2(path.as_str(), nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// What a mount target must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Node {
    /// A directory.
    Dir,
    /// Anything else.
    File,
}

fn normal(c: Component<'_>) -> Option<&OsStr> {
    match c {
        Component::Normal(n) => Some(n),
        _ => None,
    }
}

/// An absolute path without `.` and `..`. `..` is refused rather than guessed at: beyond a link it could mean anything.
pub(crate) fn normalize(path: &Path) -> Result<PathBuf> {
    if !path.is_absolute() || path.components().any(|c| c == Component::ParentDir) {
        return Err(Error::new(
            Kind::InvalidConfig,
            "a path inside the container must be absolute and without \"..\":",
        )
        .at(path));
    }
    Ok(path.components().collect())
}

/// Whether it is a directory.
pub(crate) fn is_dir(fd: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let st = rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)?;
    Ok(rustix::fs::FileType::from_raw_mode(st.st_mode) == rustix::fs::FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside() {
        let d = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", d.path().join("abs")).unwrap();
        std::os::unix::fs::symlink("../../../../../../etc", d.path().join("rel")).unwrap();
        let root = Root::open(d.path()).unwrap();
        // The link leads to <root>/etc, which does not exist: never to the host's.
        assert!(root.find(Path::new("/abs/passwd")).is_err());
        std::fs::create_dir(d.path().join("etc")).unwrap();
        root.make(Path::new("/abs/x/y"), Node::File).unwrap();
        root.make(Path::new("/rel/z"), Node::Dir).unwrap();
        assert!(d.path().join("etc/x/y").is_file());
        assert!(d.path().join("etc/z").is_dir());
        assert_eq!(root.resolve(Path::new("/rel/x")).unwrap(), Path::new("/etc/x"));
    }

    #[test]
    fn targets_of_the_wrong_sort_are_refused() {
        let d = tempfile::tempdir().unwrap();
        std::fs::write(d.path().join("f"), "").unwrap();
        let root = Root::open(d.path()).unwrap();
        assert!(root.make(Path::new("/f"), Node::Dir).is_err());
        assert!(root.make(Path::new("/"), Node::File).is_err());
        assert!(root.make(Path::new("/a/../b"), Node::Dir).is_err());
        std::os::unix::fs::symlink("loop", d.path().join("loop")).unwrap();
        assert!(root.make(Path::new("/loop"), Node::Dir).is_err());
    }

    #[test]
    fn links_to_nothing_are_followed_and_stay_inside() {
        let d = tempfile::tempdir().unwrap();
        let root = Root::open(d.path()).unwrap();
        std::fs::create_dir(d.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("../run/resolve/stub.conf", d.path().join("etc/resolv.conf")).unwrap();
        std::os::unix::fs::symlink("/../../nowhere/at", d.path().join("abs")).unwrap();
        root.make(Path::new("/etc/resolv.conf"), Node::File).unwrap();
        root.make(Path::new("/abs/all"), Node::Dir).unwrap();
        assert!(d.path().join("run/resolve/stub.conf").is_file());
        assert!(d.path().join("nowhere/at/all").is_dir());
        assert_eq!(root.intended(Path::new("/etc/resolv.conf")), Path::new("/run/resolve/stub.conf"));
        assert_eq!(root.intended(Path::new("/abs/x/y")), Path::new("/nowhere/at/x/y"));
    }

    proptest::proptest! {
        /// Whether there are links or not makes a difference to the way only.
        #[test]
        fn what_is_missing_is_found_either_way(
            links in proptest::collection::vec(("[ab](/[ab]){0,2}", "(/|\\.\\./)?[abc](/([abc]|\\.\\.)){0,2}"), 0..3),
            dirs in proptest::collection::vec("[ab](/[ab]){0,2}", 0..4), path in "/?[abc](/(\\.|\\.\\.|[abc])){0,3}",
        ) {
            let d = tempfile::tempdir().unwrap();
            for dir in dirs {
                let _ = std::fs::create_dir_all(d.path().join(dir));
            }
            for (link, target) in links {
                let _ = std::os::unix::fs::symlink(target, d.path().join(link));
            }
            let root = Root::open(d.path()).unwrap();
            let path = Path::new(&path);
            let intended = root.intended(path);
            proptest::prop_assert_eq!(&intended, &root.followed(path));
            if let Ok(clean) = normalize(&Path::new("/").join(path)) {
                let made = root.make(&clean, Node::Dir);
                proptest::prop_assert!(made.is_err() || root.find(&intended).is_ok(), "{clean:?} {intended:?}");
            }
        }
    }
}
