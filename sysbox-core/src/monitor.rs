//! The monitor: a process that belongs to one container and serves its live nodes ([`crate::procfs::live`]).
//!
//! A container whose limits make no difference has none. It is born from the stage, in the creator's control groups, and ends with the
//! container's init. It can open nothing but the host's /proc, the list of CPUs and the container's control groups, all read-only
//! and through descriptors; it has no capability, a user ID that owns nothing on the host, no file system, and a filter of system calls.
//! Nothing of the container reaches it but requests to read a file. It never enters a namespace, and waits for nothing but them.
//!
//! Where the container's creator asks for nodes in inner containers, it answers trapped calls as well ([`traps`]). Then it is root of the
//! container, with rights that end there.
//!
//! It alone holds the FUSE device: when it dies, readers get an error at once ([`crate::fuse`]), and
//! [`crate::Container::restart_monitor`] puts another in its place.

mod sandbox;
mod traps;

use crate::cgroup::Paths;
use crate::error::{Errno, Result, SysResult};
use crate::fuse::{File, Owner, Progress, Server};
use crate::procfs::live::{Live, Sources};
use crate::sys::channel::Channel;
use crate::sys::{clone, cred, fd};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::panic::{catch_unwind, AssertUnwindSafe};
use traps::Traps;

/// What a monitor is given.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The FUSE device, if there are nodes to serve.
    pub(crate) dev: Option<OwnedFd>,
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
    /// What it needs to answer trapped calls, if it is to.
    pub(crate) traps: Option<Trapped>,
}

/// Whose calls are trapped.
#[derive(Debug)]
pub(crate) struct Trapped {
    /// Pid of the container's init.
    pub(crate) init: i32,
    /// Nodes may be on mounts made inside: another monitor has served before.
    pub(crate) furnished: bool,
    /// Where a process that does something for a caller becomes subject to the container's limits of memory, CPU and processes:
    /// directories of the container's own nodes.
    pub(crate) v1: Vec<OwnedFd>,
    /// The same: `cgroup.procs`, opened by the host's root, since v2 lets nobody else move a process in from outside.
    pub(crate) v2: Option<OwnedFd>,
}

/// What it answers to whoever connects to its control socket.
pub(crate) const ALIVE: &[u8] = b"alive\n";

/// The name of the file of the node that is `index`th in [`Setup::nodes`].
pub(crate) fn file_name(index: usize) -> String {
    index.to_string()
}

/// The whole life of a monitor, in a forked copy of the stage in the host's namespaces. Tells `stage` when it serves, or why it cannot.
pub(crate) fn run(setup: Setup, stage: Channel) -> ! {
    // What a panic unwound to would be the stage, of which this is a copy.
    let served = catch_unwind(AssertUnwindSafe(|| live(setup, stage)));
    clone::exit_now(i32::from(!served.is_ok_and(|r| r.is_ok())))
}

fn live(setup: Setup, stage: Channel) -> Result<()> {
    let mut monitor = match Monitor::new(setup, &stage) {
        Ok(monitor) => monitor,
        Err(e) => return stage.send(&Err::<Vec<usize>, _>(e), &[]),
    };
    stage.send(&Ok::<_, crate::Error>(monitor.available()), &[])?;
    drop(stage);
    monitor.serve()
}

/// The stage's arguments tell where the runtime and its state are, and /proc/PID/cmdline can be read by everybody: of a process that works for a
/// caller in its pid namespace, inside.
fn hide_arguments() -> Result<()> {
    let text = std::fs::read_to_string("/proc/self/stat").op_at("read", "/proc/self/stat")?;
    let Some((from, to)) = arguments(&text).filter(|(from, to)| from < to) else { return Ok(()) };
    let mut name = b"sysbox-monitor".to_vec();
    name.resize(usize::try_from(to - from).unwrap_or(0), 0);
    // The kernel takes a last byte other than zero for one that has grown into what follows.
    name.last_mut().into_iter().for_each(|b| *b = 0);
    let memory = std::fs::File::options().write(true).open("/proc/self/mem").op_at("open", "/proc/self/mem")?;
    memory.write_all_at(&name, from).op_at("write", "/proc/self/mem")
}

/// Where a process has its arguments, from its /proc/PID/stat.
fn arguments(stat: &str) -> Option<(u64, u64)> {
    // The name, second of all, may have anything in it.
    let mut rest = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(48 - 3);
    Some((rest.next()?.parse().ok()?, rest.next()?.parse().ok()?))
}

#[derive(Debug)]
struct Monitor {
    server: Option<Server>,
    sources: Sources,
    nodes: Vec<Live>,
    init: OwnedFd,
    control: UnixListener,
    traps: Option<Traps>,
}

impl Monitor {
    fn new(setup: Setup, stage: &Channel) -> Result<Self> {
        // Whatever else the stage has open: its line to the caller among it, who waits for that to close.
        let mut kept = vec![setup.init.as_fd(), setup.control.as_fd(), stage.as_fd()];
        kept.extend(setup.dev.as_ref().map(AsFd::as_fd));
        kept.extend(setup.traps.iter().flat_map(|t| t.v1.iter().chain(&t.v2)).map(AsFd::as_fd));
        fd::close_all_but(&kept).op("close_range")?;
        // A terminal's signals are for whoever made the container.
        rustix::process::setsid().op("setsid")?;
        cred::set_name(c"sysbox-monitor").op("prctl PR_SET_NAME")?;
        // Of use to none but the curious: a kernel may refuse.
        let _ = hide_arguments();
        let sources = Sources::open(&setup.cgroups, setup.boottime_offset)?;
        let (uid, gid) = setup.root;
        let mut traps = setup.traps.map(|t| Traps::new(t, setup.init.as_fd())).transpose()?;
        match &mut traps {
            Some(traps) => {
                sandbox::enter_container(setup.init.as_fd())?;
                traps.open_cgroups()?;
            }
            None => sandbox::enter(uid, gid)?,
        }
        let files = (0..setup.nodes.len()).map(|i| File { name: file_name(i), mode: 0o444 }).collect();
        let server = setup.dev.map(|dev| Server::new(dev, files, Owner { uid, gid }));
        let control = UnixListener::from(setup.control);
        Ok(Monitor { server, sources, nodes: setup.nodes, init: setup.init, control, traps })
    }

    /// Which nodes there are on this host.
    fn available(&mut self) -> Vec<usize> {
        let sources = &mut self.sources;
        self.nodes.iter().enumerate().filter(|(_, n)| sources.available(**n)).map(|(i, _)| i).collect()
    }

    /// Until the container or the file system has ended.
    fn serve(&mut self) -> Result<()> {
        loop {
            let ticks = self.sources.next_tick();
            let wait = ticks.into_iter().chain(self.traps.as_ref().and_then(Traps::next_deadline)).min();
            let wait = wait.map(|d| Timespec {
                tv_sec: i64::try_from(d.as_secs()).unwrap_or(60),
                tv_nsec: d.subsec_nanos().into(),
            });
            let mut fds = vec![PollFd::new(&self.init, PollFlags::IN), PollFd::new(&self.control, PollFlags::IN)];
            fds.extend(self.server.as_ref().map(|s| PollFd::new(s, PollFlags::IN)));
            let first = fds.len();
            if let Some(traps) = &self.traps {
                traps.watch(&mut fds);
            }
            match poll(&mut fds, wait.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).op("poll"),
            }
            let events: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
            let [ended, asked, requests] = [0, 1, 2].map(|i| i < first && !events[i].is_empty());
            if ended {
                return Ok(());
            }
            if let (true, Some(server)) = (requests, &mut self.server) {
                let (sources, nodes) = (&mut self.sources, &self.nodes);
                let mut text = |file: usize, reader: crate::fuse::Reader| {
                    let node = *nodes.get(file).ok_or(libc::ENOENT)?;
                    let mut out = Vec::new();
                    sources.render(node, Some(reader.pid), &mut out).map_err(|e| e.errno())?;
                    Ok(out)
                };
                if server.serve(&mut text)? == Progress::Ended {
                    self.server = None;
                    if self.traps.is_none() {
                        return Ok(());
                    }
                }
            }
            if let Some(traps) = &mut self.traps {
                traps.serve(&events[first..], &mut self.sources);
            }
            // Last, since it adds to what is watched.
            if asked {
                self.answer();
            }
            self.sources.tick();
        }
    }

    /// Whoever asks is on the host: the socket lies in the state directory.
    fn answer(&mut self) {
        if let Ok(socket) = rustix::net::accept_with(
            &self.control,
            rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
        ) {
            let _ = rustix::net::send(&socket, ALIVE, rustix::net::SendFlags::NOSIGNAL);
            if let Some(traps) = &mut self.traps {
                traps.connected(socket);
            }
        }
    }
}
