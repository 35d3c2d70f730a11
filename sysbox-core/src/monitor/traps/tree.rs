//! Nodes on mounts of proc and sysfs: found, copied, put there and taken away, with the rights of the process that does it.

use crate::mount::{self, Attrs, Propagation};
use crate::mountinfo;
use crate::procfs::attach::{LIVE_SOURCE, SOURCE};
use crate::sys::fd;
use nix::mount::MntFlags;
use rustix::fs::{openat, openat2, statx, AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags, CWD};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const PLACE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// A file system that nodes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tree {
    Proc,
    Sysfs,
}

impl Tree {
    pub(super) fn of_type(fstype: &CStr) -> Option<Tree> {
        match fstype.to_bytes() {
            b"proc" => Some(Tree::Proc),
            b"sysfs" => Some(Tree::Sysfs),
            _ => None,
        }
    }

    pub(super) fn of(file: BorrowedFd<'_>) -> Option<Tree> {
        // linux/magic.h
        match rustix::fs::fstatfs(file).ok()?.f_type as u64 {
            0x9fa0 => Some(Tree::Proc),
            0x6265_6572 => Some(Tree::Sysfs),
            _ => None,
        }
    }

    /// Where the container has it.
    fn path(self) -> &'static Path {
        Path::new(match self {
            Tree::Proc => "/proc",
            Tree::Sysfs => "/sys",
        })
    }

    pub(super) fn fstype(self) -> &'static CStr {
        match self {
            Tree::Proc => c"proc",
            Tree::Sysfs => c"sysfs",
        }
    }
}

/// A node as init has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    tree: Tree,
    /// Below the root of its file system.
    path: PathBuf,
    /// Of the mount.
    id: u64,
}

/// The nodes among init's mounts.
pub(super) fn nodes(mounts: &[mountinfo::Entry]) -> Vec<Node> {
    let node = |m: &mountinfo::Entry| {
        let tree = [Tree::Proc, Tree::Sysfs].into_iter().find(|t| m.point.starts_with(t.path()))?;
        let path = m.point.strip_prefix(tree.path()).ok().filter(|p| !p.as_os_str().is_empty())?.to_owned();
        Some(Node { tree, path, id: m.id })
    };
    mounts.iter().filter(|m| is_ours(m)).filter_map(node).collect()
}

/// By what a mount of the container's own can claim as well: who treats it as a node does to it what the container may do.
fn is_ours(m: &mountinfo::Entry) -> bool {
    matches!((m.fstype.as_str(), m.source.as_str()), ("tmpfs", SOURCE) | ("fuse", LIVE_SOURCE))
}

/// The file systems of nodes among a caller's mounts.
pub(super) fn devices(mounts: &[mountinfo::Entry]) -> Vec<(u32, u32)> {
    let mut devices: Vec<_> = mounts.iter().filter(|m| is_ours(m)).map(|m| m.dev).collect();
    devices.sort_unstable();
    devices.dedup();
    devices
}

/// A node: where it belongs, below the root of its file system, and a copy of it.
pub(super) type Leaf = (PathBuf, OwnedFd);

/// Copies of nodes, in init's mount namespace.
pub(super) fn take(tree: Tree, nodes: &[Node]) -> Vec<Leaf> {
    let copy = |node: &Node| {
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(CWD, tree.path().join(&node.path), PLACE, Mode::empty(), resolve).ok()?;
        // It may be gone, or covered by something else.
        look(&file).filter(|s| s.stx_mnt_id == node.id)?;
        let copy = mount::clone_fd(file.as_fd(), false).ok()?;
        // systemd makes all mounts shared: what is mounted over the copy would be mounted over init's as well.
        mount::set_propagation(copy.as_fd(), Propagation::Private, false).ok()?;
        Some((node.path.clone(), fd::dup_above(copy.as_fd(), super::act::OWN).ok()?))
    };
    nodes.iter().filter(|n| n.tree == tree).filter_map(copy).collect()
}

/// What the kernel knows of a file without asking who serves it.
fn look(file: &OwnedFd) -> Option<Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    statx(file, c"", flags, StatxFlags::MNT_ID).ok()
}

/// Puts nodes onto a procfs or sysfs, as far as it has these files.
pub(super) fn furnish(top: &OwnedFd, leaves: &[Leaf]) {
    if Tree::of(top.as_fd()).is_none() {
        return;
    }
    let readonly = rustix::fs::fstatvfs(top).is_ok_and(|s| s.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    for (path, leaf) in leaves {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let Ok(target) = openat2(top, path, flags, Mode::empty(), resolve) else { continue };
        if readonly && mount::set_attrs(leaf.as_fd(), Attrs::RDONLY, Attrs::empty(), false).is_err() {
            continue;
        }
        let _ = mount::attach(leaf.as_fd(), target.as_fd(), path);
    }
}

/// Unmounts a procfs or sysfs that would be busy by nothing but nodes: without them, which are put back if it is busy all the same. False: the
/// kernel has still to be asked.
pub(super) fn unmount(target: &CStr, flags: i32, nodes: &[Node], devices: &[(u32, u32)]) -> bool {
    let nofollow = if flags & libc::UMOUNT_NOFOLLOW != 0 { OFlags::NOFOLLOW } else { OFlags::empty() };
    let open = || openat(CWD, target, PLACE | nofollow, Mode::empty()).ok();
    let unmount = || nix::mount::umount2(target, MntFlags::from_bits_retain(flags));
    let Some(tree) = open().and_then(|top| Tree::of(top.as_fd())) else { return false };
    match unmount() {
        Ok(()) => return true,
        Err(nix::errno::Errno::EBUSY) => {}
        Err(_) => return false,
    }
    // Nothing of it may be open when it is unmounted.
    let removed = open().map(|top| remove(&top, tree, nodes, devices)).unwrap_or_default();
    if removed.is_empty() {
        return false;
    }
    let done = unmount().is_ok();
    if let (false, Some(top)) = (done, open()) {
        furnish(&top, &removed);
    }
    done
}

/// Takes nodes away; returns copies.
fn remove(top: &OwnedFd, tree: Tree, nodes: &[Node], devices: &[(u32, u32)]) -> Vec<Leaf> {
    let Ok(here) = openat(CWD, ".", PLACE, Mode::empty()) else { return Vec::new() };
    if rustix::process::fchdir(top).is_err() {
        return Vec::new();
    }
    let remove = |node: &Node| {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(top, &node.path, PLACE, Mode::empty(), resolve).ok()?;
        look(&file).filter(|s| devices.contains(&(s.stx_dev_major, s.stx_dev_minor)))?;
        let copy = mount::clone_fd(file.as_fd(), false).ok()?;
        nix::mount::umount2(&node.path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).ok()?;
        Some((node.path.clone(), copy))
    };
    let removed = nodes.iter().filter(|n| n.tree == tree).filter_map(remove).collect();
    let _ = rustix::process::fchdir(&here);
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_told_by_what_they_are_of() {
        let table = "\
            46 42 0:39 / / rw - overlay overlay rw\n\
            50 46 0:41 / /proc rw - proc proc rw\n\
            51 50 0:42 /3 /proc/sys/kernel/panic rw - tmpfs sysbox-nodes rw\n\
            52 50 0:43 /0 /proc/meminfo rw - fuse sysbox-live rw\n\
            53 50 0:44 /x /proc/stat rw - tmpfs tmpfs rw\n\
            54 46 0:43 /1 /sys/devices/system/cpu/online rw - fuse sysbox-live rw\n\
            55 46 0:42 / /procession rw - tmpfs sysbox-nodes rw\n";
        let mounts = mountinfo::parse_all(table);
        let found: Vec<_> = nodes(&mounts).into_iter().map(|n| (n.tree, n.path, n.id)).collect();
        let is = |tree, path: &str, id| (tree, PathBuf::from(path), id);
        assert_eq!(
            found,
            [
                is(Tree::Proc, "sys/kernel/panic", 51),
                is(Tree::Proc, "meminfo", 52),
                is(Tree::Sysfs, "devices/system/cpu/online", 54)
            ]
        );
        assert_eq!(devices(&mounts), [(0, 42), (0, 43)]);
    }
}
