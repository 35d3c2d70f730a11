//! Real cgroups, on whatever layout this machine has. Needs root; without, every test says that it was skipped.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

use oci_spec::runtime::LinuxResources;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use sysbox_core::cgroup::{
    self, Access, DeviceKind, DeviceProgram, DeviceRule, Entry, Hierarchy, Layout, Paths, Plan, Version,
};
use sysbox_core::{Error, Kind};

const OWNER: (u32, u32) = (1_234_567, 1_234_568);

/// A path of our own, removed with everything below it at the end, and the child processes put into it.
struct Lab {
    parent: PathBuf,
    layout: Layout,
    children: Vec<Child>,
}

impl Lab {
    fn new(name: &str) -> Option<Lab> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIP {name}: not root");
            return None;
        }
        let layout = Layout::detect().unwrap();
        if layout.hierarchies.is_empty() || std::fs::create_dir(layout.hierarchies[0].mount.join(probe())).is_err() {
            eprintln!("SKIP {name}: no writable cgroup hierarchy");
            return None;
        }
        std::fs::remove_dir(layout.hierarchies[0].mount.join(probe())).unwrap();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let parent = PathBuf::from(format!("/sysbox-test-{}-{n}", std::process::id()));
        Some(Lab { parent, layout, children: vec![] })
    }

    fn plan(&self, resources: &str, rules: &[DeviceRule]) -> Plan {
        let r: LinuxResources = serde_json::from_str(resources).unwrap();
        cgroup::plan(&self.layout, &self.parent.join("c"), Some(&r), rules, OWNER).unwrap()
    }

    fn has(&self, controller: &str) -> bool {
        self.layout.hierarchies.iter().any(|h| h.has(controller))
    }

    fn sleeper(&mut self, plan: &Plan) -> u32 {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id();
        self.children.push(child);
        join(plan, pid);
        pid
    }
}

fn join(plan: &Plan, pid: u32) {
    for node in &plan.nodes {
        std::fs::write(node.dir.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

fn probe() -> String {
    format!("sysbox-test-{}-probe-{:?}", std::process::id(), std::thread::current().id())
}

impl Drop for Lab {
    fn drop(&mut self) {
        let dirs: Vec<_> =
            self.layout.hierarchies.iter().map(|h| h.mount.join(self.parent.strip_prefix("/").unwrap())).collect();
        for h in self.layout.hierarchies.iter().zip(&dirs).filter(|(h, _)| h.has("freezer")) {
            let _ = std::fs::write(h.1.join("c/freezer.state"), "THAWED");
        }
        for c in &mut self.children {
            let _ = c.kill();
            let _ = c.wait();
        }
        for d in &dirs {
            let end = Instant::now() + Duration::from_secs(2);
            while d.exists() && Instant::now() < end {
                let _ =
                    Command::new("find").arg(d).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]).output();
            }
        }
    }
}

fn value(paths: &Paths, controller: &str, v1: &str, v2: &str) -> String {
    let node = paths.node(controller).unwrap();
    let file = node.dir.join(if node.version == Version::V1 { v1 } else { v2 });
    std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file:?}: {e}")).trim().to_owned()
}

fn owner(path: &Path) -> (u32, u32) {
    let m = std::fs::metadata(path).unwrap();
    (m.uid(), m.gid())
}

fn docker_rules() -> Vec<DeviceRule> {
    vec![
        DeviceRule::everything(false),
        DeviceRule::allow_char(1, Some(3), Access::ALL),
        DeviceRule::allow_char(136, None, Access::from_bits(6)),
    ]
}

#[test]
fn a_container_from_beginning_to_end() {
    let Some(mut lab) = Lab::new("a_container_from_beginning_to_end") else { return };
    if ["memory", "pids", "cpu", "cpuset"].iter().any(|c| !lab.has(c)) {
        eprintln!("SKIP a_container_from_beginning_to_end: not all controllers");
        return;
    }
    let plan = lab.plan(
        r#"{"memory":{"limit":67108864,"swap":67108864},"pids":{"limit":77},
            "cpu":{"quota":50000,"period":100000,"shares":1024,"cpus":"0"},"blockIO":{"weight":0}}"#,
        &docker_rules(),
    );
    let start = Instant::now();
    cgroup::create(&plan).unwrap();
    eprintln!("create: {:?}", start.elapsed());
    let paths = plan.paths();

    assert_eq!(value(&paths, "memory", "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(value(&paths, "pids", "pids.max", "pids.max"), "77");
    assert_eq!(value(&paths, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert!(value(&paths, "cpu", "cpu.cfs_quota_us", "cpu.max").starts_with("50000"));
    if let Some(node) = paths.node("devices") {
        let list = std::fs::read_to_string(node.dir.join("devices.list")).unwrap();
        assert_eq!(list.trim(), "c 1:3 rwm\nc 136:* rw");
    }
    for node in &paths.nodes {
        let files: &[&str] = match node.version {
            Version::V1 => &["", "cgroup.procs", "tasks"],
            Version::V2 => &["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"],
        };
        for entry in std::fs::read_dir(&node.dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let ours = files.contains(&name.as_str()) || plan.leaf.as_deref() == Some(&name);
            assert_eq!(owner(&entry.path()) == OWNER, ours, "{:?}", entry.path());
        }
        assert_eq!(owner(&node.dir), OWNER);
        assert_eq!(owner(node.dir.parent().unwrap()), (0, 0));
    }

    let start = Instant::now();
    let pid = lab.sleeper(&plan);
    eprintln!("spawn and join: {:?}", start.elapsed());
    assert_eq!(paths.pids().unwrap(), [pid]);
    assert_eq!(cgroup::create(&plan).unwrap_err().kind(), Kind::Exists);
    assert_eq!(paths.pids().unwrap(), [pid], "a refused creation must not harm the first");

    assert!(!paths.is_frozen().unwrap());
    paths.freeze().unwrap();
    assert!(paths.is_frozen().unwrap());
    paths.thaw().unwrap();
    assert!(!paths.is_frozen().unwrap());

    let update = |json: &str| paths.update(&serde_json::from_str(json).unwrap());
    // Up, where memory alone would pass the sum with swap, and down again, where the sum would fall below memory.
    update(r#"{"memory":{"limit":134217728,"swap":134217728}}"#).unwrap();
    update(r#"{"memory":{"limit":33554432,"swap":67108864,"reservation":0,"kernel":0},"cpu":{"quota":20000}}"#)
        .unwrap();
    assert_eq!(value(&paths, "memory", "memory.limit_in_bytes", "memory.max"), "33554432");
    assert!(value(&paths, "cpu", "cpu.cfs_quota_us", "cpu.max").starts_with("20000"));

    // As an engine inside would: children, and a process in one of them.
    let census = ["freezer", "devices", "pids"].iter().find_map(|c| paths.node(c)).unwrap();
    let inner = census.dir.join("docker/inner");
    std::fs::create_dir_all(&inner).unwrap();
    std::fs::write(inner.join("cgroup.procs"), pid.to_string()).unwrap();
    assert_eq!(paths.pids().unwrap(), [pid]);
    // Born in the memory cgroup, so that its memory is charged there (v1 leaves behind what was charged before a move).
    let procs = paths.node("memory").unwrap().dir.join("cgroup.procs");
    let script = format!("echo 0 > {} && exec sleep 1000", procs.display());
    let second = Command::new("sh").args(["-c", &script]).spawn().unwrap();
    let second_pid = second.id();
    lab.children.push(second);
    join(&plan, second_pid);
    let end = Instant::now() + Duration::from_secs(60);
    let check = || update(r#"{"memory":{"limit":1,"checkBeforeUpdate":true}}"#);
    while value(&paths, "memory", "memory.usage_in_bytes", "memory.current") == "0" && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(check().unwrap_err().kind(), Kind::Busy);
    let mut both = [pid, second_pid];
    both.sort_unstable();
    assert_eq!(paths.pids().unwrap(), both);

    paths.freeze().unwrap();
    paths.kill_all().unwrap();
    assert!(paths.pids().unwrap().is_empty());
    let start = Instant::now();
    paths.remove().unwrap();
    eprintln!("remove: {:?}", start.elapsed());
    for node in &paths.nodes {
        assert!(!node.dir.exists(), "{:?}", node.dir);
        assert!(node.dir.parent().unwrap().exists(), "parents are not ours");
    }
    paths.remove().unwrap();
    paths.kill_all().unwrap();
    assert!(paths.pids().unwrap().is_empty());
}

#[test]
fn a_failed_creation_leaves_nothing() {
    let Some(lab) = Lab::new("a_failed_creation_leaves_nothing") else { return };
    if !lab.has("cpuset") {
        return eprintln!("SKIP a_failed_creation_leaves_nothing: no cpuset");
    }
    let plan = lab.plan(r#"{"cpu":{"cpus":"100000"}}"#, &[]);
    let e = cgroup::create(&plan).unwrap_err();
    assert!(e.to_string().contains("linux.resources.cpu.cpus"), "{e}");
    assert!(plan.nodes.iter().all(|n| !n.dir.exists()));
}

#[test]
fn a_file_that_the_kernel_lacks_is_named_with_its_field() {
    let Some(lab) = Lab::new("a_file_that_the_kernel_lacks_is_named_with_its_field") else { return };
    let mut plan = lab.plan("{}", &[]);
    plan.writes.push(serde_json::from_str(
        r#"{"node":0,"file":"no.such","value":"1","otherwise":null,"optional":false,"after_next":false,"what":"linux.x"}"#,
    ).unwrap());
    let e: Error = cgroup::create(&plan).unwrap_err();
    assert_eq!(e.kind(), Kind::Unsupported);
    assert!(e.to_string().contains("linux.x"), "{e}");
    plan.writes[0].optional = true;
    cgroup::create(&plan).unwrap();
    plan.paths().remove().unwrap();
}

#[test]
fn an_empty_node_is_taken_over() {
    let Some(lab) = Lab::new("an_empty_node_is_taken_over") else { return };
    let plan = lab.plan("{}", &docker_rules());
    cgroup::create(&plan).unwrap();
    cgroup::create(&plan).unwrap();
    plan.paths().remove().unwrap();
}

#[test]
fn nobody_else_may_make_children_whatever_the_umask() {
    let Some(lab) = Lab::new("nobody_else_may_make_children_whatever_the_umask") else { return };
    let plan = lab.plan("{}", &[]);
    std::thread::scope(|s| {
        s.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
            nix::sys::stat::umask(nix::sys::stat::Mode::empty());
            cgroup::create(&plan).unwrap();
        });
    });
    for dir in plan.nodes.iter().flat_map(|n| [n.dir.as_path(), n.dir.parent().unwrap()]) {
        assert_eq!(std::fs::metadata(dir).unwrap().mode() & 0o022, 0, "{dir:?}");
    }
    plan.paths().remove().unwrap();
}

#[test]
fn a_tree_deeper_than_any_path_is_removed() {
    let Some(lab) = Lab::new("a_tree_deeper_than_any_path_is_removed") else { return };
    let plan = lab.plan("{}", &[]);
    cgroup::create(&plan).unwrap();
    let node = &plan.nodes.iter().find(|n| n.has("freezer")).unwrap_or(&plan.nodes[0]).dir;
    let name = "d".repeat(200);
    let mut fd = rustix::fs::open(node, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
    let mut depth = 0;
    while depth < 30 && rustix::fs::mkdirat(&fd, &*name, rustix::fs::Mode::RWXU).is_ok() {
        fd = rustix::fs::openat(&fd, &*name, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
        depth += 1;
    }
    eprintln!("depth {depth}");
    drop(fd);
    assert!(plan.paths().pids().unwrap().is_empty());
    plan.paths().remove().unwrap();
    assert!(!node.exists());
}

/// The kernel's verifier and its verdicts, on the v2 hierarchy of a hybrid or a pure host.
#[test]
fn a_device_program_is_enforced() {
    let name = "a_device_program_is_enforced";
    let Some(mut lab) = Lab::new(name) else { return };
    let Some(v2) = lab.layout.unified().cloned() else { return eprintln!("SKIP {name}: no cgroup v2") };
    // Only the v2 hierarchy, so that rules become a program.
    lab.layout.hierarchies = vec![Hierarchy { controllers: vec![], ..v2 }];
    let rules = [
        DeviceRule::everything(false),
        DeviceRule::allow_char(1, Some(5), Access::from_bits(2)),
        DeviceRule { allow: true, kind: DeviceKind::All, major: Some(1), minor: Some(3), access: Access::from_bits(6) },
        DeviceRule { allow: false, ..DeviceRule::allow_char(1, Some(3), Access::from_bits(4)) },
    ];
    let plan = lab.plan("{}", &rules);
    assert!(matches!(plan.device_program, Some(DeviceProgram { node: 0, .. })));
    cgroup::create(&plan).unwrap();
    let procs = plan.nodes[0].dir.join("cgroup.procs");
    let may = |redirect: &str| {
        let script = format!("echo 0 > {} && exec sh -c ': {redirect}' 2>&-", procs.display());
        Command::new("sh").args(["-c", &script]).status().unwrap().success()
    };
    assert!(may("</dev/zero"));
    assert!(!may(">/dev/zero"));
    assert!(may("</dev/null"));
    assert!(!may(">/dev/null"));
    assert!(!may("</dev/full"));
    plan.paths().remove().unwrap();
}

#[test]
fn a_helper_that_moves_itself_bears_children_inside() {
    let Some(mut lab) = Lab::new("a_helper_that_moves_itself_bears_children_inside") else { return };
    let plan = lab.plan("{}", &docker_rules());
    cgroup::create(&plan).unwrap();
    let entry = Entry::open(&plan.nodes).unwrap();
    // A thread of its own stands in for the helper: it alone is moved, and gone at the end.
    let child = std::thread::scope(|s| {
        let helper = s.spawn(|| {
            entry.enter_v1().unwrap();
            Command::new("sleep").arg("1000").spawn().unwrap()
        });
        helper.join().unwrap()
    });
    let pid = child.id();
    lab.children.push(child);
    for node in plan.nodes.iter().filter(|n| n.version == Version::V1) {
        // A thread that has been joined may leave its cgroups a moment later.
        let procs = || std::fs::read_to_string(node.dir.join("cgroup.procs")).unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while procs() != format!("{pid}\n") && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(procs(), format!("{pid}\n"), "{node:?}");
    }
    let v2 = plan.nodes.iter().any(|n| n.version == Version::V2);
    assert_eq!(entry.unified().is_some(), v2);
    assert_eq!(plan.paths().open_exec_unified(pid).unwrap().is_some(), v2);
    plan.paths().kill_all().unwrap();
    plan.paths().remove().unwrap();
}

/// A pure v2 host is simulated by the v2 mount of a hybrid one: leaf and delegation need no controllers.
#[test]
fn the_leaf_of_pure_v2() {
    let name = "the_leaf_of_pure_v2";
    let Some(mut lab) = Lab::new(name) else { return };
    let Some(v2) = lab.layout.unified().cloned() else { return eprintln!("SKIP {name}: no cgroup v2") };
    lab.layout.hierarchies = vec![v2];
    let mut plan = lab.plan("{}", &[]);
    plan.leaf = Some(cgroup::LEAF.to_owned());
    cgroup::create(&plan).unwrap();
    let (paths, node) = (plan.paths(), plan.nodes[0].dir.clone());
    let leaf = node.join(cgroup::LEAF);
    for file in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
        assert_eq!(owner(&leaf.join(file)), OWNER, "{file}");
    }
    assert_eq!(owner(&leaf.join("cgroup.freeze")), (0, 0));

    let pid = lab.sleeper(&plan);
    assert_eq!(cgroup::create(&plan).unwrap_err().kind(), Kind::Exists);
    let exec_goes_to = || {
        let fd = paths.open_exec_unified(pid).unwrap().unwrap();
        std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd))).unwrap()
    };
    assert_eq!(exec_goes_to(), leaf);
    paths.freeze().unwrap();
    assert!(paths.is_frozen().unwrap());
    paths.thaw().unwrap();
    // What init does at start.
    use std::io::Write as _;
    let fd = cgroup::open_leaf_procs(&plan).unwrap().unwrap();
    std::fs::File::from(fd).write_all(pid.to_string().as_bytes()).unwrap();
    assert_eq!(std::fs::read_to_string(leaf.join("cgroup.procs")).unwrap(), format!("{pid}\n"));
    // Software inside has its own ideas.
    let other = node.join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("cgroup.procs"), pid.to_string()).unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while std::fs::remove_dir(&leaf).is_err() && Instant::now() < end {}
    assert_eq!(exec_goes_to(), other);
    assert_eq!(paths.pids().unwrap(), [pid]);
    paths.freeze().unwrap();
    paths.kill_all().unwrap();
    paths.remove().unwrap();
    assert!(!node.exists());
}

/// Switching a controller on in the ancestors, and what stays if it is refused.
#[test]
fn v2_controllers_are_switched_on_for_the_node() {
    let name = "v2_controllers_are_switched_on_for_the_node";
    let Some(mut lab) = Lab::new(name) else { return };
    let Some(v2) = lab.layout.unified().cloned() else { return eprintln!("SKIP {name}: no cgroup v2") };
    if !v2.has("hugetlb") {
        return eprintln!("SKIP {name}: hugetlb is not on cgroup v2 at this moment");
    }
    let control = v2.mount.join("cgroup.subtree_control");
    let before = std::fs::read_to_string(&control).unwrap();
    lab.layout.hierarchies = vec![v2];
    let plan = lab.plan(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#, &[]);
    let created = cgroup::create(&plan);
    let limit = std::fs::read_to_string(plan.nodes[0].dir.join("hugetlb.2MB.max"));
    plan.paths().remove().unwrap();
    std::fs::remove_dir(plan.nodes[0].dir.parent().unwrap()).unwrap();
    if !before.contains("hugetlb") {
        // As it was, or nobody could mount it on v1 any more.
        std::fs::write(&control, "-hugetlb").unwrap();
    }
    created.unwrap();
    assert_eq!(limit.unwrap().trim(), "4194304");
}
