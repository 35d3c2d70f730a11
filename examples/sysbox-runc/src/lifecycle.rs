//! create, start, run, exec, kill, delete, update.

use crate::args::{CreateArgs, ExecArgs};
use crate::foreground;
use crate::terminal::{self, Awaited, Relay};
use nix::sys::signal::Signal;
use oci_spec::runtime as oci;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use sysbox_core::error::SysResult;
use sysbox_core::{Child, Container, CreateOptions, Error, ExecOptions, Kind, Result, Runtime, Spec, Stdio};

/// runc's: 1 for its own failures; a program that cannot be run is a failure of its own.
pub(crate) fn failure_code(e: &Error) -> u8 {
    match e.kind() {
        Kind::ProgramNotFound => 127,
        Kind::ProgramNotExecutable => 126,
        _ => 1,
    }
}

fn make(runtime: &Runtime, a: &CreateArgs, spec: &Spec, stdio: Stdio) -> Result<Container> {
    let container = runtime.create(&a.id, spec, &a.bundle, CreateOptions { stdio })?;
    if let Some(path) = &a.pid_file {
        if let Err(e) = write_pid(path, container.pid().unwrap_or(0)) {
            let _ = container.delete(true);
            return Err(e);
        }
    }
    Ok(container)
}

/// The caller's descriptors. To be called before anything is opened: a number that the caller has left free would become
/// ours, and so the container's.
fn preserved(count: u16) -> Result<Vec<(i32, OwnedFd)>> {
    (3..3 + i32::from(count))
        .map(|n| sysbox_core::dup_number(n).map(|fd| (n, fd)).op(format!("--preserve-fds: descriptor {n}")))
        .collect()
}

/// Written whole or not at all: callers read it as soon as it is there.
fn write_pid(path: &Path, pid: i32) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let tmp = path.with_file_name(format!(".{name}.new"));
    std::fs::write(&tmp, pid.to_string()).op_at("write", &tmp)?;
    std::fs::rename(&tmp, path).op_at("rename to", path)
}

fn connect(path: &Path) -> Result<OwnedFd> {
    UnixStream::connect(path).map(Into::into).op_at("connect to the console socket", path)
}

pub(crate) fn create(runtime: &Runtime, a: &CreateArgs) -> Result<u8> {
    let preserved = preserved(a.preserve_fds)?;
    let spec = Spec::from_bundle(&a.bundle)?;
    let console = a.console_socket.as_deref().map(connect).transpose()?;
    make(runtime, a, &spec, Stdio { console, preserved, ..Stdio::default() }).map(|_| 0)
}

pub(crate) fn start(runtime: &Runtime, id: &str) -> Result<u8> {
    runtime.open(id)?.start().map(|()| 0)
}

pub(crate) fn run(runtime: &Runtime, a: &CreateArgs) -> Result<u8> {
    let preserved = preserved(a.preserve_fds)?;
    let spec = Spec::from_bundle(&a.bundle)?;
    let tty = spec.oci().process().as_ref().and_then(oci::Process::terminal).unwrap_or(false);
    let (console, terminal) = terminal::console(tty, a.detach, a.console_socket.as_deref(), connect)?;
    // Signals that come from here on are the container's.
    let signals = (!a.detach).then(foreground::Signals::block).transpose()?;
    let mut container = make(runtime, a, &spec, Stdio { console, preserved, ..Stdio::default() })?;
    // The size of its terminal must be right before the program asks for it.
    let opened = terminal.map(Awaited::open).transpose();
    let terminal = match opened.and_then(|t| container.start().and_then(|()| t.map(Relay::raw).transpose())) {
        Ok(t) => t,
        Err(e) => {
            let _ = container.delete(true);
            return Err(e);
        }
    };
    let Some(signals) = signals else { return Ok(0) };
    let ended = match container.pidfd() {
        Some(init) => foreground::watch(&signals, init, terminal, |s| container.kill(s)),
        None => Ok(()),
    };
    let exit = ended.and_then(|()| container.wait());
    if !a.keep {
        container.delete(true)?;
    }
    exit.map(|e| e.code() as u8)
}

pub(crate) fn exec(runtime: &Runtime, a: &ExecArgs) -> Result<u8> {
    let preserved = preserved(a.preserve_fds)?;
    let container = runtime.open(&a.id)?;
    let mut process = process(&container, a)?;
    let tty = process.terminal().unwrap_or(false);
    let (console, terminal) = terminal::console(tty, a.detach, a.console_socket.as_deref(), connect)?;
    if let Some(size) = terminal.as_ref().and_then(|_| terminal::size()) {
        process.set_console_size(Some(size));
    }
    let signals = (!a.detach).then(foreground::Signals::block).transpose()?;
    let stdio = Stdio { console, preserved, ..Stdio::default() };
    let child = container.exec(&process, ExecOptions { stdio })?;
    if let Some(path) = &a.pid_file {
        if let Err(e) = write_pid(path, child.pid()) {
            return Err(ended(child, e));
        }
    }
    let Some(signals) = signals else {
        child.leave();
        return Ok(0);
    };
    let terminal = match terminal.map(|t| t.open().and_then(Relay::raw)).transpose() {
        Ok(t) => t,
        Err(e) => return Err(ended(child, e)),
    };
    foreground::watch(&signals, child.pidfd(), terminal, |s| child.kill(s))?;
    child.wait().map(|e| e.code() as u8)
}

/// Ends a program that must not run on unknown to the caller, who is told of a failure.
fn ended(child: Child, e: Error) -> Error {
    let _ = child.kill(Signal::SIGKILL as i32);
    let _ = child.wait();
    e
}

/// What to run: the file's process, or the container's own with what the command line changes.
fn process(container: &Container, a: &ExecArgs) -> Result<oci::Process> {
    if let Some(path) = &a.process {
        let json = std::fs::read(path).op_at("read", path)?;
        let mut p: oci::Process =
            serde_json::from_slice(&json).map_err(|e| Error::invalid(format!("process: {e}")).at(path))?;
        if a.tty {
            p.set_terminal(Some(true));
        }
        return Ok(p);
    }
    let spec = container.spec()?;
    let mut p = spec.oci().process().clone().ok_or_else(|| Error::invalid("the container has no process"))?;
    if a.args.is_empty() {
        return Err(Error::invalid("exec: a program or --process is needed"));
    }
    p.set_args(Some(a.args.clone()));
    p.set_terminal(Some(a.tty));
    let mut env = p.env().clone().unwrap_or_default();
    env.extend(a.env.iter().cloned());
    p.set_env(Some(env));
    if let Some(cwd) = &a.cwd {
        p.set_cwd(cwd.clone());
    }
    if a.no_new_privs {
        p.set_no_new_privileges(Some(true));
    }
    // Limits are inherited from the caller, as with runc; the score from the configuration was init's.
    p.set_oom_score_adj(None);
    let mut user = p.user().clone();
    if let Some(u) = &a.user {
        let bad = || Error::invalid(format!("--user {u:?} is not UID[:GID]"));
        let (uid, gid) = u.split_once(':').map_or((u.as_str(), None), |(a, b)| (a, Some(b)));
        user.set_uid(uid.parse().map_err(|_| bad())?);
        user.set_gid(gid.map_or(Ok(user.gid()), str::parse).map_err(|_| bad())?);
    }
    if !a.additional_gids.is_empty() {
        let mut all = user.additional_gids().clone().unwrap_or_default();
        all.extend(&a.additional_gids);
        user.set_additional_gids(Some(all));
    }
    p.set_user(user);
    Ok(p)
}

pub(crate) fn kill(runtime: &Runtime, id: &str, signal: &str, all: bool) -> Result<u8> {
    let signal = foreground::parse_signal(signal)?;
    let container = runtime.open(id)?;
    if all { container.kill_all(signal) } else { container.kill(signal) }.map(|()| 0)
}

pub(crate) fn delete(runtime: &Runtime, id: &str, force: bool) -> Result<u8> {
    match runtime.open(id) {
        Err(e) if force && e.kind() == Kind::NotFound => Ok(0),
        Err(e) => Err(e),
        Ok(c) => c.delete(force).map(|()| 0),
    }
}

pub(crate) fn update(runtime: &Runtime, id: &str, resources: &Path) -> Result<u8> {
    let json = if resources == Path::new("-") {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut text).op("read standard input")?;
        text
    } else {
        std::fs::read(resources).op_at("read", resources)?
    };
    let r: oci::LinuxResources =
        serde_json::from_slice(&json).map_err(|e| Error::invalid(format!("--resources: {e}")))?;
    runtime.open(id)?.update(&r).map(|()| 0)
}
