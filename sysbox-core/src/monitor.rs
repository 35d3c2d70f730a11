//! The monitor: a process that belongs to one container and serves its live nodes ([`crate::procfs::live`]).
//!
//! A container whose limits make no difference has none. It is born from the stage, in the creator's control groups, and ends with the
//! container's init. It can open nothing but the host's /proc, the list of CPUs and the container's control groups, all read-only
//! and through descriptors; it has no capability, a user ID that owns nothing on the host, no file system, and a filter of system calls.
//! Nothing of the container reaches it but requests to read a file. It never enters a namespace, and waits for nothing but them.
//!
//! It alone holds the FUSE device: when it dies, readers get an error at once ([`crate::fuse`]), and
//! [`crate::Container::restart_monitor`] puts another in its place.

mod sandbox;

use crate::cgroup::Paths;
use crate::error::{Errno, Result, SysResult};
use crate::fuse::{File, Owner, Progress, Server};
use crate::procfs::live::{Live, Sources};
use crate::sys::channel::Channel;
use crate::sys::{clone, cred, fd};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// What a monitor is given.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The FUSE device.
    pub(crate) dev: OwnedFd,
    /// The container's init (pidfd).
    pub(crate) init: OwnedFd,
    /// Where others ask whether it answers: a listening socket.
    pub(crate) control: OwnedFd,
    /// The container's control groups.
    pub(crate) cgroups: Paths,
    /// Of the container's time namespace, in nanoseconds.
    pub(crate) boottime_offset: i64,
    /// Whom the files belong to: host IDs of the container's root.
    pub(crate) root: (u32, u32),
    /// The nodes; the names of their files are [`file_name`]'s.
    pub(crate) nodes: Vec<Live>,
}

/// What it answers to whoever connects to its control socket.
pub(crate) const ALIVE: &[u8] = b"alive\n";

/// The name of the file of the node that is `index`th in [`Setup::nodes`].
pub(crate) fn file_name(index: usize) -> String {
    index.to_string()
}

/// The whole life of a monitor, in a forked copy of the stage in the host's namespaces. Tells `stage` when it serves, or why it cannot.
pub(crate) fn run(setup: Setup, stage: &Channel) -> ! {
    let ready = Monitor::new(setup, stage);
    let told = match &ready {
        Ok(_) => stage.send(&Ok::<(), crate::Error>(()), &[]),
        Err(e) => stage.send(&Err::<(), _>(e), &[]),
    };
    let served = match (ready, told) {
        // What a panic unwound to would be the stage, of which this is a copy.
        (Ok(mut monitor), Ok(())) => catch_unwind(AssertUnwindSafe(|| monitor.serve())).is_ok_and(|r| r.is_ok()),
        _ => false,
    };
    clone::exit_now(i32::from(!served))
}

#[derive(Debug)]
struct Monitor {
    server: Server,
    sources: Sources,
    nodes: Vec<Live>,
    init: OwnedFd,
    control: UnixListener,
}

impl Monitor {
    fn new(setup: Setup, stage: &Channel) -> Result<Self> {
        // Whatever else the stage has open: its line to the caller among it, who waits for that to close.
        let kept = [setup.dev.as_fd(), setup.init.as_fd(), setup.control.as_fd(), stage.as_fd()];
        fd::close_all_but(&kept).op("close_range")?;
        cred::set_name(c"sysbox-monitor").op("prctl PR_SET_NAME")?;
        let sources = Sources::open(&setup.cgroups, setup.boottime_offset)?;
        let (uid, gid) = setup.root;
        sandbox::enter(uid, gid)?;
        let files = (0..setup.nodes.len()).map(|i| File { name: file_name(i), mode: 0o444 }).collect();
        let server = Server::new(setup.dev, files, Owner { uid, gid });
        let control = UnixListener::from(setup.control);
        Ok(Monitor { server, sources, nodes: setup.nodes, init: setup.init, control })
    }

    /// Until the container or the file system has ended.
    fn serve(&mut self) -> Result<()> {
        loop {
            let wait = self.sources.next_tick().map(|d| Timespec {
                tv_sec: i64::try_from(d.as_secs()).unwrap_or(60),
                tv_nsec: d.subsec_nanos().into(),
            });
            let mut fds = [
                PollFd::new(&self.server, PollFlags::IN),
                PollFd::new(&self.init, PollFlags::IN),
                PollFd::new(&self.control, PollFlags::IN),
            ];
            match poll(&mut fds, wait.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).op("poll"),
            }
            let [requests, ended, asked] = fds.map(|f| !f.revents().is_empty());
            if ended {
                return Ok(());
            }
            if asked {
                self.answer();
            }
            if requests {
                let (sources, nodes) = (&mut self.sources, &self.nodes);
                let mut text = |file: usize, reader: crate::fuse::Reader| {
                    let node = *nodes.get(file).ok_or(libc::ENOENT)?;
                    let mut out = Vec::new();
                    sources.render(node, Some(reader.pid), &mut out).map_err(|e| e.errno())?;
                    Ok(out)
                };
                if self.server.serve(&mut text)? == Progress::Ended {
                    return Ok(());
                }
            }
            self.sources.tick();
        }
    }

    /// Whoever asks is on the host: the socket lies in the state directory.
    fn answer(&self) {
        if let Ok(socket) = rustix::net::accept_with(
            &self.control,
            rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
        ) {
            let _ = rustix::net::send(&socket, ALIVE, rustix::net::SendFlags::NOSIGNAL);
        }
    }
}
