//! `linux.resources` as an ordered list of values to write to the files of the container's nodes.
//!
//! The configuration speaks the language of v1 (OCI config-linux.md); where the node is v2, values are converted as runc does,
//! so that a container is limited alike whichever runtime an engine picks. As there, zero in most fields means "not set", since
//! engines send zeros for what nobody asked for, and -1 means "no limit".

mod blkio;
mod cpu;
mod memory;
mod misc;

pub use blkio::weight_to_io_weight;
pub use cpu::shares_to_weight;

use super::layout::Version;
use super::paths::Node;
use crate::error::{Error, Kind, Result};
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Index of the node.
    pub node: usize,
    /// Name of the file in the node's directory.
    pub file: String,
    /// What is written, in one write(2).
    pub value: String,
    /// Another file and value for kernels that lack `file`.
    pub otherwise: Option<(String, String)>,
    /// A kernel that lacks the file does without.
    pub optional: bool,
    /// If the kernel refuses the value (`EINVAL`), the write that follows must go first: two limits that bound each other.
    pub after_next: bool,
    /// What it is for, as the field of the configuration.
    pub what: String,
}

/// Everything that resources ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// In the order of writing.
    pub writes: Vec<Write>,
    /// What was asked for and has no effect on this host, in words for a log.
    pub ignored: Vec<String>,
}

/// What the limits are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A new node, which has no limits yet.
    Create,
    /// A node that has some, which the configuration only adds to.
    Update,
}

/// Computes the writes for these nodes, device rules excepted (see [`crate::cgroup::devices`]).
///
/// # Errors
/// [`Kind::InvalidConfig`] for a value out of range or a contradiction, naming the field; [`Kind::Unsupported`] if no node has
/// the controller that a limit needs.
pub fn limits(nodes: &[Node], resources: &LinuxResources, purpose: Purpose) -> Result<Limits> {
    let mut sink = Sink { nodes, limits: Limits::default() };
    if let Some(memory) = resources.memory() {
        memory::add(&mut sink, memory, purpose)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu::add(&mut sink, cpu)?;
    }
    if let Some(pids) = resources.pids() {
        misc::add_pids(&mut sink, pids)?;
    }
    if let Some(io) = resources.block_io() {
        blkio::add(&mut sink, io)?;
    }
    if let Some(pages) = resources.hugepage_limits() {
        misc::add_hugepages(&mut sink, pages)?;
    }
    if let Some(network) = resources.network() {
        misc::add_network(&mut sink, network)?;
    }
    if let Some(rdma) = resources.rdma() {
        misc::add_rdma(&mut sink, rdma)?;
    }
    // Last: it is the most specific wish.
    if let Some(unified) = resources.unified() {
        misc::add_unified(&mut sink, unified)?;
    }
    Ok(sink.limits)
}

/// The owner of a controller: which node, speaking which version.
#[derive(Debug, Clone, Copy)]
struct Owner {
    node: usize,
    version: Version,
}

struct Sink<'a> {
    nodes: &'a [Node],
    limits: Limits,
}

impl Sink<'_> {
    fn find(&self, v1: Option<&str>, v2: Option<&str>) -> Option<Owner> {
        self.nodes.iter().enumerate().find_map(|(node, n)| {
            let name = if n.version == Version::V1 { v1 } else { v2 }?;
            n.has(name).then_some(Owner { node, version: n.version })
        })
    }

    /// The owner of a controller of the same name in both versions.
    fn need(&self, controller: &str, field: &str) -> Result<Owner> {
        self.find(Some(controller), Some(controller)).ok_or_else(|| missing(controller, field))
    }

    fn push(&mut self, write: Write) {
        self.limits.writes.push(write);
    }

    fn set(&mut self, node: usize, file: impl Into<String>, value: impl ToString, what: impl Into<String>) {
        self.push(Write::new(node, file, value, what));
    }

    fn ignore(&mut self, what: &str, why: &str) {
        self.limits.ignored.push(format!("{what}: {why}"));
    }
}

impl Write {
    fn new(node: usize, file: impl Into<String>, value: impl ToString, what: impl Into<String>) -> Write {
        Write {
            node,
            file: file.into(),
            value: value.to_string(),
            otherwise: None,
            optional: false,
            after_next: false,
            what: what.into(),
        }
    }

    pub(super) fn device(node: usize, file: &str, value: String) -> Write {
        Write::new(node, file, value, "linux.resources.devices")
    }
}

fn missing(controller: &str, field: &str) -> Error {
    Error::new(Kind::Unsupported, format!("{field} needs the cgroup controller {controller:?}, which this host lacks"))
}

/// The v2 spelling of a v1 limit; `None` for zero, which is "not set".
fn v2_limit(value: i64) -> Option<String> {
    match value {
        0 => None,
        -1 => Some("max".into()),
        n => Some(n.to_string()),
    }
}

/// Drops zero, which is "not set", and refuses what is below -1.
fn limit(value: Option<i64>, field: &str) -> Result<Option<i64>> {
    match value {
        None | Some(0) => Ok(None),
        Some(n) if n < -1 => Err(Error::invalid(format!("{field} {n} is neither a limit nor -1"))),
        n => Ok(n),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::path::Path;

    pub(crate) fn node(version: Version, controllers: &str) -> Node {
        let mount = Path::new("/sys/fs/cgroup").join(controllers.split(' ').next().unwrap());
        Node {
            dir: mount.join("c"),
            mount,
            root: "/".into(),
            version,
            controllers: controllers.split(' ').map(str::to_owned).collect(),
        }
    }

    pub(crate) fn v1() -> Vec<Node> {
        ["memory", "cpu cpuacct", "cpuset", "pids", "blkio", "hugetlb", "net_cls net_prio", "rdma"]
            .map(|c| node(Version::V1, c))
            .to_vec()
    }

    pub(crate) fn v2() -> Vec<Node> {
        vec![node(Version::V2, "cpuset cpu io memory hugetlb pids rdma misc")]
    }

    pub(crate) fn get(nodes: &[Node], json: &str) -> Result<Limits> {
        limits(nodes, &serde_json::from_str(json).unwrap(), Purpose::Create)
    }

    pub(crate) fn writes(nodes: &[Node], json: &str) -> Vec<String> {
        get(nodes, json).unwrap().writes.iter().map(|w| format!("{}={}", w.file, w.value)).collect()
    }

    pub(crate) fn fails(nodes: &[Node], json: &str, kind: Kind, field: &str) {
        let e = get(nodes, json).unwrap_err();
        assert!(e.kind() == kind && e.to_string().contains(field), "{json}: {e:?}");
    }

    #[test]
    fn the_zeros_of_docker_ask_for_nothing() {
        let json = r#"{"memory":{"limit":0,"reservation":0,"swap":0,"kernel":0,"disableOOMKiller":false},
            "cpu":{"shares":0,"quota":0,"period":0,"realtimeRuntime":0,"realtimePeriod":0,"cpus":"","mems":""},
            "pids":{"limit":0},"blockIO":{"weight":0},"network":{},"hugepageLimits":[]}"#;
        for nodes in [v1(), v2(), vec![]] {
            assert_eq!(get(&nodes, json).unwrap(), Limits::default());
        }
    }

    #[test]
    fn a_missing_controller_is_named_with_the_field() {
        for (json, field, controller) in [
            (r#"{"memory":{"limit":1048576}}"#, "linux.resources.memory.limit", "memory"),
            (r#"{"cpu":{"shares":2}}"#, "linux.resources.cpu.shares", "cpu"),
            (r#"{"cpu":{"cpus":"0"}}"#, "linux.resources.cpu.cpus", "cpuset"),
            (r#"{"pids":{"limit":1}}"#, "linux.resources.pids.limit", "pids"),
            (r#"{"blockIO":{"weight":100}}"#, "linux.resources.blockIO.weight", "io"),
            (r#"{"unified":{"misc.max":"a 1"}}"#, "linux.resources.unified", "misc"),
            (r#"{"network":{"classID":1}}"#, "linux.resources.network.classID", "net_cls"),
        ] {
            fails(&[], json, Kind::Unsupported, field);
            fails(&[], json, Kind::Unsupported, &format!("{controller:?}"));
        }
    }

    #[test]
    fn hybrid_takes_each_controller_from_its_owner() {
        let mut nodes = vec![node(Version::V1, "memory"), node(Version::V1, "pids")];
        nodes.push(node(Version::V2, "hugetlb"));
        let l = get(
            &nodes,
            r#"{"pids":{"limit":9},"hugepageLimits":[{"pageSize":"2MB","limit":4194304}],"unified":{"hugetlb.1GB.max":"0"}}"#,
        )
        .unwrap();
        let l: Vec<_> = l.writes.iter().map(|w| format!("{} {}={}", w.node, w.file, w.value)).collect();
        assert_eq!(
            l,
            ["1 pids.max=9", "2 hugetlb.2MB.max=4194304", "2 hugetlb.2MB.rsvd.max=4194304", "2 hugetlb.1GB.max=0"]
        );
    }
}
