//! All of it, with the whole host for a container.

use super::*;
use crate::cgroup::{Layout, Node};
use crate::seccomp::{compile, Profile};
use serde_json::json;

/// Everything that rendering may ask of the kernel.
const CALLS: [&str; 7] = ["pread64", "close", "fstat", "getdents64", "clock_gettime", "mmap", "brk"];
/// What the end of the thread and the test's own memory need.
const TESTS: [&str; 12] = [
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "futex",
    "exit",
    "exit_group",
    "rt_sigprocmask",
    "rt_sigaction",
    "sigaltstack",
    "set_robust_list",
    "write",
];

fn whole_host() -> Option<Paths> {
    let layout = Layout::detect().ok()?;
    let nodes = layout.hierarchies.into_iter().map(|h| Node {
        dir: h.mount.clone(),
        mount: h.mount,
        root: h.root,
        version: h.version,
        controllers: h.controllers,
    });
    Some(Paths { nodes: nodes.collect(), ..Paths::default() })
}

fn render_all(s: &mut Sources) -> Vec<(Live, usize)> {
    let reader = Some(std::process::id());
    let size = |s: &mut Sources, node| {
        let mut out = Vec::new();
        s.render(node, reader, &mut out).map(|()| (node, out.iter().filter(|b| **b == b'\n').count()))
    };
    Live::ALL.iter().filter_map(|node| size(s, *node).ok()).collect()
}

#[test]
fn needs_no_other_calls() {
    let Some(paths) = whole_host().filter(|p| !p.nodes.is_empty()) else {
        eprintln!("SKIP needs_no_other_calls: no cgroups");
        return;
    };
    let read_only = json!({"names": ["openat"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 2, "value": libc::O_ACCMODE | libc::O_CREAT | libc::O_NOFOLLOW, "valueTwo": libc::O_NOFOLLOW, "op": "SCMP_CMP_MASKED_EQ"}]});
    let names: Vec<&str> = CALLS.iter().chain(&TESTS).copied().collect();
    // Other calls fail, so that what they were for is missing.
    let spec = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": libc::ENOSYS,
        "syscalls": [read_only, {"names": names, "action": "SCMP_ACT_ALLOW"}]});
    let spec: oci_spec::runtime::LinuxSeccomp = serde_json::from_value(spec).unwrap();
    let program = compile(&Profile::try_from(&spec).unwrap()).unwrap();
    let program: Vec<_> = program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
    let mut before = Sources::open(&paths, 0).unwrap();
    let before = render_all(&mut before);
    assert!(before.len() >= 9, "{before:?}");
    // A filter is a thread's own.
    let shown = std::thread::spawn(move || {
        let mut s = Sources::open(&paths, 0).unwrap();
        rustix::thread::set_no_new_privs(true).unwrap();
        crate::sys::seccomp::install(&program, 0).unwrap();
        assert_eq!(std::fs::read("/proc/meminfo").unwrap_err().raw_os_error(), Some(libc::ENOSYS));
        let shown = render_all(&mut s);
        s.tick();
        assert!(s.next_tick().is_some());
        // Tasks were listed and looked at, and time was found.
        assert!(s.newest > 0 && s.tasks.is_some_and(|(_, t)| t.tasks > 0), "{:?}", s.tasks);
        let mut out = Vec::new();
        s.render(Live::Stat, None, &mut out).unwrap();
        assert!(!out.starts_with(b"cpu  0 0 0 "));
        shown
    });
    assert_eq!(shown.join().unwrap(), before);
}

#[test]
fn the_whole_host_is_as_it_is() {
    let Some(paths) = whole_host() else { return };
    let mut s = Sources::open(&paths, 0).unwrap();
    let mut out = Vec::new();
    for node in [Live::CpuPossible, Live::Swaps] {
        s.render(node, None, &mut out).unwrap();
        assert_eq!(out, std::fs::read(node.path()).unwrap(), "{node:?}");
    }
    s.render(Live::Cpuinfo, None, &mut out).unwrap();
    let processors = |text: &[u8]| String::from_utf8_lossy(text).matches("processor\t").count();
    assert_eq!(processors(&out), processors(&std::fs::read("/proc/cpuinfo").unwrap()));
}

#[test]
fn names() {
    let mut paths: Vec<&str> = Live::ALL.iter().map(|n| n.path()).collect();
    assert!(paths.iter().all(|p| p.starts_with("/proc/") || p.starts_with("/sys/devices/system/cpu/")));
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), Live::ALL.len());
    assert_eq!(Live::Pressure(Pressure::Irq).file(), "irq");
}
