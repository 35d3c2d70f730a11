//! Which capabilities root of a container gets: all that its user namespace has, but those that somebody took away.
//!
//! Engines list what an ordinary container may have, which is far less than a system container needs; so their list says
//! nothing by what it lacks, except where it lacks something of the engine's own default: that has been dropped by name
//! (`docker run --cap-drop`).

use super::Caps;
use oci_spec::runtime as oci;

/// In the kernel's order (capability.h).
const NAMES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What Docker, containerd, Podman, CRI-O and `runc spec` give by default.
const DOCKER: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];
const PODMAN: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const CRIO: &[&str] =
    &["CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE", "KILL"];
const RUNC: &[&str] = &["AUDIT_WRITE", "KILL", "NET_BIND_SERVICE"];

fn mask<'a>(names: impl IntoIterator<Item = &'a str>) -> u64 {
    let bit = |n: &str| NAMES.iter().position(|k| *k == n).map_or(0, |i| 1 << i);
    names.into_iter().map(bit).fold(0, |all, b| all | b)
}

fn of(set: Option<&oci::Capabilities>) -> u64 {
    let names: Vec<String> = set.into_iter().flatten().map(ToString::to_string).collect();
    mask(names.iter().map(String::as_str))
}

/// The sets for a process. Pure.
pub(super) fn caps(given: Option<&oci::LinuxCapabilities>, honor: bool, spec: &oci::Spec) -> Caps {
    let Some(given) = given else {
        return if honor {
            Caps::Exact { bounding: 0, permitted: 0, effective: 0, inheritable: 0, ambient: 0 }
        } else {
            Caps::Full { dropped: 0 }
        };
    };
    let bounding = of(given.bounding().as_ref());
    if honor {
        return Caps::Exact {
            bounding,
            permitted: of(given.permitted().as_ref()),
            effective: of(given.effective().as_ref()),
            inheritable: of(given.inheritable().as_ref()),
            ambient: of(given.ambient().as_ref()),
        };
    }
    let default = mask(default_of(spec).iter().copied());
    // A list that is somebody's default whole is nobody's wish.
    let untouched = [DOCKER, PODMAN, CRIO, RUNC].iter().any(|d| mask(d.iter().copied()) == bounding);
    Caps::Full { dropped: if untouched { 0 } else { default & !bounding } }
}

/// The default list of the engine that wrote the configuration.
fn default_of(spec: &oci::Spec) -> &'static [&'static str] {
    let has = |prefix: &str, value: &str| {
        spec.annotations().iter().flatten().any(|(k, v)| k.starts_with(prefix) && (value.is_empty() || v == value))
    };
    if has("io.container.manager", "libpod") || has("io.podman.annotations.", "") {
        PODMAN
    } else if has("io.kubernetes.cri-o.", "") {
        CRIO
    } else {
        DOCKER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(annotations: serde_json::Value) -> oci::Spec {
        serde_json::from_value(json!({"ociVersion": "1.0.2", "annotations": annotations})).unwrap()
    }

    fn given(names: &[&str]) -> oci::LinuxCapabilities {
        let all: Vec<String> = names.iter().map(|n| format!("CAP_{n}")).collect();
        serde_json::from_value(json!({"bounding": all, "permitted": all, "effective": all})).unwrap()
    }

    fn without<'a>(list: &[&'a str], dropped: &[&str]) -> Vec<&'a str> {
        list.iter().copied().filter(|c| !dropped.contains(c)).collect()
    }

    #[test]
    fn the_tables_name_what_the_kernel_has() {
        assert_eq!(NAMES.len(), 41);
        for list in [DOCKER, PODMAN, CRIO, RUNC] {
            assert!(list.iter().all(|c| NAMES.contains(c)), "{list:?}");
        }
        assert_eq!(mask(["CHOWN", "CHECKPOINT_RESTORE"]), 1 | 1 << 40);
    }

    #[test]
    fn what_an_engine_gives_by_default_drops_nothing() {
        let docker = spec(json!({}));
        for list in [DOCKER, PODMAN, CRIO, RUNC] {
            assert_eq!(caps(Some(&given(list)), false, &docker), Caps::Full { dropped: 0 });
        }
        assert_eq!(caps(None, false, &docker), Caps::Full { dropped: 0 });
        let mut more = DOCKER.to_vec();
        more.push("SYS_ADMIN");
        assert_eq!(caps(Some(&given(&more)), false, &docker), Caps::Full { dropped: 0 });
    }

    #[test]
    fn what_is_missing_of_the_default_is_dropped() {
        let dropped = |list: &[&str], annotations| match caps(Some(&given(list)), false, &spec(annotations)) {
            Caps::Full { dropped } => dropped,
            other => panic!("{other:?}"),
        };
        assert_eq!(dropped(&without(DOCKER, &["NET_RAW"]), json!({})), mask(["NET_RAW"]));
        assert_eq!(dropped(&[], json!({})), mask(DOCKER.iter().copied()));
        let podman = json!({"io.container.manager": "libpod"});
        assert_eq!(dropped(&without(PODMAN, &["CHOWN"]), podman), mask(["CHOWN"]));
    }

    #[test]
    fn honored_sets_are_taken_as_they_are() {
        let exact = caps(Some(&given(&["CHOWN"])), true, &spec(json!({})));
        assert_eq!(exact, Caps::Exact { bounding: 1, permitted: 1, effective: 1, inheritable: 0, ambient: 0 });
    }
}
