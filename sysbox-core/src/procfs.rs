//! What a container sees in /proc and /sys where the kernel shows the host, or refuses to be written: *nodes*.
//!
//! A node is one file or directory. A *stored* node is a plain file that keeps what is written to it. A *live* node is computed
//! from the container's control groups, for each reader, by a small process that belongs to the container alone
//! (`monitor.rs`). The table of both is data: [`Nodes`]. None of it protects anything, and none is needed for a
//! container to run: what a kernel has of its own is used instead.
//!
//! [`attach::stored`] works without the rest of this library, in any process that has a mount namespace of its own.

pub mod attach;
pub mod live;
pub(crate) mod look;
mod node;
mod table;

pub use live::Live;
pub use look::{NodeState, Origin};
pub use node::{Initial, Kind, Leaf, Node, Value};

use crate::error::{Error, Result};
use crate::mount::normalize;
use std::path::Path;

/// A set of nodes, none of which is on or below another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodes(Vec<Node>);

impl Default for Nodes {
    /// Those that every container has: see `sysbox-runc nodes` for the list.
    fn default() -> Self {
        Nodes(table::table())
    }
}

impl Nodes {
    /// No nodes.
    pub fn none() -> Self {
        Nodes(Vec::new())
    }

    /// Adds a node, in place of one of the same path.
    ///
    /// # Errors
    /// The path is not below /proc or /sys, or lies on or below that of another node.
    #[must_use = "returns the larger set"]
    pub fn with(mut self, node: Node) -> Result<Self> {
        let path = normalize(&node.path)?;
        let below = |top: &str| path.starts_with(top) && path != Path::new(top);
        if !below("/proc") && !below("/sys") {
            return Err(Error::invalid("a node must be below /proc or /sys:").at(&node.path));
        }
        self.0.retain(|n| n.path != path);
        if let Some(other) = self.0.iter().find(|n| n.path.starts_with(&path) || path.starts_with(&n.path)) {
            return Err(
                Error::invalid(format!("a node cannot be on or below another, {}:", other.path.display())).at(path)
            );
        }
        self.0.push(Node { path, ..node });
        Ok(self)
    }

    /// Leaves out those for which `keep` is false.
    #[must_use]
    pub fn filter(mut self, keep: impl FnMut(&Node) -> bool) -> Self {
        self.0.retain(keep);
        self
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Node> {
        self.0.iter()
    }
}
