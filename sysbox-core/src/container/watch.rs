//! Noticing what becomes of a container, in any event loop.

use super::Container;
use crate::cgroup::oom::Notice;
use crate::cgroup::OomWatch;
use crate::error::{Error, Kind, Result, SysResult};
use crate::state::Status;
use crate::sys::fd::above;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What has become of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Its program was started.
    Started,
    /// It was frozen.
    Paused,
    /// It goes on.
    Resumed,
    /// It ran out of memory, as [`OomWatch`] has it.
    OutOfMemory,
    /// Its init has ended.
    Stopped,
    /// It was deleted. There is no later event.
    Deleted,
}

/// A watch on a container. It remembers nothing but how it last saw the container: what comes and goes between two looks is not
/// seen. Its descriptor is readable when a look is worthwhile.
#[derive(Debug)]
pub struct Watch {
    container: Container,
    /// `None` once it was deleted.
    seen: Option<Status>,
    oom: Option<OomWatch>,
    /// Init and its memory are looked at: not while a container has none yet.
    joined: bool,
    epoll: OwnedFd,
    inotify: OwnedFd,
}

impl Container {
    /// Watches it from now on: what this library does to it, in any process, and what the kernel does. Whoever writes to its freezer
    /// by himself is not noticed. Needs no thread.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if it has been deleted; the kernel has no watches left (inotify(7)).
    pub fn watch(&self) -> Result<Watch> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).op("inotify_init")?;
        let inotify = above(inotify).op("dup")?;
        let changes = WatchFlags::ATTRIB
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::DELETE_SELF
            | WatchFlags::ONLYDIR;
        let gone = || Error::new(Kind::NotFound, format!("container {} has been deleted", self.id));
        match inotify::add_watch(&inotify, self.dir.path(), changes) {
            Err(rustix::io::Errno::NOENT) => return Err(gone()),
            r => r.op_at("watch", self.dir.path())?,
        };
        // Looked at anew: the handle may be old, and what it knows with it.
        let container = self.runtime.open(&self.id)?;
        if container.identity != self.identity {
            return Err(gone());
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).op("epoll_create")?;
        let epoll = above(epoll).op("dup")?;
        let mut watch = Watch { seen: None, container, oom: None, joined: false, epoll, inotify };
        watch.add(watch.inotify.as_fd())?;
        watch.join()?;
        watch.seen = Some(watch.container.status());
        if watch.seen == Some(Status::Stopped) {
            watch.forget_init();
        }
        Ok(watch)
    }
}

impl AsFd for Watch {
    /// Readable when [`Watch::next_event`] is worth a call. For poll(2) and the like only.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Watch {
    /// The next event, without waiting for it. The descriptor is quiet only after this has said `None`.
    ///
    /// # Errors
    /// The kernel's answers cannot be read.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        let Some(seen) = self.seen else { return Ok(None) };
        self.drain()?;
        self.join()?;
        if self.oom.as_mut().map_or(Ok(false), OomWatch::occurred)? {
            return Ok(Some(Event::OutOfMemory));
        }
        let exists = self.container.dir.identity().is_ok_and(|i| i == self.container.identity);
        let now = if exists { self.container.status() } else { Status::Stopped };
        if now == Status::Stopped {
            return Ok(match (seen, exists) {
                (Status::Stopped, true) => None,
                (Status::Stopped, false) => {
                    self.seen = None;
                    Some(Event::Deleted)
                }
                _ => {
                    self.seen = Some(Status::Stopped);
                    self.forget_init();
                    Some(Event::Stopped)
                }
            });
        }
        self.seen = Some(now);
        Ok(match (seen, now) {
            (a, b) if a == b => None,
            (_, Status::Paused) => Some(Event::Paused),
            (Status::Paused, _) => Some(Event::Resumed),
            (_, Status::Running) => Some(Event::Started),
            _ => None,
        })
    }

    fn add(&self, fd: BorrowedFd<'_>) -> Result<()> {
        epoll::add(&self.epoll, fd, EventData::new_u64(0), EventFlags::IN).op("epoll_ctl")
    }

    /// Looks at init, and at its memory, as soon as there is one.
    fn join(&mut self) -> Result<()> {
        if self.joined {
            return Ok(());
        }
        let Some(init) = self.container.pidfd() else { return Ok(()) };
        self.add(init)?;
        self.joined = true;
        // A kernel that does not report it is no reason not to watch the rest.
        self.oom = self.container.record().and_then(|r| r.cgroup.watch_oom()).ok().flatten();
        match self.oom.as_ref().map(OomWatch::notice) {
            Some(Notice::Fd(fd)) => self.add(fd)?,
            Some(Notice::File(file)) => {
                inotify::add_watch(&self.inotify, file, WatchFlags::MODIFY).op_at("watch", file)?;
            }
            None => {}
        }
        Ok(())
    }

    /// Its descriptor stays readable for ever.
    fn forget_init(&mut self) {
        if let Some(init) = self.container.pidfd().filter(|_| self.joined) {
            let _ = epoll::delete(&self.epoll, init.as_fd());
        }
    }

    fn drain(&self) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.inotify.as_fd(), &mut space);
        loop {
            match reader.next() {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(e) => return Err(e).op("read of inotify events"),
            }
        }
    }
}
