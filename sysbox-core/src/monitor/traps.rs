//! Answers to trapped calls: mounts of proc and sysfs made inside get the container's nodes, and sysinfo(2) its figures.
//!
//! Nothing is decided here about what a caller may do. A call that has nothing to do with nodes goes on in the kernel as if there
//! were no filter. For one that mounts a procfs or sysfs, a child of the monitor becomes what the caller is ([`act`]), makes the
//! same call, and puts nodes onto what was mounted. Whenever something is not as it should be, and also if the kernel refuses the child,
//! the call goes on in the kernel: the mount is made then, without nodes, or the caller gets the kernel's own error.
//!
//! All that may wait for the container is done by that child: its memory may be a file of a file system that does not answer. The monitor
//! receives, forks, and gives the answer, which is the child's exit status. A child that takes too long is killed, and the
//! caller gets an error. One that cannot even be killed, since it waits in a file system, is left alone, and from a number of those
//! on nothing is done for the container's callers any more. A child that has one of its own ends after that, so that it counts for both.

mod act;
mod caller;
mod tree;

use super::Trapped;
use crate::error::{Result, SysResult};
use crate::mountinfo;
use crate::plan::traps::FROM_DESCRIPTOR;
use crate::procfs::live::Sources;
use crate::seccomp::Arch;
use crate::sys::channel;
use crate::sys::clone::{self, Fork};
use crate::sys::pidfd::{self, Exit};
use crate::sys::seccomp::{self, Answer, Notification};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{AtFlags, Mode, OFlags};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Calls that are served at a time; others wait in the kernel.
const CALLS: usize = 16;
/// Of these, for a user other than the container's root, and for all such users together. A call takes up to [`PATIENCE`] if its caller
/// wants it to, and needs no right for that.
const CALLS_OF_USER: usize = 4;
const CALLS_OF_USERS: usize = 12;
/// Calls beyond that, which wait here; from there on such a user's are left to the kernel.
const WAITING: usize = 64;
/// Children, those that cannot be killed among them, from which on all calls are left to the kernel.
const CHILDREN: usize = 32;
/// Connections over which a listener may still come.
const CONNECTIONS: usize = 128;
/// Listeners: one for each program that was run by exec and has processes left.
const LISTENERS: usize = super::sandbox::DESCRIPTORS_WITH_TRAPS as usize / 2;

/// How much of a list of mounts is looked at.
const MOUNTS: u64 = 1 << 20;

/// A child's exit status, if it has not done the call: the kernel is to make it.
const CONTINUE: i32 = 1;
/// The same, if nobody knows whether it has.
const LOST: i32 = 2;

/// What the traps of one container need.
#[derive(Debug)]
pub(super) struct Traps {
    host: Host,
    connections: Vec<OwnedFd>,
    listeners: Vec<Rc<OwnedFd>>,
    calls: Vec<Call>,
    waiting: Vec<Waiting>,
    /// The nodes as init has them.
    nodes: Vec<tree::Node>,
    /// Nodes have been put onto a mount, so that somebody may want to unmount it.
    furnished: bool,
}

/// What a child needs of the host; it closes all of it before it enters a namespace of the container.
#[derive(Debug)]
struct Host {
    /// The host's procfs.
    proc: OwnedFd,
    /// The container's init (pidfd), and its number.
    init: OwnedFd,
    init_pid: i32,
    /// Of v1, directories until [`Traps::open_cgroups`], then files that take 0.
    v1: Vec<OwnedFd>,
    /// A file that takes 0, in milliseconds.
    v2: Option<OwnedFd>,
}

/// A call that is being served.
#[derive(Debug)]
struct Call {
    listener: Rc<OwnedFd>,
    id: u64,
    user: u32,
    /// It may put nodes somewhere.
    mounts: bool,
    child: OwnedFd,
    /// `None`: it has been answered, and the child told to end.
    deadline: Option<Instant>,
}

/// A call that is to be served.
#[derive(Debug)]
struct Waiting {
    listener: Rc<OwnedFd>,
    notification: Notification,
    /// Whose it is: an ID of the container.
    user: u32,
    request: Request,
}

/// What is to be done, as far as the call's registers tell.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Request {
    Mount,
    MoveMount,
    Unmount,
    /// With what is to be written to the caller's memory.
    Sysinfo(Vec<u8>),
}

impl Traps {
    /// To be called while the host's /proc can be opened.
    pub(super) fn new(trapped: Trapped, init: BorrowedFd<'_>) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open("/proc", flags, Mode::empty()).op_at("open", "/proc")?;
        let init = init.try_clone_to_owned().op("dup")?;
        let host = Host { proc, init, init_pid: trapped.init, v1: trapped.v1, v2: trapped.v2 };
        Ok(Traps {
            host,
            connections: Vec::new(),
            listeners: Vec::new(),
            calls: Vec::new(),
            waiting: Vec::new(),
            nodes: Vec::new(),
            furnished: trapped.furnished,
        })
    }

    /// As the container's root, whom these files belong to: no other user's process can be moved by them.
    pub(super) fn open_cgroups(&mut self) -> Result<()> {
        let open = |dir: &OwnedFd| {
            rustix::fs::openat(dir, "tasks", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).op("open tasks")
        };
        self.host.v1 = self.host.v1.iter().map(open).collect::<Result<_>>()?;
        Ok(())
    }

    /// Whoever has connected to the monitor may leave a listener.
    pub(super) fn connected(&mut self, socket: OwnedFd) {
        if self.connections.len() >= CONNECTIONS {
            self.connections.remove(0);
        }
        self.connections.push(socket);
    }

    /// Adds what is to be waited for.
    pub(super) fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.extend(self.calls.iter().map(|c| PollFd::new(&c.child, PollFlags::IN)));
        fds.extend(self.connections.iter().map(|c| PollFd::new(c, PollFlags::IN)));
        // That nobody is left to make a call is said in any case.
        let wanted = if self.active() < CALLS { PollFlags::IN } else { PollFlags::empty() };
        fds.extend(self.listeners.iter().map(|l| PollFd::from_borrowed_fd(l.as_fd(), wanted)));
    }

    fn active(&self) -> usize {
        self.calls.iter().filter(|c| c.deadline.is_some()).count()
    }

    /// Whether a call of this user may be served now.
    fn has_place(&self, user: u32) -> bool {
        let active =
            |who: fn(u32, u32) -> bool| self.calls.iter().filter(|c| c.deadline.is_some() && who(c.user, user)).count();
        let others = active(|of, _| of != 0) < CALLS_OF_USERS && active(|of, user| of == user) < CALLS_OF_USER;
        self.active() < CALLS && (user == 0 || others)
    }

    /// How long until a call takes too long.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let first = self.calls.iter().filter_map(|c| c.deadline).min()?;
        Some(first.saturating_duration_since(Instant::now()))
    }

    /// Does what there is to do; `events` are those of what [`Traps::watch`] has added.
    pub(super) fn serve(&mut self, events: &[PollFlags], sources: &mut Sources) {
        let mut events = events.iter();
        let mut next = || events.next().copied().unwrap_or(PollFlags::empty());
        let furnished = &mut self.furnished;
        self.calls.retain_mut(|c| next().is_empty() || !c.ended(furnished));
        let listeners = &mut self.listeners;
        let known = listeners.len();
        self.connections.retain(|c| next().is_empty() || !take_listener(c, listeners));
        if self.listeners.len() > known {
            // A program is about to run, so that init has attached them by now, or those of this monitor in place of another's.
            self.nodes = self.host.nodes().unwrap_or_default();
        }
        for waiting in std::mem::take(&mut self.waiting) {
            // Its thread may have been killed.
            if seccomp::is_waiting(waiting.listener.as_fd(), waiting.notification.id) {
                self.begin(waiting);
            }
        }
        let told: Vec<PollFlags> = (0..known).map(|_| next()).collect();
        for (i, told) in told.iter().enumerate() {
            if told.contains(PollFlags::IN) && self.active() < CALLS {
                self.receive(&self.listeners[i].clone(), sources);
            }
        }
        let now = Instant::now();
        self.calls.iter_mut().for_each(|c| c.limit(now));
        let mut told = told.into_iter();
        let over = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        self.listeners.retain(|_| !told.next().is_some_and(|t| t.intersects(over)));
    }

    fn receive(&mut self, listener: &Rc<OwnedFd>, sources: &mut Sources) {
        // An error is a caller that has been killed meanwhile.
        let Ok(notification) = seccomp::receive(listener.as_fd()) else { return };
        let wanted = |r: &Request| *r != Request::Unmount || self.furnished;
        match request(&notification, sources).filter(wanted) {
            Some(request) => {
                let user = self.host.user(notification.pid);
                self.begin(Waiting { listener: listener.clone(), notification, user, request });
            }
            None => drop(seccomp::answer(listener.as_fd(), notification.id, Answer::Continue)),
        }
    }

    /// Starts to serve a call, or puts it by, or leaves it to the kernel.
    fn begin(&mut self, call: Waiting) {
        let id = call.notification.id;
        let child = if self.calls.len() >= CHILDREN {
            None
        } else if self.has_place(call.user) {
            start(&self.host, call.listener.as_fd(), &call.notification, &call.request, &self.nodes).ok()
        } else if self.waiting.len() < WAITING {
            return self.waiting.push(call);
        } else {
            None
        };
        match child {
            Some(child) => self.calls.push(Call {
                listener: call.listener,
                id,
                user: call.user,
                mounts: matches!(call.request, Request::Mount | Request::MoveMount),
                child,
                deadline: Some(Instant::now() + PATIENCE),
            }),
            None => drop(seccomp::answer(call.listener.as_fd(), id, Answer::Continue)),
        }
    }
}

impl Call {
    /// Gives the child's answer, if it has ended.
    fn ended(&mut self, furnished: &mut bool) -> bool {
        let answer = match pidfd::reap(self.child.as_fd()) {
            Ok(Some(Exit::Code(0))) => Answer::Done,
            Ok(Some(Exit::Code(CONTINUE))) => Answer::Continue,
            Ok(Some(Exit::Code(_) | Exit::Signal(_))) => Answer::Errno(libc::EIO),
            Ok(None) | Err(_) => return false,
        };
        // Killed ones may have mounted something.
        *furnished |= self.mounts && answer != Answer::Continue;
        if self.deadline.is_some() {
            let _ = seccomp::answer(self.listener.as_fd(), self.id, answer);
        }
        true
    }

    /// Makes an end of it, if it takes too long.
    fn limit(&mut self, now: Instant) {
        if self.deadline.is_some_and(|d| d <= now) {
            self.deadline = None;
            let _ = pidfd::kill(self.child.as_fd(), act::END);
            // One that somebody has stopped must not keep its own child from being gone.
            let _ = pidfd::kill(self.child.as_fd(), libc::SIGCONT);
            let _ = seccomp::answer(self.listener.as_fd(), self.id, Answer::Errno(libc::ETIMEDOUT));
        }
    }
}

impl Host {
    fn nodes(&self) -> Option<Vec<tree::Node>> {
        let name = format!("{}/mountinfo", self.init_pid);
        let file = rustix::fs::openat(&self.proc, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        Some(tree::nodes(&mounts(file)?))
    }

    /// Whose a thread is. Its directory is its effective user's, whatever it is otherwise; nobody's if there is none.
    fn user(&self, tid: u32) -> u32 {
        const NOBODY: u32 = 65534;
        let of = rustix::fs::statat(&self.proc, rustix::path::DecInt::new(tid), AtFlags::SYMLINK_NOFOLLOW);
        of.map_or(NOBODY, |s| s.st_uid)
    }
}

/// The first part of such a list; a mount that is cut in the middle is none.
fn mounts(file: OwnedFd) -> Option<Vec<mountinfo::Entry>> {
    let mut text = Vec::new();
    File::from(file).take(MOUNTS).read_to_end(&mut text).ok()?;
    Some(mountinfo::parse_all(&String::from_utf8_lossy(&text)))
}

/// Whether the connection is of no more use.
fn take_listener(connection: &OwnedFd, listeners: &mut Vec<Rc<OwnedFd>>) -> bool {
    match channel::receive_fd(connection.as_fd()) {
        Ok(Some(listener)) => {
            // Dropped at the limit: its programs' calls fail then.
            if listeners.len() < LISTENERS {
                let _ = seccomp::set_synchronous(listener.as_fd());
                listeners.push(Rc::new(listener));
            }
            true
        }
        Ok(None) => true,
        Err(e) => !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted),
    }
}

/// `None`: nothing to do with us.
fn request(n: &Notification, sources: &mut Sources) -> Option<Request> {
    if Arch::native().is_none_or(|a| a.audit() != n.arch) {
        return None;
    }
    match i64::from(n.nr) {
        libc::SYS_mount => Some(Request::Mount),
        libc::SYS_move_mount if n.args[4] as u32 & FROM_DESCRIPTOR != 0 => Some(Request::MoveMount),
        libc::SYS_umount2 => Some(Request::Unmount),
        libc::SYS_sysinfo => sources.sysinfo(Some(n.pid)).ok().map(Request::Sysinfo),
        _ => None,
    }
}

/// Ends a child.
fn end(done: Option<()>) -> ! {
    clone::exit_now(if done.is_some() { 0 } else { CONTINUE })
}

/// A child for one call.
fn start(
    host: &Host,
    listener: BorrowedFd<'_>,
    n: &Notification,
    request: &Request,
    nodes: &[tree::Node],
) -> std::io::Result<OwnedFd> {
    match clone::fork(0, None)? {
        Fork::Child => {
            // What a panic unwound to would be the monitor, of which this is a copy.
            let done = catch_unwind(AssertUnwindSafe(|| act::serve(host, listener, n, request, nodes)));
            end(done.ok().flatten())
        }
        Fork::Parent { pidfd, .. } => Ok(pidfd),
    }
}
