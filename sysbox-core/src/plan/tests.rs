//! The planner against an engine's configuration, against requests it must refuse, and against arbitrary mounts.

mod data;
mod docker;
mod maps;
mod mounts;
mod nodes;
mod process;
mod properties;
mod refusals;

use super::build::plan;
use super::*;
use crate::cgroup::Layout;
use crate::error::{Kind, Result};
use crate::host::{Facts, FileKind, PathFact};
use crate::idmap::IdMap;
use crate::namespace::Owner;
use crate::procfs::Nodes;
use crate::spec::{is_bind, Spec};
use proptest::prelude::*;
use serde_json::{json, Value};
use std::path::{Component, Path};

const DOCKER: &str = include_str!("docker-20.10.json");
const BUNDLE: &str = "/run/engine/bundle";

const HYBRID: &str = "\
31 25 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/memory rw,relatime shared:10 - cgroup cgroup rw,memory
34 31 0:31 / /sys/fs/cgroup/devices rw,relatime shared:11 - cgroup cgroup rw,devices
35 31 0:32 / /sys/fs/cgroup/pids rw,relatime shared:12 - cgroup cgroup rw,pids
36 31 0:33 / /sys/fs/cgroup/blkio rw,relatime shared:13 - cgroup cgroup rw,blkio
37 31 0:34 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";
const PURE: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

fn hybrid() -> Layout {
    let mut layout = Layout::parse(HYBRID);
    layout.set_unified_controllers("hugetlb misc");
    layout
}

fn pure() -> Layout {
    let mut layout = Layout::parse(PURE);
    layout.set_unified_controllers("cpuset cpu io memory hugetlb pids rdma misc");
    layout
}

fn maps() -> Maps {
    let map = |start| IdMap::single(start, 65536).unwrap();
    Maps { uid: map(2_000_000_000), gid: map(2_001_000_000) }
}

fn of_root(kind: FileKind) -> PathFact {
    PathFact { kind, uid: 0, gid: 0 }
}

/// Facts of a host where every bind's source exists: a file among the engine's own, else a directory.
fn facts_for(spec: &Spec) -> Facts {
    let kind = |p: &Path| if p.starts_with("/var/lib/docker/containers") { FileKind::File } else { FileKind::Dir };
    Facts {
        namespaces: BTreeMap::new(),
        overlay: None,
        inner_dirs: Vec::new(),
        cgroups: hybrid(),
        systemd: None,
        release: "6.12.0".into(),
        kernel_dirs: Vec::new(),
        time_namespace: true,
        memory: 8 << 30,
        cpus: 4,
        fuse: true,
        can_lower_oom: true,
        root: of_root(FileKind::Dir),
        program: Some("/usr/bin/dash".into()),
        sources: spec.bind_sources(Path::new(BUNDLE)).into_iter().map(|p| (p.clone(), of_root(kind(&p)))).collect(),
        targets: BTreeMap::new(),
    }
}

fn docker() -> Value {
    serde_json::from_str(DOCKER).unwrap()
}

fn docker_with(change: impl FnOnce(&mut Value)) -> Value {
    let mut doc = docker();
    change(&mut doc);
    doc
}

fn spec(doc: &Value) -> Spec {
    Spec::from_json(doc.to_string().as_bytes()).unwrap()
}

fn plan_on(doc: &Value, change: impl FnOnce(&mut Facts)) -> Result<Plan> {
    let spec = spec(doc);
    let mut facts = facts_for(&spec);
    change(&mut facts);
    plan("c1", &spec, Path::new(BUNDLE), &facts, maps(), &Nodes::default())
}

fn planned(doc: &Value) -> Plan {
    plan_on(doc, |_| ()).unwrap()
}

fn with_mounts(extra: Value) -> Value {
    docker_with(|d| d["mounts"].as_array_mut().unwrap().extend(extra.as_array().unwrap().clone()))
}

fn bind(source: &str, target: &str) -> Value {
    json!({ "destination": target, "type": "bind", "source": source, "options": ["rbind", "rprivate"] })
}

fn tmpfs(target: &str) -> Value {
    json!({ "destination": target, "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] })
}

/// Fails, with the message, unless the plan is refused for that reason and the message has all the words.
#[track_caller]
fn refused(result: Result<Plan>, kind: Kind, words: &[&str]) {
    let e = result.map(drop).expect_err("this must not be planned");
    let text = e.to_string();
    assert_eq!(e.kind(), kind, "{text}");
    for w in words {
        assert!(text.contains(w), "no {w:?} in: {text}");
    }
}

fn targets(mounts: &[Mount]) -> Vec<&str> {
    mounts.iter().map(|m| m.target.to_str().unwrap()).collect()
}

#[track_caller]
fn mount<'a>(mounts: &'a [Mount], target: &str) -> &'a Mount {
    mounts.iter().rfind(|m| m.target == Path::new(target)).unwrap_or_else(|| panic!("no {target}"))
}

fn device_nodes(p: &Plan) -> &[Device] {
    p.locked
        .iter()
        .find_map(|m| match &m.what {
            What::Dev { nodes, .. } => Some(nodes.as_slice()),
            _ => None,
        })
        .unwrap()
}

/// Mounts that others below would cover: pairs of attached and locked.
fn hidden(p: &Plan) -> Vec<(&Path, &Path)> {
    let pairs = p.attached.iter().flat_map(|a| p.locked.iter().map(move |l| (&*a.target, &*l.target)));
    pairs.filter(|(a, l)| l.starts_with(a)).collect()
}

fn with_maps(uid: Value, gid: Value, user_namespace: bool) -> Value {
    docker_with(|d| {
        d["linux"]["uidMappings"] = uid;
        d["linux"]["gidMappings"] = gid;
        if user_namespace {
            d["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        }
    })
}

fn oci_map(inside: u32, outside: u32, count: u32) -> Value {
    json!([{ "containerID": inside, "hostID": outside, "size": count }])
}
