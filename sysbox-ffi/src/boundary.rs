//! The border to C: what comes in is checked here, and no panic gets out.

use crate::error::Error;
use crate::status::{self, Status, SYSBOX_ERR_INVALID_ARGUMENT, SYSBOX_ERR_PANIC, SYSBOX_ERR_POISONED, SYSBOX_OK};
use std::ffi::{c_char, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use sysbox_core::Kind;

/// Longest string, without its NUL: the kernel takes no longer path (PATH_MAX), and no longer ID map.
pub(crate) const MAX_TEXT: usize = 4095;
/// Longest document. A config.json is some 10 KiB.
pub(crate) const MAX_DOCUMENT: usize = 64 << 20;

/// Why a call fails.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    pub(crate) error: sysbox_core::Error,
}

impl From<sysbox_core::Error> for Failure {
    fn from(error: sysbox_core::Error) -> Self {
        Failure { status: status::of(error.kind()), error }
    }
}

impl Failure {
    pub(crate) fn argument(what: impl Into<String>) -> Self {
        Failure { status: SYSBOX_ERR_INVALID_ARGUMENT, error: sysbox_core::Error::new(Kind::InvalidConfig, what) }
    }

    fn bug(status: Status, what: impl Into<String>) -> Self {
        let hint = "this is a bug of the library: please report it";
        Failure { status, error: sysbox_core::Error::new(Kind::System, what).hint(hint) }
    }
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// A thing that C holds by an opaque pointer, and that a panic makes useless.
pub(crate) trait Handle {
    /// What error messages call it.
    const NAME: &'static str;
    fn poisoned(&self) -> &AtomicBool;
}

/// Runs the body of an export. On failure `*err` becomes a new error, unless `err` is NULL.
///
/// # Safety
/// `err` is NULL or may be written.
pub(crate) unsafe fn run(err: *mut *mut Error, body: impl FnOnce() -> Outcome) -> Status {
    // SAFETY: by this function's contract.
    unsafe { finish(err, caught(body)) }
}

/// As [`run`], with a handle. Fails if that is NULL or poisoned; a panic poisons it.
///
/// # Safety
/// `err` is NULL or may be written; `handle` is NULL or a live handle of its type.
pub(crate) unsafe fn with<H: Handle>(
    handle: *const H,
    err: *mut *mut Error,
    body: impl FnOnce(&H) -> Outcome,
) -> Status {
    // SAFETY: by this function's contract.
    let outcome = unsafe { handle_at(handle) }.and_then(|handle| {
        let outcome = caught(|| body(handle));
        if matches!(&outcome, Err(f) if f.status == SYSBOX_ERR_PANIC) {
            handle.poisoned().store(true, Ordering::Release);
        }
        outcome
    });
    // SAFETY: by this function's contract.
    unsafe { finish(err, outcome) }
}

/// A handle that is not poisoned.
///
/// # Safety
/// `handle` is NULL or a live handle of its type, and stays so for `'a`.
pub(crate) unsafe fn handle_at<'a, H: Handle>(handle: *const H) -> Outcome<&'a H> {
    // SAFETY: by this function's contract.
    let handle = unsafe { at(handle, H::NAME) }?;
    if handle.poisoned().load(Ordering::Acquire) {
        let what = format!("{}: a call with this handle hit a bug; it can only be freed", H::NAME);
        return Err(Failure::bug(SYSBOX_ERR_POISONED, what));
    }
    Ok(handle)
}

/// Runs `body`; the message of its panic if it does.
pub(crate) fn guarded<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    // What a panic leaves half done is behind the handle that gets poisoned.
    catch_unwind(AssertUnwindSafe(body)).map_err(|cause| {
        let text = cause.downcast_ref::<&str>().map(|s| (*s).to_owned()).or(cause.downcast_ref::<String>().cloned());
        // Dropping it may run anything, and panic again.
        std::mem::forget(cause);
        text.unwrap_or_else(|| "no message".into())
    })
}

fn caught(body: impl FnOnce() -> Outcome) -> Outcome {
    guarded(body).unwrap_or_else(|text| Err(Failure::bug(SYSBOX_ERR_PANIC, format!("panic: {text}"))))
}

/// # Safety
/// `err` is NULL or may be written.
unsafe fn finish(err: *mut *mut Error, outcome: Outcome) -> Status {
    let Err(failure) = outcome else { return SYSBOX_OK };
    let status = failure.status;
    if !err.is_null() && err.is_aligned() {
        // An error may hold anything; making it printable must not be what ends the program.
        let new = guarded(|| Box::into_raw(Box::new(Error::new(failure))));
        // SAFETY: by this function's contract.
        unsafe { err.write(new.unwrap_or(std::ptr::null_mut())) };
    }
    status
}

/// Frees a handle. NULL is fine.
///
/// # Safety
/// `handle` is NULL or came from [`Out::give`], is not freed yet and is in no other thread's use.
pub(crate) unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() && handle.is_aligned() {
        // SAFETY: by this function's contract; `give` has made it by `Box::into_raw`.
        let owned = unsafe { Box::from_raw(handle) };
        let _ = guarded(|| drop(owned));
    }
}

fn check<T>(p: *const T, name: &str) -> Outcome {
    if p.is_null() {
        return Err(Failure::argument(format!("{name} is NULL")));
    }
    if !p.is_aligned() {
        return Err(Failure::argument(format!("{name} is not a pointer to its type: it is not aligned")));
    }
    Ok(())
}

/// # Safety
/// `p` is NULL or points to a live `T` that stays so for `'a`.
pub(crate) unsafe fn at<'a, T>(p: *const T, name: &str) -> Outcome<&'a T> {
    check(p, name)?;
    // SAFETY: it is neither NULL nor unaligned; the rest by this function's contract.
    Ok(unsafe { &*p })
}

/// A string of at most [`MAX_TEXT`] bytes.
///
/// # Safety
/// `p` is NULL or points to bytes of which one within the first [`MAX_TEXT`] + 1 is NUL, or all of these are readable; they stay so
/// for `'a`.
pub(crate) unsafe fn bytes_of<'a>(p: *const c_char, name: &str) -> Outcome<&'a [u8]> {
    check(p, name)?;
    // SAFETY: reads up to the NUL or the limit, by this function's contract.
    let length = unsafe { libc::strnlen(p, MAX_TEXT + 1) };
    if length > MAX_TEXT {
        return Err(Failure::argument(format!("{name} is longer than {MAX_TEXT} bytes")));
    }
    // SAFETY: `length` bytes have just been read.
    Ok(unsafe { std::slice::from_raw_parts(p.cast(), length) })
}

/// # Safety
/// As [`bytes_of`].
pub(crate) unsafe fn text_of<'a>(p: *const c_char, name: &str) -> Outcome<&'a str> {
    // SAFETY: by this function's contract.
    let bytes = unsafe { bytes_of(p, name) }?;
    std::str::from_utf8(bytes).map_err(|_| Failure::argument(format!("{name} is not UTF-8")))
}

/// Paths need not be UTF-8.
///
/// # Safety
/// As [`bytes_of`].
pub(crate) unsafe fn path_of<'a>(p: *const c_char, name: &str) -> Outcome<&'a Path> {
    // SAFETY: by this function's contract.
    let bytes = unsafe { bytes_of(p, name) }?;
    if bytes.is_empty() {
        return Err(Failure::argument(format!("{name} is empty")));
    }
    Ok(Path::new(OsStr::from_bytes(bytes)))
}

/// As [`path_of`], where NULL means none.
///
/// # Safety
/// As [`bytes_of`].
pub(crate) unsafe fn maybe_path_of<'a>(p: *const c_char, name: &str) -> Outcome<Option<&'a Path>> {
    if p.is_null() {
        return Ok(None);
    }
    // SAFETY: by this function's contract.
    unsafe { path_of(p, name) }.map(Some)
}

/// `count` things in a row, at most `limit`. None may be at NULL.
///
/// # Safety
/// `p` is NULL, or points to `count` things that stay as they are for `'a`.
pub(crate) unsafe fn slice_of<'a, T>(p: *const T, count: usize, limit: usize, name: &str) -> Outcome<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    check(p, name)?;
    if count > limit {
        return Err(Failure::argument(format!("{name} has {count} elements, at most {limit} are taken")));
    }
    // SAFETY: it is neither NULL nor unaligned nor too long; the rest by this function's contract.
    Ok(unsafe { std::slice::from_raw_parts(p, count) })
}

/// A document.
///
/// # Safety
/// As [`slice_of`].
pub(crate) unsafe fn document_of<'a>(p: *const u8, size: usize, name: &str) -> Outcome<&'a [u8]> {
    check(p, name)?;
    // SAFETY: by this function's contract.
    unsafe { slice_of(p, size, MAX_DOCUMENT, name) }
}

/// Where a result goes. Checked before the work is done, written after it.
#[derive(Debug)]
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// `p` is NULL or may be written for as long as this lives.
    pub(crate) unsafe fn new(p: *mut T, name: &str) -> Outcome<Self> {
        check(p, name)?;
        Ok(Out(p))
    }

    /// As [`Out::new`], where NULL means that nobody wants to know.
    ///
    /// # Safety
    /// As [`Out::new`].
    pub(crate) unsafe fn maybe(p: *mut T, name: &str) -> Outcome<Option<Self>> {
        if p.is_null() {
            return Ok(None);
        }
        // SAFETY: by this function's contract.
        unsafe { Out::new(p, name) }.map(Some)
    }

    pub(crate) fn set(self, value: T) {
        // SAFETY: by the contract of `new`.
        unsafe { self.0.write(value) }
    }
}

impl<T> Out<*mut T> {
    /// Hands out a new handle; [`free`] takes it back.
    pub(crate) fn give(self, value: T) {
        self.set(Box::into_raw(Box::new(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[test]
    fn what_a_panic_carries_is_not_dropped() {
        assert_eq!(guarded(|| std::panic::panic_any(Bomb)), Err::<(), _>("no message".to_owned()));
        assert_eq!(guarded(|| panic!("{}", 1)), Err::<(), _>("1".to_owned()));
        // SAFETY: it is from Box::into_raw.
        unsafe { free(Box::into_raw(Box::new(Bomb))) };
    }
}
