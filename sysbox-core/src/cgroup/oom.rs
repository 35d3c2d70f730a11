//! Noticing that a container has run out of memory.

use super::file::{gone, keyed, read};
use super::layout::Version;
use super::manager::open_dir;
use super::paths::{Node, Paths};
use crate::error::{Errno, Error, Kind, Result, SysResult};
use crate::sys::fd::above;
use rustix::event::{eventfd, EventfdFlags};
use rustix::fs::{openat, Mode, OFlags};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Remembers that a container ran out of memory until it is asked.
///
/// v2: a process of it, inner containers included, was killed for want of memory, whichever limit was hit (`oom_kill` in `memory.events`,
/// cgroup-v2.rst). v1: its own limit or one above was hit (an eventfd on `memory.oom_control`, cgroup-v1/memory.rst, "OOM Control");
/// the kill counters of v1 would not do: each counts the victims in its very cgroup, and an inner engine removes that with them.
#[derive(Debug)]
pub struct OomWatch(Source);

#[derive(Debug)]
enum Source {
    V1 { event: OwnedFd, dir: PathBuf },
    V2 { events: PathBuf, seen: u64 },
}

impl Paths {
    /// Watches from now on. `None` where no memory controller looks after the container.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] if a v1 kernel does not report; the node cannot be opened.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>> {
        let Some(node) = self.node("memory") else { return Ok(None) };
        match node.version {
            Version::V1 => register(node).map(Some),
            Version::V2 => {
                let events = node.dir.join("memory.events");
                let seen = kills(&events)?;
                Ok(seen.map(|seen| OomWatch(Source::V2 { events, seen })))
            }
        }
    }
}

/// What tells that [`OomWatch::occurred`] may have something to say.
#[derive(Debug)]
pub(crate) enum Notice<'a> {
    /// It is readable.
    Fd(BorrowedFd<'a>),
    /// It is modified (inotify(7)).
    File(&'a Path),
}

impl OomWatch {
    pub(crate) fn notice(&self) -> Notice<'_> {
        match &self.0 {
            Source::V1 { event, .. } => Notice::Fd(event.as_fd()),
            Source::V2 { events, .. } => Notice::File(events),
        }
    }

    /// Whether it happened since the last call, or since the watch began. Never blocks. Of a container whose cgroup is gone nothing
    /// can be told any more, and it says `false`.
    ///
    /// # Errors
    /// The kernel's answer cannot be read.
    pub fn occurred(&mut self) -> Result<bool> {
        match &mut self.0 {
            Source::V1 { event, dir } => match rustix::io::read(&*event, &mut [0; 8]) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(false),
                // The removal of the cgroup is reported in the same way.
                r => r.op("read the eventfd of the container's memory cgroup").map(|_| dir.exists()),
            },
            Source::V2 { events, seen } => {
                let now = kills(events)?.unwrap_or(*seen);
                Ok(std::mem::replace(seen, now) < now)
            }
        }
    }
}

fn kills(events: &std::path::Path) -> Result<Option<u64>> {
    match read(events) {
        Err(e) if e.errno().is_some_and(|n| gone(&std::io::Error::from_raw_os_error(n))) => Ok(None),
        r => r.map(|text| keyed(&text, "oom_kill")),
    }
}

fn register(node: &Node) -> Result<OomWatch> {
    let dir = open_dir(&node.dir)?;
    let open = |file: &str, flags: OFlags| {
        openat(&dir, file, flags | OFlags::CLOEXEC, Mode::empty()).map_err(|e| refused(node, file, &e))
    };
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).op("eventfd")?;
    let event = above(event).op("dup")?;
    let (watched, control) =
        (open("memory.oom_control", OFlags::RDONLY)?, open("cgroup.event_control", OFlags::WRONLY)?);
    let line = format!("{} {}", event.as_raw_fd(), watched.as_raw_fd());
    rustix::io::write(&control, line.as_bytes()).map_err(|e| refused(node, "cgroup.event_control", &e))?;
    Ok(OomWatch(Source::V1 { event, dir: node.dir.clone() }))
}

/// A real-time kernel has no such file.
fn refused(node: &Node, file: &str, e: &impl Errno) -> Error {
    let error = Error::sys("ask for notice of want of memory through", e.errno()).at(node.dir.join(file));
    if matches!(e.errno(), libc::ENOENT | libc::EINVAL) && node.dir.exists() {
        return error.kinded(Kind::Unsupported).hint("this kernel does not report it on cgroup v1: use cgroup v2");
    }
    error
}
