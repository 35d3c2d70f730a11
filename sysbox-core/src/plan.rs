//! The complete ordered list of what will be done to make a container, as data.
//!
//! [`build`](build::plan) decides; the stage and init only apply. A plan needs no privilege to make, to print or to compare.
//!
//! Mounts come in two sets. *Locked* mounts are made before init enters a mount namespace of its own user namespace: the
//! kernel then refuses to unmount them or to make them writable. *Attached* mounts are made by init afterwards and may be
//! removed from inside; they protect nothing.

pub mod build;
mod capabilities;
mod check;
mod devices;
mod mounts;
mod nodes;
mod options;
mod priority;
mod process;
mod settings;
mod show;
#[cfg(test)]
mod tests;
pub(crate) mod traps;

use crate::cgroup;
use crate::idmap::Maps;
use crate::mount::{Attrs, Node, Propagation};
use crate::namespace::Join;
use crate::overlay::Overlay;
use crate::procfs::Leaf;
use crate::seccomp::Listener;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

pub use check::{default_paths, given_maps, requested_maps};
pub use process::process_for_exec;
pub use settings::{
    requested_ids, HONOR_CAPS, IDS, MAP_SOCKETS, NESTED_NODES, NET_NODES, NODES, OOM_FLOOR, SKIP_UID_SHIFT,
};

/// What will be done. See the module documentation. [`Display`](std::fmt::Display) is for people; the serialized form is no stable
/// format, and is read by a stage of the same build only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The container's name.
    pub id: String,
    /// Version of the OCI runtime specification in the configuration (`ociVersion`).
    pub oci_version: String,
    /// Where config.json lies.
    pub bundle: PathBuf,
    /// Annotations of the configuration, for state and hooks.
    pub annotations: BTreeMap<String, String>,
    /// User and group IDs.
    pub maps: Maps,
    /// What is shared with another container; nothing if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<Join>,
    /// Offsets of the time namespace.
    pub time: TimeOffsets,
    /// Control groups with limits, and what of them the container owns.
    pub cgroup: cgroup::Plan,
    /// The root file system.
    pub root: RootFs,
    /// Mounts that the kernel locks, in order.
    pub locked: Vec<Mount>,
    /// Mounts that init makes for itself, in order.
    pub attached: Vec<Mount>,
    /// Nodes of /proc and /sys, attached by init after those. A stored one is used only where the kernel refuses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Leaf>,
    /// Directories of the host that no other container may have at the same time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclusive: Vec<PathBuf>,
    /// Host name; `None`: the creator's.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Paths below /proc/sys, with their values.
    pub sysctls: Vec<(PathBuf, String)>,
    /// The program.
    pub process: Process,
    /// Hooks of the configuration.
    pub hooks: Hooks,
    /// What differs from the configuration, and why; for people.
    pub notes: Vec<String>,
}

/// Offsets that are added to the host's clocks (time_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeOffsets {
    /// Both clocks start at zero with the container.
    FromZero,
    /// As the configuration says: seconds and nanoseconds of `monotonic` and `boottime`.
    Given {
        /// CLOCK_MONOTONIC.
        monotonic: (i64, u32),
        /// CLOCK_BOOTTIME.
        boottime: (i64, u32),
    },
    /// No time namespace: the kernel has none.
    Host,
}

/// The container's root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// A directory on the host.
    pub path: PathBuf,
    /// Mounted with the container's ID maps. False if its files belong to the container's IDs already.
    pub idmap: bool,
    /// Read-only.
    pub readonly: bool,
    /// Propagation of the container's root.
    pub propagation: Propagation,
    /// Its layers, if it is an overlay: with `idmap` they are mapped and stacked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the container. Links on the way are followed inside the container.
    pub target: PathBuf,
    /// What is mounted.
    pub what: What,
    /// Attributes of the mount.
    #[serde(default)]
    pub attrs: MountAttrs,
    /// Why it is there, where the configuration does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Attributes of a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountAttrs {
    /// Set on the mount.
    pub set: Attrs,
    /// Cleared on the mount.
    pub clear: Attrs,
    /// Set on the mount and on all below it.
    pub set_all: Attrs,
    /// Cleared on the mount and on all below it.
    pub clear_all: Attrs,
    /// Propagation and whether it applies to all below.
    pub propagation: Option<(Propagation, bool)>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// A directory or file of the host.
    Bind {
        /// On the host.
        source: PathBuf,
        /// With the mounts below it.
        recursive: bool,
        /// Mounted with the container's ID maps.
        idmap: bool,
        /// A directory or something else.
        node: Node,
    },
    /// The directory of the same name in the upper layer of the root, where that is an overlay: engines inside need a real file
    /// system for their data.
    InnerData,
    /// Clean proc and sysfs in a tmpfs that the container's /dev covers: nobody reaches them, but the kernel allows new
    /// mounts of proc and sysfs in nested user namespaces because they exist.
    Spare,
    /// The container's /dev with its nodes and links.
    Dev {
        /// Options of the tmpfs.
        options: Vec<String>,
        /// Device nodes, directories first.
        nodes: Vec<Device>,
        /// Links: path and what it points to.
        links: Vec<(PathBuf, PathBuf)>,
    },
    /// proc of the container's pid namespace.
    Proc,
    /// sysfs of the container's network namespace.
    Sysfs,
    /// A new instance of another file system.
    Fs {
        /// Its type.
        fstype: String,
        /// Its source, where the type has one.
        source: Option<String>,
        /// Its options.
        options: Vec<String>,
        /// Starts with a copy of what the directory holds.
        copy_up: bool,
    },
    /// One hierarchy of control groups.
    Cgroup {
        /// `None`: version 2; else the controllers of a version 1 hierarchy.
        v1: Option<String>,
    },
    /// Something empty over a file or directory, if it exists.
    Mask,
    /// The path itself, read-only, if it exists.
    ReadOnly,
}

/// A device node, fifo or directory in /dev.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Relative to /dev.
    pub path: PathBuf,
    /// What it is.
    pub kind: DeviceKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner inside the container.
    pub uid: u32,
    /// Group inside the container.
    pub gid: u32,
}

/// What a [`Device`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Character device: major and minor.
    Char(u32, u32),
    /// Block device: major and minor.
    Block(u32, u32),
    /// Named pipe.
    Fifo,
    /// An empty file to mount over.
    File,
}

/// A program to run in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Environment, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory, made if missing.
    pub cwd: PathBuf,
    /// User ID inside.
    pub uid: u32,
    /// Group ID inside.
    pub gid: u32,
    /// Supplementary groups inside.
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
    /// On a pseudoterminal of the container.
    pub terminal: bool,
    /// Rows and columns of the terminal.
    pub console_size: Option<(u16, u16)>,
    /// no_new_privs.
    pub no_new_privs: bool,
    /// Capability sets.
    pub caps: Caps,
    /// `RLIMIT_*` number, soft, hard, in the units of setrlimit(2). Others are the creator's.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// Scheduling policy; `None`: the creator's.
    pub scheduling: Option<Scheduling>,
    /// Class and level of ioprio_set(2); `None`: the creator's.
    pub io_priority: Option<i32>,
    /// Domain of personality(2); `None`: the creator's.
    pub personality: Option<u32>,
    /// CPUs, of an exec only.
    pub affinity: Affinity,
    /// `oom_score_adj` (proc(5)), −999 to 1000; `None`: the creator's.
    pub oom_score_adj: Option<i32>,
    /// Let inner software lower its score to −999.
    pub oom_floor: bool,
    /// AppArmor profile to change to.
    pub apparmor: Option<String>,
    /// SELinux label to run with.
    pub selinux: Option<String>,
    /// Seccomp program that hands some calls to the container's monitor, for nodes in inner containers; installed before the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traps: Option<Filter>,
    /// Seccomp program; `None`: no filter.
    pub seccomp: Option<Filter>,
}

/// Attributes of sched_setattr(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// `SCHED_*` number.
    pub policy: u32,
    /// Nice value, −20 to 19.
    pub nice: i32,
    /// Priority of a real-time policy, 1 to 99; else 0.
    pub priority: u32,
}

/// CPUs by number on which a program that is executed in a container may run. Empty: as the creator, and as the cgroup says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affinity {
    /// Before it enters the container's cgroups.
    pub initial: Vec<usize>,
    /// From then on.
    pub last: Vec<usize>,
}

/// Capability sets as bit masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Caps {
    /// Every capability but the dropped ones for root; for others an empty set, with the same in the bounding set.
    Full {
        /// Taken away.
        dropped: u64,
    },
    /// Exactly these.
    Exact {
        /// Bounding set.
        bounding: u64,
        /// Permitted set.
        permitted: u64,
        /// Effective set.
        effective: u64,
        /// Inheritable set.
        inheritable: u64,
        /// Ambient set.
        ambient: u64,
    },
}

/// A seccomp program, ready to install.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// Instructions: code, jt, jf, k.
    pub program: Vec<(u16, u8, u8, u32)>,
    /// Who decides about the calls that it leaves to somebody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<Listener>,
}

/// Hooks by OCI point.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// `prestart` and then `createRuntime`: on the host, after the namespaces exist.
    pub create_runtime: Vec<Hook>,
    /// `createContainer`: in the container's namespaces before its root.
    pub create_container: Vec<Hook>,
    /// `startContainer`: inside, before the program.
    pub start_container: Vec<Hook>,
    /// `poststart`: on the host.
    pub poststart: Vec<Hook>,
    /// `poststop`: on the host.
    pub poststop: Vec<Hook>,
}

/// A program that gets the container's state as JSON on its standard input. The end of what it prints is in the error if it
/// fails. What it leaves running must not print: nobody reads that, and it gets SIGPIPE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Absolute path.
    pub path: PathBuf,
    /// Arguments, the program's name first.
    pub args: Vec<String>,
    /// Its whole environment, `NAME=value`.
    pub env: Vec<String>,
    /// Seconds until it is killed, with all in its process group.
    pub timeout: Option<i64>,
}
