//! What can be asked of a container beyond the OCI configuration: by annotation, and by the environment names that Sysbox has
//! for the same.
//!
//! The environment may come with an image, so it can ask for nothing that an image must not decide: its settings give the
//! container less, or concern it alone.

use crate::error::{Error, Kind, Result};
use crate::idmap::USABLE_IDS;
use crate::mount::normalize;
use crate::spec::Spec;
use oci_spec::runtime as oci;
use std::path::{Path, PathBuf};

/// `true`: inner software may lower its `oom_score_adj` to −999 though the container has no memory limit.
pub const OOM_FLOOR: &str = "sysbox.oom-floor";

/// `true`: capabilities are those of the configuration, no more.
pub const HONOR_CAPS: &str = "sysbox.honor-caps";

/// Destinations of binds, separated by commas, that are not ID-mapped: what they hold shows as nobody's.
pub const SKIP_UID_SHIFT: &str = "sysbox.skip-uid-shift";

/// Destinations of binds of sockets, separated by commas, that are ID-mapped: container root may do there what host root may.
pub const MAP_SOCKETS: &str = "sysbox.map-sockets";

/// How many user and group IDs the container gets from the pool, 65536 or more: for user namespaces inside that need IDs beside
/// those of the container's own system.
pub const IDS: &str = "sysbox.ids";

/// Which nodes of /proc and /sys are the container's own ([`crate::procfs`]): `auto`, the default, is the stored ones, and the live ones
/// where limits make them differ from the host's; `stored` and `live` are the first only, and both in any case; `off` is neither.
pub const NODES: &str = "sysbox.nodes";

/// `true`: mounts of proc and sysfs that are made inside carry the nodes too, and sysinfo(2) follows the limits. It costs a monitor, and
/// the container's programs the right to a seccomp listener of their own.
pub const NESTED_NODES: &str = "sysbox.nested-nodes";

/// `true`: also those nodes that exist only for processes of the container's own network and IPC namespace
/// ([`crate::procfs::Node::on_request`]).
pub const NET_NODES: &str = "sysbox.net-nodes";

/// The annotations, and the environment names of the same meaning.
const NAMES: &[(&str, Option<&str>)] = &[
    (OOM_FLOOR, None),
    (HONOR_CAPS, Some("SYSBOX_HONOR_CAPS")),
    (SKIP_UID_SHIFT, Some("SYSBOX_SKIP_UID_SHIFT")),
    (MAP_SOCKETS, None),
    (IDS, None),
    (NODES, None),
    (NET_NODES, None),
    (NESTED_NODES, None),
];

/// Names of Sysbox for what this library does not do. Each is refused where it asks for more than the default.
const UNSUPPORTED: &[(&str, &str)] =
    &[("SYSBOX_IGNORE_SYSFS_CHOWN", "FALSE"), ("SYSBOX_ALLOW_TRUSTED_XATTR", "FALSE"), ("SYSBOX_SYSCONT_MODE", "TRUE")];

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) oom_floor: bool,
    pub(super) honor_caps: bool,
    pub(super) unmapped: Vec<PathBuf>,
    pub(super) mapped_sockets: Vec<PathBuf>,
    pub(super) ids: Option<u32>,
    pub(super) nodes: NodeMode,
    pub(super) net_nodes: bool,
    pub(super) nested_nodes: bool,
}

/// The size of the range of IDs that a configuration asks for ([`IDS`]). Pure.
///
/// # Errors
/// [`Kind::InvalidConfig`]: it is no number from 65536 on, or any other setting is wrong.
pub fn requested_ids(spec: &Spec) -> Result<Option<u32>> {
    settings(spec.oci()).map(|s| s.ids)
}

/// Values of [`NODES`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum NodeMode {
    #[default]
    Auto,
    Stored,
    Live,
    Off,
}

/// Reads them, an annotation before the environment. Pure.
pub(super) fn settings(spec: &oci::Spec) -> Result<Settings> {
    let empty = Vec::new();
    let env = spec.process().as_ref().and_then(|p| p.env().as_ref()).unwrap_or(&empty);
    for entry in env {
        let Some((name, value)) = entry.split_once('=').filter(|(n, _)| n.starts_with("SYSBOX_")) else { continue };
        let unsupported = UNSUPPORTED.iter().find(|(n, _)| *n == name);
        let known = NAMES.iter().any(|(_, n)| *n == Some(name));
        match unsupported {
            Some((_, default)) if value == *default => {}
            Some(_) => {
                return Err(
                    Error::new(Kind::Unsupported, format!("process.env: {entry} is not supported")).hint("remove it")
                )
            }
            None if known => {}
            None => {
                return Err(Error::invalid(format!("process.env: there is no setting {name}"))
                    .hint("names that begin with SYSBOX_ are settings of the container"))
            }
        }
    }
    let find = |setting: &str| -> Option<(String, String)> {
        if let Some(v) = spec.annotations().as_ref().and_then(|a| a.get(setting)) {
            return Some((format!("annotation {setting}"), v.clone()));
        }
        let name = NAMES.iter().find(|(s, _)| *s == setting)?.1?;
        let value = env.iter().rev().find_map(|e| e.strip_prefix(name)?.strip_prefix('='))?;
        Some((name.to_owned(), value.to_owned()))
    };
    let nodes = node_mode(find(NODES))?;
    let nested_nodes = flag(find(NESTED_NODES))?;
    if nested_nodes && nodes == NodeMode::Off {
        return Err(Error::invalid(format!("annotation {NESTED_NODES} asks for more of what {NODES} turns off")));
    }
    Ok(Settings {
        oom_floor: flag(find(OOM_FLOOR))?,
        honor_caps: flag(find(HONOR_CAPS))?,
        unmapped: paths(find(SKIP_UID_SHIFT))?,
        mapped_sockets: paths(find(MAP_SOCKETS))?,
        ids: ids(find(IDS))?,
        nodes,
        net_nodes: flag(find(NET_NODES))?,
        nested_nodes,
    })
}

fn node_mode(found: Option<(String, String)>) -> Result<NodeMode> {
    match found.as_ref().map(|(name, value)| (name, value.as_str())) {
        None | Some((_, "auto" | "")) => Ok(NodeMode::Auto),
        Some((_, "stored")) => Ok(NodeMode::Stored),
        Some((_, "live")) => Ok(NodeMode::Live),
        Some((_, "off")) => Ok(NodeMode::Off),
        Some((name, value)) => Err(Error::invalid(format!("{name}: {value:?} is none of auto, stored, live and off"))),
    }
}

fn flag(found: Option<(String, String)>) -> Result<bool> {
    match found.as_ref().map(|(name, value)| (name, value.as_str())) {
        None | Some((_, "false" | "FALSE" | "")) => Ok(false),
        Some((_, "true" | "TRUE")) => Ok(true),
        Some((name, value)) => Err(Error::invalid(format!("{name}: {value:?} is neither true nor false"))),
    }
}

fn ids(found: Option<(String, String)>) -> Result<Option<u32>> {
    let Some((name, value)) = found else { return Ok(None) };
    match value.parse() {
        Ok(n) if n >= USABLE_IDS => Ok(Some(n)),
        _ => Err(Error::invalid(format!("{name}: {value:?} is no number from {USABLE_IDS} on"))),
    }
}

fn paths(found: Option<(String, String)>) -> Result<Vec<PathBuf>> {
    let Some((name, value)) = found else { return Ok(Vec::new()) };
    let list = value.split(',').map(str::trim).filter(|p| !p.is_empty());
    list.map(|p| normalize(Path::new(p)).map_err(|e| e.within(name.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(annotations: serde_json::Value, env: &[&str]) -> Result<Settings> {
        let doc = json!({"ociVersion": "1.0.2", "annotations": annotations,
            "process": {"args": ["x"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": env}});
        settings(&serde_json::from_value(doc).unwrap())
    }

    #[test]
    fn annotations_come_before_the_environment() {
        let s =
            of(json!({HONOR_CAPS: "false"}), &["SYSBOX_HONOR_CAPS=TRUE", "SYSBOX_SKIP_UID_SHIFT=/a, /b/,"]).unwrap();
        assert!(!s.honor_caps);
        assert_eq!(s.unmapped, [Path::new("/a"), Path::new("/b")]);
        assert!(of(json!({}), &["SYSBOX_HONOR_CAPS=TRUE"]).unwrap().honor_caps);
        assert_eq!(of(json!({}), &["PATH=/bin", "SYSBOX_SYSCONT_MODE=TRUE"]).unwrap(), Settings::default());
    }

    #[test]
    fn an_image_cannot_ask_for_what_the_host_must_decide() {
        assert!(of(json!({}), &["SYSBOX_MAP_SOCKETS=/s"]).is_err());
        assert!(of(json!({}), &["SYSBOX_OOM_FLOOR=TRUE"]).is_err());
        assert!(of(json!({}), &["SYSBOX_NESTED_NODES=TRUE"]).is_err());
        assert!(of(json!({}), &["SYSBOX_IDS=70000"]).is_err());
        assert_eq!(of(json!({MAP_SOCKETS: "/s"}), &[]).unwrap().mapped_sockets, [Path::new("/s")]);
    }

    #[test]
    fn a_range_is_large_enough() {
        let ids = |text: &str| of(json!({ IDS: text }), &[]).map(|s| s.ids);
        assert_eq!(ids("65536").unwrap(), Some(65536));
        assert_eq!(ids("4294967295").unwrap(), Some(u32::MAX));
        for bad in ["65535", "4294967296", "-1", "", "x", "65536 "] {
            assert!(ids(bad).unwrap_err().to_string().contains(IDS), "{bad:?}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (env, word) in [
            ("SYSBOX_HONOR_CAPS=yes", "yes"),
            ("SYSBOX_SKIP_UID_SHIFT=a/b", "SYSBOX_SKIP_UID_SHIFT"),
            ("SYSBOX_ALLOW_TRUSTED_XATTR=TRUE", "ALLOW_TRUSTED_XATTR"),
            ("SYSBOX_SYSCONT_MODE=FALSE", "SYSCONT_MODE"),
            ("SYSBOX_WHAT=1", "SYSBOX_WHAT"),
        ] {
            assert!(of(json!({}), &[env]).unwrap_err().to_string().contains(word), "{env}");
        }
    }
}
