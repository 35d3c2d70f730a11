//! Everything that making a container's cgroups takes, decided beforehand.

use super::device_program::program;
use super::devices::{allows_everything, v1_writes, DeviceRule};
use super::layout::{Layout, Version};
use super::limits::{limits, Limits, Purpose, Write};
use super::paths::{Node, Paths};
use super::unit::Unit;
use crate::error::{Error, Kind, Result};
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};
use std::path::{Component, Path};

/// The leaf that processes live in on pure v2, where a node with controllers for its children may not hold processes itself
/// (cgroup-v2.rst, "No Internal Process Constraint"). systemd as a container's init uses the same name.
pub const LEAF: &str = "init.scope";

/// Device rules as a program, and the node it guards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceProgram {
    /// Index of the v2 node.
    pub node: usize,
    /// Encoded instructions (see [`crate::cgroup::device_program`]).
    pub code: Vec<u64>,
}

/// A v2 controller to switch on in the node's ancestors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enable {
    /// The controller.
    pub controller: String,
    /// The field of the configuration that cannot be honoured without; `None` if it is only good to have.
    pub needed_by: Option<String>,
}

/// What [`crate::cgroup::create`] carries out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The container's own node in every hierarchy.
    pub nodes: Vec<Node>,
    /// Controllers that the v2 node must get from its ancestors.
    pub enable: Vec<Enable>,
    /// Limits and v1 device rules, in the order of writing.
    pub writes: Vec<Write>,
    /// Device rules on v2.
    pub device_program: Option<DeviceProgram>,
    /// User and group on the host that the nodes are delegated to: the container's root. 0:0 delegates nothing.
    pub owner: (u32, u32),
    /// Name of the child for the container's processes; on pure v2 only.
    pub leaf: Option<String>,
    /// What was asked for and has no effect on this host, in words for a log.
    pub ignored: Vec<String>,
    /// The unit that systemd makes the nodes for, those of the hierarchies it manages; `None` if all are made directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
}

impl Plan {
    /// What must be kept to find the nodes again.
    pub fn paths(&self) -> Paths {
        Paths { nodes: self.nodes.clone(), leaf: self.leaf.clone(), unit: self.unit.as_ref().map(|u| u.name.clone()) }
    }
}

/// Plans the cgroups of a container.
///
/// `path` comes from [`crate::cgroup::container_path`]. `devices` are the rules in force, whatever the caller has added to those
/// of the configuration (`resources.devices` is not looked at; see [`crate::cgroup::devices::from_oci`]); none at all leave
/// devices unrestricted. `owner` is the container's root on the host.
///
/// # Errors
/// Those of [`limits`] and [`v1_writes`]; [`Kind::Unsupported`] if there is no cgroup hierarchy, or none that can restrict
/// devices while rules ask for it; [`Kind::InvalidConfig`] if `path` is not an absolute path below the root.
pub fn plan(
    layout: &Layout,
    path: &Path,
    resources: Option<&LinuxResources>,
    devices: &[DeviceRule],
    owner: (u32, u32),
) -> Result<Plan> {
    let relative = path
        .strip_prefix("/")
        .ok()
        .filter(|p| p.components().next().is_some() && p.components().all(|c| matches!(c, Component::Normal(_))));
    let Some(relative) = relative else {
        return Err(Error::invalid(format!("{:?} is not a path of a cgroup", path.display().to_string())));
    };
    if layout.hierarchies.is_empty() {
        return Err(Error::new(Kind::Unsupported, "find a cgroup hierarchy").hint("mount one below /sys/fs/cgroup"));
    }
    let nodes: Vec<Node> = layout
        .hierarchies
        .iter()
        .map(|h| Node {
            dir: h.mount.join(relative),
            mount: h.mount.clone(),
            root: h.root.clone(),
            version: h.version,
            controllers: h.controllers.clone(),
        })
        .collect();
    let Limits { mut writes, ignored } = match resources {
        Some(r) => limits(&nodes, r, Purpose::Create)?,
        None => Limits::default(),
    };

    let unified = layout.is_unified();
    let mut enable: Vec<Enable> = Vec::new();
    for (i, node) in nodes.iter().enumerate().filter(|(_, n)| n.version == Version::V2) {
        for controller in &node.controllers {
            let needed_by = writes
                .iter()
                .find(|w| w.node == i && w.file.split('.').next() == Some(controller))
                .map(|w| w.what.clone());
            // Inner engines on a pure v2 host want them all. On a hybrid one they use v1, and switching a controller on would
            // keep the host from moving it back there.
            if unified || needed_by.is_some() {
                enable.push(Enable { controller: controller.clone(), needed_by });
            }
        }
    }

    let mut device_program = None;
    if let Some(node) = nodes.iter().position(|n| n.version == Version::V1 && n.has("devices")) {
        writes.extend(v1_writes(devices)?.into_iter().map(|(file, value)| Write::device(node, file, value)));
    } else if !devices.is_empty() && !allows_everything(devices) {
        let node = nodes.iter().position(|n| n.version == Version::V2).ok_or_else(|| {
            Error::new(
                Kind::Unsupported,
                "linux.resources.devices needs the cgroup controller \"devices\" or cgroup v2",
            )
        })?;
        device_program = Some(DeviceProgram { node, code: program(devices) });
    }
    let leaf = unified.then(|| LEAF.to_owned());
    Ok(Plan { nodes, enable, writes, device_program, owner, leaf, ignored, unit: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(lines: &[(&str, &str, &str)], v2: &str) -> Layout {
        let text: String = lines
            .iter()
            .map(|(at, ty, opt)| format!("1 1 0:1 / /sys/fs/cgroup{at} rw - {ty} {ty} rw,{opt}\n"))
            .collect();
        let mut l = Layout::parse(&text);
        l.set_unified_controllers(v2);
        l
    }

    fn pure() -> Layout {
        layout(&[("", "cgroup2", "")], "cpu memory pids")
    }

    fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn pure_v2_has_a_leaf_all_controllers_and_a_program() {
        let r = resources(r#"{"memory":{"limit":1048576}}"#);
        let p = plan(&pure(), Path::new("/sysbox/x"), Some(&r), &[DeviceRule::everything(false)], (1, 2)).unwrap();
        assert_eq!(p.leaf.as_deref(), Some("init.scope"));
        let needed: Vec<_> = p.enable.iter().map(|e| (e.controller.as_str(), e.needed_by.is_some())).collect();
        assert_eq!(needed, [("cpu", false), ("memory", true), ("pids", false)]);
        assert_eq!(p.device_program.as_ref().unwrap().node, 0);
        assert_eq!(p.nodes[0].dir, Path::new("/sys/fs/cgroup/sysbox/x"));
        assert_eq!(serde_json::from_str::<Plan>(&serde_json::to_string(&p).unwrap()).unwrap(), p);
        let p = plan(&pure(), Path::new("/x"), None, &[DeviceRule::everything(true)], (0, 0)).unwrap();
        assert_eq!(p.device_program, None);
    }

    #[test]
    fn hybrid_enables_only_what_is_asked_for() {
        let l = layout(&[("/devices", "cgroup", "devices"), ("/unified", "cgroup2", "")], "hugetlb misc");
        let r = resources(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#);
        let p = plan(&l, Path::new("/x"), Some(&r), &[DeviceRule::everything(false)], (1, 1)).unwrap();
        assert_eq!(p.enable.len(), 1);
        assert_eq!(p.enable[0].controller, "hugetlb");
        assert_eq!((p.leaf, p.device_program), (None, None));
        assert_eq!(p.writes.last().unwrap().file, "devices.deny");
        assert!(plan(&l, Path::new("/x"), None, &[], (1, 1)).unwrap().enable.is_empty());
    }

    #[test]
    fn refusals() {
        for path in ["/", "x", "/a/../b"] {
            assert_eq!(plan(&pure(), Path::new(path), None, &[], (0, 0)).unwrap_err().kind(), Kind::InvalidConfig);
        }
        let none = plan(&Layout::default(), Path::new("/x"), None, &[], (0, 0)).unwrap_err();
        assert_eq!(none.kind(), Kind::Unsupported);
        let l = layout(&[("/memory", "cgroup", "memory")], "");
        assert!(plan(&l, Path::new("/x"), None, &[], (0, 0)).is_ok());
        let e = plan(&l, Path::new("/x"), None, &[DeviceRule::everything(false)], (0, 0)).unwrap_err();
        assert!(e.to_string().contains("devices"), "{e}");
    }
}
