//! Runs a program in a container that exists.

use super::{launch, Fds};
use crate::cgroup::Entry;
use crate::error::{Error, Kind, Result, Stage, SysResult};
use crate::mount::Root;
use crate::protocol::{Exec, Fd, Reply};
use crate::sys::channel::Channel;
use crate::sys::clone::{self, Fork};
use crate::sys::{cred, pty};
use nix::sched::{setns, CloneFlags};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

pub(super) fn exec(e: &Exec, mut fds: Fds) -> Result<Reply> {
    let init = fds.take(Fd::Init).ok_or_else(|| Error::new(Kind::Protocol, "exec without a container"))?;
    let entry = Entry::open_for_exec(&e.cgroup, e.init as u32)?;
    for &(resource, soft, hard) in &e.process.rlimits {
        cred::set_rlimit(0, resource, soft, hard).op(format!("prlimit resource {resource} to {soft}:{hard}"))?;
    }
    if let Some(score) = e.process.oom_score_adj {
        let path = "/proc/self/oom_score_adj";
        std::fs::write(path, score.to_string()).op_at(format!("write {score} to"), path)?;
    }
    fds.own_pipes(e.root)?;
    let all = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP
        | CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
    setns(&init, all).op("setns to the container's namespaces")?;
    drop(init);
    let (ours, theirs) = Channel::pair()?;
    match clone::fork(libc::CLONE_PARENT, entry.unified()).op("fork into the container")? {
        Fork::Child => {
            drop(ours);
            let error = child(e, &entry, fds).in_stage(Stage::Init);
            let _ = theirs.send(&error, &[]);
            clone::exit_now(1)
        }
        Fork::Parent { pid, .. } => {
            drop(theirs);
            // Executing closes the other end without a word.
            match ours.recv::<Error>()? {
                Some((error, _)) => Err(error),
                None => Ok(Reply::Done(Some(pid))),
            }
        }
    }
}

/// Returns only on failure.
fn child(e: &Exec, entry: &Entry, fds: Fds) -> Error {
    match prepare(e, entry, fds) {
        Ok((program, streams)) => launch::launch(&e.process, &program, streams),
        Err(error) => error,
    }
}

fn prepare(e: &Exec, entry: &Entry, mut fds: Fds) -> Result<(std::path::PathBuf, Vec<(i32, OwnedFd)>)> {
    entry.enter_v1()?;
    cred::become_user(0, 0, &[]).op("become the container's root")?;
    cred::set_dumpable(false).op("prctl PR_SET_DUMPABLE")?;
    rustix::process::setsid().op("setsid")?;
    if let Ok(name) = CString::new(format!("_ses.{}", e.id)) {
        // As for init: the caller's keys stay outside. A kernel without keyrings has none to keep out.
        match cred::new_session_keyring(&name) {
            Err(err) if err.raw_os_error() != Some(libc::ENOSYS) => {
                return Err(Error::sys("join a session keyring", err.raw_os_error().unwrap_or(0)))
            }
            _ => {}
        }
    }
    let mut streams = fds.take_numbered();
    if e.process.terminal {
        let slave = launch::open_terminal(&e.process, fds.take(Fd::Console))?;
        pty::control(slave.as_fd()).op("take the controlling terminal")?;
        launch::use_terminal(&slave, &mut streams)?;
    }
    let program = launch::find(&e.process)?;
    launch::make_cwd(&Root::open(Path::new("/"))?, &e.process)?;
    Ok((program, streams))
}
