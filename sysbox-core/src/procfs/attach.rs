//! Puts nodes in place: everything here is done by a process inside, with the container's rights and no others.
//!
//! Every node covers one file or directory; nothing but that file is covered, so that a walk with `RESOLVE_NO_XDEV` to any other
//! setting crosses no mount, as runc's does. Nothing here protects anything: who unmounts a node sees the kernel's own.

use super::node::{name_uuid, Initial, Kind, Leaf};
use crate::error::{Error, Result, SysResult};
use crate::mount::{self, Attrs, Copyable, Root};
use rustix::fs::{accessat, openat2, Access, AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Source of the tmpfs that holds stored nodes, as /proc/self/mountinfo shows it.
pub const SOURCE: &str = "sysbox-nodes";

/// Source of the file system of live nodes, likewise.
pub const LIVE_SOURCE: &str = "sysbox-live";

/// Some 60 files of a page each, with room for an embedder's own. What is written counts to the container's memory.
const OPTIONS: [&str; 3] = ["mode=755", "size=1m", "nr_inodes=512"];

const HARDENED: Attrs = Attrs::NOSUID.union(Attrs::NODEV).union(Attrs::NOEXEC);

/// Attaches the stored nodes among `leaves`, and the empty and hidden ones, in this process's mount namespace, below the root
/// `root`. `name` is the container's.
///
/// Skipped are paths that do not exist, and stored nodes where this process may write the kernel's own file. The files belong to
/// the caller's user, which should be root of the container. Needs CAP_SYS_ADMIN over the mount namespace and Linux 5.12.
///
/// # Errors
/// A system call fails, with the node. What has been attached by then stays.
pub fn stored<'a>(leaves: impl IntoIterator<Item = &'a Leaf>, name: &str, root: BorrowedFd<'_>) -> Result<()> {
    let root = Root::new(root.try_clone_to_owned().op("dup")?);
    let (mut shelf, mut place) = (None, None);
    for node in leaves {
        if matches!(node.kind, Kind::Live(_)) {
            continue;
        }
        let Some(target) = wanted(node, &root, &mut place) else { continue };
        let shelf = match &mut shelf {
            Some(s) => s,
            empty => empty.insert(Shelf::new(&root)?),
        };
        shelf
            .leaf(node, name, &root, target.as_fd())
            .and_then(|leaf| mount::attach(leaf.as_fd(), target.as_fd(), &node.path))
            .map_err(|e| e.within(format!("node {}", node.path.display())))?;
    }
    Ok(())
}

/// What a node is to cover, unless the kernel's own is there to be used. What is copied from there is open for reading.
///
/// `place` is the directory of the last node: most nodes lie in the same one, and the walk there costs more than all else here.
fn wanted(node: &Leaf, root: &Root, place: &mut Option<(PathBuf, OwnedFd)>) -> Option<OwnedFd> {
    let (parent, name) = (node.path.parent()?, node.path.file_name()?);
    if place.as_ref().is_none_or(|(path, _)| path != parent) {
        *place = Some((parent.to_owned(), root.find(parent).ok()?));
    }
    let (_, dir) = place.as_ref()?;
    let open = |flags| openat2(dir, name, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    let copied = matches!(&node.kind, Kind::Stored { initial: Initial::Copy(path), .. } if *path == node.path);
    let readable = copied.then(|| open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY).ok()).flatten();
    let (target, is_link) = match readable.map_or_else(|| open(OFlags::PATH), Ok) {
        Err(Errno::LOOP) => (root.find(&node.path).ok()?, true),
        target => (target.ok()?, false),
    };
    // An open has the last word, since some files refuse only then; without a write it changes nothing. To be refused by access(2), as
    // most are, is much cheaper. That would follow a link from the process's own root.
    let may_write = || is_link || accessat(dir, name, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    let native = || may_write() && root.write(&node.path).is_ok();
    (node.is_fixed() || !native()).then_some(target)
}

/// The tmpfs with the nodes' files.
#[derive(Debug)]
struct Shelf {
    fs: Copyable,
    files: usize,
}

impl Shelf {
    fn new(root: &Root) -> Result<Self> {
        let options = OPTIONS.map(String::from);
        let fs = mount::new_fs("tmpfs", Some(SOURCE), &options, HARDENED)?;
        // Where nobody is at work yet.
        let place = ["/dev/mqueue", "/tmp", "/"].map(Path::new).into_iter().find(|p| root.find(p).is_ok());
        Ok(Shelf { fs: Copyable::new(fs, root, place.unwrap_or(Path::new("/")))?, files: 0 })
    }

    /// What covers `target`, as a detached mount.
    fn leaf(&mut self, node: &Leaf, name: &str, root: &Root, target: BorrowedFd<'_>) -> Result<OwnedFd> {
        let Kind::Stored { initial, mode } = &node.kind else { return self.empty(target) };
        let text = match initial {
            Initial::Text(text) => text.clone().into_bytes(),
            Initial::NameUuid => format!("{}\n", name_uuid(name)).into_bytes(),
            Initial::Copy(path) if *path == node.path => match read(target, path) {
                Err(_) => read(root.read(path)?.as_fd(), path)?,
                text => text?,
            },
            Initial::Copy(path) => read(root.read(path)?.as_fd(), path)?,
        };
        let label = self.files.to_string();
        self.files += 1;
        let mut file = std::fs::File::from(self.create(&label, *mode)?);
        file.write_all(&text).op("write")?;
        mount::clone_fd(file.as_fd(), false)
    }

    fn create(&self, label: &str, mode: u32) -> Result<OwnedFd> {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.fs.as_fd(), label, flags, Mode::from_raw_mode(mode)).op("create")?;
        // Not what the umask leaves of it.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).op("chmod")?;
        Ok(file)
    }

    /// An empty directory or file, whichever `target` is, that stays empty.
    fn empty(&self, target: BorrowedFd<'_>) -> Result<OwnedFd> {
        let found = if mount::is_dir(target).op("stat")? {
            match rustix::fs::mkdirat(self.fs.as_fd(), "dir", Mode::from_raw_mode(0o555)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(Error::sys("mkdir", e.raw_os_error())),
            }
            rustix::fs::openat(self.fs.as_fd(), "dir", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).op("open")?
        } else {
            self.create("file", 0)?
        };
        let leaf = mount::clone_fd(found.as_fd(), false)?;
        mount::set_attrs(leaf.as_fd(), Attrs::RDONLY, Attrs::empty(), false)?;
        Ok(leaf)
    }
}

/// One read: what is copied are single lines of the kernel's.
fn read(file: BorrowedFd<'_>, path: &Path) -> Result<Vec<u8>> {
    let mut text = vec![0; 512];
    let n = rustix::io::read(file, &mut text[..]).op_at("read", path)?;
    text.truncate(n);
    Ok(text)
}

/// Puts a live node, a detached mount of a file, over the kernel's file. Nothing happens where the kernel has none.
///
/// # Errors
/// move_mount(2) fails.
pub(crate) fn live(node: &Leaf, leaf: BorrowedFd<'_>, root: &Root) -> Result<()> {
    match root.find(&node.path) {
        Ok(target) => mount::attach(leaf, target.as_fd(), &node.path),
        Err(_) => Ok(()),
    }
}

/// Takes away what a monitor has left on the path of a node.
pub(crate) fn take_away(leaf: &Leaf) {
    let flags = nix::mount::MntFlags::MNT_DETACH | nix::mount::MntFlags::UMOUNT_NOFOLLOW;
    let _ = nix::mount::umount2(&leaf.path, flags);
}
