//! Copies the content of directories: into a new tmpfs (`tmpcopyup`), and of overlay layers onto each other.

use crate::error::{Result, SysResult};
use crate::inner_data::INNER_OPAQUE;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, XattrFlags};
use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Files, directories, links and pipes with their owners, modes, times and attributes. Links are never followed.
pub(super) fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    Copy { top: to, opaque: None, linked: HashMap::new() }.run(from)
}

/// As [`tree`], of a layer of an overlay onto a copy of those below it. Directories with the attribute `opaque` replace what is
/// there; a whiteout removes what is there.
///
/// A whiteout or opaque directory that has nothing below to hide belongs to another overlay, inside the container: it is
/// copied, as such overlays have it.
pub(super) fn layer(from: BorrowedFd<'_>, to: BorrowedFd<'_>, opaque: &str) -> Result<()> {
    Copy { top: to, opaque: Some(opaque), linked: HashMap::new() }.run(from)
}

struct Copy<'a> {
    top: BorrowedFd<'a>,
    opaque: Option<&'a str>,
    /// Copies of files with several names, by inode.
    linked: HashMap<(u64, u64), PathBuf>,
}

const NOFOLLOW: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);
const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(NOFOLLOW);

impl Copy<'_> {
    fn run(&mut self, from: BorrowedFd<'_>) -> Result<()> {
        let source = rustix::fs::openat(from, ".", DIR, Mode::empty()).op("open")?;
        let target = rustix::fs::openat(self.top, ".", DIR, Mode::empty()).op("open")?;
        self.entries(&source, &target, Path::new(""))?;
        let st = rustix::fs::fstat(&source).op("fstat")?;
        self.attributes(&source, &target, &st).op("copy attributes")
    }

    fn entries(&mut self, source: &OwnedFd, target: &OwnedFd, at: &Path) -> Result<()> {
        use std::os::unix::ffi::OsStrExt;
        for entry in Dir::read_from(source).op_at("read directory", at)? {
            let entry = entry.op_at("read directory", at)?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                let shown = at.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
                self.entry(source, target, name, &shown)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, source: &OwnedFd, target: &OwnedFd, name: &CStr, shown: &Path) -> Result<()> {
        let st = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW).op_at("stat", shown)?;
        let kind = FileType::from_raw_mode(st.st_mode);
        let mode = Mode::from_raw_mode(st.st_mode & 0o7777);
        let existing = rustix::fs::statat(target, name, AtFlags::SYMLINK_NOFOLLOW).ok();
        let is_dir = |st: &Stat| FileType::from_raw_mode(st.st_mode) == FileType::Directory;
        let whiteout = kind == FileType::CharacterDevice && st.st_rdev == 0;
        match kind {
            FileType::Directory => {
                let from = rustix::fs::openat(source, name, DIR, Mode::empty()).op_at("open", shown)?;
                let opaque = self.opaque.is_some_and(|o| has_mark(&from, o));
                let replace = existing.as_ref().is_some_and(|e| opaque || !is_dir(e));
                if replace {
                    remove(target, name, shown)?;
                }
                if replace || existing.is_none() {
                    rustix::fs::mkdirat(target, name, mode).op_at("mkdir", shown)?;
                }
                let to = rustix::fs::openat(target, name, DIR, Mode::empty()).op_at("open", shown)?;
                if opaque && existing.is_none() {
                    rustix::fs::fsetxattr(&to, INNER_OPAQUE, b"y", XattrFlags::empty()).op_at("setxattr", shown)?;
                }
                self.entries(&from, &to, shown)?;
                return self.attributes(&from, &to, &st).op_at("copy attributes of", shown);
            }
            // Of other devices and of sockets there is nothing to copy.
            FileType::CharacterDevice if whiteout && self.opaque.is_some() => {}
            FileType::RegularFile | FileType::Symlink | FileType::Fifo => {}
            _ => return Ok(()),
        }
        if existing.is_some() {
            remove(target, name, shown)?;
        }
        match kind {
            FileType::RegularFile => return self.file(source, target, name, shown, &st),
            FileType::Symlink => {
                let to = rustix::fs::readlinkat(source, name, Vec::new()).op_at("readlink", shown)?;
                rustix::fs::symlinkat(&to, target, name).op_at("symlink", shown)?;
            }
            _ if whiteout && existing.is_some() => return Ok(()),
            _ => rustix::fs::mknodat(target, name, kind, mode, 0).op_at("mknod", shown)?,
        }
        chown(target, name, &st).op_at("chown", shown)?;
        if kind != FileType::Symlink {
            rustix::fs::chmodat(target, name, mode, AtFlags::empty()).op_at("chmod", shown)?;
        }
        rustix::fs::utimensat(target, name, &times(&st), AtFlags::SYMLINK_NOFOLLOW).op_at("set the times of", shown)
    }

    fn file(&mut self, source: &OwnedFd, target: &OwnedFd, name: &CStr, shown: &Path, st: &Stat) -> Result<()> {
        if st.st_nlink > 1 {
            if let Some(first) = self.linked.get(&(st.st_dev, st.st_ino)) {
                return rustix::fs::linkat(self.top, first, target, name, AtFlags::empty()).op_at("link", shown);
            }
            self.linked.insert((st.st_dev, st.st_ino), shown.to_owned());
        }
        let from = rustix::fs::openat(source, name, OFlags::RDONLY | NOFOLLOW, Mode::empty()).op_at("open", shown)?;
        let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | NOFOLLOW;
        let to = rustix::fs::openat(target, name, new, Mode::from_raw_mode(0o600)).op_at("create", shown)?;
        // By copy_file_range(2), which shares the blocks where the file system can.
        let (mut from, mut to) = (std::fs::File::from(from), std::fs::File::from(to));
        std::io::copy(&mut from, &mut to).op_at("copy", shown)?;
        self.attributes(&from, &to, st).op_at("copy attributes of", shown)
    }

    /// Owner, mode, attributes, times: in this order, since each undoes some of those after it.
    fn attributes(&self, from: impl AsFd, to: impl AsFd, st: &Stat) -> rustix::io::Result<()> {
        let (uid, gid) = (rustix::fs::Uid::from_raw(st.st_uid), rustix::fs::Gid::from_raw(st.st_gid));
        rustix::fs::fchown(&to, Some(uid), Some(gid))?;
        rustix::fs::fchmod(&to, Mode::from_raw_mode(st.st_mode & 0o7777))?;
        let mut names = vec![0u8; 65536];
        let n = rustix::fs::flistxattr(&from, &mut names[..]).unwrap_or(0);
        let mut value = vec![0u8; 65536];
        for name in names[..n].split(|b| *b == 0).filter(|n| !n.is_empty()) {
            // How the engine's overlay reads its layers is not this copy's.
            if name.starts_with(b"trusted.overlay.") {
                continue;
            }
            let n = rustix::fs::fgetxattr(&from, name, &mut value[..])?;
            match rustix::fs::fsetxattr(&to, name, &value[..n], XattrFlags::empty()) {
                // Not everything that one file system keeps, another takes, nor is everything ours to set.
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {}
                Err(e) => return Err(e),
            }
        }
        rustix::fs::futimens(&to, &times(st))
    }
}

fn has_mark(dir: &OwnedFd, name: &str) -> bool {
    let mut mark = [0u8; 4];
    rustix::fs::fgetxattr(dir, name, &mut mark[..]).is_ok_and(|n| &mark[..n] == b"y")
}

fn times(st: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: st.st_atime as _, tv_nsec: st.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: st.st_mtime as _, tv_nsec: st.st_mtime_nsec as _ },
    }
}

fn chown(dir: &OwnedFd, name: &CStr, st: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(st.st_uid), rustix::fs::Gid::from_raw(st.st_gid));
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// With all that is below it.
fn remove(dir: &OwnedFd, name: &CStr, shown: &Path) -> Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(rustix::io::Errno::ISDIR) => {}
        r => return r.op_at("remove", shown),
    }
    let below = rustix::fs::openat(dir, name, DIR, Mode::empty()).op_at("open", shown)?;
    for entry in Dir::read_from(&below).op_at("read directory", shown)? {
        let entry = entry.op_at("read directory", shown)?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            remove(&below, entry.file_name(), shown)?;
        }
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).op_at("remove", shown)
}
