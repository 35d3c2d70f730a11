//! The program: its identity, limits, capabilities and system call filter.

use super::settings::{settings, Settings};
use super::{capabilities, priority, Filter, Process};
use crate::error::{Error, Result};
use crate::idmap::Maps;
use crate::{mount, seccomp};
use oci_spec::runtime as oci;
use oci_spec::runtime::PosixRlimitType as R;

/// AppArmor profiles that engines apply by themselves. They forbid mounts, which are the container's own here.
const ENGINE_PROFILES: &[&str] = &["docker-default", "cri-containerd.apparmor.d", "crio-default", "unconfined", ""];

fn is_engine_profile(name: &str) -> bool {
    ENGINE_PROFILES.contains(&name) || name.starts_with("containers-default-")
}

/// What of the container bears on its processes.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) spec: &'a oci::Spec,
    pub(super) maps: &'a Maps,
    pub(super) memory_limited: bool,
    pub(super) can_lower_oom: bool,
    pub(super) settings: &'a Settings,
    pub(super) systemd: bool,
}

/// A process of the container that `spec` describes, planned for exec: the same rules as for the first one. Pure.
///
/// # Errors
/// [`Kind::InvalidConfig`](crate::Kind::InvalidConfig) if the process is malformed or its user is not mapped;
/// [`Kind::Unsupported`](crate::Kind::Unsupported) if the profile cannot be compiled here. The message names the field.
pub fn process_for_exec(p: &oci::Process, maps: &Maps, spec: &oci::Spec) -> Result<Process> {
    let mut notes = Vec::new();
    let mut with = spec.clone();
    with.set_process(Some(p.clone()));
    let settings = &settings(&with)?;
    let cx = Context { spec, maps, memory_limited: false, can_lower_oom: false, settings, systemd: false };
    plan(p, &cx, &mut notes)
}

pub(super) fn plan(p: &oci::Process, cx: &Context<'_>, notes: &mut Vec<String>) -> Result<Process> {
    let args = p.args().clone().unwrap_or_default();
    if args.is_empty() {
        return Err(Error::invalid("process.args is empty"));
    }
    let mut env = p.env().clone().unwrap_or_default();
    if let Some(bad) = env.iter().chain(&args).find(|s| s.contains('\0')) {
        return Err(Error::invalid(format!("process: NUL byte in {bad:?}")));
    }
    if cx.systemd && !env.iter().any(|e| e.starts_with("container=")) {
        env.push("container=oci".into());
    }
    let cwd = mount::normalize(p.cwd()).map_err(|e| e.within("process.cwd"))?;
    let user = p.user();
    let groups = user.additional_gids().clone().unwrap_or_default();
    let mapped = cx.maps.uid.to_outside(user.uid()).is_some()
        && groups.iter().chain([&user.gid()]).all(|g| cx.maps.gid.to_outside(*g).is_some());
    if !mapped {
        return Err(Error::invalid(format!(
            "process.user {}:{} {groups:?} is outside the ID maps",
            user.uid(),
            user.gid()
        ))
        .hint("give the container a larger range of subordinate IDs"));
    }
    let apparmor = p.apparmor_profile().clone().filter(|a| {
        let drop = is_engine_profile(a);
        if drop && !a.is_empty() && a != "unconfined" {
            notes.push(format!("AppArmor profile {a} of the engine is replaced by none: it forbids mounts"));
        }
        !drop
    });
    let (filter, changed) = filter(cx.spec.linux().as_ref().and_then(|l| l.seccomp().as_ref()))?;
    notes.extend(changed);
    Ok(Process {
        env,
        cwd,
        uid: user.uid(),
        gid: user.gid(),
        groups,
        umask: umask(user.umask())?,
        terminal: p.terminal().unwrap_or(false),
        console_size: console_size(p)?,
        no_new_privs: p.no_new_privileges().unwrap_or(false),
        caps: capabilities::caps(p.capabilities().as_ref(), cx.settings.honor_caps, cx.spec),
        rlimits: rlimits(p.rlimits().as_deref().unwrap_or_default())?,
        scheduling: priority::scheduling(p.scheduler().as_ref())?,
        io_priority: priority::io_priority(p.io_priority().as_ref())?,
        personality: priority::personality(cx.spec.linux().as_ref().and_then(|l| l.personality().as_ref()))?,
        affinity: priority::affinity(p.exec_cpu_affinity().as_ref())?,
        oom_score_adj: oom(p.oom_score_adj())?,
        oom_floor: (cx.memory_limited || cx.settings.oom_floor) && cx.can_lower_oom,
        apparmor,
        selinux: p.selinux_label().clone().filter(|s| !s.is_empty()),
        seccomp: filter,
        args,
    })
}

fn umask(mask: Option<u32>) -> Result<u32> {
    match mask {
        Some(m) if m > 0o777 => Err(Error::invalid(format!("process.user.umask {m:o} is more than 777"))),
        m => Ok(m.unwrap_or(0o022)),
    }
}

fn oom(score: Option<i32>) -> Result<Option<i32>> {
    match score {
        Some(s) if !(-1000..=1000).contains(&s) => {
            Err(Error::invalid(format!("process.oomScoreAdj {s} is not between -1000 and 1000")))
        }
        // −1000 would make the container unkillable by the host's OOM killer.
        s => Ok(s.map(|s| s.max(-999))),
    }
}

fn console_size(p: &oci::Process) -> Result<Option<(u16, u16)>> {
    let Some(size) = p.console_size() else { return Ok(None) };
    let side = |n: u64| u16::try_from(n).map_err(|_| Error::invalid(format!("process.consoleSize {n}")));
    let (h, w) = (side(size.height())?, side(size.width())?);
    Ok((h != 0 || w != 0).then_some((h, w)))
}

fn filter(spec: Option<&oci::LinuxSeccomp>) -> Result<(Option<Filter>, Vec<String>)> {
    let Some(spec) = spec else { return Ok((None, Vec::new())) };
    let profile = seccomp::Profile::try_from(spec).map_err(|e| e.within("linux.seccomp"))?;
    let (profile, notes) = seccomp::open_for_system_container(profile);
    let insns = seccomp::compile(&profile).map_err(|e| e.within("linux.seccomp"))?;
    let program = insns.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
    let flags = profile.filter_flags();
    let listener = profile.needs_listener().then_some(profile.listener).flatten();
    Ok((Some(Filter { flags, program, listener }), notes))
}

fn rlimits(list: &[oci::PosixRlimit]) -> Result<Vec<(u32, u64, u64)>> {
    let mut out: Vec<(u32, u64, u64)> = Vec::new();
    for r in list {
        let n = rlimit_number(r.typ());
        if r.soft() > r.hard() {
            return Err(Error::invalid(format!(
                "process.rlimits {}: soft {} is above hard {}",
                r.typ(),
                r.soft(),
                r.hard()
            )));
        }
        if out.iter().any(|o| o.0 == n) {
            return Err(Error::invalid(format!("process.rlimits has {} twice", r.typ())));
        }
        out.push((n, r.soft(), r.hard()));
    }
    Ok(out)
}

fn rlimit_number(r: R) -> u32 {
    match r {
        R::RlimitCpu => libc::RLIMIT_CPU,
        R::RlimitFsize => libc::RLIMIT_FSIZE,
        R::RlimitData => libc::RLIMIT_DATA,
        R::RlimitStack => libc::RLIMIT_STACK,
        R::RlimitCore => libc::RLIMIT_CORE,
        R::RlimitRss => libc::RLIMIT_RSS,
        R::RlimitNproc => libc::RLIMIT_NPROC,
        R::RlimitNofile => libc::RLIMIT_NOFILE,
        R::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        R::RlimitAs => libc::RLIMIT_AS,
        R::RlimitLocks => libc::RLIMIT_LOCKS,
        R::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        R::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        R::RlimitNice => libc::RLIMIT_NICE,
        R::RlimitRtprio => libc::RLIMIT_RTPRIO,
        R::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}
