//! Copies what a directory holds into a new tmpfs (`tmpcopyup`).

use crate::error::{Result, SysResult};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// Files, directories and links, with owners and modes. Links are never followed.
pub(super) fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from, ".", flags, Mode::empty()).op("open")?;
    let target = rustix::fs::openat(to, ".", flags, Mode::empty()).op("open")?;
    entries(&source, &target)
}

fn entries(source: &OwnedFd, target: &OwnedFd) -> Result<()> {
    for entry in Dir::read_from(source).op("read directory")? {
        let entry = entry.op("read directory")?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let shown = Path::new(name.to_str().unwrap_or("?"));
        let st = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW).op_at("stat", shown)?;
        let mode = Mode::from_raw_mode(st.st_mode & 0o7777);
        let nofollow = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match FileType::from_raw_mode(st.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(target, name, mode).op_at("mkdir", shown)?;
                let open =
                    |d| rustix::fs::openat(d, name, OFlags::RDONLY | OFlags::DIRECTORY | nofollow, Mode::empty());
                entries(&open(source).op_at("open", shown)?, &open(target).op_at("open", shown)?)?;
            }
            FileType::RegularFile => {
                let r =
                    rustix::fs::openat(source, name, OFlags::RDONLY | nofollow, Mode::empty()).op_at("open", shown)?;
                let w = rustix::fs::openat(target, name, OFlags::WRONLY | OFlags::CREATE | nofollow, mode)
                    .op_at("create", shown)?;
                std::io::copy(&mut std::fs::File::from(r), &mut std::fs::File::from(w)).op_at("copy", shown)?;
            }
            FileType::Symlink => {
                let to = rustix::fs::readlinkat(source, name, Vec::new()).op_at("readlink", shown)?;
                rustix::fs::symlinkat(&to, target, name).op_at("symlink", shown)?;
            }
            // Sockets and the like have no content.
            _ => continue,
        }
        let (uid, gid) = (rustix::fs::Uid::from_raw(st.st_uid), rustix::fs::Gid::from_raw(st.st_gid));
        rustix::fs::chownat(target, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).op_at("chown", shown)?;
        if FileType::from_raw_mode(st.st_mode) != FileType::Symlink {
            rustix::fs::chmodat(target, name, mode, AtFlags::empty()).op_at("chmod", shown)?;
        }
    }
    Ok(())
}
