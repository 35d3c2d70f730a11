//! A container's cgroups without a container, and what live nodes show of them.
// Every test program uses a part; unwrap is allowed in #[test] functions, not in what they share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use oci_spec::runtime::LinuxResources;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use sysbox_core::cgroup::{self, Layout, Paths, Version};
use sysbox_core::procfs::live::{Live, Sources};

/// A cgroup of our own as a container has it, removed with everything in it at the end.
pub struct Lab {
    pub paths: Paths,
    pub children: Vec<Child>,
}

impl Lab {
    pub fn new(name: &str, resources: &str) -> Option<Lab> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIP {name}: not root");
            return None;
        }
        let layout = Layout::detect().unwrap();
        if let Some(c) =
            ["memory", "cpu", "cpuset", "pids"].iter().find(|c| !layout.hierarchies.iter().any(|h| h.has(c)))
        {
            eprintln!("SKIP {name}: no controller {c}");
            return None;
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = format!("/sysbox-live-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let resources: LinuxResources = serde_json::from_str(resources).unwrap();
        let plan = cgroup::plan(&layout, Path::new(&path), Some(&resources), &[], (0, 0)).unwrap();
        cgroup::create(&plan).unwrap();
        Some(Lab { paths: plan.paths(), children: vec![] })
    }

    pub fn sources(&self) -> Sources {
        Sources::open(&self.paths, 0).unwrap()
    }

    /// Runs a script in the container's own cgroups, or below them, once it is there.
    pub fn run(&mut self, below: &str, script: &str) -> u32 {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("read go; {script}")]).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (pid, go) = (child.id(), child.stdin.take());
        self.children.push(child);
        self.place(below, pid);
        go.unwrap().write_all(b"\n").unwrap();
        pid
    }

    pub fn place(&self, below: &str, pid: u32) {
        for node in &self.paths.nodes {
            let dir = node.dir.join(below);
            std::fs::write(dir.join("cgroup.procs"), pid.to_string()).unwrap_or_else(|e| panic!("{dir:?}: {e}"));
        }
    }

    /// Makes an inner cgroup in every hierarchy.
    pub fn inner(&self, below: &str) {
        for node in &self.paths.nodes {
            let dir = node.dir.join(below);
            std::fs::create_dir(&dir).unwrap();
            if node.version == Version::V1 && node.has("cpuset") {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let own = std::fs::read_to_string(node.dir.join(file)).unwrap();
                    std::fs::write(dir.join(file), own.trim()).unwrap();
                }
            }
        }
    }

    /// Sets a limit in an inner cgroup, by its file in v1 or in v2.
    pub fn set(&self, below: &str, controller: &str, v1: (&str, &str), v2: (&str, &str)) {
        let node = self.paths.node(controller).unwrap();
        let (file, value) = if node.version == Version::V1 { v1 } else { v2 };
        std::fs::write(node.dir.join(below).join(file), value).unwrap();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.paths.kill_all();
        for c in &mut self.children {
            let _ = c.kill();
            let _ = c.wait();
        }
        let removed = self.paths.remove();
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}

pub fn show(sources: &mut Sources, node: Live, reader: Option<u32>) -> String {
    let mut out = Vec::new();
    sources.render(node, reader, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

pub fn meminfo(sources: &mut Sources, reader: Option<u32>) -> BTreeMap<String, u64> {
    let text = show(sources, Live::Meminfo, reader);
    let value = |l: &str| {
        let (name, rest) = l.split_once(':')?;
        Some((name.to_owned(), rest.split_whitespace().next()?.parse().ok()?))
    };
    text.lines().filter_map(value).collect()
}

/// The time of each `cpu` line in ticks: busy and idle.
pub fn times(sources: &mut Sources, reader: Option<u32>) -> Vec<(u64, u64)> {
    let text = show(sources, Live::Stat, reader);
    let cpus = text.lines().filter(|l| l.starts_with("cpu"));
    cpus.map(|l| {
        let n: Vec<u64> = l.split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect();
        assert_eq!(n.len(), 10);
        (n[0] + n[1] + n[2], n[3])
    })
    .collect()
}

pub fn host(file: &str) -> String {
    std::fs::read_to_string(file).unwrap()
}

pub fn cpus_of(cpuinfo: &str) -> Vec<usize> {
    cpuinfo.lines().filter_map(|l| l.strip_prefix("processor")?.trim().strip_prefix(':')?.trim().parse().ok()).collect()
}

pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
