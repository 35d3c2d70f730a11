//! Asks systemd to make, change and stop units.
//!
//! By busctl(1), which is part of systemd: a bus client of our own would bring threads or C into a small static program, for a
//! handful of calls.

use crate::cgroup::{self, unit, Property, Unit};
use crate::error::{Error, Kind, Result, SysResult};
use crate::protocol::Change;
use crate::sys::clone::{self, Fork};
use crate::sys::{fd, pidfd};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Where distributions have it; this process has no PATH.
const BUSCTL: [&str; 4] =
    ["/usr/bin/busctl", "/bin/busctl", "/usr/local/bin/busctl", "/run/current-system/sw/bin/busctl"];
/// How long systemd may take for one job.
const JOB: Duration = Duration::from_secs(30);
/// How long a unit of the same name may take to go, its processes being gone.
const SUCCESSION: Duration = Duration::from_secs(2);

/// A process that does nothing but be in a new unit until init is there: systemd makes no scope without one, and what the stage
/// itself does is not to be charged to the container.
#[derive(Debug)]
pub(super) struct Holder {
    pid: i32,
    pidfd: OwnedFd,
}

impl Holder {
    fn new() -> Result<Holder> {
        let parent = nix::unistd::getpid();
        match clone::fork(0, None).op("fork a process to hold the unit")? {
            Fork::Parent { pid, pidfd } => Ok(Holder { pid, pidfd }),
            Fork::Child => {
                // Others wait for the last copy of a descriptor to close.
                let closed = fd::close_range(0, u32::MAX);
                // It follows this process, which has one thread, and may have been killed by now.
                let follows = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
                if closed.is_ok() && follows.is_ok() && nix::unistd::getppid() == parent {
                    loop {
                        nix::unistd::pause();
                    }
                }
                clone::exit_now(1)
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid as u32
    }

    /// It ends with this process in any case.
    pub(super) fn end(self) {
        let _ = pidfd::kill(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = pidfd::wait_gone(self.pidfd.as_fd(), -1);
        let _ = pidfd::reap(self.pidfd.as_fd());
    }
}

/// Makes the plan's unit, if it has one.
pub(super) fn start(plan: &cgroup::Plan) -> Result<Option<Holder>> {
    let Some(unit) = &plan.unit else { return Ok(None) };
    let holder = Holder::new()?;
    let made =
        start_with(unit, holder.pid()).map_err(|e| e.within(format!("have systemd make the unit {}", unit.name)));
    match made {
        Ok(()) => Ok(Some(holder)),
        Err(e) => {
            holder.end();
            Err(e)
        }
    }
}

fn start_with(unit: &Unit, holder: u32) -> Result<()> {
    let end = Instant::now() + SUCCESSION;
    let mut limits = true;
    loop {
        match busctl(&unit.start(holder, limits)) {
            Ok(answer) => {
                wait(&answer)?;
                break;
            }
            Err(e) if limits && is_unknown_property(&e) => limits = false,
            // One of a container that has just ended goes by itself, and one that has failed when it is told.
            Err(e) if is_taken(&e) && Instant::now() < end => {
                let _ = busctl(&unit::reset(&unit.name));
                sleep(Duration::from_millis(50));
            }
            Err(e) if is_taken(&e) => return Err(e.kinded(Kind::Exists)),
            Err(e) => return Err(e),
        }
    }
    if limits {
        return Ok(());
    }
    set(&unit.name, &unit.limits)
}

/// Changes a unit that exists. One that is gone is stopped.
pub(super) fn change(unit: &str, change: &Change) -> Result<()> {
    match change {
        Change::Set(properties) => {
            set(unit, properties).map_err(|e| e.within(format!("tell systemd the limits of {unit}")))
        }
        Change::Stop => {
            let stopped = match busctl(&unit::stop(unit)) {
                Ok(answer) => wait(&answer),
                Err(e) if is_gone(&e) => Ok(()),
                Err(e) => Err(e),
            };
            // Nothing to reset is an error.
            let _ = busctl(&unit::reset(unit));
            stopped.map_err(|e| e.within(format!("have systemd stop the unit {unit}")))
        }
    }
}

/// What an older systemd does not know it does not touch either.
fn set(name: &str, properties: &[Property]) -> Result<()> {
    match busctl(&unit::set(name, properties)) {
        Err(e) if is_unknown_property(&e) => {
            properties.iter().try_for_each(|p| match busctl(&unit::set(name, std::slice::from_ref(p))) {
                Err(e) if !is_unknown_property(&e) => Err(e),
                _ => Ok(()),
            })
        }
        r => r.map(drop),
    }
}

/// Waits for the end of the job that an answer (`o "/org/freedesktop/systemd1/job/7"`) names: then its object is gone. How it ended
/// shows in what it was to do.
fn wait(answer: &str) -> Result<()> {
    let Some(job) = answer.split('"').nth(1) else {
        return Err(Error::new(Kind::Protocol, format!("systemd answers {answer:?}")));
    };
    let args = ["get-property", "org.freedesktop.systemd1", job, "org.freedesktop.systemd1.Job", "State"];
    let args = args.map(str::to_owned);
    let end = Instant::now() + JOB;
    let mut pause = Duration::from_millis(1);
    while busctl(&args).is_ok() {
        if Instant::now() > end {
            return Err(Error::new(Kind::Busy, format!("systemd has not done {job} in {} s", JOB.as_secs())));
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
    Ok(())
}

// busctl prints the message of an error and not its name.

fn is_unknown_property(e: &Error) -> bool {
    e.operation().contains("unknown property")
}

fn is_taken(e: &Error) -> bool {
    ["already exists", "already loaded"].iter().any(|m| e.operation().contains(m))
}

fn is_gone(e: &Error) -> bool {
    e.operation().contains("not loaded")
}

fn busctl(args: &[String]) -> Result<String> {
    let program = BUSCTL.iter().find(|p| Path::new(p).exists()).ok_or_else(|| {
        Error::new(Kind::Unsupported, "busctl, which is part of systemd, is nowhere to be found")
            .hint("install systemd's tools, or use the cgroupfs driver")
    })?;
    let out = Command::new(program)
        .args(["--system", "--timeout=30", "--"])
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .op_at("run", program)?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&out.stderr);
    Err(Error::new(Kind::System, format!("busctl: {}", text.trim().trim_start_matches("Call failed: "))))
}
