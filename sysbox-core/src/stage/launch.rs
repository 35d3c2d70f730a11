//! The last steps before a program runs in a container: the same for its first process and for exec.

use super::agent::Agent;
use crate::error::{Error, Kind, Result, SysResult};
use crate::mount::{Node, Root};
use crate::plan::{Caps, Filter, Process};
use crate::process::{home_in, look_up, LookupError, DEFAULT_PATH};
use crate::sys::channel::Channel;
use crate::sys::cred::{self, CapSets};
use crate::sys::{fd, pty, sched, seccomp};
use nix::sched::{sched_setaffinity, CpuSet};
use nix::unistd::{access, AccessFlags, Pid};
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// What a program needs, opened and looked up while nothing inside could interfere or with care for what might.
///
/// None of it, and nothing else that is open by then, may lead to a directory of the host: paths inside are the container's to
/// change, and by a link to /proc/self/fd they would lead there.
#[derive(Debug)]
pub(super) struct Prepared {
    program: PathBuf,
    cwd: OwnedFd,
    labels: Labels,
    streams: Vec<(i32, OwnedFd)>,
    agent: Option<Agent>,
}

impl Prepared {
    pub(super) fn new(p: &Process, labels: Labels, streams: Vec<(i32, OwnedFd)>, agent: Option<Agent>) -> Result<Self> {
        let root = Root::open(Path::new("/"))?;
        let program = find(p, &root)?;
        // The working directory exists afterwards, as with runc.
        let cwd = root.make(&p.cwd, Node::Dir).map_err(|e| e.within("process.cwd"))?;
        Ok(Prepared { program, cwd, labels, streams, agent })
    }
}

/// Files of /proc that set what the program runs as.
#[derive(Debug, Default)]
pub(super) struct Labels {
    apparmor: Option<File>,
    selinux: Option<File>,
}

impl Labels {
    /// `proc` must be a procfs that the container cannot have replaced.
    pub(super) fn open(p: &Process, proc: impl FnOnce() -> Result<Root>) -> Result<Self> {
        if p.apparmor.is_none() && p.selinux.is_none() {
            return Ok(Labels::default());
        }
        let proc = proc()?;
        let attr = |names: &[&str]| {
            let first = names.iter().find_map(|n| proc.write(Path::new(n)).ok());
            first.ok_or_else(|| {
                Error::new(Kind::Unsupported, "this kernel has no such security module:")
                    .at(names[0])
                    .hint("remove process.apparmorProfile or process.selinuxLabel")
            })
        };
        let apparmor = ["/thread-self/attr/apparmor/exec", "/thread-self/attr/exec"];
        Ok(Labels {
            apparmor: p.apparmor.as_ref().map(|_| attr(&apparmor)).transpose()?,
            selinux: p.selinux.as_ref().map(|_| attr(&apparmor[1..])).transpose()?,
        })
    }

    fn apply(&self, p: &Process) -> Result<()> {
        if let (Some(profile), Some(mut file)) = (&p.apparmor, self.apparmor.as_ref()) {
            file.write_all(format!("exec {profile}").as_bytes()).op(format!("apply AppArmor profile {profile}"))?;
        }
        if let (Some(label), Some(mut file)) = (&p.selinux, self.selinux.as_ref()) {
            file.write_all(label.as_bytes()).op(format!("apply SELinux label {label}"))?;
        }
        Ok(())
    }
}

/// Finds the program inside the container. A name that leads through a link of /proc to somewhere else is not found.
fn find(p: &Process, root: &Root) -> Result<PathBuf> {
    let path = p.env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let name = p.args.first().map(String::as_str).unwrap_or_default();
    let probe = |path: &Path| {
        let fd = root.find(path).ok()?;
        let mode = rustix::fs::fstat(&fd).ok()?.st_mode;
        let is_file = rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::RegularFile;
        Some(is_file && access(path, AccessFlags::X_OK).is_ok())
    };
    look_up(name, path, &p.cwd, probe).map_err(|e| match e {
        LookupError::NotFound(text) => Error::new(Kind::ProgramNotFound, text),
        LookupError::NotExecutable(text) => Error::new(Kind::ProgramNotExecutable, text),
    })
}

/// Opens a terminal of the devpts at /dev/pts, sends the master to `console` and returns the slave.
pub(super) fn open_terminal(p: &Process, console: Option<OwnedFd>) -> Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    const DEVPTS: u64 = 0x1cd1;
    let console = console.ok_or_else(|| Error::invalid("process.terminal is set and no console socket is given"))?;
    let path = "/dev/pts/ptmx";
    // Whatever container root has put there: not followed, not waited for, and used only if it is a devpts.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let master = rustix::fs::open(path, flags, Mode::empty()).op_at("open", path)?;
    if rustix::fs::fstatfs(&master).op("fstatfs")?.f_type as u64 != DEVPTS {
        return Err(Error::new(Kind::Refused, "not a terminal multiplexer:").at(path));
    }
    rustix::fs::fcntl_setfl(&master, OFlags::RDWR).op("fcntl")?;
    let slave = pty::peer(master.as_fd()).op("open the terminal")?;
    if let Some((rows, cols)) = p.console_size {
        pty::resize(master.as_fd(), rows, cols).op("set the terminal's size")?;
    }
    rustix::fs::fchown(&slave, Some(rustix::fs::Uid::from_raw(p.uid)), None).op("chown the terminal")?;
    send_master(console, &master)?;
    Ok(slave)
}

/// One byte of data is needed to carry a descriptor; runc sends the terminal's name, and callers print it at most.
fn send_master(console: OwnedFd, master: &OwnedFd) -> Result<()> {
    use nix::sys::socket::{sendmsg, ControlMessage, MsgFlags};
    let socket = UnixStream::from(console);
    let raw = [master.as_raw_fd()];
    let iov = [std::io::IoSlice::new(b"/dev/ptmx")];
    sendmsg::<()>(socket.as_raw_fd(), &iov, &[ControlMessage::ScmRights(&raw)], MsgFlags::MSG_NOSIGNAL, None)
        .op("send the terminal to the console socket")
        .map(drop)
}

/// The terminal takes the place of the three standard streams.
pub(super) fn use_terminal(slave: &OwnedFd, streams: &mut Vec<(i32, OwnedFd)>) -> Result<()> {
    streams.retain(|(n, _)| *n > 2);
    for n in 0..3 {
        streams.push((n, slave.try_clone().op("dup")?));
    }
    Ok(())
}

/// Prepares for the limits that [`launch`] sets, as long as somebody has the right to raise them.
pub(super) fn allow_limits(pid: i32, p: &Process) -> Result<()> {
    for &(resource, _, hard) in &p.rlimits {
        cred::raise_hard_limit(pid, resource, hard).op(format!("raise limit {resource} to {hard}")).map_err(|e| {
            e.hint("raising a hard limit needs CAP_SYS_RESOURCE; raise it for the calling process first")
        })?;
    }
    Ok(())
}

/// What needs the rights of the host's root, or passes on to children of `pid`, 0 for this process.
pub(super) fn schedule(pid: i32, p: &Process) -> Result<()> {
    if let Some(s) = p.scheduling {
        sched::set_scheduler(pid, s.policy, s.nice, s.priority).op("sched_setattr, for process.scheduler")?;
    }
    if let Some(io) = p.io_priority {
        sched::set_io_priority(pid, io).op("ioprio_set, for process.ioPriority")?;
    }
    Ok(())
}

/// Lets this process run on these CPUs only; on all it may if there are none.
pub(super) fn run_on(cpus: &[usize], field: &str) -> Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    let made = cpus.iter().try_for_each(|cpu| set.set(*cpu));
    made.and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).op(format!("sched_setaffinity, for {field}"))
}

/// Becomes the program. Returns only on failure, with the socket on which to report it.
pub(super) fn launch(p: &Process, prepared: Prepared, report: OwnedFd) -> (Error, Option<Channel>) {
    let mut report = Some(report);
    let e = match try_launch(p, prepared, &mut report) {
        Ok(never) => match never {},
        Err(e) => e,
    };
    (e, report.map(|fd| Channel::new(UnixStream::from(fd))))
}

fn try_launch(p: &Process, prepared: Prepared, report: &mut Option<OwnedFd>) -> Result<std::convert::Infallible> {
    let cstring = |s: &str| CString::new(s).map_err(|_| Error::invalid(format!("NUL byte in {s:?}")));
    let args = p.args.iter().map(|s| cstring(s)).collect::<Result<Vec<_>>>()?;
    let env = environment(p).iter().map(|s| cstring(s)).collect::<Result<Vec<_>>>()?;
    let path = cstring(&prepared.program.to_string_lossy())?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(p.umask));
    prepared.labels.apply(p)?;
    // Before the identity changes, root may enter what the user may not; the other way round for a private home.
    let early = rustix::process::fchdir(&prepared.cwd);
    drop((prepared.cwd, prepared.labels));
    let mut agent = prepared.agent;
    let kept = report.as_mut().into_iter().chain(agent.as_mut().map(|a| &mut a.socket));
    number_streams(prepared.streams, kept.collect())?;
    if early.is_ok() {
        inside()?;
    }
    // They are for the program: what was opened and read before may need more. A filter may forbid the call.
    for &(resource, soft, hard) in &p.rlimits {
        cred::set_rlimit(0, resource, soft, hard).op(format!("prlimit resource {resource} to {soft}:{hard}"))?;
    }
    if let Some(domain) = p.personality {
        sched::set_personality(domain).op("personality")?;
    }
    // Without no_new_privs only CAP_SYS_ADMIN may install a filter, and the user may lose it just now.
    if !p.no_new_privs {
        filter(p.seccomp.as_ref(), &mut agent)?;
    }
    identity(p)?;
    // A change of identity may have made it what the host's suid_dumpable says.
    cred::set_dumpable(false).op("prctl PR_SET_DUMPABLE")?;
    if early.is_err() {
        nix::unistd::chdir(&p.cwd).op_at("chdir to", &p.cwd)?;
        inside()?;
    }
    if p.no_new_privs {
        cred::set_no_new_privs().op("prctl PR_SET_NO_NEW_PRIVS")?;
        filter(p.seccomp.as_ref(), &mut agent)?;
    }
    let e = cred::exec(&path, &args, &env);
    let errno = e.raw_os_error().unwrap_or(libc::EIO);
    let kind = match errno {
        libc::ENOENT => Kind::ProgramNotFound,
        libc::EACCES | libc::ENOEXEC => Kind::ProgramNotExecutable,
        _ => Kind::System,
    };
    Err(Error::sys("exec", errno).at(&prepared.program).kinded(kind))
}

/// The working directory must lie below the container's root: the kernel has no path for one that does not.
fn inside() -> Result<()> {
    match std::env::current_dir() {
        Ok(d) if d.is_absolute() => Ok(()),
        _ => Err(Error::new(Kind::Refused, "process.cwd has been moved out of the container, or deleted")),
    }
}

/// The environment, with HOME from /etc/passwd where it is not given.
fn environment(p: &Process) -> Vec<String> {
    let mut env = p.env.clone();
    if !env.iter().any(|e| e.starts_with("HOME=") && e.len() > 5) {
        env.retain(|e| !e.starts_with("HOME="));
        let passwd = Root::open(Path::new("/"))
            .and_then(|r| r.read(Path::new("/etc/passwd")))
            .map(|f| {
                use std::io::Read;
                let mut text = Vec::new();
                // A hostile image must not make us read for ever.
                let _ = f.take(1 << 20).read_to_end(&mut text);
                String::from_utf8_lossy(&text).into_owned()
            })
            .unwrap_or_default();
        let home = home_in(&passwd, p.uid).unwrap_or(if p.uid == 0 { "/root" } else { "/" });
        env.push(format!("HOME={home}"));
    }
    env
}

/// From here on the agent, if there is one, decides about what this process does itself, too.
fn filter(f: Option<&Filter>, agent: &mut Option<Agent>) -> Result<()> {
    let Some(f) = f else { return Ok(()) };
    let listener = seccomp::install(&f.program, f.flags).op("install the seccomp filter")?;
    match (listener, agent.take()) {
        (Some(listener), Some(agent)) => agent.hand_over(&listener),
        (Some(_), None) => Err(Error::new(Kind::Protocol, "a seccomp filter with a listener for nobody")),
        (None, _) => Ok(()),
    }
}

fn identity(p: &Process) -> Result<()> {
    let user = || cred::become_user(p.uid, p.gid, &p.groups).op(format!("become user {}:{}", p.uid, p.gid));
    let all = (1u64 << (cred::last_cap() + 1)) - 1;
    match p.caps {
        Caps::Full { dropped } => {
            let given = all & !dropped;
            if dropped != 0 {
                cred::limit_bounding(given).op("limit the bounding set")?;
            }
            let sets = CapSets { bounding: given, permitted: given, effective: given, inheritable: 0, ambient: 0 };
            if p.uid == 0 {
                // Whoever drops SETGID still becomes the user that was asked for.
                user()?;
                return cred::set_caps(&sets).op("capset");
            }
            // Leaving uid 0 clears permitted, effective and ambient; inheritable would stay.
            cred::set_caps(&CapSets { permitted: all, effective: all, ..sets }).op("capset")?;
            user()
        }
        Caps::Exact { bounding, permitted, effective, inheritable, ambient } => {
            cred::limit_bounding(bounding).op("limit the bounding set")?;
            cred::set_keepcaps(true).op("prctl PR_SET_KEEPCAPS")?;
            user()?;
            cred::set_caps(&CapSets { bounding, permitted, effective, inheritable, ambient }).op("capset")
        }
    }
}

/// Puts every stream on its number and closes everything else but `kept`, which move out of the way and close on exec.
fn number_streams(streams: Vec<(i32, OwnedFd)>, kept: Vec<&mut OwnedFd>) -> Result<()> {
    let top = streams.iter().map(|(n, _)| *n).max().unwrap_or(2).max(2);
    // First out of the way of all numbers, or one would overwrite another.
    let out = |s: &OwnedFd| fd::dup_above(s.as_fd(), top + 1).op("dup");
    let mut numbers = Vec::new();
    for fd in kept {
        let new = out(fd)?;
        numbers.push(new.as_raw_fd() as u32);
        // Closed below, by its number.
        std::mem::forget(std::mem::replace(fd, new));
    }
    numbers.sort_unstable();
    let high = streams.iter().map(|(n, s)| Ok((*n, out(s)?))).collect::<Result<Vec<_>>>()?;
    for (n, s) in &high {
        fd::dup_to(s.as_fd(), *n).op("dup2")?;
    }
    let unused: Vec<u32> = (0..=top).filter(|n| !high.iter().any(|(m, _)| m == n)).map(|n| n as u32).collect();
    // From here on the numbers say what is open. Their former owners in this process are never dropped.
    std::mem::forget((high, streams));
    let mut ranges: Vec<(u32, u32)> = unused.into_iter().map(|n| (n, n)).collect();
    let mut from = top as u32 + 1;
    for n in numbers {
        ranges.push((from, n - 1));
        from = n + 1;
    }
    ranges.push((from, u32::MAX));
    ranges.into_iter().try_for_each(|(from, to)| fd::close_range(from, to).op("close_range"))
}
