//! Which nodes a container gets.

use super::settings::{NodeMode, Settings};
use super::Mount;
use crate::error::{Error, Kind, Result};
use crate::host::Facts;
use crate::procfs::{self, Leaf, Node, Nodes};
use oci_spec::runtime as oci;
use std::path::Path;

/// Those of the table that are asked for and that nothing of the configuration lies over, or below.
pub(super) fn plan<'a>(
    table: &Nodes,
    settings: &Settings,
    resources: &oci::LinuxResources,
    facts: &Facts,
    mounts: impl Iterator<Item = &'a Mount>,
    notes: &mut Vec<String>,
) -> Result<Vec<Leaf>> {
    let live = live(settings, resources, facts, notes)?;
    let asked = |n: &&Node| match n.kind {
        _ if n.on_request && !settings.net_nodes => false,
        procfs::Kind::Stored { .. } => settings.nodes != NodeMode::Off,
        procfs::Kind::Live(_) => live,
        procfs::Kind::Empty | procfs::Kind::Hidden => true,
    };
    let whole = |m: &Mount| m.target == Path::new("/proc") || m.target == Path::new("/sys");
    let below = |m: &&Mount| m.target.starts_with("/proc") || m.target.starts_with("/sys");
    let others: Vec<&Mount> = mounts.filter(below).filter(|m| !whole(m)).collect();
    let free = |n: &&Node| !others.iter().any(|m| n.path.starts_with(&m.target) || m.target.starts_with(&n.path));
    Ok(table.iter().filter(asked).filter(free).map(Node::leaf).collect())
}

/// Whether the live ones are among them: they cost a process.
fn live(settings: &Settings, resources: &oci::LinuxResources, facts: &Facts, notes: &mut Vec<String>) -> Result<bool> {
    match settings.nodes {
        NodeMode::Off | NodeMode::Stored => Ok(false),
        NodeMode::Auto if !differs(resources, facts) => Ok(false),
        NodeMode::Auto if !facts.fuse => {
            notes.push("/proc/meminfo and its like show the host, not the limits: this host has no FUSE".into());
            Ok(false)
        }
        NodeMode::Live if !facts.fuse => {
            Err(Error::new(Kind::Unsupported, "live nodes are asked for, and this host has no /dev/fuse")
                .hint("modprobe fuse on the host"))
        }
        NodeMode::Auto | NodeMode::Live => Ok(true),
    }
}

/// Whether limits make what the container has differ from what the host has.
fn differs(resources: &oci::LinuxResources, facts: &Facts) -> bool {
    let memory = resources.memory().as_ref().and_then(|m| m.limit());
    let memory = memory.is_some_and(|l| u64::try_from(l).is_ok_and(|l| l > 0 && l < facts.memory));
    let cpu = resources.cpu().as_ref();
    let quota = cpu.and_then(|c| Some((c.quota()?, c.period().unwrap_or(100_000))));
    let quota = quota.is_some_and(|(quota, period)| {
        u64::try_from(quota).is_ok_and(|q| q > 0 && q < period.saturating_mul(facts.cpus))
    });
    // Which CPUs a list names that the host has is the kernel's to say: any list counts.
    let list = cpu.and_then(|c| c.cpus().as_deref()).is_some_and(|l| !l.trim().is_empty());
    memory || quota || list
}
