//! Mounts of the configuration.

use super::*;

#[test]
fn a_tmpfs_with_a_bind_below_or_on_it_is_locked_before_the_bind() {
    // In either order: what comes first is covered by what comes later, as the configuration has it.
    for extra in [
        json!([tmpfs("/run"), bind("/srv/a", "/run/deep/a")]),
        json!([tmpfs("/run"), bind("/srv/a", "/run")]),
        json!([bind("/srv/a", "/run"), tmpfs("/run")]),
        json!([bind("/srv/a", "/run/a"), tmpfs("/run")]),
        json!([tmpfs("/run"), tmpfs("/run/deep"), bind("/srv/a", "/run/deep/a")]),
    ] {
        let p = planned(&with_mounts(extra.clone()));
        let wanted: Vec<&str> = extra.as_array().unwrap().iter().map(|m| m["destination"].as_str().unwrap()).collect();
        assert_eq!(targets(&p.locked)[8..], wanted);
        assert_eq!(hidden(&p), []);
        assert!(p.notes.iter().any(|n| n.contains("cannot be remounted inside")), "{:?}", p.notes);
    }
    let p = planned(&with_mounts(json!([tmpfs("/run"), bind("/srv/a", "/running")])));
    assert!(targets(&p.attached).contains(&"/run"));
}

#[test]
fn a_locked_tmpfs_gets_the_ids_of_the_host() {
    let owned = |id: &str| {
        json!([
            { "destination": "/run", "type": "tmpfs", "options": [format!("uid={id}"), "gid=5", "mode=700"] },
            bind("/srv/a", "/run/a"),
        ])
    };
    let p = planned(&with_mounts(owned("1000")));
    let What::Fs { options, .. } = &mount(&p.locked, "/run").what else { panic!() };
    assert_eq!(options, &["uid=2000001000", "gid=2001000005", "mode=700"]);
    for id in ["65536", "-1", "x", ""] {
        refused(plan_on(&with_mounts(owned(id)), |_| ()), Kind::InvalidConfig, &["uid="]);
    }
}

#[test]
fn shm_gives_way_to_binds() {
    let p = planned(&with_mounts(json!([bind("/srv/a", "/dev/shm/a")])));
    assert_eq!(hidden(&p), []);
    let at = |t: &str| targets(&p.locked).iter().position(|x| *x == t).unwrap();
    assert!(at("/dev/shm") < at("/dev/shm/a"));
    let whole = docker_with(|d| {
        let mounts = d["mounts"].as_array_mut().unwrap();
        mounts.retain(|m| m["destination"] != "/dev/shm");
        mounts.push(bind("/srv/shm", "/dev/shm"));
    });
    let p = planned(&whole);
    assert!(matches!(mount(&p.locked, "/dev/shm").what, What::Bind { .. }));
    assert!(!targets(&p.attached).contains(&"/dev/shm"));
    assert_eq!(hidden(&p), []);
    let p = planned(&docker_with(|d| d["linux"]["readonlyPaths"] = json!(["/dev/shm"])));
    assert_eq!(hidden(&p), [], "a read-only path that a writable mount covers is none");
    let p = planned(&docker_with(|d| {
        d["linux"]["maskedPaths"] = json!(["/scratch", "/dev/mqueue", "/sys/fs/cgroup/pids"])
    }));
    assert_eq!(hidden(&p), []);
    assert_eq!(mount(&p.locked, "/scratch").what, What::Mask);
    assert!(!targets(&p.attached).contains(&"/dev/mqueue"));
}

#[test]
fn file_systems_of_a_namespace_are_never_made_by_the_host() {
    // Made by real root they would be those of the host's own namespaces.
    for fstype in ["proc", "sysfs", "mqueue", "devpts"] {
        let one = json!({ "destination": "/ns", "type": fstype, "source": fstype });
        let p = planned(&with_mounts(json!([one.clone()])));
        assert_eq!(p.attached.last().unwrap().target, Path::new("/ns"));
        for target in ["/ns", "/ns/below"] {
            let doc = with_mounts(json!([one, bind("/srv/a", target)]));
            refused(plan_on(&doc, |_| ()), Kind::Refused, &["/ns", fstype]);
        }
    }
}

#[test]
fn mounts_that_would_hide_the_containers_own_are_refused() {
    for target in
        ["/", "/proc", "/sys", "/dev", "/sys/fs/cgroup", "/sys/fs/cgroup/x", "/dev/pts", "/dev/pts/0", "/dev/mqueue/x"]
    {
        refused(plan_on(&with_mounts(json!([bind("/srv/a", target)])), |_| ()), Kind::Refused, &["mounts[12]", target]);
    }
    for target in ["/", "/proc", "/sys", "/dev"] {
        let m = json!({ "destination": target, "type": "ext4", "source": "/dev/x" });
        refused(plan_on(&with_mounts(json!([m])), |_| ()), Kind::Refused, &["mounts[12]", target]);
    }
    // By what the name leads to inside, too.
    let doc = with_mounts(json!([bind("/srv/a", "/link")]));
    let linked = plan_on(&doc, |f| {
        f.targets.insert("/link".into(), "/proc".into());
    });
    refused(linked, Kind::Refused, &["/proc"]);
}

#[test]
fn new_file_systems_that_need_the_hosts_root_are_refused() {
    for fstype in ["ext4", "overlay", "debugfs", "devtmpfs", "nfs", "fuse.x", "nonsense"] {
        let doc = with_mounts(json!([{ "destination": "/a", "type": fstype, "source": "/dev/x" }]));
        refused(plan_on(&doc, |_| ()), Kind::Refused, &["mounts[12]", fstype]);
    }
}

#[test]
fn a_mask_below_proc_is_kept_and_noted() {
    for path in ["/proc/cpuinfo", "/sys/class"] {
        let p = planned(&docker_with(|d| d["linux"]["maskedPaths"] = json!([path])));
        assert_eq!(mount(&p.locked, path).what, What::Mask);
        assert!(p.notes.iter().any(|n| n.contains(path) && n.contains("mount another")), "{:?}", p.notes);
    }
}

#[test]
fn malformed_mounts() {
    let cases = [
        (json!({ "destination": "/a/../b", "type": "tmpfs" }), Kind::InvalidConfig, ".."),
        (json!({ "destination": "/a" }), Kind::InvalidConfig, "type"),
        (json!({ "destination": "/a", "type": "bind" }), Kind::InvalidConfig, "source"),
        (json!({ "destination": "/a", "type": "tmpfs", "options": ["remount"] }), Kind::InvalidConfig, "remount"),
        (json!({ "destination": "/a", "type": "cgroup2" }), Kind::Unsupported, "cgroup2"),
    ];
    for (m, kind, word) in cases {
        refused(plan_on(&with_mounts(json!([m])), |_| ()), kind, &["mounts[12]", word]);
    }
    let doc = docker();
    let absent = plan_on(&doc, |f| f.sources.clear());
    refused(absent, Kind::InvalidConfig, &["does not exist", "/var/lib/docker/containers/4f/resolv.conf"]);
}

#[test]
fn mounts_with_id_maps_of_their_own() {
    let mapped = |outside: u32| {
        let mut m = bind("/srv/a", "/a");
        m["uidMappings"] = oci_map(0, outside, 65536);
        m["gidMappings"] = oci_map(0, outside + 1_000_000, 65536);
        with_mounts(json!([m]))
    };
    assert!(plan_on(&mapped(2_000_000_000), |_| ()).is_ok());
    refused(plan_on(&mapped(2_000_000_001), |_| ()), Kind::Unsupported, &["ID maps"]);
}

#[test]
fn kernel_directories_come_along_unless_given() {
    let dir = "/lib/modules/6.12.0";
    let with = |extra: Value| plan_on(&with_mounts(extra), |f| f.kernel_dirs = vec![dir.into()]).unwrap();
    let p = with(json!([]));
    let m = mount(&p.locked, dir);
    assert!(m.attrs.set.contains(Attrs::RDONLY) && m.why.is_some());
    for target in ["/lib/modules", dir, "/lib/modules/6.12.0/extra"] {
        let p = with(json!([bind("/srv/a", target)]));
        assert_eq!(targets(&p.locked).iter().filter(|t| t.starts_with("/lib/modules")).count(), 1, "{target}");
    }
}
