//! What a configuration may not ask for, and which ID maps it brings.

use crate::error::{Error, Kind, Result};
use crate::host::Facts;
use crate::idmap::{IdMap, Maps};
use crate::namespace::{joined_maps, Join};
use crate::spec::Spec;
use oci_spec::runtime as oci;
use oci_spec::runtime::LinuxNamespaceType as Ns;

/// The ID maps of a configuration (`linux.uidMappings`, `linux.gidMappings`), if it has any. Pure.
///
/// # Errors
/// [`Kind::InvalidConfig`] if they are malformed, incomplete, or without a user namespace; [`Kind::Refused`] if they are no use for a
/// system container, as in [`Maps::check_usable`].
pub fn requested_maps(spec: &Spec) -> Result<Option<Maps>> {
    let Some(linux) = spec.oci().linux() else { return Ok(None) };
    let uid = linux.uid_mappings().as_deref().unwrap_or_default();
    let gid = linux.gid_mappings().as_deref().unwrap_or_default();
    if uid.is_empty() && gid.is_empty() {
        return Ok(None);
    }
    if uid.is_empty() || gid.is_empty() {
        return Err(Error::invalid("linux.uidMappings and linux.gidMappings must be given together"));
    }
    if !has_namespace(linux, Ns::User) {
        return Err(Error::invalid("linux.uidMappings is given, but linux.namespaces has no \"user\" entry"));
    }
    let maps = Maps {
        uid: IdMap::from_oci(uid).map_err(|e| e.within("linux.uidMappings"))?,
        gid: IdMap::from_oci(gid).map_err(|e| e.within("linux.gidMappings"))?,
    };
    maps.check_usable().map_err(|e| e.within("linux.uidMappings and linux.gidMappings"))?;
    Ok(Some(maps))
}

/// The ID maps that a configuration brings: its own, or those of the container whose namespaces it joins. Pure.
///
/// # Errors
/// Those of [`requested_maps`]; what every plan is refused for, so that no IDs are taken for nothing; and of [`crate::namespace`], if it joins what cannot be joined.
pub fn given_maps(spec: &Spec, facts: &Facts) -> Result<Option<Maps>> {
    check(spec)?;
    let requested = requested_maps(spec)?;
    let Some(join) = spec.oci().linux().as_ref().and_then(Join::of) else { return Ok(requested) };
    let joined = joined_maps(&join, |p| facts.namespaces.get(p).cloned())?;
    match requested {
        Some(r) if r != joined => Err(Error::invalid(
            "linux.uidMappings and linux.gidMappings are not those of the user namespace that is joined",
        )),
        _ => Ok(Some(joined)),
    }
}

/// As the specification spells it; the type's own names are those below /proc/PID/ns.
fn name(typ: Ns) -> &'static str {
    match typ {
        Ns::Mount => "mount",
        Ns::Cgroup => "cgroup",
        Ns::Uts => "uts",
        Ns::Ipc => "ipc",
        Ns::User => "user",
        Ns::Pid => "pid",
        Ns::Network => "network",
        Ns::Time => "time",
    }
}

fn has_namespace(linux: &oci::Linux, typ: Ns) -> bool {
    linux.namespaces().as_deref().unwrap_or_default().iter().any(|n| n.typ() == typ)
}

/// Refuses what would break isolation, what contradicts itself and what is not supported.
pub(super) fn check(spec: &Spec) -> Result<()> {
    let oci = spec.oci();
    check_version(oci.version())?;
    let linux = oci.linux().as_ref().ok_or_else(|| Error::invalid("config.json has no \"linux\" section"))?;
    check_namespaces(linux)?;
    check_privileged(linux)?;
    check_unsupported(linux)
}

fn check_version(version: &str) -> Result<()> {
    let mut parts = version.split(['.', '-']);
    if parts.next() == Some("1") && parts.next().is_some_and(|m| m.parse::<u32>().is_ok()) {
        return Ok(());
    }
    Err(Error::invalid(format!("ociVersion {version:?} is not 1.x")))
}

fn check_namespaces(linux: &oci::Linux) -> Result<()> {
    let list = linux.namespaces().as_deref().unwrap_or_default();
    for (i, n) in list.iter().enumerate() {
        if list[..i].iter().any(|m| m.typ() == n.typ()) {
            return Err(Error::invalid(format!("linux.namespaces has two entries of type {}", name(n.typ()))));
        }
        // The others are judged by whose they are.
        let joinable = matches!(n.typ(), Ns::Network | Ns::Ipc | Ns::Uts | Ns::User);
        if let Some(path) = n.path().as_ref().filter(|_| !joinable) {
            return Err(Error::new(
                Kind::Refused,
                format!("linux.namespaces: joining the {} namespace of a path is refused:", name(n.typ())),
            )
            .at(path)
            .hint(match n.typ() {
                Ns::Pid => "run it without --pid=container: a system container's init is process 1 of its own",
                _ => "remove the path, so that the container gets a namespace of its own",
            }));
        }
    }
    // An absent user or cgroup namespace is what engines send by default; an absent one of these is a request.
    let shared = [
        (Ns::Pid, "see and signal the host's processes", "--pid=host"),
        (Ns::Ipc, "use the host's shared memory and semaphores", "--ipc=host"),
        (Ns::Network, "configure the host's network", "--network=host"),
        (Ns::Uts, "share the host's name", "--uts=host"),
    ];
    for (typ, risk, option) in shared {
        if !has_namespace(linux, typ) {
            return Err(Error::new(
                Kind::Refused,
                format!("linux.namespaces has no \"{}\" entry: the container would {risk}", name(typ)),
            )
            .hint(format!("run it without {option}; a system container has namespaces of its own")));
        }
    }
    Ok(())
}

/// A privileged container is one that may use every device and is given the host's.
fn check_privileged(linux: &oci::Linux) -> Result<()> {
    let rules = linux.resources().as_ref().and_then(|r| r.devices().as_deref()).unwrap_or_default();
    let any = |v: Option<i64>| v.is_none_or(|n| n < 0);
    let allows_all = rules.iter().any(|r| {
        r.allow()
            && matches!(r.typ(), None | Some(oci::LinuxDeviceType::A))
            && any(r.major())
            && any(r.minor())
            && r.access().as_deref().is_none_or(|a| a.contains('w'))
    });
    let nodes = linux.devices().as_deref().unwrap_or_default();
    let host_node = nodes.iter().find(|d| {
        let memory = d.typ() == oci::LinuxDeviceType::C && d.major() == 1 && matches!(d.minor(), 1 | 2 | 4);
        let loop_control = d.typ() == oci::LinuxDeviceType::C && d.major() == 10 && d.minor() == 237;
        d.typ() == oci::LinuxDeviceType::B || memory || loop_control
    });
    match host_node {
        Some(d) if allows_all => Err(Error::new(
            Kind::Refused,
            format!(
                "linux.resources.devices allows every device and linux.devices lists the host's {}: a privileged container",
                d.path().display()
            ),
        )
        .hint("run it without --privileged: root in a system container has every capability it can use already")),
        _ => Ok(()),
    }
}

fn check_unsupported(linux: &oci::Linux) -> Result<()> {
    let fields = [
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        ("linux.netDevices", linux.net_devices().as_ref().is_some_and(|d| !d.is_empty())),
        ("linux.mountLabel", linux.mount_label().as_ref().is_some_and(|l| !l.is_empty())),
    ];
    match fields.iter().find(|(_, set)| *set) {
        Some((name, _)) => Err(Error::new(Kind::Unsupported, format!("{name} is not supported")).hint("remove it")),
        None => Ok(()),
    }
}

/// Paths that engines mask or make read-only by default.
///
/// They exist for containers whose root is the host's. In a user namespace the kernel refuses what they protect from, and
/// a locked mount below /proc or /sys would break `mount --bind /proc chroot/proc` and `umount -R` inside.
pub fn default_paths() -> &'static [&'static str] {
    &[
        "/proc/acpi",
        "/proc/asound",
        "/proc/bus",
        "/proc/fs",
        "/proc/interrupts",
        "/proc/irq",
        "/proc/kallsyms",
        "/proc/kcore",
        "/proc/keys",
        "/proc/kmsg",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/sys",
        "/proc/sysrq-trigger",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/dev/block",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
        "/sys/fs/selinux",
        "/sys/fs/cgroup",
    ]
}

/// Also the per-CPU masks that newer engines add.
pub(super) fn is_default_path(path: &str) -> bool {
    let thermal = path.starts_with("/sys/devices/system/cpu/cpu") && path.ends_with("/thermal_throttle");
    default_paths().contains(&path) || thermal
}
