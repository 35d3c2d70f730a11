//! What is refused, and in which words.

use super::*;

#[test]
fn namespaces_of_the_host_are_refused() {
    for typ in ["pid", "ipc", "network", "uts"] {
        let without = docker_with(|d| d["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != typ));
        refused(plan_on(&without, |_| ()), Kind::Refused, &["linux.namespaces", typ, "=host"]);
    }
    for (typ, owner) in [
        ("pid", None),
        ("mount", None),
        ("cgroup", None),
        ("time", None),
        ("ipc", Some(Owner::Host)),
        ("network", Some(Owner::Host)),
        ("uts", Some(Owner::Host)),
        ("user", Some(Owner::Host)),
    ] {
        let doc = docker_with(|d| {
            let list = d["linux"]["namespaces"].as_array_mut().unwrap();
            list.retain(|n| n["type"] != typ);
            list.push(json!({ "type": typ, "path": "/proc/1/ns/x" }));
        });
        let whose = |f: &mut Facts| f.namespaces.extend(owner.map(|o| ("/proc/1/ns/x".into(), o)));
        refused(plan_on(&doc, whose), Kind::Refused, &["linux.namespaces", "/proc/1/ns/x"]);
    }
    let twice = docker_with(|d| d["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "pid" })));
    refused(plan_on(&twice, |_| ()), Kind::InvalidConfig, &["linux.namespaces", "pid"]);
    let all = docker_with(|d| {
        let more = ["user", "cgroup", "time"].map(|t| json!({ "type": t }));
        d["linux"]["namespaces"].as_array_mut().unwrap().extend(more);
    });
    assert_eq!(planned(&all), planned(&docker()), "engines need not ask for these");
}

#[test]
fn privileged_is_refused() {
    let privileged = |rule: Value, device: Value| {
        docker_with(|d| {
            d["linux"]["resources"]["devices"] = json!([rule]);
            d["linux"]["devices"] = json!([device]);
        })
    };
    let disk = || json!({ "path": "/dev/sda", "type": "b", "major": 8, "minor": 0 });
    let memory = || json!({ "path": "/dev/mem", "type": "c", "major": 1, "minor": 1 });
    let all = [
        json!({ "allow": true, "access": "rwm" }),
        json!({ "allow": true }),
        json!({ "allow": true, "type": "a", "major": -1, "minor": -1, "access": "rwm" }),
    ];
    for rule in all {
        for device in [disk(), memory()] {
            refused(plan_on(&privileged(rule.clone(), device), |_| ()), Kind::Refused, &["privileged"]);
        }
    }
    // One disk, by its own rule, is what --device gives.
    let one = json!({ "allow": true, "type": "b", "major": 8, "minor": 0, "access": "rwm" });
    assert!(plan_on(&privileged(one, disk()), |_| ()).is_ok());
}

#[test]
fn unsupported_fields_are_named() {
    let cases: [(&str, Value, &str); 7] = [
        ("/linux/mountLabel", json!("system_u:object_r:container_file_t:s0"), "linux.mountLabel"),
        ("/linux/intelRdt", json!({ "closID": "x" }), "linux.intelRdt"),
        ("/linux/personality", json!({ "domain": "LINUX", "flags": ["X"] }), "linux.personality"),
        ("/linux/memoryPolicy", json!({ "mode": "MPOL_DEFAULT", "nodes": "" }), "linux.memoryPolicy"),
        ("/process/scheduler", json!({ "policy": "SCHED_DEADLINE" }), "process.scheduler"),
        ("/linux/netDevices", json!({ "eth0": { "name": "x" } }), "linux.netDevices"),
        ("/linux/cgroupsPath", json!("system.slice:docker:4f"), "linux.cgroupsPath"),
    ];
    for (pointer, value, word) in cases {
        let doc = docker_with(|d| {
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            d.pointer_mut(parent).unwrap()[field] = value;
        });
        refused(plan_on(&doc, |_| ()), Kind::Unsupported, &[word]);
    }
}

#[test]
fn versions_and_names() {
    for good in ["1.0.0", "1.0.2-dev", "1.3.0"] {
        assert!(plan_on(&docker_with(|d| d["ociVersion"] = json!(good)), |_| ()).is_ok());
    }
    for bad in ["", "1", "2.0.0", "0.9", "1.x"] {
        refused(plan_on(&docker_with(|d| d["ociVersion"] = json!(bad)), |_| ()), Kind::InvalidConfig, &["ociVersion"]);
    }
    let s = spec(&docker());
    for id in ["", ".", "..", "a/b", "a b", "a\n", "é", &"x".repeat(241)] {
        let e = plan(id, &s, Path::new(BUNDLE), &facts_for(&s), maps(), &Nodes::default()).unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidConfig, "{id:?}");
    }
    for field in ["hostname", "domainname"] {
        let long = docker_with(|d| d[field] = json!("x".repeat(65)));
        refused(plan_on(&long, |_| ()), Kind::InvalidConfig, &[field]);
    }
    for section in ["linux", "process", "root"] {
        let without = docker_with(|d| {
            d.as_object_mut().unwrap().remove(section);
        });
        refused(plan_on(&without, |_| ()), Kind::InvalidConfig, &[section]);
    }
    refused(plan_on(&docker(), |f| f.root.kind = FileKind::File), Kind::InvalidConfig, &["root.path"]);
}

#[test]
fn time_offsets() {
    let given = docker_with(|d| {
        d["linux"]["timeOffsets"] = json!({ "monotonic": { "secs": -5, "nanosecs": 7 }, "boottime": { "secs": 1 } });
    });
    assert_eq!(planned(&given).time, TimeOffsets::Given { monotonic: (-5, 7), boottime: (1, 0) });
    assert_eq!(plan_on(&docker(), |f| f.time_namespace = false).unwrap().time, TimeOffsets::Host);
    refused(plan_on(&given, |f| f.time_namespace = false), Kind::Unsupported, &["linux.timeOffsets"]);
    let other = docker_with(|d| d["linux"]["timeOffsets"] = json!({ "realtime": { "secs": 1 } }));
    refused(plan_on(&other, |_| ()), Kind::InvalidConfig, &["realtime"]);
}

#[test]
fn hooks_must_be_absolute_and_finite() {
    for hook in [json!({ "path": "bin/x" }), json!({ "path": "/bin/x", "timeout": 0 })] {
        let doc = docker_with(|d| d["hooks"]["poststop"] = json!([hook]));
        refused(plan_on(&doc, |_| ()), Kind::InvalidConfig, &["hooks.poststop"]);
    }
}
