//! From a configuration and facts to a [`Plan`]: pure, no privilege, no look at the host.

use super::{check, devices, mounts, nodes, options, process, settings, Hook, Hooks, Plan, RootFs, TimeOffsets};
use crate::cgroup;
use crate::error::{Error, Kind, Result};
use crate::host::{Facts, FileKind};
use crate::idmap::Maps;
use crate::mount::Propagation;
use crate::namespace::Join;
use crate::procfs::Nodes;
use crate::spec::Spec;
use oci_spec::runtime as oci;
use std::path::{Path, PathBuf};

/// Plans a system container named `id`. Relative paths in the configuration are relative to `bundle`. `maps` are those of
/// [`super::given_maps`], or else of the pool. `table` holds the nodes that there are. The same input gives the same plan.
///
/// # Errors
/// [`Kind::InvalidConfig`] for a malformed or contradictory configuration, [`Kind::Refused`] for a request that breaks
/// isolation, [`Kind::Unsupported`] for what this library or host cannot do; each names the field.
pub fn plan(id: &str, spec: &Spec, bundle: &Path, facts: &Facts, maps: Maps, table: &Nodes) -> Result<Plan> {
    check_id(id)?;
    // Judges the whole configuration first.
    if check::given_maps(spec, facts)?.is_some_and(|given| given != maps) {
        return Err(Error::invalid("the ID maps are not those that the configuration brings"));
    }
    let oci = spec.oci();
    let linux = oci.linux().as_ref().ok_or_else(|| Error::invalid("config.json has no \"linux\" section"))?;
    let process = oci.process().as_ref().ok_or_else(|| Error::invalid("config.json has no process"))?;
    let mut notes = Vec::new();
    let settings = settings::settings(oci)?;
    let systemd = is_systemd(facts.program.as_deref());
    let sets = mounts::plan(spec, bundle, facts, &maps, &settings, systemd, &mut notes)?;
    let resources = linux.resources().clone().unwrap_or_default();
    let all_mounts = sets.locked.iter().chain(&sets.attached);
    let nodes = nodes::plan(table, &settings, &resources, facts, all_mounts, &mut notes)?;
    let devices = device_rules(&resources)?;
    let cx = process::Context {
        spec: oci,
        maps: &maps,
        memory_limited: resources.memory().as_ref().and_then(|m| m.limit()).is_some_and(|l| l > 0),
        can_lower_oom: facts.can_lower_oom,
        settings: &settings,
        systemd,
    };
    let process = process::plan(process, &cx, &mut notes)?;
    let cgroup = control_groups(id, linux, facts, &resources, &devices, maps.root())?;
    let domainname = domainname(oci.domainname().as_deref(), linux)?;
    let join = Join::of(linux);
    // Another container's name is not this one's to set.
    let own_name = join.as_ref().is_none_or(|j| j.uts.is_none());
    Ok(Plan {
        id: id.to_owned(),
        oci_version: oci.version().clone(),
        bundle: bundle.to_owned(),
        annotations: oci.annotations().clone().unwrap_or_default().into_iter().collect(),
        time: time(linux, facts)?,
        cgroup,
        root: root(spec, bundle, facts, &maps)?,
        locked: sets.locked,
        attached: sets.attached,
        nodes,
        exclusive: sets.exclusive,
        hostname: name(oci.hostname().as_deref(), "hostname")?.filter(|_| own_name),
        domainname: domainname.filter(|_| own_name),
        join,
        sysctls: sysctls(linux, &maps, &mut notes)?,
        process,
        hooks: hooks(oci.hooks().as_ref())?,
        maps,
        notes,
    })
}

/// Checks a container's name: 1 to 240 ASCII letters, digits, `_`, `+`, `-` and `.`, and neither `.` nor `..`. So it is a file
/// name with room for what is put around it, and safe to print.
///
/// # Errors
/// [`Kind::InvalidConfig`] for any other.
pub fn check_id(id: &str) -> Result<()> {
    let ok = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id.len() > 240 || !id.chars().all(ok) || id == "." || id == ".." {
        return Err(Error::invalid(format!("container id {id:?}: up to 240 letters, digits and _ + - .")));
    }
    Ok(())
}

/// By what the program's name leads to: /sbin/init is a link to systemd on most distributions, and something else on some.
fn is_systemd(program: Option<&Path>) -> bool {
    program.and_then(Path::file_name).is_some_and(|n| n == "systemd")
}

fn root(spec: &Spec, bundle: &Path, facts: &Facts, maps: &Maps) -> Result<RootFs> {
    let root = spec.oci().root().as_ref().ok_or_else(|| Error::invalid("config.json has no root"))?;
    if facts.root.kind != FileKind::Dir {
        return Err(Error::invalid("root.path is not a directory:").at(root.path()));
    }
    let given = spec.oci().linux().as_ref().and_then(|l| l.rootfs_propagation().clone()).unwrap_or_default();
    let propagation = match given.as_str() {
        "" => Propagation::Private,
        p => options::propagation(p).ok_or_else(|| Error::invalid(format!("linux.rootfsPropagation {p:?}")))?.0,
    };
    Ok(RootFs {
        path: bundle.join(root.path()),
        // An engine with its own remapping hands over files that belong to the container's IDs already.
        idmap: maps.uid.to_inside(facts.root.uid).is_none(),
        readonly: root.readonly().unwrap_or(false),
        propagation,
        overlay: facts.overlay.clone(),
    })
}

/// Nothing is allowed but what the configuration and, after it, every container's own nodes need: engines deny /dev/fuse by
/// name, and an image may hold device nodes that its root would otherwise open.
fn device_rules(resources: &oci::LinuxResources) -> Result<Vec<cgroup::DeviceRule>> {
    let mut rules = vec![cgroup::DeviceRule::everything(false)];
    rules.extend(cgroup::devices::from_oci(resources.devices().as_deref().unwrap_or_default())?);
    rules.extend(devices::rules());
    Ok(rules)
}

fn control_groups(
    id: &str,
    linux: &oci::Linux,
    facts: &Facts,
    resources: &oci::LinuxResources,
    devices: &[cgroup::DeviceRule],
    owner: (u32, u32),
) -> Result<cgroup::Plan> {
    let given = linux.cgroups_path().as_deref();
    let make = |path: &Path| cgroup::plan(&facts.cgroups, path, Some(resources), devices, owner);
    let Some(systemd) = &facts.systemd else { return make(&cgroup::container_path(given, id)?) };
    let scope = cgroup::Scope::parse(given, id)?;
    let mut plan = make(&scope.path())?;
    plan.unit = Some(cgroup::Unit::plan(&scope, id, &plan.nodes, &plan.writes, &systemd.devices));
    Ok(plan)
}

fn time(linux: &oci::Linux, facts: &Facts) -> Result<TimeOffsets> {
    let given = linux.time_offsets().clone().unwrap_or_default();
    if !facts.time_namespace {
        return if given.is_empty() {
            Ok(TimeOffsets::Host)
        } else {
            Err(Error::new(Kind::Unsupported, "linux.timeOffsets: this kernel has no time namespaces (CONFIG_TIME_NS)"))
        };
    }
    if given.is_empty() {
        return Ok(TimeOffsets::FromZero);
    }
    if let Some(k) = given.keys().find(|k| *k != "monotonic" && *k != "boottime") {
        return Err(Error::invalid(format!("linux.timeOffsets: unknown clock {k:?}")));
    }
    let get = |k: &str| given.get(k).map_or((0, 0), |o| (o.secs().unwrap_or(0), o.nanosecs().unwrap_or(0)));
    Ok(TimeOffsets::Given { monotonic: get("monotonic"), boottime: get("boottime") })
}

fn name(value: Option<&str>, field: &str) -> Result<Option<String>> {
    match value {
        Some(v) if v.len() > 64 || v.contains('\0') => Err(Error::invalid(format!("{field} is longer than 64 bytes"))),
        Some("") | None => Ok(None),
        Some(v) => Ok(Some(v.to_owned())),
    }
}

/// Docker passes it as a sysctl, which the container's root may not write: the call that sets it is allowed.
const DOMAINNAME: &str = "kernel.domainname";

fn domainname(field: Option<&str>, linux: &oci::Linux) -> Result<Option<String>> {
    let field = name(field, "domainname")?;
    let sysctl = linux.sysctl().as_ref().and_then(|s| s.get(DOMAINNAME));
    let sysctl = name(sysctl.map(String::as_str), DOMAINNAME)?;
    match (&field, &sysctl) {
        (Some(a), Some(b)) if a != b => {
            Err(Error::invalid(format!("domainname is {a:?} and the sysctl {DOMAINNAME} is {b:?}")))
        }
        _ => Ok(field.or(sysctl)),
    }
}

fn sysctls(linux: &oci::Linux, maps: &Maps, notes: &mut Vec<String>) -> Result<Vec<(PathBuf, String)>> {
    let mut all: Vec<_> = linux.sysctl().clone().unwrap_or_default().into_iter().collect();
    all.retain(|(key, _)| key != DOMAINNAME);
    all.sort();
    let mut out = Vec::new();
    for (key, value) in all {
        let path = sysctl_path(&key)?;
        let value = if path == Path::new("net/ipv4/ping_group_range") {
            let clamped = clamp_group_range(&value, maps)?;
            if clamped != value {
                notes
                    .push(format!("sysctl {key} is {clamped:?} instead of {value:?}: the rest is outside the ID maps"));
            }
            clamped
        } else {
            value
        };
        out.push((path, value));
    }
    Ok(out)
}

/// The path below /proc/sys, if the setting belongs to a namespace of the container.
fn sysctl_path(key: &str) -> Result<PathBuf> {
    // sysctl(8): with a slash first the separators are slashes and dots are literal (interface names).
    let slashed = match (key.find('/'), key.find('.')) {
        (Some(s), Some(d)) if s < d => key.to_owned(),
        (Some(_), None) => key.to_owned(),
        _ => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
    };
    let bad = slashed.split('/').any(|c| c.is_empty() || c == "." || c == "..") || slashed.contains('\0');
    let ipc = [
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
    ];
    let ours =
        ["net/", "fs/mqueue/", "user/"].iter().any(|p| slashed.starts_with(p)) || ipc.contains(&slashed.as_str());
    if bad || !ours {
        return Err(Error::new(
            Kind::Refused,
            format!("linux.sysctl {key:?} is not a setting of a namespace of the container"),
        )
        .hint("set it on the host"));
    }
    Ok(slashed.into())
}

/// Docker asks for groups up to 2147483647, of which the container has a part.
fn clamp_group_range(value: &str, maps: &Maps) -> Result<String> {
    let bad = || Error::invalid(format!("linux.sysctl net.ipv4.ping_group_range {value:?}: two numbers are needed"));
    let mut it = value.split_whitespace().map(str::parse::<u32>);
    let (Some(Ok(low)), Some(Ok(high)), None) = (it.next(), it.next(), it.next()) else { return Err(bad()) };
    // "1 0" is the kernel's way to say nobody.
    if low > high || maps.gid.to_outside(high).is_some() {
        return Ok(value.to_owned());
    }
    let top = maps.gid.prefix().saturating_sub(1);
    Ok(if low > top { "1 0".into() } else { format!("{low} {}", high.min(top)) })
}

fn hooks(h: Option<&oci::Hooks>) -> Result<Hooks> {
    let Some(h) = h else { return Ok(Hooks::default()) };
    let list = |hooks: Option<&Vec<oci::Hook>>, field: &str| -> Result<Vec<Hook>> {
        hooks.into_iter().flatten().map(|h| hook(h, field)).collect()
    };
    #[allow(deprecated)]
    let mut create_runtime = list(h.prestart().as_ref(), "hooks.prestart")?;
    create_runtime.extend(list(h.create_runtime().as_ref(), "hooks.createRuntime")?);
    Ok(Hooks {
        create_runtime,
        create_container: list(h.create_container().as_ref(), "hooks.createContainer")?,
        start_container: list(h.start_container().as_ref(), "hooks.startContainer")?,
        poststart: list(h.poststart().as_ref(), "hooks.poststart")?,
        poststop: list(h.poststop().as_ref(), "hooks.poststop")?,
    })
}

fn hook(h: &oci::Hook, field: &str) -> Result<Hook> {
    if !h.path().is_absolute() {
        return Err(Error::invalid(format!("{field}: the path must be absolute:")).at(h.path()));
    }
    if h.timeout().is_some_and(|t| t <= 0) {
        return Err(Error::invalid(format!("{field}: the timeout must be above zero:")).at(h.path()));
    }
    Ok(Hook {
        path: h.path().clone(),
        args: h.args().clone().unwrap_or_default(),
        env: h.env().clone().unwrap_or_default(),
        timeout: h.timeout(),
    })
}
