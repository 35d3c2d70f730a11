//! A user namespace on its own.

use crate::error::{Result, SysResult};
use crate::idmap::Maps;
use crate::sys::clone::{self, Fork};
use crate::sys::pidfd;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// Makes one with these maps. It needs a process to be made and mapped, which is gone when this returns.
pub(super) fn make(maps: &Maps) -> Result<File> {
    let (ours, theirs) = UnixStream::pair().op("socketpair")?;
    match clone::fork(libc::CLONE_NEWUSER, None).op("clone a process in a new user namespace")? {
        Fork::Child => {
            drop(ours);
            // Ends when the parent lets go.
            let _ = std::io::Read::read(&mut &theirs, &mut [0]);
            clone::exit_now(0)
        }
        Fork::Parent { pid, pidfd } => {
            drop(theirs);
            let of = |name: &str| format!("/proc/{pid}/{name}");
            let made = [("uid_map", &maps.uid), ("gid_map", &maps.gid)]
                .into_iter()
                .try_for_each(|(name, map)| std::fs::write(of(name), map.to_string()).op_at("write", of(name)))
                .and_then(|()| File::open(of("ns/user")).op_at("open", of("ns/user")));
            drop(ours);
            let _ = pidfd::wait_gone(pidfd.as_fd(), -1);
            let _ = pidfd::reap(pidfd.as_fd());
            made
        }
    }
}
