//! Control groups of a container: limits that its root cannot touch, and a subtree that it manages itself.
//!
//! Everything is decided in pure functions and applied elsewhere:
//!
//! ```text
//! /proc/self/mountinfo ─► Layout ─┐
//! linux.cgroupsPath ────► path ───┼─► plan() ─► Plan ─► create() ─► Entry ─► … ─► Paths::remove()
//! linux.resources ──────► limits ─┤               └──► paths() ─► kept in the container's state
//! device rules ─────────► devices ┘
//! ```
//!
//! Where systemd is to make the cgroups ([`Manager::Systemd`]), the path comes from [`Scope`] instead, and the plan has a [`Unit`].
//!
//! Three kinds of host are served alike: v1, v2, and hybrid ones, where most controllers are v1 and a `unified` mount owns
//! the rest (cgroups(7)). What is delegated to the container's root is only what lets it make children and move its own
//! processes: on v1 the directory, `cgroup.procs` and `tasks`; on v2 the directory, `cgroup.procs`, `cgroup.threads` and
//! `cgroup.subtree_control` (cgroup-v2.rst, "Delegation"). The limit files stay with the host's root.

pub mod device_program;
pub mod devices;
mod entry;
pub mod layout;
pub mod limits;
pub mod manager;
pub mod oom;
pub mod path;
pub mod paths;
pub mod plan;
pub mod scope;
pub mod stats;
pub mod unit;

mod file;
mod freezer;
mod tree;

pub use devices::{Access, DeviceKind, DeviceRule};
pub use entry::Entry;
pub use layout::{Hierarchy, Layout, Version};
pub use limits::{Limits, Write};
pub use manager::{create, create_in_unit, open_leaf_procs};
pub use oom::OomWatch;
pub use path::container_path;
pub use paths::{Node, Paths};
pub use plan::{plan, DeviceProgram, Enable, Plan, LEAF};
pub use scope::Scope;
pub use stats::Stats;
pub use unit::{Manager, Property, Unit};
