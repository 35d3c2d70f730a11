//! What this host offers, found out by trying, and what it costs if it is missing.

use crate::cgroup::Layout;
use crate::idmap::pool::{Pool, SubidConfig, DEFAULT_DIR};
use crate::sys::clone::{self, Fork};
use crate::sys::{cred, pidfd};
use crate::{mount, seccomp};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What.
    pub name: String,
    /// How it went.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// What it means for containers, unless it works.
    pub cost: Option<String>,
}

/// How a probe went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Works,
    /// Containers work, and lack something.
    Limited,
    /// No container can be made.
    Missing,
}

/// Tries everything. Needs root. Forks, so that the process must have one thread: see [`crate::Runtime::check_host`] for others. Leaves nothing behind but the directory of
/// the pool of subordinate IDs, which is made if missing.
pub fn probe() -> Vec<Probe> {
    let mut out = vec![root()];
    out.extend(userns());
    out.extend([
        cgroups(),
        time(),
        seccomp_filters(),
        exit_status(),
        oom(),
        subids(),
        device("/dev/fuse", "FUSE does not work inside, and /proc shows the host's figures where limits differ"),
        device("/dev/net/tun", "TUN does not work inside"),
    ]);
    out
}

fn works(name: &str, detail: impl Into<String>) -> Probe {
    Probe { name: name.into(), verdict: Verdict::Works, detail: detail.into(), cost: None }
}

fn lacks(name: &str, verdict: Verdict, detail: impl Into<String>, cost: &str) -> Probe {
    Probe { name: name.into(), verdict, detail: detail.into(), cost: Some(cost.into()) }
}

fn root() -> Probe {
    const NEEDED: &[(u32, &str)] =
        &[(21, "SYS_ADMIN"), (7, "SETUID"), (6, "SETGID"), (0, "CHOWN"), (27, "MKNOD"), (12, "NET_ADMIN")];
    let missing: Vec<&str> = NEEDED.iter().filter(|(n, _)| !cred::has_cap(*n)).map(|(_, s)| *s).collect();
    if missing.is_empty() {
        works("root", "all capabilities that are needed")
    } else {
        lacks("root", Verdict::Missing, format!("lacks CAP_{}", missing.join(", CAP_")), "run it as root of the host")
    }
}

/// A child in new namespaces, and what can be done with its user namespace.
fn userns() -> Vec<Probe> {
    let name = "user namespaces";
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
    let (ours, theirs) = match std::os::unix::net::UnixStream::pair() {
        Ok(p) => p,
        Err(e) => return vec![lacks(name, Verdict::Missing, e.to_string(), "no container can be made")],
    };
    match clone::fork(flags, None) {
        Ok(Fork::Child) => {
            drop(ours);
            // Ends when the parent lets go.
            let _ = std::io::Read::read(&mut &theirs, &mut [0]);
            clone::exit_now(0)
        }
        Ok(Fork::Parent { pid, pidfd }) => {
            drop(theirs);
            let mut out = vec![works(name, "a child in new user, pid, network, uts and ipc namespaces")];
            out.push(idmaps(pid));
            drop(ours);
            let _ = pidfd::wait_gone(pidfd.as_fd(), 5000);
            let _ = pidfd::reap(pidfd.as_fd());
            out
        }
        Err(e) => vec![lacks(
            name,
            Verdict::Missing,
            format!("clone3: {e}"),
            "see /proc/sys/user/max_user_namespaces and kernel.unprivileged_userns_clone",
        )],
    }
}

fn idmaps(pid: i32) -> Probe {
    let name = "ID-mapped mounts";
    let map = |file: &str| std::fs::write(format!("/proc/{pid}/{file}"), "0 1879048192 65536");
    if let Err(e) = map("uid_map").and_then(|()| map("gid_map")) {
        return lacks(name, Verdict::Missing, format!("write uid_map: {e}"), "no container can be made");
    }
    let dir = Path::new("/var/lib");
    let tried = File::open(format!("/proc/{pid}/ns/user")).and_then(|ns| {
        let tree =
            mount::clone_tree(dir, false).map_err(|e| std::io::Error::from_raw_os_error(e.errno().unwrap_or(0)))?;
        mount::idmap(tree.as_fd(), ns.as_fd())
    });
    match tried {
        Ok(()) => works(name, format!("of {}", dir.display())),
        Err(e) => lacks(
            name,
            Verdict::Missing,
            format!("of {}: {e}", dir.display()),
            "root file systems must lie on ext4, xfs, btrfs or tmpfs (Linux 5.12; tmpfs 6.3)",
        ),
    }
}

fn cgroups() -> Probe {
    let name = "control groups";
    match Layout::detect() {
        Ok(l) if l.is_unified() => works(name, format!("version 2 with {}", l.hierarchies[0].controllers.join(" "))),
        Ok(l) if !l.hierarchies.is_empty() => {
            let all: Vec<String> = l.hierarchies.iter().flat_map(|h| h.controllers.iter().cloned()).collect();
            works(name, format!("version 1 or hybrid with {}", all.join(" ")))
        }
        Ok(_) => lacks(name, Verdict::Missing, "none is mounted", "mount cgroup2 on /sys/fs/cgroup"),
        Err(e) => lacks(name, Verdict::Missing, e.to_string(), "no limits can be set"),
    }
}

fn time() -> Probe {
    let name = "time namespaces";
    if Path::new("/proc/self/ns/time").exists() {
        works(name, "uptime inside is the container's own")
    } else {
        lacks(name, Verdict::Limited, "the kernel has none", "uptime and start times inside are the host's")
    }
}

fn seccomp_filters() -> Probe {
    let name = "seccomp filters";
    let profile = seccomp::Profile::new(seccomp::Action::Allow);
    match (seccomp::compile(&profile), Path::new("/proc/sys/kernel/seccomp/actions_avail").exists()) {
        (Ok(_), true) => works(name, "profiles of engines are applied"),
        (Err(e), _) => lacks(name, Verdict::Limited, e.to_string(), "configurations with a profile are refused"),
        (_, false) => lacks(name, Verdict::Limited, "the kernel has none", "configurations with a profile are refused"),
    }
}

/// A child that is reaped before it is asked about.
fn exit_status() -> Probe {
    let name = "exit status after reaping";
    match clone::fork(0, None) {
        Ok(Fork::Child) => clone::exit_now(7),
        Ok(Fork::Parent { pidfd, .. }) => {
            let _ = pidfd::wait_gone(pidfd.as_fd(), 5000);
            let _ = pidfd::reap(pidfd.as_fd());
            match pidfd::exit_info(pidfd.as_fd()) {
                pidfd::Known::Exit(pidfd::Exit::Code(7)) => works(name, "kept by the kernel"),
                _ => lacks(
                    name,
                    Verdict::Limited,
                    "lost (before Linux 6.15)",
                    "a container's exit status can be waited for by its creator only",
                ),
            }
        }
        Err(e) => lacks(name, Verdict::Limited, e.to_string(), "unknown"),
    }
}

fn oom() -> Probe {
    let name = "lowering oom_score_adj";
    if cred::has_cap(super::CAP_SYS_RESOURCE) {
        works(name, "and raising hard limits")
    } else {
        lacks(
            name,
            Verdict::Limited,
            "no CAP_SYS_RESOURCE",
            "negative scores and hard limits above the caller's are refused",
        )
    }
}

fn subids() -> Probe {
    let name = "subordinate IDs";
    match Pool::open(Path::new(DEFAULT_DIR), SubidConfig::default()).and_then(|p| p.preview()) {
        Ok(m) => works(name, format!("the next container gets {} and up", m.root().0)),
        Err(e) => lacks(name, Verdict::Missing, e.to_string(), "no container can be made"),
    }
}

fn device(path: &'static str, cost: &str) -> Probe {
    match File::open(path) {
        Ok(_) => works(path, "can be opened"),
        Err(e) => lacks(path, Verdict::Limited, e.to_string(), cost),
    }
}
