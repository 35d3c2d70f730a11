//! The last steps before a program runs in a container: the same for its first process and for exec.

use crate::error::{Error, Kind, Result, SysResult};
use crate::mount::{Node, Root};
use crate::plan::{Caps, Filter, Process};
use crate::process::{home_in, look_up, LookupError, DEFAULT_PATH};
use crate::sys::cred::{self, CapSets};
use crate::sys::{fd, pty, seccomp};
use nix::unistd::{access, AccessFlags};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Finds the program inside the container.
pub(super) fn find(p: &Process) -> Result<PathBuf> {
    let path = p.env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let name = p.args.first().map(String::as_str).unwrap_or_default();
    let probe = |path: &Path| {
        let meta = std::fs::metadata(path).ok()?;
        Some(meta.is_file() && access(path, AccessFlags::X_OK).is_ok())
    };
    look_up(name, path, &p.cwd, probe).map_err(|e| match e {
        LookupError::NotFound(text) => Error::new(Kind::ProgramNotFound, text),
        LookupError::NotExecutable(text) => Error::new(Kind::ProgramNotExecutable, text),
    })
}

/// The working directory exists afterwards, as with runc.
pub(super) fn make_cwd(root: &Root, p: &Process) -> Result<()> {
    root.make(&p.cwd, Node::Dir).map(drop).map_err(|e| e.within("process.cwd"))
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

/// Becomes the program. Returns only on failure.
pub(super) fn launch(p: &Process, program: &Path, streams: Vec<(i32, OwnedFd)>) -> Error {
    match try_launch(p, program, streams) {
        Ok(never) => match never {},
        Err(e) => e,
    }
}

fn try_launch(p: &Process, program: &Path, streams: Vec<(i32, OwnedFd)>) -> Result<std::convert::Infallible> {
    let cstring = |s: &str| CString::new(s).map_err(|_| Error::invalid(format!("NUL byte in {s:?}")));
    let args = p.args.iter().map(|s| cstring(s)).collect::<Result<Vec<_>>>()?;
    let env = environment(p).iter().map(|s| cstring(s)).collect::<Result<Vec<_>>>()?;
    let path = cstring(&program.to_string_lossy())?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(p.umask));
    label(p)?;
    // Before the identity changes, root may enter what the user may not; the other way round for a private home.
    let early = nix::unistd::chdir(&p.cwd);
    // Without no_new_privs only CAP_SYS_ADMIN may install a filter, and the user may lose it just now.
    if !p.no_new_privs {
        filter(p.seccomp.as_ref())?;
    }
    identity(p)?;
    if early.is_err() {
        nix::unistd::chdir(&p.cwd).op_at("chdir to", &p.cwd)?;
    }
    if p.no_new_privs {
        cred::set_no_new_privs().op("prctl PR_SET_NO_NEW_PRIVS")?;
        filter(p.seccomp.as_ref())?;
    }
    number_streams(streams)?;
    let e = cred::exec(&path, &args, &env);
    let errno = e.raw_os_error().unwrap_or(libc::EIO);
    let kind = match errno {
        libc::ENOENT => Kind::ProgramNotFound,
        libc::EACCES | libc::ENOEXEC => Kind::ProgramNotExecutable,
        _ => Kind::System,
    };
    Err(Error::sys("exec", errno).at(program).kinded(kind))
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

fn label(p: &Process) -> Result<()> {
    if let Some(profile) = &p.apparmor {
        let new = "/proc/thread-self/attr/apparmor/exec";
        let path = if Path::new(new).exists() { new } else { "/proc/thread-self/attr/exec" };
        std::fs::write(path, format!("exec {profile}")).op_at(format!("apply AppArmor profile {profile} by"), path)?;
    }
    if let Some(label) = &p.selinux {
        let path = "/proc/thread-self/attr/exec";
        std::fs::write(path, label).op_at(format!("apply SELinux label {label} by"), path)?;
    }
    Ok(())
}

fn filter(f: Option<&Filter>) -> Result<()> {
    match f {
        Some(f) => seccomp::install(&f.program, f.flags).map(drop).op("install the seccomp filter"),
        None => Ok(()),
    }
}

fn identity(p: &Process) -> Result<()> {
    let user = || cred::become_user(p.uid, p.gid, &p.groups).op(format!("become user {}:{}", p.uid, p.gid));
    let all = (1u64 << (cred::last_cap() + 1)) - 1;
    match p.caps {
        Caps::Full if p.uid != 0 => {
            // Leaving uid 0 clears permitted, effective and ambient; inheritable would stay.
            cred::set_caps(&CapSets { bounding: all, permitted: all, effective: all, inheritable: 0, ambient: 0 })
                .op("capset")?;
            user()
        }
        Caps::Full => {
            user()?;
            cred::set_caps(&CapSets { bounding: all, permitted: all, effective: all, inheritable: 0, ambient: 0 })
                .op("capset")
        }
        Caps::Exact { bounding, permitted, effective, inheritable, ambient } => {
            cred::limit_bounding(bounding).op("limit the bounding set")?;
            cred::set_keepcaps(true).op("prctl PR_SET_KEEPCAPS")?;
            user()?;
            cred::set_caps(&CapSets { bounding, permitted, effective, inheritable, ambient }).op("capset")
        }
    }
}

/// Puts every stream on its number; everything else closes on exec.
fn number_streams(streams: Vec<(i32, OwnedFd)>) -> Result<()> {
    let top = streams.iter().map(|(n, _)| *n).max().unwrap_or(2).max(2);
    // First out of the way of all numbers, or one would overwrite another.
    let high = streams
        .into_iter()
        .map(|(n, s)| fd::dup_above(s.as_fd(), top + 1).map(|d| (n, d)))
        .collect::<std::io::Result<Vec<_>>>()
        .op("dup")?;
    // Whatever sits on a low number now (the socket of descriptor 0 among it) would leak.
    fd::cloexec_from(0).op("close_range")?;
    for (n, s) in &high {
        fd::dup_to(s.as_fd(), *n).op("dup2")?;
    }
    std::mem::forget(high);
    Ok(())
}
