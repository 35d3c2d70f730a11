//! The container's /dev.

use super::{Device, DeviceKind, What};
use crate::cgroup::{Access, DeviceRule};
use crate::error::{Error, Kind, Result};
use oci_spec::runtime as oci;
use std::path::{Path, PathBuf};

/// Name below /dev, major, minor, mode. `kmsg` is the null device: reading gives nothing, and what is written is lost,
/// which is what software that logs there can live with.
const NODES: &[(&str, u32, u32, u32)] = &[
    ("null", 1, 3, 0o666),
    ("zero", 1, 5, 0o666),
    ("full", 1, 7, 0o666),
    ("random", 1, 8, 0o666),
    ("urandom", 1, 9, 0o666),
    ("tty", 5, 0, 0o666),
    ("fuse", 10, 229, 0o666),
    ("net/tun", 10, 200, 0o666),
    ("kmsg", 1, 3, 0o644),
];

const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Device access every system container has: its own nodes, and its terminals.
pub(super) fn rules() -> Vec<DeviceRule> {
    let all = Access { read: true, write: true, mknod: true };
    let own = NODES.iter().filter(|n| n.0 != "kmsg").map(|&(_, major, minor, _)| (major, Some(minor)));
    // /dev/ptmx, /dev/console and the slaves of devpts.
    own.chain([(5, Some(2)), (5, Some(1)), (136, None)])
        .map(|(major, minor)| DeviceRule::allow_char(major, minor, all))
        .collect()
}

/// The mount of /dev. `options` are those of the configuration's own /dev tmpfs.
pub(super) fn dev(options: Vec<String>, devices: &[oci::LinuxDevice], console: bool) -> Result<What> {
    let mut nodes: Vec<Device> = NODES
        .iter()
        .map(|&(name, major, minor, mode)| Device {
            path: name.into(),
            kind: DeviceKind::Char(major, minor),
            mode,
            uid: 0,
            gid: 0,
        })
        .collect();
    for d in devices {
        let node = device(d)?;
        // The engine's kmsg would be the host's log, and its ptmx would open the host's terminals.
        if node.path == Path::new("kmsg") || node.path == Path::new("ptmx") {
            continue;
        }
        nodes.retain(|n| n.path != node.path);
        nodes.push(node);
    }
    if console {
        nodes.retain(|n| n.path != Path::new("console"));
        nodes.push(Device { path: "console".into(), kind: DeviceKind::File, mode: 0o620, uid: 0, gid: 0 });
    }
    let given = |link: &str| nodes.iter().any(|n| n.path == Path::new(link));
    let links = LINKS.iter().filter(|(a, _)| !given(a)).map(|(a, b)| (PathBuf::from(a), PathBuf::from(b))).collect();
    Ok(What::Dev { options, nodes, links })
}

fn device(d: &oci::LinuxDevice) -> Result<Device> {
    let field = format!("linux.devices {}", d.path().display());
    let path = crate::mount::normalize(d.path()).map_err(|e| e.within(field.clone()))?;
    let rel = path
        .strip_prefix("/dev")
        .map_err(|_| Error::new(Kind::Unsupported, format!("{field}: device nodes are made below /dev only")))?;
    if rel.as_os_str().is_empty() || ["pts", "shm", "mqueue"].iter().any(|r| rel.starts_with(r)) {
        return Err(Error::invalid(format!("{field}: that is a mount point")));
    }
    let number = |n: i64, what: &str| u32::try_from(n).map_err(|_| Error::invalid(format!("{field}: {what} {n}")));
    let pair = || Ok::<_, Error>((number(d.major(), "major")?, number(d.minor(), "minor")?));
    let kind = match d.typ() {
        oci::LinuxDeviceType::C | oci::LinuxDeviceType::U => pair().map(|(a, b)| DeviceKind::Char(a, b))?,
        oci::LinuxDeviceType::B => pair().map(|(a, b)| DeviceKind::Block(a, b))?,
        oci::LinuxDeviceType::P => DeviceKind::Fifo,
        oci::LinuxDeviceType::A => {
            return Err(Error::invalid(format!("{field}: type \"a\" is for rules, not for nodes")))
        }
    };
    Ok(Device {
        path: rel.to_owned(),
        kind,
        mode: d.file_mode().unwrap_or(0o666) & 0o7777,
        uid: d.uid().unwrap_or(0),
        gid: d.gid().unwrap_or(0),
    })
}
