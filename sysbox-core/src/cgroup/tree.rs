//! Walking the cgroups below a container's node.
//!
//! The container makes them, so nothing about them can be relied on: neither that they stay while we look, nor that their
//! number or depth is reasonable. The walk keeps one descriptor and no recursion, and names are relative: a tree deeper than
//! `PATH_MAX` is walked, and removed, like any other.

use super::file::gone;
use crate::error::{Result, SysResult};
use rustix::fs::{open, openat, unlinkat, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What to do on the way.
trait Visitor {
    /// At every cgroup, before those below it.
    fn enter(&mut self, cgroup: BorrowedFd<'_>) -> std::result::Result<(), Errno>;
    /// After everything below `name`, from its parent.
    fn leave(&mut self, parent: BorrowedFd<'_>, name: &CString);
}

/// Walks all of `top`, which may be gone.
fn walk(top: &Path, visitor: &mut impl Visitor) -> Result<()> {
    let mut here = match open(top, DIRECTORY, Mode::empty()) {
        Ok(fd) => fd,
        Err(e) if gone(&e) => return Ok(()),
        Err(e) => return Err(e).op_at("open", top),
    };
    visitor.enter(here.as_fd()).op_at("read", top)?;
    // For every level: what remains to be visited, the last being where we are or go.
    let mut levels = vec![children(&here).op_at("list", top)?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.last() else {
            levels.pop();
            let Some(name) = levels.last_mut().and_then(Vec::pop) else { break };
            here = openat(&here, c"..", DIRECTORY, Mode::empty()).op_at("open the parent of a cgroup below", top)?;
            visitor.leave(here.as_fd(), &name);
            continue;
        };
        let below = openat(&here, name, DIRECTORY, Mode::empty()).and_then(|fd| {
            visitor.enter(fd.as_fd())?;
            let names = children(&fd)?;
            Ok((fd, names))
        });
        match below {
            Ok((fd, names)) => {
                here = fd;
                levels.push(names);
            }
            Err(e) if gone(&e) => drop(level.pop()),
            Err(e) => return Err(e).op_at("visit a cgroup below", top),
        }
    }
    Ok(())
}

fn children(dir: &OwnedFd) -> std::result::Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Removes everything below `top`, as far as it is empty.
pub(super) fn prune(top: &Path) -> Result<()> {
    struct Remove;
    impl Visitor for Remove {
        fn enter(&mut self, _: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
            Ok(())
        }
        fn leave(&mut self, parent: BorrowedFd<'_>, name: &CString) {
            // Whatever stays keeps `top` from being removed, which is where it is noticed.
            let _ = unlinkat(parent, name, AtFlags::REMOVEDIR);
        }
    }
    walk(top, &mut Remove)
}

/// Thaws a v1 freezer cgroup and all below it, from the top: a child thaws only when its parents have.
pub(super) fn thaw(top: &Path) -> Result<()> {
    struct Thaw;
    impl Visitor for Thaw {
        fn enter(&mut self, cgroup: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            if let Ok(file) = rustix::fs::openat(cgroup, "freezer.state", flags, Mode::empty()) {
                let _ = rustix::io::write(&file, b"THAWED");
            }
            Ok(())
        }
        fn leave(&mut self, _: BorrowedFd<'_>, _: &CString) {}
    }
    walk(top, &mut Thaw)
}

/// The processes in `top` and below, unsorted.
pub(super) fn pids(top: &Path) -> Result<Vec<u32>> {
    struct Collect(Vec<u32>);
    impl Visitor for Collect {
        fn enter(&mut self, cgroup: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
            match read_procs(cgroup) {
                Ok(text) => self.0.extend(text.lines().filter_map(|l| l.parse::<u32>().ok()).filter(|p| *p != 0)),
                // The processes of a threaded cgroup are listed in its domain above.
                Err(Errno::OPNOTSUPP) => {}
                Err(e) if gone(&e) => {}
                Err(e) => return Err(e),
            }
            Ok(())
        }
        fn leave(&mut self, _: BorrowedFd<'_>, _: &CString) {}
    }
    let mut all = Collect(Vec::new());
    walk(top, &mut all)?;
    Ok(all.0)
}

fn read_procs(cgroup: BorrowedFd<'_>) -> std::result::Result<String, Errno> {
    use std::io::Read;
    let fd = openat(cgroup, c"cgroup.procs", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    match std::fs::File::from(fd).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(e) => Err(Errno::from_io_error(&e).unwrap_or(Errno::IO)),
    }
}
