//! The stage program: single-threaded, short-lived, the only part that works with privilege.
//!
//! It gets one request over the socket that is its descriptor 0, applies it and answers. What it did is learnt from that
//! socket, never from its wait status.

mod agent;
mod birth;
mod copy;
mod create;
mod exec;
mod hooks;
mod init;
mod launch;
mod monitor;
mod names;
mod nsfs;
mod overlay;
mod tree;
mod unit;
mod userns;

use crate::error::{Error, Kind, Result, Stage, SysResult};
use crate::host::probe::probe;
use crate::protocol::{Fd, Reply, Request, Work, STAGE_NAME, VERSION};
use crate::sys::channel::Channel;
use crate::sys::{cred, fd};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// To be called first in `main` of a program that is its own stage, while there is one thread. Returns at once unless the library
/// started this process as a stage, which argv\[0\] tells; otherwise does the stage's work and ends the process.
pub fn dispatch() {
    if std::env::args_os().next().is_some_and(|a| a == STAGE_NAME) {
        std::process::exit(main());
    }
}

/// The whole stage program, for a `main` that is nothing else; returns its exit status.
///
/// Takes over the process: resets signals and umask, closes descriptors from 3 on, changes namespaces and identity. It must have
/// one thread, since a process with more cannot enter a user namespace (setns(2)).
pub fn main() -> i32 {
    match fd::adopt(0) {
        Ok(s) => answer(&Channel::new(UnixStream::from(s))),
        Err(_) => {
            eprintln!("{STAGE_NAME}: started by hand; it is run by the library");
            2
        }
    }
}

/// The stage in a forked copy of the caller. The socket takes the place of standard input, as in the program.
pub(crate) fn main_on(socket: Channel) -> i32 {
    let socket = socket.into_fd();
    match fd::dup_to(socket.as_fd(), 0) {
        // The caller's copies of whatever is open are closed by number; none of their owners in this copy is ever dropped.
        Ok(()) => {
            std::mem::forget(socket);
            main()
        }
        Err(_) => 1,
    }
}

fn answer(channel: &Channel) -> i32 {
    match work(channel) {
        Ok(()) => 0,
        Err(e) => {
            // The caller may be gone; there is nobody else to tell.
            let _ = channel.send(&Reply::Failed(e.in_stage(Stage::Stage)), &[]);
            1
        }
    }
}

fn work(channel: &Channel) -> Result<()> {
    // A host may have left anything behind: ignored signals, a umask, descriptors without close-on-exec.
    cred::reset_signals();
    fd::close_range(3, u32::MAX).op("close_range")?;
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    // What this process stands in, init would stand in: it must be what pivot_root replaces.
    nix::unistd::chdir("/").op("chdir")?;
    cred::set_dumpable(false).op("prctl PR_SET_DUMPABLE")?;
    let (request, fds) = channel.expect::<Request>("the caller")?;
    if request.version != VERSION {
        return Err(Error::new(
            Kind::OtherBuild,
            format!("the stage program is of build {VERSION}, the library of build {}", request.version),
        )
        .hint("install library and stage of the same build"));
    }
    if request.fds.len() != fds.len() {
        return Err(Error::new(Kind::Protocol, "descriptors are missing from the request"));
    }
    let fds = Fds(request.fds.into_iter().zip(fds).collect());
    match request.work {
        Work::Create(plan) => create::create(channel, &plan, fds),
        Work::Exec(exec) => exec::exec(channel, &exec, fds),
        Work::Unit { name, change } => {
            unit::change(&name, &change).and_then(|()| channel.send(&Reply::Done(None), &[]))
        }
        Work::Monitor(work) => monitor::restart(channel, &work, fds),
        Work::Look(look) => monitor::look(channel, &look, fds),
        Work::Probe => channel.send(&Reply::Probed(probe()), &[]),
        Work::Userns(maps) => userns::make(&maps).and_then(|fd| channel.send(&Reply::Done(None), &[fd.as_fd()])),
        Work::Hooks { hooks, state, point } => {
            hooks::run_here(&hooks, &state, &point, Some(channel)).and_then(|()| channel.send(&Reply::Done(None), &[]))
        }
    }
}

/// The descriptors of a request, by purpose.
#[derive(Debug)]
struct Fds(Vec<(Fd, OwnedFd)>);

impl Fds {
    fn get(&self, what: Fd) -> Option<&OwnedFd> {
        self.0.iter().find(|(f, _)| *f == what).map(|(_, fd)| fd)
    }

    fn take(&mut self, what: Fd) -> Option<OwnedFd> {
        let i = self.0.iter().position(|(f, _)| *f == what)?;
        Some(self.0.swap_remove(i).1)
    }

    /// Gives standard streams that are pipes to the container's root, so that software inside can open them by
    /// /dev/stdout. Never devices and files: they are the host's.
    fn own_pipes(&self, (uid, gid): (u32, u32)) -> Result<()> {
        use rustix::fs::{fchown, fstat, FileType, Gid, Uid};
        for (what, fd) in &self.0 {
            if matches!(what, Fd::Stdio(_)) {
                let st = fstat(fd).op("fstat")?;
                if FileType::from_raw_mode(st.st_mode) == FileType::Fifo {
                    fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).op("chown a standard stream")?;
                }
            }
        }
        Ok(())
    }

    /// Standard and preserved streams: number in the container and descriptor.
    fn take_numbered(&mut self) -> Vec<(i32, OwnedFd)> {
        let mut out = Vec::new();
        for (what, fd) in std::mem::take(&mut self.0) {
            match what {
                Fd::Stdio(n) | Fd::Preserved(n) => out.push((n, fd)),
                other => self.0.push((other, fd)),
            }
        }
        out
    }
}
