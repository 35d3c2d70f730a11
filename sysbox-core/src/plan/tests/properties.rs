//! Arbitrary mounts.

use super::*;

fn any_target() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "dev", "shm", "pts", "mqueue", "proc", "sys", "fs", "cgroup", "kernel", "debug", "run", "lock", "tmp", "a",
        "b", "lib", "modules", "6.12.0", ".", "..", "",
    ]);
    let path = prop::collection::vec(name, 0..5).prop_map(|v| format!("/{}", v.join("/")));
    prop_oneof![9 => path, 1 => "\\PC{0,6}"]
}

fn any_mount() -> impl Strategy<Value = Value> {
    let types =
        vec!["bind", "tmpfs", "proc", "sysfs", "mqueue", "devpts", "cgroup", "cgroup2", "ext4", "ramfs", "none", ""];
    let options = vec![
        "ro",
        "rw",
        "rro",
        "nosuid",
        "rbind",
        "bind",
        "rprivate",
        "shared",
        "rslave",
        "mode=755",
        "size=1k",
        "uid=7",
        "gid=70000",
        "tmpcopyup",
        "noatime",
        "strictatime",
        "remount",
        "x",
        "",
    ];
    let option = prop::sample::select(options);
    (any_target(), prop::sample::select(types), any_target(), prop::collection::vec(option, 0..4)).prop_map(
        |(destination, typ, source, options)| {
            json!({ "destination": destination, "type": typ, "source": source, "options": options })
        },
    )
}

fn any_config() -> impl Strategy<Value = (Value, Vec<String>, bool, bool)> {
    let mounts = prop::collection::vec(any_mount(), 0..6);
    let protected = || prop::collection::vec(any_target(), 0..3);
    (mounts, protected(), protected(), any::<bool>(), any::<bool>()).prop_map(
        |(mounts, masked, readonly, systemd, v2)| {
            let own = mounts.iter().map(|m| m["destination"].as_str().unwrap().to_owned()).collect();
            let doc = docker_with(|d| {
                // Costs time, and has nothing to do with mounts.
                d["linux"]["seccomp"] = Value::Null;
                d["mounts"] = json!(mounts);
                d["linux"]["maskedPaths"] = json!(masked);
                d["linux"]["readonlyPaths"] = json!(readonly);
            });
            (doc, own, systemd, v2)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_mounts_make_a_sound_plan_or_an_error((doc, _own, systemd, v2) in any_config()) {
        let result = plan_on(&doc, |f| {
            f.cgroups = if v2 { pure() } else { hybrid() };
            f.kernel_dirs = vec!["/lib/modules/6.12.0".into()];
            f.program = systemd.then(|| "/lib/systemd/systemd".into());
        });
        let Ok(p) = result else { return Ok(()) };
        for m in p.locked.iter().chain(&p.attached) {
            prop_assert!(m.target.is_absolute(), "{m:?}");
            prop_assert!(m.target.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_))), "{m:?}");
        }
        prop_assert_eq!(hidden(&p), []);
        // Control groups, and what belongs to other namespaces of the container, are init's to mount.
        for m in &p.locked {
            if let What::Fs { fstype, .. } = &m.what {
                prop_assert!(!["proc", "sysfs", "mqueue", "devpts", "cgroup", "cgroup2"].contains(&fstype.as_str()), "{m:?}");
            }
            let cgroup = matches!(m.what, What::Cgroup { .. });
            prop_assert!(!cgroup);
        }
        // What init cannot mount is not given to it.
        let mountable = |m: &Mount| matches!(m.what, What::Fs { .. } | What::Cgroup { .. });
        prop_assert!(p.attached.iter().all(mountable));
        // Every bind of the configuration is in the plan, locked.
        let binds = spec(&doc).oci().mounts().as_deref().unwrap_or_default().iter().filter(|m| is_bind(m)).count();
        let planned = p.locked.iter().filter(|m| matches!(m.what, What::Bind { .. }) && m.why.is_none()).count();
        prop_assert_eq!(planned, binds);
        prop_assert_eq!(&serde_json::from_str::<Plan>(&serde_json::to_string(&p).unwrap()).unwrap(), &p);
    }
}
