//! Runs OCI hooks.

use crate::error::{Error, Kind, Result, SysResult};
use crate::plan::Hook;
use crate::state::OciState;
use crate::sys::channel::Channel;
use crate::sys::clone::{self, Fork};
use crate::sys::cred;
use crate::sys::pidfd;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How much of the end of what a hook prints is kept for an error.
const TAIL: usize = 4096;

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
    let mut output = Output::default();
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).op("pipe")?;
    rustix::fs::fcntl_setfl(&read, rustix::fs::OFlags::NONBLOCK).op("fcntl")?;
    let mut child = Command::new(&hook.path)
        .arg0(name)
        .args(hook.args.iter().skip(1))
        .env_clear()
        .envs(hook.env.iter().filter_map(|e| e.split_once('=')))
        .current_dir(cwd)
        .stdin(input(state)?)
        .stdout(write.try_clone().op("dup")?)
        .stderr(write)
        .process_group(0)
        .spawn()
        .op_at("execute", &hook.path)?;
    let pid = pidfd::open(child.id() as i32).op("pidfd_open")?;
    let limit = hook.timeout.map(|s| Duration::from_secs(s.max(0).unsigned_abs()));
    let waited = attend(pid.as_fd(), read.as_fd(), limit, caller.map(Channel::as_fd), &mut output);
    if !matches!(waited, Ok(Waited::Gone)) {
        // With what it has started. It is not reaped yet, so that the group's number is still its own.
        let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
        let _ = child.kill();
    }
    let status = child.wait().op("wait for the hook")?;
    match waited? {
        Waited::Gone if status.success() => Ok(()),
        Waited::Gone => {
            output.take(read.as_fd());
            Err(Error::new(Kind::System, format!("{status}, {:?}:", output.text())).at(&hook.path))
        }
        Waited::HungUp => Err(Error::new(Kind::Protocol, "the caller died during hook").at(&hook.path)),
        Waited::TimedOut => {
            let seconds = hook.timeout.unwrap_or_default();
            Err(Error::new(Kind::Busy, format!("timed out after {seconds} s:")).at(&hook.path))
        }
    }
}

/// How waiting for a hook ended.
enum Waited {
    Gone,
    TimedOut,
    HungUp,
}

/// Waits for a hook's end and takes what it prints meanwhile, so that it never waits for a reader.
fn attend(
    pid: BorrowedFd<'_>,
    printed: BorrowedFd<'_>,
    limit: Option<Duration>,
    caller: Option<BorrowedFd<'_>>,
    output: &mut Output,
) -> Result<Waited> {
    let end = limit.and_then(|l| Instant::now().checked_add(l));
    let mut open = true;
    loop {
        let left = end.map(|e| e.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(Waited::TimedOut);
        }
        // Rounded up, or the last millisecond would be spent turning around.
        let left = left.map_or(-1, |l| i32::try_from(l.as_millis() + 1).unwrap_or(i32::MAX));
        let mut fds = vec![PollFd::new(pid, PollFlags::POLLIN)];
        // It has nothing more to say: what can be read is its hanging up.
        fds.extend(caller.map(|c| PollFd::new(c, PollFlags::POLLIN)));
        let first = fds.len();
        fds.extend(open.then(|| PollFd::new(printed, PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Err(nix::errno::Errno::EINTR) => continue,
            r => r.op("wait for the hook")?,
        };
        let ready = |i: usize| fds.get(i).and_then(PollFd::any).unwrap_or(false);
        if ready(0) {
            return Ok(Waited::Gone);
        }
        if caller.is_some() && ready(1) {
            return Ok(Waited::HungUp);
        }
        if ready(first) {
            open = output.take(printed);
        }
    }
}

/// The end of what a hook has printed: all that is ever kept of it.
#[derive(Default)]
struct Output(Vec<u8>);

impl Output {
    /// Takes what is there, at most a pipe full; false once nobody can print any more.
    fn take(&mut self, from: BorrowedFd<'_>) -> bool {
        let mut buf = [0u8; 16 * TAIL];
        match rustix::io::read(from, &mut buf) {
            Ok(0) => false,
            Ok(n) => {
                self.0.extend_from_slice(&buf[n.saturating_sub(TAIL)..n]);
                self.0.drain(..self.0.len().saturating_sub(TAIL));
                true
            }
            Err(e) => matches!(e, rustix::io::Errno::AGAIN | rustix::io::Errno::INTR),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).trim().to_owned()
    }
}

/// The state as a file: a pipe would block on a hook that does not read.
fn input(state: &[u8]) -> Result<Stdio> {
    let fd = rustix::fs::memfd_create("state", rustix::fs::MemfdFlags::CLOEXEC).op("memfd_create")?;
    let mut file = std::fs::File::from(fd);
    file.write_all(state).and_then(|()| file.rewind()).op("write the state for the hook")?;
    Ok(file.into())
}
