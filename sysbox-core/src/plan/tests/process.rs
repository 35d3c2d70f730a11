//! Processes, and systemd among them.

use super::*;

#[test]
fn systemd_is_known_by_what_its_name_leads_to() {
    let args = docker_with(|d| d["process"]["args"] = json!(["/sbin/init"]));
    let p = plan_on(&args, |f| f.program = Some("/usr/lib/systemd/systemd".into())).unwrap();
    assert!(p.process.env.contains(&"container=oci".to_owned()));
    for dir in ["/run", "/run/lock", "/tmp"] {
        assert!(matches!(&mount(&p.attached, dir).what, What::Fs { fstype, .. } if fstype == "tmpfs"));
    }
    for dir in ["debug", "tracing", "security", "config"] {
        assert!(p.nodes.iter().any(|n| n.path == Path::new("/sys/kernel").join(dir)));
    }
    // The same name, and another program: sysvinit, busybox.
    for program in [Some("/usr/bin/busybox"), Some("/usr/bin/systemd-run"), None] {
        let p = plan_on(&args, |f| f.program = program.map(PathBuf::from)).unwrap();
        assert!(!p.process.env.iter().any(|e| e.starts_with("container=")));
        assert!(!targets(&p.attached).contains(&"/run"));
    }
}

#[test]
fn systemd_keeps_what_the_configuration_gives() {
    let doc = docker_with(|d| {
        d["process"]["env"] = json!(["container=docker"]);
        d["mounts"].as_array_mut().unwrap().extend([bind("/srv/run", "/run"), tmpfs("/tmp"), bind("/srv/x", "/run/x")]);
    });
    let p = plan_on(&doc, |f| f.program = Some("/lib/systemd/systemd".into())).unwrap();
    assert_eq!(p.process.env, ["container=docker"]);
    assert!(matches!(mount(&p.locked, "/run").what, What::Bind { .. }));
    assert_eq!(p.attached.iter().filter(|m| m.target == Path::new("/tmp")).count(), 1);
    assert_eq!(hidden(&p), []);
}

#[test]
fn apparmor_of_engines_is_dropped_and_others_are_kept() {
    let profile =
        |name: &str| planned(&docker_with(|d| d["process"]["apparmorProfile"] = json!(name))).process.apparmor;
    for engine in
        ["docker-default", "cri-containerd.apparmor.d", "crio-default", "containers-default-0.50.1", "unconfined", ""]
    {
        assert_eq!(profile(engine), None, "{engine}");
    }
    assert_eq!(profile("my-own").as_deref(), Some("my-own"));
    let p = planned(&docker_with(|d| d["process"]["selinuxLabel"] = json!("system_u:system_r:container_t:s0")));
    assert_eq!(p.process.selinux.as_deref(), Some("system_u:system_r:container_t:s0"));
}

#[test]
fn the_oom_floor_goes_with_a_memory_limit_and_the_right() {
    assert!(planned(&docker()).process.oom_floor);
    assert!(!plan_on(&docker(), |f| f.can_lower_oom = false).unwrap().process.oom_floor);
    let unlimited = docker_with(|d| d["linux"]["resources"]["memory"] = json!({ "limit": -1 }));
    assert!(!planned(&unlimited).process.oom_floor);
    let asked = |limit: i64, value: &str| {
        let doc = docker_with(|d| {
            d["linux"]["resources"]["memory"] = json!({ "limit": limit });
            d["annotations"] = json!({ OOM_FLOOR: value });
        });
        planned(&doc).process.oom_floor
    };
    assert!(asked(-1, "true") && asked(1 << 20, "false") && !asked(-1, "false") && !asked(-1, ""));
    let score = |s: i32| plan_on(&docker_with(|d| d["process"]["oomScoreAdj"] = json!(s)), |_| ());
    assert_eq!(score(-1000).unwrap().process.oom_score_adj, Some(-999));
    refused(score(1001), Kind::InvalidConfig, &["oomScoreAdj"]);
}

#[test]
fn ids_at_the_edges_of_the_maps() {
    let user = |uid: u32, gid: u32, more: u32| {
        plan_on(
            &docker_with(|d| d["process"]["user"] = json!({ "uid": uid, "gid": gid, "additionalGids": [more] })),
            |_| (),
        )
    };
    assert_eq!(user(65535, 65535, 65535).unwrap().process.uid, 65535);
    for (uid, gid, more) in [(65536, 0, 0), (0, 65536, 0), (0, 0, 65536), (u32::MAX, 0, 0), (0, u32::MAX, 0)] {
        refused(user(uid, gid, more), Kind::InvalidConfig, &["process.user", "outside the ID maps"]);
    }
}

#[test]
fn what_belongs_to_the_container_is_not_mapped_twice() {
    let (first, last) = (2_000_000_000, 2_000_065_535);
    for (uid, mapped) in [(0, true), (first - 1, true), (first, false), (last, false), (last + 1, true)] {
        let p = plan_on(&docker(), |f| {
            f.root.uid = uid;
            f.sources.get_mut(Path::new("/srv/data")).unwrap().uid = uid;
        });
        let p = p.unwrap();
        assert_eq!(p.root.idmap, mapped, "{uid}");
        assert!(matches!(mount(&p.locked, "/data").what, What::Bind { idmap, .. } if idmap == mapped), "{uid}");
    }
    for kind in [FileKind::Socket, FileKind::Device, FileKind::Other] {
        let p = plan_on(&docker(), |f| f.sources.get_mut(Path::new("/srv/data")).unwrap().kind = kind).unwrap();
        let what = &mount(&p.locked, "/data").what;
        assert!(matches!(what, What::Bind { idmap: false, node: Node::File, .. }), "{what:?}");
    }
}

#[test]
fn malformed_processes() {
    let cases: [(&str, Value, &str); 11] = [
        ("args", json!([]), "process.args"),
        ("args", json!(["a\0b"]), "NUL"),
        ("env", json!(["A=\0"]), "NUL"),
        ("cwd", json!("relative"), "process.cwd"),
        ("cwd", json!("/a/../b"), "process.cwd"),
        ("user", json!({ "uid": 0, "gid": 0, "umask": 0o1000 }), "umask"),
        ("consoleSize", json!({ "height": 65536, "width": 1 }), "consoleSize"),
        ("rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 2, "hard": 1 }]), "RLIMIT_NOFILE"),
        (
            "rlimits",
            json!([{ "type": "RLIMIT_CPU", "soft": 1, "hard": 1 }, { "type": "RLIMIT_CPU", "soft": 1, "hard": 1 }]),
            "twice",
        ),
        ("oomScoreAdj", json!(-1001), "oomScoreAdj"),
        ("cwd", json!(""), "process.cwd"),
    ];
    for (field, value, word) in cases {
        let doc = docker_with(|d| d["process"][field] = value);
        refused(plan_on(&doc, |_| ()), Kind::InvalidConfig, &[word]);
    }
}

#[test]
fn seccomp_is_opened_for_inner_engines() {
    let with = planned(&docker());
    let without = planned(&docker_with(|d| {
        d["linux"].as_object_mut().unwrap().remove("seccomp");
    }));
    assert!(with.notes.iter().any(|n| n.contains("mount_setattr") && n.contains("pivot_root")), "{:?}", with.notes);
    assert_eq!(without.process.seccomp, None);
    let notify = docker_with(|d| d["linux"]["seccomp"]["syscalls"][1]["action"] = json!("SCMP_ACT_NOTIFY"));
    refused(plan_on(&notify, |_| ()), Kind::InvalidConfig, &["linux.seccomp", "SCMP_ACT_NOTIFY"]);
}

#[test]
fn an_agent_is_told_of_only_if_something_is_left_to_it() {
    let with = |action: &str| {
        let doc = docker_with(|d| {
            d["linux"]["seccomp"]["listenerPath"] = json!("/run/agent");
            d["linux"]["seccomp"]["syscalls"][1]["action"] = json!(action);
        });
        planned(&doc).process.seccomp.unwrap()
    };
    let listens = |f: &Filter| f.flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32 != 0;
    let asks = with("SCMP_ACT_NOTIFY");
    assert_eq!(asks.listener.as_ref().unwrap().path, Path::new("/run/agent"));
    assert!(listens(&asks));
    let alone = with("SCMP_ACT_ALLOW");
    assert!(alone.listener.is_none() && !listens(&alone));
}
