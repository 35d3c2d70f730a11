//! One container: what can be done with it once it exists.
//!
//! Every call looks at the container as it is now: other processes may start, pause and delete it at any time. Calls that
//! need privilege inside ([`Container::exec`], hooks) are carried out by the stage; this process never enters a namespace.
//! State and life cycle: the OCI runtime specification, runtime.md.

mod delete;
mod end;
mod exec;
pub(crate) mod monitor;
mod stats;
mod watch;

use crate::error::{Error, Kind, Result, SysResult};
use crate::limit::Limit;
use crate::overlay;
use crate::protocol::{Change, Reply, Start, StartAnswer, Work};
use crate::runtime::Runtime;
use crate::spec::Spec;
use crate::state::{Found, Init, OciState, Record, StateDir, Status};
use crate::sys::channel::Channel;
use crate::sys::pidfd;
use oci_spec::runtime as oci;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::OnceLock;

pub use crate::sys::pidfd::Exit;
use end::Process;
pub use exec::{Child, ExecOptions};
pub use monitor::MonitorStatus;
pub use watch::{Event, Watch};

/// How long a killed init may take to die, in milliseconds.
const DEATH_MS: i32 = 10_000;

/// A handle on a container: its state as it was read, and a descriptor of its init. Dropping it does nothing to the container.
///
/// A container that has ended keeps its cgroups, IDs and state until [`Container::delete`].
#[derive(Debug)]
pub struct Container {
    runtime: Runtime,
    dir: StateDir,
    id: String,
    opened: View,
    /// If that knew of no init, since it was being made: the first that does.
    later: OnceLock<View>,
    /// Of the state directory.
    identity: (u64, u64),
}

/// What was found of a container at some time.
#[derive(Debug)]
struct View {
    found: Found,
    init: Option<Process>,
}

impl View {
    fn of(found: Found) -> Self {
        let open = |i: Init| pidfd::open(i.pid).ok().filter(|_| i.exists());
        let pidfd = found.init.filter(Init::alive).and_then(open);
        View { found, init: pidfd.map(Process::new) }
    }
}

impl Container {
    /// One that this process has made.
    pub(crate) fn new(runtime: Runtime, dir: StateDir, id: &str, found: Found, pidfd: OwnedFd) -> Self {
        Self::with(runtime, dir, id, View { found, init: Some(Process::new(pidfd)) })
    }

    pub(crate) fn open(runtime: Runtime, dir: StateDir, id: &str, found: Found) -> Self {
        Self::with(runtime, dir, id, View::of(found))
    }

    fn with(runtime: Runtime, dir: StateDir, id: &str, opened: View) -> Self {
        let identity = dir.identity().unwrap_or_default();
        Container { runtime, dir, id: id.into(), opened, later: OnceLock::new(), identity }
    }

    /// What is known of it. Read anew until it has an init.
    fn view(&self) -> &View {
        if self.opened.found.init.is_some() {
            return &self.opened;
        }
        let anew = || {
            let found = self.dir.load().ok().filter(|f| f.init.is_some() && !self.opened.found.is_another(f))?;
            self.dir.identity().is_ok_and(|i| i == self.identity).then(|| View::of(found))
        };
        match self.later.get() {
            Some(later) => later,
            None => anew().map_or(&self.opened, |view| self.later.get_or_init(|| view)),
        }
    }

    fn found(&self) -> &Found {
        &self.view().found
    }

    /// Its init, if that lived when it was found.
    fn init(&self) -> Option<&Process> {
        self.view().init.as_ref()
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn record(&self) -> Result<&Record> {
        let found = self.found();
        found.record.as_ref().ok_or_else(|| {
            found.damage.clone().unwrap_or_else(|| {
                Error::new(Kind::WrongState, format!("container {} was never finished", self.id))
                    .hint("delete it with --force")
            })
        })
    }

    /// Which of its files cannot be read, and why ([`Kind::Damaged`]). It may run, but all that is left to do with it is
    /// [`Container::delete`] with `force`, which takes away what can be found.
    pub fn damage(&self) -> Option<&Error> {
        self.found().damage.as_ref()
    }

    /// Pid of init, as the host numbers processes, if it lives. Read from /proc at each call.
    pub fn pid(&self) -> Option<i32> {
        self.found().init.filter(Init::alive).map(|i| i.pid)
    }

    /// A descriptor of init that becomes readable when it ends (pidfd_open(2)), if it lived when this handle was made, or was made
    /// later.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.init().map(AsFd::as_fd)
    }

    /// Its ID maps.
    ///
    /// # Errors
    /// It was never finished.
    pub fn maps(&self) -> Result<&crate::idmap::Maps> {
        self.record().map(|r| &r.maps)
    }

    /// When it was made, in nanoseconds since 1970.
    pub fn created(&self) -> Option<u64> {
        self.found().record.as_ref().map(|r| r.created)
    }

    /// What it is doing just now: from /proc, the freezer and the state directory. What cannot be found out reads as not so.
    pub fn status(&self) -> Status {
        match self.found().init {
            None => self.unfinished_status(),
            Some(init) => self.status_with(init),
        }
    }

    fn status_with(&self, init: Init) -> Status {
        if !init.alive() {
            Status::Stopped
        } else if self.record().is_ok_and(|r| r.cgroup.is_frozen().unwrap_or(false)) {
            Status::Paused
        } else if self.dir.socket().exists() {
            Status::Created
        } else if self.dir.unfinished_socket().exists() {
            Status::Creating
        } else {
            Status::Running
        }
    }

    fn unfinished_status(&self) -> Status {
        match self.dir.try_lock() {
            Ok(None) => Status::Creating,
            // It may have been finished between the two looks.
            _ => self.found().init.map_or(Status::Stopped, |init| self.status_with(init)),
        }
    }

    /// Its state as the OCI specification has it.
    pub fn state(&self) -> OciState {
        let record = self.found().record.as_ref();
        OciState {
            oci_version: record.map_or_else(|| "1.0.2".into(), |r| r.oci_version.clone()),
            id: self.id.clone(),
            status: self.status(),
            pid: self.pid(),
            bundle: record.map(|r| r.bundle.clone()).unwrap_or_default(),
            annotations: record.map(|r| r.annotations.clone()).unwrap_or_default(),
        }
    }

    /// Its state for programs that embed the library: as [`Container::state`], with `rootfs`, and `created` in nanoseconds since
    /// 1970; the status of a damaged one is `damaged`.
    pub fn describe(&self) -> serde_json::Value {
        let mut doc = serde_json::to_value(self.state()).unwrap_or_default();
        if self.damage().is_some() {
            doc["status"] = "damaged".into();
        }
        if let (Some(rootfs), Some(created)) = (self.rootfs(), self.created()) {
            doc["rootfs"] = rootfs.to_string_lossy().into();
            doc["created"] = created.into();
        }
        doc
    }

    /// Where its root file system lies on the host.
    pub fn rootfs(&self) -> Option<&Path> {
        self.found().record.as_ref().map(|r| r.root.as_path())
    }

    /// Lets the engine's overlay and the container's see what was changed through the other (see [`crate::overlay`]). The library
    /// does so in every call that works on a container; this is for whoever changes files by himself.
    pub fn refresh_root(&self) {
        if let Some(record) = self.found().record.as_ref().filter(|r| r.restacked) {
            overlay::refresh_both(&record.root, self.pid());
        }
    }

    /// The container must not run.
    fn keep_inner_marks(&self) {
        if let Some(data) = self.found().record.as_ref().and_then(|r| r.inner_data.as_ref()) {
            if let Err(e) = data.keep_marks() {
                tracing::warn!(id = self.id, "a commit may lack deletions inside inner images: {e}");
            }
        }
    }

    fn expect_status(&self, wanted: &[Status], to: &str) -> Result<()> {
        let status = self.status();
        if wanted.contains(&status) {
            return Ok(());
        }
        let wrong = || Error::new(Kind::WrongState, format!("cannot {to} container {}: it is {status}", self.id));
        Err(self.found().damage.clone().unwrap_or_else(wrong))
    }

    /// Lets the program run. Blocks until it has been executed and the `poststart` hooks are done.
    ///
    /// Any process with the right to read the state directory may call it, not only the creator.
    ///
    /// # Errors
    /// [`Kind::WrongState`] unless it is created; [`Kind::ProgramNotFound`] and [`Kind::ProgramNotExecutable`] if the program
    /// cannot be executed, and those of a `startContainer` hook: then the container is stopped. Those of a `poststart` hook:
    /// then the program runs nevertheless.
    pub fn start(&mut self) -> Result<()> {
        self.start_within(&Limit::none())
    }

    /// As [`Container::start`], until `limit` is over: then the container is created still, if the start had not begun, and stopped
    /// otherwise: init is killed.
    ///
    /// # Errors
    /// [`Kind::TimedOut`], [`Kind::Canceled`], and those of [`Container::start`].
    pub fn start_within(&self, limit: &Limit) -> Result<()> {
        self.record()?;
        limit.check()?;
        self.expect_status(&[Status::Created], "start")?;
        self.refresh_root();
        let handle = std::fs::File::open(self.dir.path()).op_at("open", self.dir.path())?;
        let path = format!("/proc/self/fd/{}/start.sock", handle.as_raw_fd());
        let socket = match UnixStream::connect(path) {
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
                // Its last starter died between the start and the end of it.
                let _ = std::fs::remove_file(self.dir.socket());
                return self.expect_status(&[Status::Created], "start");
            }
            r => r.op_at("connect to", self.dir.socket())?,
        };
        let channel = Channel::new(socket);
        let line = self.trap_line(limit)?;
        let line: Vec<_> = line.iter().map(AsFd::as_fd).collect();
        // Without this answer somebody else's start came first, or init is dead.
        let sent = channel.send(&Start, &line);
        let over = limit.wait_readable(channel.as_fd());
        if over.is_err() {
            // It may have heard already.
            channel.refuse();
        }
        let heard = sent.and_then(|()| channel.recv::<StartAnswer>());
        if let Err(e) = over {
            if matches!(heard, Ok(Some(_))) {
                let _ = std::fs::remove_file(self.dir.socket());
                self.stop();
            }
            return Err(e);
        }
        let ended = || Error::new(Kind::WrongState, format!("cannot start container {}: its init has ended", self.id));
        if !matches!(heard, Ok(Some((StartAnswer::Starting, _)))) {
            self.expect_status(&[Status::Created], "start")?;
            return Err(ended());
        }
        // It is not to be started again, whatever comes of this.
        let _ = std::fs::remove_file(self.dir.socket());
        let begun = || {
            let mut answer = channel.recv_within::<StartAnswer>(limit)?;
            if let Some((StartAnswer::Executing, _)) = answer {
                answer = channel.recv_within::<StartAnswer>(limit)?;
            } else if answer.is_none() {
                return Err(ended());
            }
            if let Some((StartAnswer::Failed(e), _)) = answer {
                return Err(e);
            }
            self.host_hooks("poststart", limit)
        };
        let started = begun();
        if matches!(&started, Err(e) if matches!(e.kind(), Kind::TimedOut | Kind::Canceled)) {
            self.stop();
        }
        started
    }

    /// Kills init, as far as that can be done, and waits for its end.
    fn stop(&self) {
        let Some(init) = self.init() else { return };
        let _ = pidfd::kill(init.as_fd(), libc::SIGKILL);
        let _ = pidfd::wait_gone(init.as_fd(), DEATH_MS);
    }

    /// Runs the hooks of the host's side. Their failure is the caller's to judge.
    fn host_hooks(&self, point: &str, limit: &Limit) -> Result<()> {
        let record = self.record()?;
        let hooks = if point == "poststop" { &record.poststop } else { &record.poststart };
        if hooks.is_empty() {
            return Ok(());
        }
        let work = Work::Hooks { hooks: hooks.clone(), state: self.state(), point: point.into() };
        let mut stage = self.runtime.spawn(work, Vec::new(), limit)?;
        let result = match stage.reply_within(limit) {
            Ok((Reply::Failed(e), _)) => Err(stage.outcome(e)),
            r => r.and_then(|_| stage.over()),
        };
        stage.finish();
        result
    }

    /// Sends a signal (`SIG*` number) to init by pidfd_send_signal(2). As everywhere, pid 1 gets only signals it handles, SIGKILL
    /// and SIGSTOP. Does not wait for the effect.
    ///
    /// # Errors
    /// [`Kind::WrongState`] if init has ended; [`Kind::System`] for an invalid number.
    pub fn kill(&self, signal: i32) -> Result<()> {
        // runc's words, which containerd knows.
        let gone = || Error::new(Kind::WrongState, "container not running");
        let init = self.found().init.filter(Init::alive);
        let init = init.ok_or_else(|| self.found().damage.clone().unwrap_or_else(gone))?;
        let pidfd = pidfd::open(init.pid).map_err(|_| gone())?;
        // Between the look and the open the number may have changed hands.
        if !init.alive() {
            return Err(gone());
        }
        pidfd::kill(pidfd.as_fd(), signal).op(format!("send signal {signal} to init of {}", self.id))?;
        if signal == libc::SIGKILL {
            self.release_readers();
        }
        self.refresh_root();
        // Frozen by v1, it would not die before it is thawed.
        match self.record() {
            Ok(r) if signal == libc::SIGKILL && self.status() == Status::Paused => r.cgroup.thaw(),
            _ => Ok(()),
        }
    }

    /// Sends a signal to every process of the container, inner containers included, and to no other: one that has got the number
    /// of a process of the container meanwhile is spared. Processes born meanwhile may be missed, but not by SIGKILL on a host
    /// with cgroup v2 alone (`cgroup.kill`, Linux 5.14).
    ///
    /// # Errors
    /// Its cgroup cannot be read. That a process has ended, or refuses the signal, is none.
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        self.record()?.cgroup.signal(signal)
    }

    /// Host pids of all its processes, inner containers included.
    ///
    /// # Errors
    /// Its cgroup cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>> {
        self.refresh_root();
        Ok(self.record()?.cgroup.pids()?.into_iter().map(|p| p as i32).collect())
    }

    /// Freezes all its processes, and waits until they are frozen (v1: the `freezer` controller; v2: `cgroup.freeze`, Linux 5.2).
    ///
    /// # Errors
    /// [`Kind::WrongState`] unless it is created or running; the freezer is missing or does not answer.
    pub fn pause(&self) -> Result<()> {
        self.expect_status(&[Status::Running, Status::Created], "pause")?;
        self.record()?.cgroup.freeze()?;
        self.dir.tell();
        self.keep_inner_marks();
        self.refresh_root();
        Ok(())
    }

    /// Lets frozen processes go on.
    ///
    /// # Errors
    /// [`Kind::WrongState`] unless it is paused; the freezer does not answer.
    pub fn resume(&self) -> Result<()> {
        self.expect_status(&[Status::Paused], "resume")?;
        self.refresh_root();
        self.mend_monitor();
        self.record()?.cgroup.thaw()?;
        self.dir.tell();
        Ok(())
    }

    /// Changes its limits: what `resources` (OCI `linux.resources`) gives; the rest stays. Device rules are not looked at.
    ///
    /// # Errors
    /// [`Kind::WrongState`] unless it is created, running or paused; a value is malformed, or the kernel refuses it, as in
    /// [`crate::cgroup::Paths::update`].
    pub fn update(&self, resources: &oci::LinuxResources) -> Result<()> {
        self.expect_status(&[Status::Running, Status::Created, Status::Paused], "update")?;
        self.refresh_root();
        self.mend_monitor();
        let cgroups = &self.record()?.cgroup;
        cgroups.update(resources)?;
        let Some(unit) = &cgroups.unit else { return Ok(()) };
        let properties = cgroups.unit_properties(resources)?;
        if properties.is_empty() {
            return Ok(());
        }
        self.runtime.change_unit(unit, Change::Set(properties))?;
        // systemd has written its own idea of them, which may be rounded.
        cgroups.update(resources)
    }

    /// The configuration it was made from.
    ///
    /// # Errors
    /// The copy in the state directory cannot be read.
    pub fn spec(&self) -> Result<Spec> {
        Spec::from_bundle(self.dir.path())
    }

    /// Waits, without limit, until init has ended, and says how. Reaps init if it is a child of this process; any number of threads
    /// may wait, and again afterwards. Of another process's child the kernel tells how it ended when that process has reaped it, and
    /// not before: it is waited for. To wait for other things as well, poll [`Container::pidfd`] first.
    ///
    /// # Errors
    /// [`Kind::WrongState`] if init had ended before this handle was made; [`Kind::Unsupported`] if init is not a child of this
    /// process, or somebody else reaped it (so does the kernel where SIGCHLD is ignored), on a kernel that does not keep the status
    /// (before 6.15).
    pub fn wait(&self) -> Result<Exit> {
        self.wait_within(&Limit::none())
    }

    /// As [`Container::wait`], until `limit` is over, which changes nothing of the container.
    ///
    /// # Errors
    /// [`Kind::TimedOut`], [`Kind::Canceled`], and those of [`Container::wait`].
    pub fn wait_within(&self, limit: &Limit) -> Result<Exit> {
        let init = self.init().ok_or_else(|| {
            Error::new(
                Kind::WrongState,
                format!("container {} had ended before it was opened: its status is gone", self.id),
            )
        })?;
        init.wait(limit)
    }
}
