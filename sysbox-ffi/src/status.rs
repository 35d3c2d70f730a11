//! Status codes. A number is never used again for something else.

use sysbox_core::Kind;

/// Result of a function that can fail: `SYSBOX_OK` or one of `SYSBOX_ERR_*`. New codes may come; treat one that you do not know as
/// a failure.
pub type Status = i32;

/// Done.
pub const SYSBOX_OK: i32 = 0;
/// An argument cannot be: NULL where that is not allowed, a string that is too long or not UTF-8, an unknown number, an option
/// structure of a size that this library does not know.
pub const SYSBOX_ERR_INVALID_ARGUMENT: i32 = 1;
/// A document is malformed or contradicts itself.
pub const SYSBOX_ERR_INVALID_CONFIG: i32 = 2;
/// A configuration asks for something that would break isolation.
pub const SYSBOX_ERR_REFUSED: i32 = 3;
/// There is no container, file, user or ID of that name.
pub const SYSBOX_ERR_NOT_FOUND: i32 = 4;
/// A container of that name exists already.
pub const SYSBOX_ERR_EXISTS: i32 = 5;
/// The container is not in a state that allows this.
pub const SYSBOX_ERR_WRONG_STATE: i32 = 6;
/// What is known of the container cannot be read; it can only be deleted, with force.
pub const SYSBOX_ERR_DAMAGED: i32 = 7;
/// The host, or this build of the library, lacks something that is needed.
pub const SYSBOX_ERR_UNSUPPORTED: i32 = 8;
/// The pool of subordinate IDs is empty.
pub const SYSBOX_ERR_EXHAUSTED: i32 = 9;
/// Somebody else is using it, or something that should have ended has not.
pub const SYSBOX_ERR_BUSY: i32 = 10;
/// The program to run does not exist in the container. Shells exit with 127.
pub const SYSBOX_ERR_PROGRAM_NOT_FOUND: i32 = 11;
/// The program to run exists and cannot be executed. Shells exit with 126.
pub const SYSBOX_ERR_PROGRAM_NOT_EXECUTABLE: i32 = 12;
/// A system call failed: see `sysbox_error_errno`.
pub const SYSBOX_ERR_SYSTEM: i32 = 13;
/// The stage program or the container's init spoke nonsense or died.
pub const SYSBOX_ERR_PROTOCOL: i32 = 14;
/// The stage program is of another build than this library.
pub const SYSBOX_ERR_OTHER_BUILD: i32 = 15;
/// The call's time was over.
pub const SYSBOX_ERR_TIMED_OUT: i32 = 16;
/// The call's `sysbox_cancel_t` was triggered.
pub const SYSBOX_ERR_CANCELED: i32 = 17;
/// The library has a bug and caught itself. The handle that was used answers `SYSBOX_ERR_POISONED` from now on.
pub const SYSBOX_ERR_PANIC: i32 = 18;
/// The handle was in use when the library caught itself at a bug. It can only be freed; the container is not affected, and can
/// be opened again.
pub const SYSBOX_ERR_POISONED: i32 = 19;

pub(crate) fn of(kind: Kind) -> Status {
    match kind {
        Kind::InvalidConfig => SYSBOX_ERR_INVALID_CONFIG,
        Kind::Refused => SYSBOX_ERR_REFUSED,
        Kind::NotFound => SYSBOX_ERR_NOT_FOUND,
        Kind::Exists => SYSBOX_ERR_EXISTS,
        Kind::WrongState => SYSBOX_ERR_WRONG_STATE,
        Kind::Damaged => SYSBOX_ERR_DAMAGED,
        Kind::Unsupported => SYSBOX_ERR_UNSUPPORTED,
        Kind::Exhausted => SYSBOX_ERR_EXHAUSTED,
        Kind::Busy => SYSBOX_ERR_BUSY,
        Kind::ProgramNotFound => SYSBOX_ERR_PROGRAM_NOT_FOUND,
        Kind::ProgramNotExecutable => SYSBOX_ERR_PROGRAM_NOT_EXECUTABLE,
        Kind::Protocol => SYSBOX_ERR_PROTOCOL,
        Kind::OtherBuild => SYSBOX_ERR_OTHER_BUILD,
        Kind::TimedOut => SYSBOX_ERR_TIMED_OUT,
        Kind::Canceled => SYSBOX_ERR_CANCELED,
        _ => SYSBOX_ERR_SYSTEM,
    }
}
