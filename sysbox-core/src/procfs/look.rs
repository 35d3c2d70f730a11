//! What nodes are in a container just now.

use super::attach::{LIVE_SOURCE, SOURCE};
use super::node::{Kind, Node};
use crate::mount::Root;
use crate::mountinfo::Entry;
use serde::{Deserialize, Serialize};
use std::io::Read;

/// As much of a value as is looked at, in bytes.
const LONGEST: u64 = 4096;

/// A node of a container, as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// The row of the table.
    pub node: Node,
    /// Where what is read comes from.
    pub origin: Origin,
    /// What the container's root reads, up to 4 KiB; `None` if it cannot be read now, or is a directory.
    pub value: Option<String>,
}

/// Where what is read at a node's path comes from, as far as the names of mounts tell: root inside can give what it mounts there the
/// same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// A file of the container's own.
    Stored,
    /// The monitor.
    Live,
    /// Something empty.
    Empty,
    /// The kernel.
    Native,
    /// What the configuration has mounted there, or the container itself.
    Mounted,
    /// The kernel has no such file.
    Absent,
}

impl NodeState {
    /// For programs, as a JSON object: `path`, `kind` and `now` in the words of [`Kind::name`] and [`Origin::name`], `value`, whether the
    /// kernel would take that (`accepted`), and `note`.
    pub fn describe(&self) -> serde_json::Value {
        serde_json::json!({
            "path": self.node.path, "kind": self.node.kind.name(), "now": self.origin.name(), "value": self.value,
            "accepted": self.value.as_ref().map(|v| self.node.value.accepts(v)), "note": self.node.note,
        })
    }
}

impl Origin {
    /// In a word: `stored`, `monitor`, `empty`, `kernel`, `mounted` or `absent`.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Stored => "stored",
            Origin::Live => "monitor",
            Origin::Empty => "empty",
            Origin::Native => "kernel",
            Origin::Mounted => "mounted",
            Origin::Absent => "absent",
        }
    }
}

/// Looks at a node by a process inside. `mounts` are those of the container. Live values are read only if its monitor `serves`: a
/// reader would wait for one that is stuck.
pub(crate) fn at(node: &Node, mounts: &[Entry], root: &Root, serves: bool) -> NodeState {
    let top = mounts.iter().rev().find(|m| m.point == node.path);
    let origin = match top {
        Some(m) if m.fstype == "tmpfs" && m.source == SOURCE => match node.kind {
            Kind::Stored { .. } => Origin::Stored,
            _ => Origin::Empty,
        },
        Some(m) if m.fstype.starts_with("fuse") && m.source == LIVE_SOURCE => Origin::Live,
        Some(_) => Origin::Mounted,
        None if root.find(&node.path).is_ok() => Origin::Native,
        None => Origin::Absent,
    };
    let readable = match origin {
        Origin::Stored | Origin::Native => true,
        Origin::Live => serves,
        Origin::Empty | Origin::Mounted | Origin::Absent => false,
    };
    let value = readable.then(|| read(node, root)).flatten();
    NodeState { node: node.clone(), origin, value }
}

fn read(node: &Node, root: &Root) -> Option<String> {
    let mut text = Vec::new();
    root.read(&node.path).ok()?.take(LONGEST).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}
