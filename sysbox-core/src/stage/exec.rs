//! Runs a program in a container that exists.

use super::agent::{self, Agent};
use super::{launch, Fds};
use crate::cgroup::Entry;
use crate::error::{Error, Kind, Result, Stage, SysResult};
use crate::mount::{self, Root};
use crate::protocol::{Exec, Fd, Reply};
use crate::sys::channel::Channel;
use crate::sys::clone::{self, Fork};
use crate::sys::{cred, fd, pidfd, pty};
use nix::sched::{setns, CloneFlags};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

/// How long the new process may take until it executes its program. What is frozen would keep the caller for ever.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn exec(caller: &Channel, e: &Exec, mut fds: Fds) -> Result<()> {
    let init = fds.take(Fd::Init).ok_or_else(|| Error::new(Kind::Protocol, "exec without a container"))?;
    let entry = Entry::open_for_exec(&e.cgroup, e.init as u32)?;
    // Opened now, while /proc is the host's; a container may make its leaf unfit for processes at any moment.
    let beside_init = e.cgroup.open_init_unified(e.init as u32)?;
    launch::allow_limits(0, &e.process)?;
    launch::schedule(0, &e.process)?;
    launch::run_on(&e.process.affinity.initial, "process.execCPUAffinity.initial")?;
    if let Some(score) = e.process.oom_score_adj {
        let path = "/proc/self/oom_score_adj";
        std::fs::write(path, score.to_string()).op_at(format!("write {score} to"), path)?;
    }
    fds.own_pipes(e.root)?;
    // A copy of the host's procfs that is mounted nowhere, so that nothing inside covers it and nothing above it is in reach.
    let p = &e.process;
    let needed = p.apparmor.is_some() || p.selinux.is_some() || fds.get(Fd::Agent).is_some();
    let proc = needed.then(|| mount::clone_tree(Path::new("/proc"), false)).transpose()?.map(Root::new);
    let all = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
    let cgroup_ns = cgroup_namespace(init.as_fd())?;
    setns(&init, all).op("setns to the container's namespaces")?;
    cred::set_dumpable(false).op("prctl PR_SET_DUMPABLE")?;
    drop(init);
    let (ours, theirs) = Channel::pair()?;
    let forked = match clone::fork(libc::CLONE_PARENT, entry.unified()) {
        // What software inside has made of its leaf: with controllers for its children, threaded, removed.
        Err(err)
            if matches!(err.raw_os_error(), Some(libc::EBUSY | libc::EOPNOTSUPP | libc::ENODEV | libc::ENOENT)) =>
        {
            clone::fork(libc::CLONE_PARENT, beside_init.as_ref().map(AsFd::as_fd))
        }
        r => r,
    };
    match forked.op("fork into the container")? {
        Fork::Child => {
            drop((ours, beside_init));
            // The stage's line to its caller, who waits for it to close.
            let _ = fd::close_range(0, 0);
            child(e, entry, cgroup_ns, proc, fds, theirs)
        }
        Fork::Parent { pid, pidfd } => {
            drop(theirs);
            // Executing closes the other end without a word.
            match ours.wait_while(caller, Some(PATIENCE)).and_then(|()| ours.recv::<Error>()) {
                // The caller's child in any case: it must be buried, or the container's init cannot end.
                Ok(Some((error, _))) => caller.send(&Reply::Failed(error), &[pidfd.as_fd()]),
                Ok(None) => caller.send(&Reply::Done(Some(pid)), &[pidfd.as_fd()]),
                Err(error) => {
                    let _ = pidfd::kill(pidfd.as_fd(), libc::SIGKILL);
                    let late = matches!(error.errno(), Some(libc::EAGAIN));
                    let error = if late { stuck() } else { error };
                    caller.send(&Reply::Failed(error), &[pidfd.as_fd()])
                }
            }
        }
    }
}

fn stuck() -> Error {
    let what = format!("the new process has not executed its program after {} s", PATIENCE.as_secs());
    Error::new(Kind::Busy, what)
        .hint("its cgroup may be frozen, from outside or from inside, or a file system may hang")
}

/// The one namespace that the child enters by itself. Where cgroup2 is mounted with `nsdelegate`, as systemd does, the kernel
/// lets nobody be born in a cgroup (ENOENT) unless the parent's own is in the parent's cgroup namespace as well.
fn cgroup_namespace(init: BorrowedFd<'_>) -> Result<File> {
    let path = "/proc/self/ns/cgroup";
    let own = File::open(path).op_at("open", path)?;
    setns(init, CloneFlags::CLONE_NEWCGROUP).op("setns to the container's cgroup namespace")?;
    let its = File::open(path).op_at("open", path);
    setns(&own, CloneFlags::CLONE_NEWCGROUP).op("setns back to the host's cgroup namespace")?;
    its
}

fn child(e: &Exec, entry: Entry, cgroup_ns: File, proc: Option<Root>, fds: Fds, report: Channel) -> ! {
    let (error, report) = match prepare(e, entry, cgroup_ns, proc, fds) {
        Ok(prepared) => launch::launch(&e.process, prepared, report.into_fd()),
        Err(error) => (error, Some(report)),
    };
    if let Some(report) = report {
        let _ = report.send(&error.in_stage(Stage::Init), &[]);
    }
    clone::exit_now(1)
}

/// Everything of the host's is closed before a path of the container's is looked up.
fn prepare(e: &Exec, entry: Entry, cgroup_ns: File, proc: Option<Root>, mut fds: Fds) -> Result<launch::Prepared> {
    entry.enter_v1()?;
    drop(entry);
    launch::run_on(&e.process.affinity.last, "process.execCPUAffinity.final")?;
    setns(cgroup_ns, CloneFlags::CLONE_NEWCGROUP).op("setns to the container's cgroup namespace")?;
    cred::become_user(0, 0, &[]).op("become the container's root")?;
    cred::set_dumpable(false).op("prctl PR_SET_DUMPABLE")?;
    let agent = match &proc {
        Some(proc) => Agent::new(&e.process, fds.take(Fd::Agent), agent::own_pid(proc.as_fd())?, &e.state)?,
        None => None,
    };
    let labels = launch::Labels::open(&e.process, || {
        proc.ok_or_else(|| Error::new(Kind::Protocol, "no procfs to label a process by"))
    })?;
    rustix::process::setsid().op("setsid")?;
    if let Ok(name) = CString::new(format!("_ses.{}", e.state.id)) {
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
    launch::Prepared::new(&e.process, labels, streams, agent)
}
