//! Paths inside a root file system.

use super::{is_dir, normal, normalize, Node};
use crate::error::{Error, Result, SysResult};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// A root directory in which paths are resolved as a process confined to it would.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

impl Root {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Root(fd)
    }

    pub(crate) fn open(path: &Path) -> Result<Self> {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .op_at("open", path)
            .map(Root)
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }

    fn open_raw(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        self.open_as(path, flags, ResolveFlags::NO_MAGICLINKS)
    }

    fn open_as(&self, path: &Path, flags: OFlags, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let rel = path.strip_prefix("/").unwrap_or(path);
        let rel = if rel.as_os_str().is_empty() { Path::new(".") } else { rel };
        loop {
            match rustix::fs::openat2(
                &self.0,
                rel,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::IN_ROOT | resolve,
            ) {
                // A rename anywhere on the host during the walk; the kernel asks to be called again.
                Err(rustix::io::Errno::AGAIN) => {}
                r => return r,
            }
        }
    }

    /// An `O_PATH` descriptor of `path`, links followed inside the root.
    pub(crate) fn find(&self, path: &Path) -> Result<OwnedFd> {
        self.open_raw(path, OFlags::PATH).op_at("open", path)
    }

    /// Opens for reading.
    pub(crate) fn read(&self, path: &Path) -> Result<std::fs::File> {
        self.open_raw(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY).op_at("open", path).map(Into::into)
    }

    /// Opens for writing.
    pub(crate) fn write(&self, path: &Path) -> Result<std::fs::File> {
        self.open_raw(path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY).op_at("open", path).map(Into::into)
    }

    /// Opens for reading and writing.
    pub(crate) fn update(&self, path: &Path) -> Result<std::fs::File> {
        self.open_raw(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY).op_at("open", path).map(Into::into)
    }

    /// As [`Root::find`], but makes what is missing: directories on the way, and the node itself.
    pub(crate) fn make(&self, path: &Path, node: Node) -> Result<OwnedFd> {
        let clean = normalize(path)?;
        match self.open_raw(&clean, OFlags::PATH) {
            Ok(fd) => {
                let is_dir = is_dir(fd.as_fd()).op_at("stat", path)?;
                return if is_dir == (node == Node::Dir) {
                    Ok(fd)
                } else {
                    let (is, wants) =
                        if is_dir { ("a directory", "a file") } else { ("not a directory", "a directory") };
                    Err(Error::invalid(format!("mount: the target is {is} and what is mounted there is {wants}:"))
                        .at(path))
                };
            }
            Err(rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(Error::sys("open", e.raw_os_error()).at(path)),
        }
        // As a rule only the last component is missing.
        let parent = clean.parent().and_then(|p| self.open_raw(p, OFlags::PATH).ok());
        if let Some(Ok(())) = parent.zip(clean.file_name()).map(|(parent, name)| create(&parent, name, node)) {
            return self.open_raw(&clean, OFlags::PATH).op_at("open the new mount point", path);
        }
        let clean = self.intended(&clean);
        let mut parent = self.open_raw(Path::new("/"), OFlags::PATH).op("open the root")?;
        let mut so_far = PathBuf::from("/");
        let names: Vec<&OsStr> = clean.components().filter_map(normal).collect();
        for (i, name) in names.iter().enumerate() {
            so_far.push(name);
            let last = i + 1 == names.len();
            parent = match self.open_raw(&so_far, OFlags::PATH) {
                Ok(fd) => fd,
                Err(rustix::io::Errno::NOENT) => {
                    match create(&parent, name, if last { node } else { Node::Dir }) {
                        Ok(()) => {}
                        // Somebody made it meanwhile.
                        Err(rustix::io::Errno::EXIST) => {}
                        Err(e) => return Err(Error::sys("create", e.raw_os_error()).at(&so_far)),
                    }
                    self.open_raw(&so_far, OFlags::PATH).op_at("open the new mount point", &so_far)?
                }
                Err(e) => return Err(Error::sys("open", e.raw_os_error()).at(&so_far)),
            };
        }
        Ok(parent)
    }

    /// What a path leads to in the end, as an absolute path inside the root.
    pub(crate) fn resolve(&self, path: &Path) -> Result<PathBuf> {
        let fd = self.find(path)?;
        let of = |fd: BorrowedFd<'_>| {
            use std::os::fd::AsRawFd;
            std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).op_at("readlink", path)
        };
        let (root, full) = (of(self.0.as_fd())?, of(fd.as_fd())?);
        Ok(Path::new("/").join(full.strip_prefix(&root).unwrap_or(&full)))
    }
}

impl Root {
    /// Where `path` would lead if what is missing on the way were made: links are followed though they lead to nothing yet,
    /// as /etc/resolv.conf of a systemd distribution does before systemd runs.
    pub(crate) fn intended(&self, path: &Path) -> PathBuf {
        // In the order of the walk: a link on the way is LOOP, whatever is missing after it.
        let plain = path.components().all(|c| c != Component::ParentDir);
        match self.open_as(path, OFlags::PATH, ResolveFlags::NO_SYMLINKS) {
            Ok(_) | Err(rustix::io::Errno::NOENT) if plain => Path::new("/").join(path).components().collect(),
            _ => self.followed(path),
        }
    }

    /// The same, link by link.
    pub(super) fn followed(&self, path: &Path) -> PathBuf {
        const MAX_LINKS: u32 = 40;
        let steps = |p: &Path| -> Vec<std::ffi::OsString> {
            let names = p.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
            names.map(|c| c.as_os_str().to_owned()).rev().collect()
        };
        let (mut todo, mut at, mut links) = (steps(path), PathBuf::from("/"), 0);
        while let Some(name) = todo.pop() {
            // Nothing in `at` is a link, so its parent is what it says.
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            match self.link(&next) {
                Some(target) if links < MAX_LINKS => {
                    links += 1;
                    if target.is_absolute() {
                        at = "/".into();
                    }
                    todo.extend(steps(&target));
                }
                _ => at = next,
            }
        }
        at
    }

    /// What a symbolic link holds; `None` for anything else.
    fn link(&self, path: &Path) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        let fd = self.open_raw(path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
        let text = rustix::fs::readlinkat(fd, "", Vec::new()).ok()?;
        Some(std::ffi::OsString::from_vec(text.into_bytes()).into())
    }
}

/// Makes a mount point; a link of that name is one that exists.
fn create(parent: &OwnedFd, name: &OsStr, node: Node) -> rustix::io::Result<()> {
    if node == Node::Dir {
        return rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755));
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
}
