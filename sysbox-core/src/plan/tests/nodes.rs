//! Nodes of /proc and /sys.

use super::*;
use crate::procfs;

fn live(p: &Plan) -> usize {
    p.nodes.iter().filter(|n| matches!(n.kind, procfs::Kind::Live(_))).count()
}

/// All live nodes that there are.
fn all() -> usize {
    Nodes::default().iter().filter(|n| matches!(n.kind, procfs::Kind::Live(_))).count()
}

fn has(p: &Plan, path: &str) -> bool {
    p.nodes.iter().any(|n| n.path == Path::new(path))
}

fn annotated(value: &str) -> Value {
    docker_with(|d| d["annotations"] = json!({ super::super::NODES: value }))
}

#[test]
fn live_ones_where_limits_differ_from_the_host() {
    // The host has 8 GiB and 4 CPUs.
    let without = docker_with(|d| d["linux"]["resources"] = json!({}));
    assert_eq!(live(&plan_on(&without, |_| ()).unwrap()), 0);
    for (resources, some) in [
        (json!({"memory": {"limit": 256 << 20}}), true),
        (json!({"memory": {"limit": -1}}), false),
        (json!({"memory": {"limit": 8u64 << 30}}), false),
        (json!({"cpu": {"quota": 150_000, "period": 100_000}}), true),
        (json!({"cpu": {"quota": 399_999}}), true),
        (json!({"cpu": {"quota": 400_000, "period": 100_000}}), false),
        (json!({"cpu": {"quota": -1, "period": 100_000}}), false),
        (json!({"cpu": {"cpus": "0"}}), true),
        (json!({"cpu": {"cpus": ""}}), false),
        (json!({"cpu": {"shares": 512}}), false),
    ] {
        // The hybrid host of these tests has no cpuset.
        let doc = docker_with(|d| d["linux"]["resources"] = resources.clone());
        let p = plan_on(&doc, |f| f.cgroups = pure()).unwrap();
        assert_eq!(live(&p), if some { all() } else { 0 }, "{resources}");
    }
}

#[test]
fn what_is_asked_for() {
    let p = plan_on(&annotated("off"), |_| ()).unwrap();
    assert!(!has(&p, "/proc/sys/kernel/panic") && has(&p, "/sys/kernel/debug"));
    let p = plan_on(&annotated("live"), |_| ()).unwrap();
    assert!(live(&p) == all() && has(&p, "/proc/sys/kernel/panic"));
    let limited = docker_with(|d| {
        d["annotations"] = json!({ super::super::NODES: "stored" });
        d["linux"]["resources"] = json!({"memory": {"limit": 1 << 20}});
    });
    assert_eq!(live(&plan_on(&limited, |_| ()).unwrap()), 0);
    assert!(plan_on(&annotated("some"), |_| ()).unwrap_err().to_string().contains("sysbox.nodes"));
}

#[test]
fn a_host_without_fuse() {
    let limited = docker_with(|d| d["linux"]["resources"] = json!({"memory": {"limit": 1 << 20}}));
    let p = plan_on(&limited, |f| f.fuse = false).unwrap();
    assert_eq!(live(&p), 0);
    assert!(p.notes.iter().any(|n| n.contains("FUSE")));
    assert_eq!(plan_on(&annotated("live"), |f| f.fuse = false).unwrap_err().kind(), Kind::Unsupported);
}

#[test]
fn the_configurations_own_mounts_come_first() {
    let doc = docker_with(|d| {
        d["annotations"] = json!({ super::super::NODES: "live" });
        d["mounts"].as_array_mut().unwrap().push(bind("/srv/meminfo", "/proc/meminfo"));
        d["linux"]["maskedPaths"] = json!(["/proc/sys/kernel/panic", "/sys/kernel"]);
        d["linux"]["readonlyPaths"] = json!(["/proc/sys/vm"]);
    });
    let p = plan_on(&doc, |_| ()).unwrap();
    for path in ["/proc/meminfo", "/proc/sys/kernel/panic", "/sys/kernel/debug", "/proc/sys/vm/swappiness"] {
        assert!(!has(&p, path), "{path}");
    }
    assert!(has(&p, "/proc/sys/kernel/panic_on_oops") && has(&p, "/proc/cpuinfo"));
}

#[test]
fn an_embedders_own() {
    let node = |path: &str| procfs::Node {
        path: path.into(),
        ..procfs::Node::sysctl("a", procfs::Initial::NameUuid, procfs::Value::Uuid)
    };
    let nodes = Nodes::default();
    let count = nodes.iter().count();
    let more = nodes.clone().with(node("/proc/sys/kernel/panic")).unwrap();
    assert_eq!(more.iter().count(), count);
    assert_eq!(nodes.clone().with(node("/proc/sys/kernel/new")).unwrap().iter().count(), count + 1);
    for bad in ["/proc", "/sys", "/etc/passwd", "proc/x", "/proc/../etc/x", "/proc/sys/kernel", "/proc/meminfo/x"] {
        assert!(nodes.clone().with(node(bad)).is_err(), "{bad}");
    }
}
