//! A stage program in memory: a copy of it that nobody can change, and that needs no file on the host.

use super::StageProgram;
use crate::error::{Error, Kind, Result, SysResult};
use crate::mount::{new_fs, Attrs};
use crate::sys::fd::above;
use rustix::fs::{
    fcntl_add_seals, fstatvfs, memfd_create, open, openat, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags,
};
use rustix::mount::FsPickFlags;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// `F_SEAL_EXEC` (Linux 6.3): the file stays executable.
const SEAL_EXEC: SealFlags = SealFlags::from_bits_retain(0x20);
/// `MFD_EXEC` (Linux 6.3): executable though `vm.memfd_noexec` is 1.
const MFD_EXEC: MemfdFlags = MemfdFlags::from_bits_retain(0x10);
/// File systems that may take a file without a name, and may be mounted `noexec`.
const DIRECTORIES: [&str; 4] = ["/run", "/var/tmp", "/tmp", "/dev/shm"];

impl StageProgram {
    /// A copy of a static `sysbox-stage` of this build, sealed against changes: in a memory file, or, on hosts that let none be
    /// executed (`vm.memfd_noexec` is 2), on a tmpfs of its own that is attached nowhere and read-only, or in a file without a name.
    /// Lives as long as this value and its clones.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] if the host lets none of them be executed.
    pub fn sealed(program: &[u8]) -> Result<StageProgram> {
        let tried = memory_file(program).or_else(|first| {
            own_tmpfs(program).or_else(|_| nameless_file(program)).map_err(|_| {
                let what = "keep the stage program in memory, executable:";
                first.within(what).kinded(Kind::Unsupported).hint("give the path of a sysbox-stage of this build")
            })
        });
        // It is executed as /proc/self/fd/N by a process whose standard input is another.
        let fd = above(tried?).op("dup")?;
        Ok(StageProgram::Fd(Arc::new(fd)))
    }
}

fn memory_file(program: &[u8]) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match memfd_create("sysbox-stage", flags | MFD_EXEC) {
        // Before Linux 6.3 every memory file is executable.
        Err(rustix::io::Errno::INVAL) => memfd_create("sysbox-stage", flags),
        r => r,
    };
    let fd = write(fd.op("memfd_create")?, program)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    // An older kernel does not know the last.
    fcntl_add_seals(&fd, seals | SEAL_EXEC).or_else(|_| fcntl_add_seals(&fd, seals)).op("seal a memory file")?;
    Ok(fd)
}

fn own_tmpfs(program: &[u8]) -> Result<OwnedFd> {
    let mount = new_fs("tmpfs", None, &["mode=0700".into()], Attrs::NOSUID | Attrs::NODEV)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let fd = openat(&mount, "sysbox-stage", flags, Mode::RWXU).op("create a file on a tmpfs")?;
    let fd = read_only(write(fd, program)?)?;
    let context = rustix::mount::fspick(&mount, "", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH);
    let context = context.op("fspick of a tmpfs")?;
    rustix::mount::fsconfig_set_flag(context.as_fd(), "ro").op("fsconfig of a tmpfs")?;
    rustix::mount::fsconfig_reconfigure(context.as_fd()).op("make a tmpfs read-only")?;
    Ok(fd)
}

fn nameless_file(program: &[u8]) -> Result<OwnedFd> {
    let mut last = Error::new(Kind::Unsupported, "no directory lets files be executed");
    for directory in DIRECTORIES {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::EXCL | OFlags::CLOEXEC;
        match open(directory, flags, Mode::RWXU).op_at("create a file without a name in", directory) {
            Ok(fd) if !fstatvfs(&fd).is_ok_and(|s| s.f_flag.contains(StatVfsMountFlags::NOEXEC)) => {
                return read_only(write(fd, program)?);
            }
            Ok(_) => {}
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn write(fd: OwnedFd, program: &[u8]) -> Result<OwnedFd> {
    let mut file = File::from(fd);
    file.write_all(program).op("write a copy of the stage program")?;
    Ok(file.into())
}

/// A file that is open for writing cannot be executed.
fn read_only(writable: OwnedFd) -> Result<OwnedFd> {
    let reopen = |fd: BorrowedFd<'_>| {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    };
    reopen(writable.as_fd()).op("open a copy of the stage program")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A copy of a program runs, and cannot be opened for writing.
    fn fit(test: &str, copy: fn(&[u8]) -> Result<OwnedFd>, sealed: bool) {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("SKIP {test}: not root");
        }
        let fd = copy(&std::fs::read("/bin/true").unwrap()).unwrap();
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        assert!(Command::new(&path).status().unwrap().success());
        if sealed {
            assert!(File::options().write(true).open(&path).and_then(|mut f| f.write_all(b"x")).is_err());
        }
    }

    #[test]
    fn a_memory_file_is_fit() {
        fit("a_memory_file_is_fit", memory_file, true);
    }

    #[test]
    fn a_tmpfs_is_fit() {
        fit("a_tmpfs_is_fit", own_tmpfs, true);
    }

    #[test]
    fn a_file_without_a_name_is_fit() {
        fit("a_file_without_a_name_is_fit", nameless_file, false);
    }
}
