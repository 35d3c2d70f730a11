//! Runs OCI hooks.

use crate::error::{Error, Kind, Result, SysResult};
use crate::plan::Hook;
use crate::state::OciState;
use crate::sys::channel::Channel;
use crate::sys::clone::{self, Fork};
use crate::sys::cred;
use crate::sys::pidfd::{self, Waited};
use std::io::{Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs the hooks one after the other in this process's namespaces.
///
/// `caller` is watched: when it hangs up, the hook is killed, so that one that hangs keeps nothing from being cleaned up.
pub(super) fn run_here(hooks: &[Hook], state: &OciState, point: &str, caller: Option<&Channel>) -> Result<()> {
    let json = serde_json::to_vec(state).map_err(|e| Error::new(Kind::Protocol, format!("encode state: {e}")))?;
    // Inside the container there is no bundle.
    let cwd = if state.bundle.is_dir() { state.bundle.as_path() } else { Path::new("/") };
    // The stage's own is zero, which no program expects.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    for hook in hooks {
        run_one(hook, &json, cwd, caller).map_err(|e| e.within(format!("{point} hook")))?;
    }
    Ok(())
}

/// Runs the hooks in a copy of this process that has first done `enter`: joined other namespaces, say.
pub(super) fn run_elsewhere(
    hooks: &[Hook],
    state: &OciState,
    point: &str,
    caller: &Channel,
    enter: impl FnOnce() -> Result<()>,
) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let (ours, theirs) = Channel::pair()?;
    match clone::fork(0, None).op("fork for hooks")? {
        Fork::Child => {
            drop(ours);
            let r = cred::reset_fs_identity()
                .op("take back root's identity")
                .and_then(|()| enter())
                .and_then(|()| run_here(hooks, state, point, Some(caller)));
            let _ = theirs.send(&r.err(), &[]);
            clone::exit_now(0)
        }
        Fork::Parent { pidfd, .. } => {
            drop(theirs);
            let answer = ours.expect::<Option<Error>>("the hook runner");
            let _ = pidfd::wait_gone(pidfd.as_fd(), -1);
            let _ = pidfd::reap(pidfd.as_fd());
            answer?.0.map_or(Ok(()), Err)
        }
    }
}

fn run_one(hook: &Hook, state: &[u8], cwd: &Path, caller: Option<&Channel>) -> Result<()> {
    let name = hook.args.first().cloned().unwrap_or_else(|| hook.path.display().to_string());
    let log = rustix::fs::memfd_create("hook", rustix::fs::MemfdFlags::CLOEXEC).op("memfd_create")?;
    let out = |log: &OwnedFd| log.try_clone().map(Stdio::from).op("dup");
    let mut child = Command::new(&hook.path)
        .arg0(name)
        .args(hook.args.iter().skip(1))
        .env_clear()
        .envs(hook.env.iter().filter_map(|e| e.split_once('=')))
        .current_dir(cwd)
        .stdin(input(state)?)
        .stdout(out(&log)?)
        .stderr(out(&log)?)
        .spawn()
        .op_at("execute", &hook.path)?;
    let pid = pidfd::open(child.id() as i32).op("pidfd_open")?;
    let limit = hook.timeout.map_or(-1, |s| i32::try_from(s.saturating_mul(1000)).unwrap_or(i32::MAX));
    let waited = pidfd::wait_gone_or(pid.as_fd(), limit, caller.map(Channel::as_fd)).op("wait for the hook")?;
    if waited != Waited::Gone {
        let _ = child.kill();
    }
    let status = child.wait().op("wait for the hook")?;
    if waited == Waited::HungUp {
        return Err(Error::new(Kind::Protocol, "the caller died during hook").at(&hook.path));
    }
    if waited == Waited::TimedOut {
        return Err(Error::new(Kind::Busy, format!("timed out after {} s:", limit / 1000)).at(&hook.path));
    }
    if !status.success() {
        let text = said(&log);
        return Err(Error::new(Kind::System, format!("{status}, {text:?}:")).at(&hook.path));
    }
    Ok(())
}

/// The state as a file: a pipe would block on a hook that does not read.
fn input(state: &[u8]) -> Result<Stdio> {
    let fd = rustix::fs::memfd_create("state", rustix::fs::MemfdFlags::CLOEXEC).op("memfd_create")?;
    let mut file = std::fs::File::from(fd);
    file.write_all(state).and_then(|()| file.rewind()).op("write the state for the hook")?;
    Ok(file.into())
}

/// The end of what the hook printed.
fn said(log: &OwnedFd) -> String {
    let mut buf = vec![0u8; 4096];
    let size = rustix::fs::fstat(log).map_or(0, |s| s.st_size.max(0) as u64);
    let n = rustix::io::pread(log, &mut buf, size.saturating_sub(4096)).unwrap_or(0);
    String::from_utf8_lossy(&buf[..n]).trim().to_owned()
}
