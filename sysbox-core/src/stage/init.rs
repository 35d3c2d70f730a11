//! The container's first process, until it becomes the user's program.
//!
//! It starts in the namespaces of [`super::create`], takes a mount namespace of its own (which locks the tree), attaches
//! what is its own to attach, and waits. What it waits with is not reachable from inside: it is not dumpable, and its
//! memory belongs to the host's user namespace until it executes.

use super::agent::{self, Agent};
use super::birth::Joined;
use super::{hooks, launch, names, tree, Fds};
use crate::cgroup::Entry;
use crate::error::{Error, Kind, Result, Stage, SysResult};
use crate::mount::{self, Attrs, Node, Root};
use crate::plan::{Mount, Plan, TimeOffsets, What};
use crate::procfs::attach;
use crate::protocol::{Fd, FromInit, Start, StartAnswer, ToInit};
use crate::state::{OciState, Status};
use crate::sys::channel::Channel;
use crate::sys::{clone, cred, fd, net, pty};
use nix::sched::{setns, unshare, CloneFlags};
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

pub(super) fn main(
    stage: &Channel,
    plan: &Plan,
    mut fds: Fds,
    entry: Entry,
    leaf: Option<OwnedFd>,
    joined: Joined,
) -> ! {
    // The stage's line to its caller, who waits for it to close.
    let _ = fd::close_range(0, 0);
    // The caller's own streams: engines read the runtime's output to its end. The container's come as descriptors.
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = (1..=2).try_for_each(|n| fd::dup_to(null.as_fd(), n));
    }
    let listener = fds.take(Fd::Listener).map(UnixListener::from);
    let ready = prepare(stage, plan, fds, entry, leaf, joined).and_then(|ready| {
        let listener = listener.ok_or_else(|| Error::new(Kind::Protocol, "no start socket"))?;
        stage.send(&FromInit::Ready, &[])?;
        Ok((ready, listener))
    });
    let (mut ready, listener) = match ready {
        Ok(r) => r,
        Err(e) => {
            let _ = stage.send(&FromInit::Failed(e.in_stage(Stage::Init)), &[]);
            clone::exit_now(1)
        }
    };
    // While the stage and its caller finish. What goes wrong is told at the start.
    ready.nodes = attach_nodes(plan, std::mem::take(&mut ready.live));
    let Ok(starter) = await_start(&listener) else { clone::exit_now(1) };
    drop(listener);
    let (e, starter) = run(plan, ready, starter);
    if let Some(starter) = starter {
        let _ = starter.send(&StartAnswer::Failed(e.in_stage(Stage::Init)), &[]);
    }
    clone::exit_now(1)
}

/// What is left to do at the start.
struct Ready {
    prepared: launch::Prepared,
    leaf: Option<OwnedFd>,
    score: Option<File>,
    names: Option<names::Names>,
    /// Files of live nodes, with the places of these in the plan; then how attaching went.
    live: Vec<(usize, OwnedFd)>,
    nodes: Result<()>,
}

fn prepare(
    stage: &Channel,
    plan: &Plan,
    mut fds: Fds,
    entry: Entry,
    leaf: Option<OwnedFd>,
    mut joined: Joined,
) -> Result<Ready> {
    entry.enter_v1()?;
    drop(entry);
    // As the host's root still: a process that is not dumpable has files in /proc that container root may not write.
    let path = "/proc/self/oom_score_adj";
    let score =
        plan.process.oom_floor.then(|| File::options().write(true).open(path).op_at("open", path)).transpose()?;
    // As the host numbers it, while /proc is the host's.
    let pid = agent::own_pid(File::open("/proc").op_at("open", "/proc")?)?;
    let agent = Agent::new(&plan.process, fds.take(Fd::Agent), pid, &state(plan, pid))?;
    let ToInit::Mapped = expect(stage)?.0 else { return Err(out_of_turn()) };
    cred::become_user(0, 0, &[]).op("become the container's root")?;
    cred::set_dumpable(false).op("prctl PR_SET_DUMPABLE")?;
    rustix::process::setsid().op("setsid")?;
    let mut own = CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWCGROUP;
    if joined.has(CloneFlags::CLONE_NEWIPC) {
        own.remove(CloneFlags::CLONE_NEWIPC);
    }
    let own_network = !joined.has(CloneFlags::CLONE_NEWNET);
    joined.enter()?;
    let timed = plan.time != TimeOffsets::Host;
    if timed {
        own |= CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
    }
    unshare(own).op("unshare ipc, cgroup and time namespaces")?;
    let path = "/proc/self/ns/time_for_children";
    let time = timed.then(|| File::open(path).op_at("open", path)).transpose()?;
    if own_network {
        net::loopback_up().op("bring up lo")?;
    }
    join_keyring(&plan.id)?;
    hostname(plan)?;
    stage.send(&FromInit::Unshared, &[])?;
    let (ToInit::Rooted(places), files) = expect(stage)? else { return Err(out_of_turn()) };
    let live = places.into_iter().zip(files).collect();
    if let Some(ns) = time {
        setns(ns, CloneFlags::from_bits_retain(libc::CLONE_NEWTIME)).op("setns to the time namespace")?;
    }
    unshare(CloneFlags::CLONE_NEWNS).op("unshare the mount namespace")?;
    nix::unistd::chdir("/").op("chdir")?;
    let root = Root::open(Path::new("/"))?;
    for m in &plan.attached {
        attach(&root, m).map_err(|e| e.within(format!("mount {}", m.target.display())))?;
    }
    if plan.root.propagation != mount::Propagation::Private {
        mount::set_propagation(root.as_fd(), plan.root.propagation, true)?;
    }
    let mut streams = fds.take_numbered();
    if plan.process.terminal {
        console(&root, plan, &mut fds, &mut streams)?;
    }
    for (path, value) in &plan.sysctls {
        let full = Path::new("/proc/sys").join(path);
        std::fs::write(&full, value).op_at(format!("write {value:?} to"), &full)?;
    }
    // Now, before an exec into the waiting container can put something else on /proc.
    let names = names::Names::open(plan, &root);
    let labels = launch::Labels::open(&plan.process, || Root::open(Path::new("/proc")))?;
    Ok(Ready {
        prepared: launch::Prepared::new(&plan.process, labels, streams, agent)?,
        leaf,
        score,
        names,
        live,
        nodes: Ok(()),
    })
}

fn expect(stage: &Channel) -> Result<(ToInit, Vec<OwnedFd>)> {
    stage.expect::<ToInit>("the stage")
}

fn out_of_turn() -> Error {
    Error::new(Kind::Protocol, "the stage speaks out of turn")
}

/// A session keyring of the container's own: the creator's would come along, with the right to use its keys.
fn join_keyring(id: &str) -> Result<()> {
    let name = CString::new(format!("_ses.{id}")).map_err(|_| Error::invalid("NUL byte in the id"))?;
    match cred::new_session_keyring(&name) {
        Err(e) if e.raw_os_error() != Some(libc::ENOSYS) => {
            Err(Error::sys("join a session keyring", e.raw_os_error().unwrap_or(0)))
        }
        _ => Ok(()),
    }
}

fn hostname(plan: &Plan) -> Result<()> {
    if let Some(n) = &plan.hostname {
        nix::unistd::sethostname(n).op("sethostname")?;
    }
    if let Some(n) = &plan.domainname {
        cred::set_domainname(n).op("setdomainname")?;
    }
    Ok(())
}

fn attach_nodes(plan: &Plan, live: Vec<(usize, OwnedFd)>) -> Result<()> {
    let root = Root::open(Path::new("/"))?;
    attach::stored(&plan.nodes, &plan.id, root.as_fd())?;
    live.into_iter()
        .filter_map(|(place, leaf)| Some((plan.nodes.get(place)?, leaf)))
        .try_for_each(|(node, leaf)| attach::live(node, leaf.as_fd(), &root))
}

fn attach(root: &Root, m: &Mount) -> Result<()> {
    // Below /sys a mount point exists or not, by the kernel's configuration; the hierarchies' own come from a tmpfs.
    if m.target.starts_with("/sys") && !m.target.starts_with("/sys/fs/cgroup") && root.find(&m.target).is_err() {
        return Ok(());
    }
    let target = root.make(&m.target, Node::Dir)?;
    let fs = match &m.what {
        What::Fs { fstype, source, options, copy_up } => {
            let fs = mount::new_fs(fstype, source.as_deref(), options, Attrs::empty())?;
            if *copy_up {
                super::copy::tree(target.as_fd(), fs.as_fd())?;
            }
            fs
        }
        What::Cgroup { v1: None } => mount::new_fs("cgroup2", None, &[], Attrs::empty())?,
        What::Cgroup { v1: Some(c) } => {
            let options: Vec<String> = c.split(',').map(String::from).collect();
            mount::new_fs("cgroup", None, &options, Attrs::empty())?
        }
        other => return Err(Error::new(Kind::Protocol, format!("init cannot mount {other:?}"))),
    };
    tree::apply_attrs(fs.as_fd(), &m.attrs)?;
    mount::attach(fs.as_fd(), target.as_fd(), &m.target)
}

/// Opens a terminal in the container's own devpts, sends its master out and takes its slave.
fn console(root: &Root, plan: &Plan, fds: &mut Fds, streams: &mut Vec<(i32, OwnedFd)>) -> Result<()> {
    let slave = launch::open_terminal(&plan.process, fds.take(Fd::Console))?;
    let target = root.make(Path::new("/dev/console"), Node::File)?;
    mount::attach(mount::clone_fd(slave.as_fd(), false)?.as_fd(), target.as_fd(), Path::new("/dev/console"))?;
    pty::control(slave.as_fd()).op("take the controlling terminal")?;
    launch::use_terminal(&slave, streams)
}

fn await_start(listener: &UnixListener) -> Result<Channel> {
    loop {
        let (socket, _) = listener.accept().op("accept")?;
        let channel = Channel::new(socket);
        // Somebody who hangs up without a word has only looked whether we are there.
        if let Ok(Some((Start, _))) = channel.recv::<Start>() {
            // One that has died since has started nothing.
            if channel.send(&StartAnswer::Starting, &[]).is_ok() {
                return Ok(channel);
            }
        }
    }
}

fn state(plan: &Plan, pid: i32) -> OciState {
    OciState {
        oci_version: plan.oci_version.clone(),
        id: plan.id.clone(),
        status: Status::Created,
        pid: Some(pid),
        bundle: plan.bundle.clone(),
        annotations: plan.annotations.clone(),
    }
}

/// Becomes the program. Returns only on failure.
fn run(plan: &Plan, ready: Ready, starter: Channel) -> (Error, Option<Channel>) {
    let hooks = || hooks::run_here(&plan.hooks.start_container, &state(plan, 1), "startContainer", None);
    let result = ready.nodes.and_then(|()| hooks()).and_then(|()| {
        if let Some(leaf) = &ready.leaf {
            rustix::io::write(leaf, b"0").op("move into the container's leaf cgroup")?;
        }
        if let Some(mut file) = ready.score.as_ref() {
            let score = plan.process.oom_score_adj.unwrap_or(0).to_string();
            file.write_all(score.as_bytes()).op_at("write", "/proc/self/oom_score_adj")?;
        }
        if let Some(names) = ready.names {
            names.provide(&plan.id);
        }
        Ok(())
    });
    match result {
        Ok(()) => {
            // A starter that has died since is no reason not to run.
            let _ = starter.send(&StartAnswer::Executing, &[]);
            drop((ready.leaf, ready.score));
            launch::launch(&plan.process, ready.prepared, starter.into_fd())
        }
        Err(e) => (e, Some(starter)),
    }
}
