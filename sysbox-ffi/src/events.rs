//! `sysbox_events_t`: noticing what becomes of a container, in any event loop.

use crate::boundary::{self, Handle, Out, Outcome};
use crate::container::Container;
use crate::error::Error;
use crate::status::Status;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use sysbox_core::container::{Event, Watch};

/// Nothing has happened.
pub const SYSBOX_EVENT_NONE: i32 = 0;
/// Its program was started.
pub const SYSBOX_EVENT_STARTED: i32 = 1;
/// It was frozen.
pub const SYSBOX_EVENT_PAUSED: i32 = 2;
/// It goes on.
pub const SYSBOX_EVENT_RESUMED: i32 = 3;
/// It ran out of memory, and something in it may have been killed.
pub const SYSBOX_EVENT_OOM: i32 = 4;
/// Its init has ended.
pub const SYSBOX_EVENT_STOPPED: i32 = 5;
/// It was deleted. There is no later event.
pub const SYSBOX_EVENT_DELETED: i32 = 6;

/// A watch on a container. Any number of threads may use it at a time; each event goes to one of them.
#[derive(Debug)]
pub struct Events {
    poisoned: AtomicBool,
    watch: Mutex<Watch>,
    fd: i32,
}

impl Handle for Events {
    const NAME: &'static str = "events";
    fn poisoned(&self) -> &AtomicBool {
        &self.poisoned
    }
}

/// Watches a container from now on. What this library does to it is seen, from whatever process, and what the kernel does;
/// not what others do to its control groups.
///
/// @param[out] events the new handle, to be freed with `sysbox_events_free`. It does not need the container's handle
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_watch(
    container: *const Container,
    events: *mut *mut Events,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Container| unsafe {
        let out = Out::new(events, "events")?;
        let watch = c.container.watch()?;
        let fd = watch.as_fd().as_raw_fd();
        out.give(Events { poisoned: AtomicBool::new(false), watch: Mutex::new(watch), fd });
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(container, err, body) }
}

/// A descriptor that is readable when `sysbox_events_next` should be called, for poll(2), epoll(7) and the like. Borrowed until the
/// handle is freed: not to be read from, and not to be closed. -1 if `events` is NULL.
#[no_mangle]
pub unsafe extern "C" fn sysbox_events_fd(events: *const Events) -> i32 {
    // SAFETY: by the rules of the header.
    unsafe { boundary::at(events, "events") }.map_or(-1, |e| e.fd)
}

/// The next event, without waiting for it. To be called until it says `SYSBOX_EVENT_NONE`; only then is the descriptor quiet. Things that
/// come and go between two calls may not be seen.
///
/// @param[out] event `SYSBOX_EVENT_*`; others may come with later versions
#[no_mangle]
pub unsafe extern "C" fn sysbox_events_next(events: *const Events, event: *mut i32, err: *mut *mut Error) -> Status {
    // SAFETY: by the rules of the header.
    let body = |e: &Events| -> Outcome {
        // SAFETY: by the rules of the header.
        let out = unsafe { Out::new(event, "event") }?;
        let mut watch = e.watch.lock().unwrap_or_else(PoisonError::into_inner);
        out.set(match watch.next_event()? {
            None => SYSBOX_EVENT_NONE,
            Some(Event::Started) => SYSBOX_EVENT_STARTED,
            Some(Event::Paused) => SYSBOX_EVENT_PAUSED,
            Some(Event::Resumed) => SYSBOX_EVENT_RESUMED,
            Some(Event::OutOfMemory) => SYSBOX_EVENT_OOM,
            Some(Event::Stopped) => SYSBOX_EVENT_STOPPED,
            Some(Event::Deleted) => SYSBOX_EVENT_DELETED,
        });
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(events, err, body) }
}

/// Ends a watch. NULL is fine.
#[no_mangle]
pub unsafe extern "C" fn sysbox_events_free(events: *mut Events) {
    // SAFETY: by the rules of the header.
    unsafe { boundary::free(events) }
}
