//! `sysbox_child_t`: a program that was run in a container.

use crate::boundary::{self, document_of, Handle, Out};
use crate::container::{parse, Container, ExitOut};
use crate::error::Error;
use crate::limit::limit;
use crate::options::{self, ExecOptions, WaitOptions};
use crate::status::Status;
use crate::streams::{streams, Given};
use std::os::fd::IntoRawFd;
use std::sync::atomic::AtomicBool;
use sysbox_core::error::SysResult;

/// A program that runs in a container beside its init, and is a child of this process: it must be waited for, since while it is a
/// zombie the container's init cannot end. Any number of threads may use it at a time.
#[derive(Debug)]
pub struct Child {
    poisoned: AtomicBool,
    child: sysbox_core::Child,
}

impl Handle for Child {
    const NAME: &'static str = "child";
    fn poisoned(&self) -> &AtomicBool {
        &self.poisoned
    }
}

/// Runs a program in a container. Blocks until it has been executed. It gets the namespaces, the capabilities, the seccomp profile and
/// the control group of a process of the container.
///
/// If it fails, is canceled, or takes too long, the program does not run, or runs no more.
///
/// @param process a JSON object as `process` of an OCI config.json. Copied
/// @param process_size its size in bytes
/// @param options NULL: all defaults; in particular, the program has the caller's standard streams
/// @param[out] child the new handle, to be freed with `sysbox_child_free`
/// @return `SYSBOX_ERR_WRONG_STATE` unless the container is created or running; `SYSBOX_ERR_PROGRAM_NOT_FOUND`,
/// `SYSBOX_ERR_PROGRAM_NOT_EXECUTABLE`; `SYSBOX_ERR_BUSY` if it does not get to run because its control group is frozen
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_exec(
    container: *const Container,
    process: *const u8,
    process_size: usize,
    options: *const ExecOptions,
    child: *mut *mut Child,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Container| unsafe {
        let out = Out::new(child, "child")?;
        let o = options::read(options)?;
        let limit = limit(o.cancel, o.timeout_ms)?;
        let given = Given { streams: [o.stdin_fd, o.stdout_fd, o.stderr_fd], console: o.console_fd };
        let stdio = streams(given, o.fds, o.fd_count)?;
        let process = parse(document_of(process, process_size, "process")?, "process")?;
        let child = c.container.exec_within(&process, sysbox_core::ExecOptions { stdio }, &limit)?;
        out.give(Child { poisoned: AtomicBool::new(false), child });
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(container, err, body) }
}

/// Its pid, as the host numbers processes; 0 if `child` is NULL.
#[no_mangle]
pub unsafe extern "C" fn sysbox_child_pid(child: *const Child) -> i32 {
    // SAFETY: by the rules of the header.
    unsafe { boundary::at(child, "child") }.map_or(0, |c| c.child.pid())
}

/// A descriptor that becomes readable when it ends (pidfd_open(2)), for any event loop.
///
/// @param[out] pidfd a new descriptor, close-on-exec, that the caller closes
#[no_mangle]
pub unsafe extern "C" fn sysbox_child_pidfd(child: *const Child, pidfd: *mut i32, err: *mut *mut Error) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Child| unsafe {
        let out = Out::new(pidfd, "pidfd")?;
        out.set(c.child.pidfd().try_clone_to_owned().op("dup")?.into_raw_fd());
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(child, err, body) }
}

/// Sends it a signal.
///
/// @param signal a SIG* number
/// @return `SYSBOX_ERR_SYSTEM` with ESRCH if it has ended
#[no_mangle]
pub unsafe extern "C" fn sysbox_child_kill(child: *const Child, signal: i32, err: *mut *mut Error) -> Status {
    let body = |c: &Child| Ok(c.child.kill(signal)?);
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(child, err, body) }
}

/// Waits until it has ended, says how, and reaps it. As `sysbox_container_wait`.
///
/// @param options NULL: waits without a limit
/// @param[out] exit_code the exit code; 128 plus the number if a signal ended it. May be NULL
/// @param[out] exit_signal the number of that signal, 0 if it was none. May be NULL
#[no_mangle]
pub unsafe extern "C" fn sysbox_child_wait(
    child: *const Child,
    options: *const WaitOptions,
    exit_code: *mut i32,
    exit_signal: *mut i32,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Child| unsafe {
        let out = ExitOut::new(exit_code, exit_signal)?;
        let o = options::read(options)?;
        out.set(c.child.wait_within(&limit(o.cancel, o.timeout_ms)?)?);
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(child, err, body) }
}

/// Frees a handle, and reaps the program if it has ended. One that runs goes on running. NULL is fine.
#[no_mangle]
pub unsafe extern "C" fn sysbox_child_free(child: *mut Child) {
    // SAFETY: by the rules of the header.
    unsafe { boundary::free(child) }
}
