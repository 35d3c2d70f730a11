//! `sysbox_error_t`: what went wrong.

use crate::boundary::{self, Failure};
use crate::status::{self as st, Status, SYSBOX_OK};
use std::ffi::{c_char, CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::ptr::null;
use sysbox_core::error::Stage;

/// It happened in the process that called the library.
pub const SYSBOX_STAGE_CALLER: i32 = 0;
/// It happened in the stage program, the privileged short-lived helper.
pub const SYSBOX_STAGE_STAGE: i32 = 1;
/// It happened in the container's init, or an exec'd process, before it executed the user's program.
pub const SYSBOX_STAGE_INIT: i32 = 2;

/// What went wrong. Never changes; may be handed from thread to thread and read by several at a time. Free it with
/// `sysbox_error_free`.
#[derive(Debug)]
pub struct Error {
    status: Status,
    errno: i32,
    stage: i32,
    operation: CString,
    path: Option<CString>,
    message: CString,
    advice: Option<CString>,
}

impl Error {
    pub(crate) fn new(Failure { status, error }: Failure) -> Self {
        Error {
            status,
            errno: error.errno().unwrap_or(0),
            stage: match error.stage() {
                Stage::Stage => SYSBOX_STAGE_STAGE,
                Stage::Init => SYSBOX_STAGE_INIT,
                _ => SYSBOX_STAGE_CALLER,
            },
            operation: c_text(error.operation().as_bytes()),
            path: error.path().map(|p| c_text(p.as_os_str().as_bytes())),
            message: c_text(error.to_string().as_bytes()),
            advice: error.advice().map(|a| c_text(a.as_bytes())),
        }
    }
}

/// A NUL inside ends the text for C in any case.
pub(crate) fn c_text(bytes: &[u8]) -> CString {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    CString::new(&bytes[..end]).unwrap_or_default()
}

/// # Safety
/// `error` is NULL or a live error.
unsafe fn at<'a>(error: *const Error) -> Option<&'a Error> {
    // SAFETY: by this function's contract.
    unsafe { boundary::at(error, "error") }.ok()
}

/// The status that the failed call returned. `SYSBOX_OK` if `error` is NULL.
#[no_mangle]
pub unsafe extern "C" fn sysbox_error_code(error: *const Error) -> Status {
    // SAFETY: by the rules of the header.
    unsafe { at(error) }.map_or(SYSBOX_OK, |e| e.status)
}

/// The errno of the system call that failed; 0 if none did, or if `error` is NULL.
#[no_mangle]
pub unsafe extern "C" fn sysbox_error_errno(error: *const Error) -> i32 {
    // SAFETY: by the rules of the header.
    unsafe { at(error) }.map_or(0, |e| e.errno)
}

/// The process in which it happened: `SYSBOX_STAGE_*`.
#[no_mangle]
pub unsafe extern "C" fn sysbox_error_stage(error: *const Error) -> i32 {
    // SAFETY: by the rules of the header.
    unsafe { at(error) }.map_or(SYSBOX_STAGE_CALLER, |e| e.stage)
}

/// What was being done, in a few words: the outermost operation that failed. UTF-8, borrowed until the error is freed; empty if
/// `error` is NULL.
#[no_mangle]
pub unsafe extern "C" fn sysbox_error_operation(error: *const Error) -> *const c_char {
    // SAFETY: by the rules of the header.
    unsafe { at(error) }.map_or(c"".as_ptr(), |e| e.operation.as_ptr())
}

/// The path that the failed operation was applied to, as bytes; NULL if there was none. Borrowed until the error is freed.
#[no_mangle]
pub unsafe extern "C" fn sysbox_error_path(error: *const Error) -> *const c_char {
    // SAFETY: by the rules of the header.
    unsafe { at(error) }.and_then(|e| e.path.as_deref()).map_or(null(), CStr::as_ptr)
}

/// All that is known, for people: the operation, its causes joined with ": ", and the advice in parentheses. UTF-8, borrowed until
/// the error is freed; empty if `error` is NULL.
#[no_mangle]
pub unsafe extern "C" fn sysbox_error_message(error: *const Error) -> *const c_char {
    // SAFETY: by the rules of the header.
    unsafe { at(error) }.map_or(c"".as_ptr(), |e| e.message.as_ptr())
}

/// What can be done about it; NULL if the library does not know. UTF-8, borrowed until the error is freed.
#[no_mangle]
pub unsafe extern "C" fn sysbox_error_advice(error: *const Error) -> *const c_char {
    // SAFETY: by the rules of the header.
    unsafe { at(error) }.and_then(|e| e.advice.as_deref()).map_or(null(), CStr::as_ptr)
}

/// Frees an error and all that was borrowed from it. NULL is fine.
#[no_mangle]
pub unsafe extern "C" fn sysbox_error_free(error: *mut Error) {
    // SAFETY: by the rules of the header.
    unsafe { boundary::free(error) }
}

/// The name of a status code, as in "SYSBOX_ERR_BUSY"; "unknown status" for a number that is none. Static.
#[no_mangle]
pub extern "C" fn sysbox_status_name(status: Status) -> *const c_char {
    match status {
        SYSBOX_OK => c"SYSBOX_OK",
        st::SYSBOX_ERR_INVALID_ARGUMENT => c"SYSBOX_ERR_INVALID_ARGUMENT",
        st::SYSBOX_ERR_INVALID_CONFIG => c"SYSBOX_ERR_INVALID_CONFIG",
        st::SYSBOX_ERR_REFUSED => c"SYSBOX_ERR_REFUSED",
        st::SYSBOX_ERR_NOT_FOUND => c"SYSBOX_ERR_NOT_FOUND",
        st::SYSBOX_ERR_EXISTS => c"SYSBOX_ERR_EXISTS",
        st::SYSBOX_ERR_WRONG_STATE => c"SYSBOX_ERR_WRONG_STATE",
        st::SYSBOX_ERR_DAMAGED => c"SYSBOX_ERR_DAMAGED",
        st::SYSBOX_ERR_UNSUPPORTED => c"SYSBOX_ERR_UNSUPPORTED",
        st::SYSBOX_ERR_EXHAUSTED => c"SYSBOX_ERR_EXHAUSTED",
        st::SYSBOX_ERR_BUSY => c"SYSBOX_ERR_BUSY",
        st::SYSBOX_ERR_PROGRAM_NOT_FOUND => c"SYSBOX_ERR_PROGRAM_NOT_FOUND",
        st::SYSBOX_ERR_PROGRAM_NOT_EXECUTABLE => c"SYSBOX_ERR_PROGRAM_NOT_EXECUTABLE",
        st::SYSBOX_ERR_SYSTEM => c"SYSBOX_ERR_SYSTEM",
        st::SYSBOX_ERR_PROTOCOL => c"SYSBOX_ERR_PROTOCOL",
        st::SYSBOX_ERR_OTHER_BUILD => c"SYSBOX_ERR_OTHER_BUILD",
        st::SYSBOX_ERR_TIMED_OUT => c"SYSBOX_ERR_TIMED_OUT",
        st::SYSBOX_ERR_CANCELED => c"SYSBOX_ERR_CANCELED",
        st::SYSBOX_ERR_PANIC => c"SYSBOX_ERR_PANIC",
        st::SYSBOX_ERR_POISONED => c"SYSBOX_ERR_POISONED",
        _ => c"unknown status",
    }
    .as_ptr()
}
