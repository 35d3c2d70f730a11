//! What becomes of an ordinary container of Docker.

use super::*;

#[test]
fn docker_becomes_a_system_container() {
    let p = planned(&docker());
    assert_eq!((p.id.as_str(), p.oci_version.as_str()), ("c1", "1.0.2-dev"));
    assert_eq!(p.time, TimeOffsets::FromZero);
    assert_eq!(p.process.caps, Caps::Full { dropped: 0 });
    assert_eq!(p.process.apparmor, None);
    assert!(p.process.seccomp.is_some());
    assert_eq!(p.process.groups, [1, 2, 3, 4, 6, 10, 11, 20, 26, 27]);
    assert_eq!(p.hostname.as_deref(), Some("4f0b1c9e7d52"));
    let root = Path::new("/var/lib/docker/overlay2/8a/merged");
    let expected =
        RootFs { path: root.into(), idmap: true, readonly: false, propagation: Propagation::Private, overlay: None };
    assert_eq!(p.root, expected);
    assert_eq!(p.hooks.create_runtime.len(), 1, "prestart comes at createRuntime");
    assert_eq!(p.hooks.create_runtime[0].args[0], "libnetwork-setkey");
    assert!(p.notes.iter().any(|n| n.contains("docker-default")), "{:?}", p.notes);
    assert!(p.notes.iter().any(|n| n.contains("/proc/kcore")), "{:?}", p.notes);
}

#[test]
fn the_hosts_sysfs_gives_way_to_the_containers() {
    let with = |source: &str, options: Value| {
        docker_with(|d| {
            let sys = json!({"destination": "/sys", "type": "bind", "source": source, "options": options});
            d["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/sys");
            d["mounts"].as_array_mut().unwrap().push(sys);
        })
    };
    // Podman's, for a container in another's network and user namespace.
    let p = planned(&with("/sys", json!(["rprivate", "nosuid", "noexec", "nodev", "ro", "rbind"])));
    assert_eq!(mount(&p.locked, "/sys").what, What::Sysfs);
    assert!(p.notes.iter().any(|n| n.contains("/sys")), "{:?}", p.notes);
    for (source, options) in [("/sys", json!(["rbind"])), ("/srv", json!(["rbind", "ro"]))] {
        refused(plan_on(&with(source, options), |_| ()), Kind::Refused, &["a bind over /sys"]);
    }
}

#[test]
fn docker_mounts_in_order() {
    let p = planned(&docker());
    assert_eq!(
        targets(&p.locked),
        ["/dev", "/dev", "/proc", "/sys", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/data"]
    );
    assert_eq!(p.locked[0].what, What::Spare);
    // Writable, whatever the engine says of /sys.
    assert!(!mount(&p.locked, "/sys").attrs.set.contains(Attrs::RDONLY));
    assert!(mount(&p.locked, "/data").attrs.set.contains(Attrs::RDONLY));
    let hosts = &mount(&p.locked, "/etc/hosts").what;
    let source = "/var/lib/docker/containers/4f/hosts".into();
    assert_eq!(hosts, &What::Bind { source, recursive: true, idmap: true, node: Node::File });

    let mut attached = targets(&p.attached);
    attached.sort_unstable();
    let cgroups = ["", "/blkio", "/cpu,cpuacct", "/devices", "/memory", "/pids", "/unified"];
    let mut expected: Vec<String> = cgroups.iter().map(|c| format!("/sys/fs/cgroup{c}")).collect();
    expected.extend(["/dev/mqueue", "/dev/pts", "/dev/shm", "/scratch"].map(String::from));
    expected.sort();
    assert_eq!(attached, expected);
    assert!(!mount(&p.attached, "/sys/fs/cgroup/memory").attrs.set.contains(Attrs::RDONLY));
    let shm = mount(&p.attached, "/dev/shm");
    assert!(matches!(&shm.what, What::Fs { options, .. } if options.contains(&"size=67108864".to_owned())), "{shm:?}");
    assert_eq!(hidden(&p), []);
}

#[test]
fn masks_of_engines_are_dropped_and_others_kept() {
    let p = planned(&docker());
    assert!(!p.locked.iter().any(|m| matches!(m.what, What::Mask | What::ReadOnly)));
    let p = planned(&docker_with(|d| {
        d["linux"]["maskedPaths"] =
            json!(["/proc/kcore", "/proc/kcore/", "/sys/devices/system/cpu/cpu0/thermal_throttle", "/etc/secret"]);
        d["linux"]["readonlyPaths"] = json!(["/proc/sys", "//proc/bus", "/opt/tools"]);
    }));
    let kept: Vec<_> = p.locked.iter().filter(|m| matches!(m.what, What::Mask | What::ReadOnly)).collect();
    assert_eq!(
        kept.iter().map(|m| (m.target.to_str().unwrap(), &m.what)).collect::<Vec<_>>(),
        [("/etc/secret", &What::Mask), ("/opt/tools", &What::ReadOnly)]
    );
}

#[test]
fn whole_trees_cannot_be_masked() {
    for path in ["/", "/proc", "/proc/", "//sys", "/dev", "/dev/pts"] {
        let doc = docker_with(|d| d["linux"]["maskedPaths"] = json!([path]));
        refused(plan_on(&doc, |_| ()), Kind::InvalidConfig, &["linux.maskedPaths"]);
    }
    for path in ["etc", "/etc/../proc", ""] {
        let doc = docker_with(|d| d["linux"]["maskedPaths"] = json!([path]));
        refused(plan_on(&doc, |_| ()), Kind::InvalidConfig, &["linux.maskedPaths"]);
    }
}

#[test]
fn sysctls_are_clamped_to_the_maps() {
    let get = |p: &Plan, key: &str| p.sysctls.iter().find(|(k, _)| k == Path::new(key)).map(|(_, v)| v.clone());
    let p = planned(&docker());
    assert_eq!(get(&p, "net/ipv4/ping_group_range").as_deref(), Some("0 65535"));
    assert_eq!(get(&p, "net/ipv4/ip_unprivileged_port_start").as_deref(), Some("0"));
    let range = |v: &str| {
        get(
            &planned(&docker_with(|d| d["linux"]["sysctl"] = json!({ "net.ipv4.ping_group_range": v }))),
            "net/ipv4/ping_group_range",
        )
        .unwrap()
    };
    assert_eq!(range("1 0"), "1 0");
    assert_eq!(range("0 65535"), "0 65535");
    assert_eq!(range("5\t65536"), "5 65535");
    assert_eq!(range("65536 4294967295"), "1 0");
    for bad in ["", "1", "1 2 3", "-1 5", "0 4294967296"] {
        let doc = docker_with(|d| d["linux"]["sysctl"] = json!({ "net.ipv4.ping_group_range": bad }));
        refused(plan_on(&doc, |_| ()), Kind::InvalidConfig, &["ping_group_range"]);
    }
}

#[test]
fn sysctls_of_the_host_are_refused() {
    let ours = [
        ("net.ipv4.conf.eth0/1.rp_filter", "net/ipv4/conf/eth0.1/rp_filter"),
        ("net/ipv4/conf/eth0.1/rp_filter", "net/ipv4/conf/eth0.1/rp_filter"),
        ("kernel.shmmax", "kernel/shmmax"),
        ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
        ("user.max_user_namespaces", "user/max_user_namespaces"),
    ];
    for (key, path) in ours {
        let p = planned(&docker_with(|d| d["linux"]["sysctl"] = json!({ key: "1" })));
        assert_eq!(p.sysctls, [(path.into(), "1".to_owned())]);
    }
    for key in
        ["kernel.panic", "vm.swappiness", "net", "net.", "net..x", "net/../kernel/panic", "kernel/hostname", "", "."]
    {
        let doc = docker_with(|d| d["linux"]["sysctl"] = json!({ key: "1" }));
        refused(plan_on(&doc, |_| ()), Kind::Refused, &["linux.sysctl"]);
    }
}

#[test]
fn docker_domain_name_comes_as_a_sysctl() {
    let domain = |d: &mut Value, v: &str| d["linux"]["sysctl"]["kernel.domainname"] = json!(v);
    let p = planned(&docker_with(|d| domain(d, "example.org")));
    assert_eq!(p.domainname.as_deref(), Some("example.org"));
    assert_eq!(p.sysctls.len(), 2, "{:?}", p.sysctls);
    let same = |d: &mut Value, other: &str| {
        domain(d, "example.org");
        d["domainname"] = json!(other);
    };
    assert!(plan_on(&docker_with(|d| same(d, "example.org")), |_| ()).is_ok());
    refused(plan_on(&docker_with(|d| same(d, "b")), |_| ()), Kind::InvalidConfig, &["kernel.domainname"]);
    refused(plan_on(&docker_with(|d| domain(d, &"x".repeat(65))), |_| ()), Kind::InvalidConfig, &["domainname"]);
}

#[test]
fn dev_has_its_nodes() {
    let p = planned(&docker());
    let nodes: Vec<_> = device_nodes(&p).iter().map(|n| (n.path.to_str().unwrap(), n.kind, n.mode)).collect();
    for (path, major, minor, mode) in [
        ("null", 1, 3, 0o666),
        ("zero", 1, 5, 0o666),
        ("full", 1, 7, 0o666),
        ("random", 1, 8, 0o666),
        ("urandom", 1, 9, 0o666),
        ("tty", 5, 0, 0o666),
        ("fuse", 10, 229, 0o666),
        ("net/tun", 10, 200, 0o666),
        // Not the host's log.
        ("kmsg", 1, 3, 0o644),
    ] {
        assert!(nodes.contains(&(path, DeviceKind::Char(major, minor), mode)), "{path}: {nodes:?}");
    }
    assert_eq!(nodes.len(), 9);
    let What::Dev { options, links, .. } = &p.locked[1].what else { panic!("{:?}", p.locked[1]) };
    assert_eq!(options, &["mode=755", "size=65536k"]);
    assert!(links.contains(&("ptmx".into(), "pts/ptmx".into())));
    let terminal = planned(&docker_with(|d| d["process"]["terminal"] = json!(true)));
    assert!(device_nodes(&terminal).iter().any(|n| n.path == Path::new("console") && n.kind == DeviceKind::File));
}

#[test]
fn devices_of_the_configuration() {
    let with = |devices: Value| docker_with(|d| d["linux"]["devices"] = devices);
    let p = planned(&with(json!([
        { "path": "/dev/sda", "type": "b", "major": 8, "minor": 0, "fileMode": 0o60660, "uid": 0, "gid": 6 },
        { "path": "/dev/snd/seq", "type": "c", "major": 116, "minor": 1 },
        { "path": "/dev/pipe", "type": "p" },
        { "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600 },
        { "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11 },
        { "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 },
        { "path": "/dev/stderr", "type": "c", "major": 1, "minor": 3 },
    ])));
    let find = |path: &str| device_nodes(&p).iter().filter(|n| n.path == Path::new(path)).collect::<Vec<_>>();
    assert_eq!(find("sda")[0].kind, DeviceKind::Block(8, 0));
    assert_eq!((find("sda")[0].mode, find("sda")[0].gid), (0o660, 6));
    assert_eq!(find("pipe")[0].kind, DeviceKind::Fifo);
    assert_eq!(find("fuse").len(), 1);
    assert_eq!(find("fuse")[0].mode, 0o600);
    assert_eq!(find("kmsg")[0].kind, DeviceKind::Char(1, 3), "the host's log stays out");
    // What the container's own devpts and links provide is made once.
    let What::Dev { links, nodes, .. } = &p.locked[1].what else { panic!() };
    assert_eq!(find("ptmx").len(), 0);
    assert!(!links.iter().any(|(l, _)| nodes.iter().any(|n| n.path == *l)), "{links:?}");

    let device = |path: &str, typ: &str, major: i64| json!([{ "path": path, "type": typ, "major": major, "minor": 1 }]);
    refused(plan_on(&with(device("/opt/x", "c", 1)), |_| ()), Kind::Unsupported, &["linux.devices /opt/x"]);
    for (path, typ, major) in [
        ("/dev", "c", 1),
        ("/dev/pts/7", "c", 1),
        ("/dev/../etc/x", "c", 1),
        ("dev/x", "c", 1),
        ("/dev/x", "a", 1),
        ("/dev/x", "c", -1),
        ("/dev/x", "c", 1 << 32),
    ] {
        refused(plan_on(&with(device(path, typ, major)), |_| ()), Kind::InvalidConfig, &["linux.devices"]);
    }
}

#[test]
fn device_rules_end_with_what_every_container_has() {
    let p = planned(&docker());
    let writes: Vec<_> = p.cgroup.writes.iter().filter(|w| w.file.starts_with("devices.")).collect();
    let position = |file: &str, value: &str| writes.iter().position(|w| w.file == file && w.value == value);
    let allowed = position("devices.allow", "c 10:229 rwm").expect("fuse is allowed");
    assert!(position("devices.deny", "c 10:229 rwm").is_none_or(|denied| denied < allowed), "{writes:?}");
    assert!(position("devices.allow", "c 10:200 rwm").is_some());
    assert!(position("devices.allow", "c 136:* rwm").is_some());
    // The kernel's own log is not among them.
    assert!(position("devices.allow", "c 1:11 rwm").is_none());
    let p = plan_on(&docker(), |f| f.cgroups = pure()).unwrap();
    assert!(p.cgroup.device_program.is_some());
    // Without rules of the configuration nothing else is allowed: an image may hold device nodes.
    let p = planned(&docker_with(|d| d["linux"]["resources"]["devices"] = json!([])));
    let writes: Vec<_> = p.cgroup.writes.iter().filter(|w| w.file.starts_with("devices.")).collect();
    assert_eq!((writes[0].file.as_str(), writes[0].value.as_str()), ("devices.deny", "a"));
    assert!(writes[1..].iter().all(|w| w.file == "devices.allow" && w.value.starts_with("c ")), "{writes:?}");
}

#[test]
fn cgroups_of_a_hybrid_and_of_a_pure_host() {
    let p = planned(&docker());
    assert!(p.cgroup.nodes.iter().any(|n| n.dir == Path::new("/sys/fs/cgroup/memory/docker/4f0b1c9e7d52")));
    assert_eq!(p.cgroup.owner, (2_000_000_000, 2_001_000_000));
    assert_eq!(p.cgroup.leaf, None);
    assert_eq!(mount(&p.attached, "/sys/fs/cgroup/cpu,cpuacct").what, What::Cgroup { v1: Some("cpu,cpuacct".into()) });
    assert_eq!(mount(&p.attached, "/sys/fs/cgroup/unified").what, What::Cgroup { v1: None });
    assert!(p.cgroup.writes.iter().any(|w| w.file == "memory.limit_in_bytes" && w.value == "67108864"));
    let p = plan_on(&docker(), |f| f.cgroups = pure()).unwrap();
    assert_eq!(p.cgroup.leaf.as_deref(), Some(crate::cgroup::LEAF));
    assert_eq!(mount(&p.attached, "/sys/fs/cgroup").what, What::Cgroup { v1: None });
    assert!(p.cgroup.writes.iter().any(|w| w.file == "pids.max" && w.value == "20"));
    let p = planned(&docker_with(|d| {
        d["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    }));
    assert!(p.cgroup.nodes.iter().all(|n| n.dir.ends_with("sysbox-c1")));
    let none = plan_on(&docker(), |f| f.cgroups = Layout::default());
    refused(none, Kind::Unsupported, &["cgroup"]);
}
