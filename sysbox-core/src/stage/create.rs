//! Makes a container and leaves its init waiting for the start.

use super::unit::{self, Holder};
use super::{birth, hooks, init, launch, monitor, tree, Fds};
use crate::cgroup::{self, Entry};
use crate::error::{Error, Kind, Result, SysResult};
use crate::namespace;
use crate::plan::{Plan, TimeOffsets};
use crate::protocol::{Change, Fd, FromInit, Reply, ToInit};
use crate::state::{Claim, OciState, Status, CLAIM};
use crate::sys::channel::Channel;
use crate::sys::clone::Fork;
use crate::sys::{cred, pidfd};
use nix::sched::{setns, CloneFlags};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

pub(super) fn create(caller: &Channel, plan: &Plan, mut fds: Fds) -> Result<()> {
    let holder = unit::start(&plan.cgroup)?;
    let claimed = match &holder {
        Some(h) => cgroup::create_in_unit(&plan.cgroup, h.pid()),
        None => cgroup::create(&plan.cgroup),
    }
    .and_then(|()| claim(plan, &fds));
    if let (Err(e), Some(holder)) = (&claimed, &plan.cgroup.unit) {
        // Nobody else will: it is not claimed. The first error is the one that counts.
        let _ = unit::change(&holder.name, &Change::Stop);
        return Err(e.clone());
    }
    claimed?;
    let entry = Entry::open(&plan.cgroup.nodes)?;
    // Opened by the host's root, whose right to write it goes with the descriptor.
    let leaf = cgroup::open_leaf_procs(&plan.cgroup)?;
    let host_mounts = File::open("/proc/self/ns/mnt").op_at("open", "/proc/self/ns/mnt")?;
    tree::leave_host()?;
    fds.own_pipes(plan.maps.root())?;
    let (ours, theirs) = Channel::pair()?;
    // Before init is born: a process that is older than its clocks has an age of billions of seconds.
    let offsets = offsets(plan.time);
    let (fork, entry, joined) = birth::clone_init(plan, entry).map_err(no_userns)?;
    let (pid, init) = match fork {
        Fork::Child => {
            drop((ours, host_mounts, holder));
            drop(fds.take(Fd::Lock));
            init::main(&theirs, plan, fds, entry, leaf, joined)
        }
        Fork::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((theirs, leaf, entry, joined));
    let control = fds.take(Fd::Control);
    // What init needs is init's alone now; the lock stays until this process ends.
    drop((fds.take_numbered(), fds.take(Fd::Console), fds.take(Fd::Listener), fds.take(Fd::Agent)));
    let made = caller.send(&Reply::Cloned(pid), &[init.as_fd()]).and_then(|()| {
        furnish(plan, caller, &ours, (pid, init.as_fd()), &host_mounts, holder, (control, offsets))?;
        caller.send(&Reply::Done(None), &[])
    });
    if made.is_err() {
        let _ = pidfd::kill(init.as_fd(), libc::SIGKILL);
    }
    made
}

/// Leaves the inodes of the cgroups in the state directory, which the lock is a descriptor of: they are this container's from
/// here on, and a later cgroup of the same path is not.
/// Without it they may be anybody's, and whoever cleans up leaves them alone.
fn claim(plan: &Plan, fds: &Fds) -> Result<()> {
    use rustix::fs::{openat, Mode, OFlags};
    let dir = fds.get(Fd::Lock).ok_or_else(|| Error::new(Kind::Protocol, "no lock"))?;
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let text = Claim::on(plan.cgroup.paths())?;
    let file = openat(dir, CLAIM, flags, Mode::from_raw_mode(0o600)).op_at("create", CLAIM)?;
    rustix::io::write(&file, &text).op_at("write", CLAIM).map(drop)
}

fn no_userns(e: Error) -> Error {
    match e.errno() {
        Some(libc::EPERM | libc::ENOSYS | libc::EINVAL) => {
            e.hint("user namespaces are disabled, or this is not run by root: see `sysbox-runc check`")
        }
        Some(libc::EAGAIN) => e.hint("linux.resources.pids.limit may be too low"),
        Some(libc::ENOSPC) => e.hint("raise /proc/sys/user/max_user_namespaces"),
        _ => e,
    }
}

fn furnish(
    plan: &Plan,
    caller: &Channel,
    init: &Channel,
    (pid, pidfd): (i32, BorrowedFd<'_>),
    host_mounts: &File,
    holder: Option<Holder>,
    (control, offsets): (Option<OwnedFd>, Option<String>),
) -> Result<()> {
    let of = |name: &str| format!("/proc/{pid}/{name}");
    if plan.join.is_some() {
        // The path may have come to mean something else since the plan was made.
        let found = namespace::read_maps(Path::new(&format!("/proc/{pid}")))?;
        if found != plan.maps {
            return Err(Error::new(Kind::Busy, "the user namespace to share is not the one it was a moment ago"));
        }
    }
    let maps = [("uid_map", plan.maps.uid.to_string()), ("gid_map", plan.maps.gid.to_string())];
    for (name, text) in maps.into_iter().filter(|_| plan.join.is_none()) {
        std::fs::write(of(name), text).op_at("write", of(name))?;
    }
    let oom = open_oom_score(plan, pid)?;
    init.send(&ToInit::Mapped, &[])?;
    // While init enters its own namespaces.
    let userns = File::open(of("ns/user")).op_at("open", of("ns/user"))?;
    let (uid, gid) = plan.maps.root();
    cred::set_fs_identity(uid, gid).op("take the file system identity of the container's root")?;
    let sources = tree::take_sources(plan, userns.as_fd())?;
    expect(init, caller, |m| matches!(m, FromInit::Unshared))?;
    // By now init is in all of the container's cgroups, and keeps the unit alive itself.
    if let Some(holder) = holder {
        holder.end();
    }
    if let Some(text) = offsets {
        std::fs::write(of("timens_offsets"), text).op_at("write", of("timens_offsets"))?;
    }
    // It gets ready while the tree is built.
    let traps = plan.process.traps.as_ref().map(|_| monitor::trapped(&plan.cgroup.paths(), pid, false)).transpose()?;
    let start = |c| monitor::start(&plan.nodes, plan.cgroup.paths(), plan.maps.root(), (pid, pidfd), c, traps);
    let monitor = control.map(start).transpose()?;
    if let Some(m) = &monitor {
        m.tell(caller)?;
    }
    let root = tree::build(plan, sources, pidfd)?;
    let leaves = monitor.map(monitor::Started::leaves).transpose()?.unwrap_or_default();
    let state = OciState {
        oci_version: plan.oci_version.clone(),
        id: plan.id.clone(),
        status: Status::Creating,
        pid: Some(pid),
        bundle: plan.bundle.clone(),
        annotations: plan.annotations.clone(),
    };
    hooks::run_elsewhere(&plan.hooks.create_runtime, &state, "createRuntime", caller, || {
        setns(host_mounts, CloneFlags::CLONE_NEWNS).op("setns to the host's mount namespace")
    })?;
    hooks::run_elsewhere(&plan.hooks.create_container, &state, "createContainer", caller, || {
        setns(pidfd, CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS).op("setns to the container's namespaces")
    })?;
    tree::pivot(&root)?;
    let (places, leaves): (Vec<_>, Vec<_>) = leaves.into_iter().unzip();
    init.send(&ToInit::Rooted(places), &leaves.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
    drop(leaves);
    expect(init, caller, |m| matches!(m, FromInit::Ready))?;
    limit(plan, pid, oom)
}

fn expect(init: &Channel, caller: &Channel, wanted: impl Fn(&FromInit) -> bool) -> Result<()> {
    init.wait_while(caller, None)?;
    match init.expect::<FromInit>("init")?.0 {
        FromInit::Failed(e) => Err(e),
        m if wanted(&m) => Ok(()),
        m => Err(Error::new(Kind::Protocol, format!("init says {m:?} out of turn"))),
    }
}

/// What only real root may give.
fn limit(plan: &Plan, pid: i32, oom: Option<(i32, File)>) -> Result<()> {
    launch::allow_limits(pid, &plan.process)?;
    launch::schedule(pid, &plan.process)?;
    match oom {
        Some((score, file)) => rustix::io::write(file, score.to_string().as_bytes())
            .op(format!("write {score} to oom_score_adj of init"))
            .map(drop)
            .map_err(|e| e.hint("lowering oom_score_adj needs CAP_SYS_RESOURCE")),
        None => Ok(()),
    }
}

/// The score to give to init and where. Opened while /proc is the host's: in the container's, init has another number.
fn open_oom_score(plan: &Plan, pid: i32) -> Result<Option<(i32, File)>> {
    // The kernel remembers the lowest value that a capable process set, and lets anybody return to it.
    let score = if plan.process.oom_floor { Some(-999) } else { plan.process.oom_score_adj };
    let path = format!("/proc/{pid}/oom_score_adj");
    let open = |score| File::options().write(true).open(&path).op_at("open", &path).map(|file| (score, file));
    score.map(open).transpose()
}

/// The text for /proc/PID/timens_offsets.
fn offsets(time: TimeOffsets) -> Option<String> {
    use rustix::time::{clock_gettime, ClockId};
    let negated = |c| {
        let now = clock_gettime(c);
        // −(s + ns) as seconds and positive nanoseconds.
        if now.tv_nsec == 0 {
            (-now.tv_sec, 0)
        } else {
            (-now.tv_sec - 1, 1_000_000_000 - now.tv_nsec)
        }
    };
    let (mono, boot) = match time {
        TimeOffsets::Host => return None,
        TimeOffsets::FromZero => (negated(ClockId::Monotonic), negated(ClockId::Boottime)),
        TimeOffsets::Given { monotonic, boottime } => {
            ((monotonic.0, i64::from(monotonic.1)), (boottime.0, i64::from(boottime.1)))
        }
    };
    Some(format!("monotonic {} {}\nboottime {} {}\n", mono.0, mono.1, boot.0, boot.1))
}
