//! `sysbox_cancel_t`: ends calls of other threads.

use crate::boundary::{self, Handle, Out, Outcome};
use crate::error::Error;
use crate::status::Status;
use rustix::event::{eventfd, EventfdFlags};
use rustix::io::fcntl_dupfd_cloexec;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use sysbox_core::error::SysResult;

/// Ends calls that block, once and for all: it cannot be reset. One may be given to any number of calls, at the same time and one
/// after the other. Free it with `sysbox_cancel_free` when none of them runs any more.
#[derive(Debug)]
pub struct Cancel {
    poisoned: AtomicBool,
    /// Readable for ever once it was triggered.
    event: Arc<OwnedFd>,
}

impl Handle for Cancel {
    const NAME: &'static str = "cancel";
    fn poisoned(&self) -> &AtomicBool {
        &self.poisoned
    }
}

impl Cancel {
    pub(crate) fn readable(&self) -> Arc<OwnedFd> {
        self.event.clone()
    }
}

/// Makes one that is not triggered.
///
/// @param[out] cancel the new handle, to be freed with `sysbox_cancel_free`
#[no_mangle]
pub unsafe extern "C" fn sysbox_cancel_new(cancel: *mut *mut Cancel, err: *mut *mut Error) -> Status {
    // SAFETY: by the rules of the header.
    let body = || unsafe {
        let out = Out::new(cancel, "cancel")?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).op("eventfd")?;
        // Where the caller has closed his standard streams, it must not be taken for one of them.
        let event = fcntl_dupfd_cloexec(&event, 3).op("dup")?;
        out.give(Cancel { poisoned: AtomicBool::new(false), event: Arc::new(event) });
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::run(err, body) }
}

/// Ends the calls that it was given to, those of the future included, with `SYSBOX_ERR_CANCELED`. Again: does nothing. Does not wait
/// until they have returned.
///
/// Async-signal-safe, and leaves errno as it is. Fails only for NULL.
#[no_mangle]
pub unsafe extern "C" fn sysbox_cancel_trigger(cancel: *const Cancel) -> Status {
    let body = |cancel: &Cancel| -> Outcome {
        // EAGAIN: it is as full as can be, and readable.
        let _ = rustix::io::write(&cancel.event, &1u64.to_ne_bytes());
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(cancel, std::ptr::null_mut(), body) }
}

/// Frees it. No call that it was given to may be running. NULL is fine.
#[no_mangle]
pub unsafe extern "C" fn sysbox_cancel_free(cancel: *mut Cancel) {
    // SAFETY: by the rules of the header.
    unsafe { boundary::free(cancel) }
}
