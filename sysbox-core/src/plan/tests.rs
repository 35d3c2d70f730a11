//! The planner against an engine's configuration, against requests it must refuse, and against arbitrary mounts.

use super::build::plan;
use super::*;
use crate::cgroup::Layout;
use crate::error::{Kind, Result};
use crate::host::{Facts, FileKind, PathFact};
use crate::idmap::IdMap;
use crate::namespace::Owner;
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

// ---- fixtures ------------------------------------------------------------------------------------------------------

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
        release: "6.12.0".into(),
        kernel_dirs: Vec::new(),
        time_namespace: true,
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
    plan("c1", &spec, Path::new(BUNDLE), &facts, maps())
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

// ---- an ordinary container of Docker -------------------------------------------------------------------------------

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

// ---- systemd -------------------------------------------------------------------------------------------------------

#[test]
fn systemd_is_known_by_what_its_name_leads_to() {
    let args = docker_with(|d| d["process"]["args"] = json!(["/sbin/init"]));
    let p = plan_on(&args, |f| f.program = Some("/usr/lib/systemd/systemd".into())).unwrap();
    assert!(p.process.env.contains(&"container=oci".to_owned()));
    for dir in ["/run", "/run/lock", "/tmp"] {
        assert!(matches!(&mount(&p.attached, dir).what, What::Fs { fstype, .. } if fstype == "tmpfs"));
    }
    for dir in ["debug", "tracing", "security", "config"] {
        let m = mount(&p.attached, &format!("/sys/kernel/{dir}"));
        assert!(m.attrs.set.contains(Attrs::RDONLY));
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

// ---- processes -----------------------------------------------------------------------------------------------------

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
    let listened = docker_with(|d| d["linux"]["seccomp"]["listenerPath"] = json!("/run/agent"));
    refused(plan_on(&listened, |_| ()), Kind::Unsupported, &["linux.seccomp.listenerPath"]);
}

// ---- refusals ------------------------------------------------------------------------------------------------------

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
    let cases: [(&str, Value, &str); 8] = [
        ("/linux/mountLabel", json!("system_u:object_r:container_file_t:s0"), "linux.mountLabel"),
        ("/linux/intelRdt", json!({ "closID": "x" }), "linux.intelRdt"),
        ("/linux/personality", json!({ "domain": "LINUX32" }), "linux.personality"),
        ("/process/scheduler", json!({ "policy": "SCHED_BATCH" }), "process.scheduler"),
        ("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 1 }), "process.ioPriority"),
        ("/process/execCPUAffinity", json!({ "initial": "0", "final": "0" }), "process.execCPUAffinity"),
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
    assert!(plan_on(&docker_with(|d| d["linux"]["personality"] = json!({ "domain": "LINUX" })), |_| ()).is_ok());
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
        let e = plan(id, &s, Path::new(BUNDLE), &facts_for(&s), maps()).unwrap_err();
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

// ---- ID maps of the configuration ----------------------------------------------------------------------------------

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

#[test]
fn maps_that_are_given_are_honoured_or_refused() {
    let ask = |uid: Value, gid: Value, ns| requested_maps(&spec(&with_maps(uid, gid, ns)));
    assert_eq!(requested_maps(&spec(&docker())).unwrap(), None);
    let good = || oci_map(0, 100_000, 65536);
    let maps = ask(good(), oci_map(0, 300_000, 65536), true).unwrap().unwrap();
    assert_eq!(maps.root(), (100_000, 300_000));
    // Up to the last valid ID, and not one further.
    let last = u32::MAX - 65536;
    assert_eq!(ask(oci_map(0, last, 65536), good(), true).unwrap().unwrap().root().0, last);
    let kind = |uid, gid, ns| ask(uid, gid, ns).unwrap_err().kind();
    assert_eq!(kind(oci_map(0, last + 1, 65536), good(), true), Kind::InvalidConfig);
    assert_eq!(kind(good(), json!([]), true), Kind::InvalidConfig);
    assert_eq!(kind(json!([]), good(), true), Kind::InvalidConfig);
    assert_eq!(kind(good(), good(), false), Kind::InvalidConfig);
    assert_eq!(kind(oci_map(0, 0, 65536), good(), true), Kind::Refused);
    assert_eq!(kind(good(), oci_map(0, 100_000, 65535), true), Kind::Refused);
    assert_eq!(kind(oci_map(1, 100_000, 65536), good(), true), Kind::Refused);
}

// ---- mounts --------------------------------------------------------------------------------------------------------

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

// ---- the plan as data ----------------------------------------------------------------------------------------------

#[test]
fn unknown_fields_survive() {
    let doc = docker_with(|d| {
        d["x-vendor"] = json!({ "a": [1, 2.5, null] });
        d["linux"]["resources"]["memory"]["futureKnob"] = json!(true);
        d["mounts"][0]["x"] = json!("y");
    });
    assert_eq!(spec(&doc).to_json(), &doc);
    assert_eq!(planned(&doc), planned(&docker()));
}

#[test]
fn plans_are_equal_readable_and_printable() {
    for layout in [hybrid(), pure()] {
        let make = || plan_on(&docker(), |f| f.cgroups = layout.clone()).unwrap();
        let p = make();
        assert_eq!(p, make());
        assert_eq!(serde_json::from_str::<Plan>(&serde_json::to_string(&p).unwrap()).unwrap(), p);
        let text = p.to_string();
        for part in
            ["0 inside is 2000000000 on the host, 65536", "/data", "ID-mapped", "locked mounts", "attached", "note"]
        {
            assert!(text.contains(part), "no {part:?} in:\n{text}");
        }
    }
}

// ---- properties ----------------------------------------------------------------------------------------------------

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

    #[test]
    fn any_maps_are_honoured_exactly_or_refused(
        inside in prop_oneof![Just(0u32), 0u32..3, any::<u32>()],
        outside in prop_oneof![0u32..3, any::<u32>(), u32::MAX - 65540..=u32::MAX],
        count in prop_oneof![65530u32..65540, any::<u32>()],
    ) {
        let map = oci_map(inside, outside, count);
        let end = u64::from(outside) + u64::from(count);
        let usable = inside == 0 && outside > 0 && count >= 65536 && end <= u64::from(u32::MAX);
        match requested_maps(&spec(&with_maps(map.clone(), map, true))) {
            Ok(maps) => {
                prop_assert!(usable);
                let maps = maps.unwrap();
                prop_assert_eq!(maps.root(), (outside, outside));
                prop_assert_eq!(maps.uid.to_outside(count - 1), Some(outside + (count - 1)));
                prop_assert_eq!(maps.gid.to_outside(count), None);
            }
            Err(_) => prop_assert!(!usable),
        }
    }
}
