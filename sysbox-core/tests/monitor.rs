//! Live nodes: what limits make of /proc and /sys, and the process that serves it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{monitor_pid, poll_until, Guard, Lab};
use serde_json::{json, Value};
use std::collections::BTreeMap;
use sysbox_core::container::MonitorStatus;
use sysbox_core::procfs::{Kind, Origin};

const MIB: u64 = 1 << 20;

/// A container that sleeps, with the limits of the example.
fn limited(lab: &Lab) -> Value {
    let mut doc = lab.doc("sleep 1000");
    doc["linux"]["resources"] = json!({
        "memory": {"limit": 256 * MIB}, "cpu": {"quota": 150_000, "period": 100_000, "cpus": "0"},
    });
    doc
}

fn signal(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

fn meminfo(c: &Guard<'_>) -> BTreeMap<String, u64> {
    let text = c.sh("cat /proc/meminfo").ok();
    let line = |l: &str| {
        let (name, rest) = l.split_once(':')?;
        Some((name.to_owned(), rest.split_whitespace().next()?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

#[test]
fn limits_are_what_is_seen() {
    let Some(lab) = Lab::new("limits_are_what_is_seen") else { return };
    let c = lab.start(&limited(&lab));
    monitor_pid(&c);
    assert_eq!(meminfo(&c)["MemTotal"], 256 * 1024);
    assert!(meminfo(&c)["MemFree"] < 256 * 1024);
    assert_eq!(c.sh("grep -c ^processor /proc/cpuinfo; grep -c '^cpu[0-9]' /proc/stat; nproc").ok(), "1\n1\n1");
    assert_eq!(c.sh("cat /sys/devices/system/cpu/online").ok(), "0");
    c.sh("uptime; top -b -n 1 | head -3; cat /proc/loadavg /proc/swaps /proc/diskstats /proc/stat > /dev/null").ok();
    // As a user that is nobody.
    c.exec(&json!({"args": ["cat", "/proc/meminfo"], "user": {"uid": 1000, "gid": 1000}})).unwrap().ok();
    let states = c.nodes().unwrap();
    for s in &states {
        if let Kind::Live(_) = s.node.kind {
            assert!(matches!(s.origin, Origin::Live | Origin::Absent), "{s:?}");
            assert!(s.origin == Origin::Absent || s.value.is_some(), "{s:?}");
        }
    }
    let total = states.iter().find(|s| s.node.path.ends_with("meminfo")).unwrap().value.clone().unwrap();
    assert!(total.starts_with("MemTotal:         262144 kB"), "{total}");
}

#[test]
fn no_monitor_where_nothing_differs() {
    let Some(lab) = Lab::new("no_monitor_where_nothing_differs") else { return };
    let c = lab.start(&lab.doc("sleep 1000"));
    assert_eq!(c.monitor(), MonitorStatus::None);
    let host = std::fs::read_to_string("/proc/meminfo").unwrap();
    assert_eq!(host.lines().next(), c.sh("head -n 1 /proc/meminfo").ok().lines().next());
    assert!(c.nodes().unwrap().iter().all(|s| s.origin != Origin::Live));
}

#[test]
fn inner_limits_count_for_their_readers() {
    let Some(lab) = Lab::new("inner_limits_count_for_their_readers") else { return };
    let c = lab.start(&limited(&lab));
    let inner = "d=/sys/fs/cgroup/memory; test -d $d || d=/sys/fs/cgroup; mkdir $d/in;
        f=$d/in/memory.limit_in_bytes; test -e $f || f=$d/in/memory.max; echo 67108864 > $f;
        sh -c \"echo \\$\\$ > $d/in/cgroup.procs; exec grep MemTotal /proc/meminfo\"";
    assert_eq!(c.sh(inner).ok().split_whitespace().nth(1), Some("65536"));
    assert_eq!(meminfo(&c)["MemTotal"], 256 * 1024);
}

#[test]
fn a_change_of_limits_is_seen() {
    let Some(lab) = Lab::new("a_change_of_limits_is_seen") else { return };
    let c = lab.start(&limited(&lab));
    let resources = serde_json::from_value(json!({"memory": {"limit": 128 * MIB}})).unwrap();
    c.update(&resources).unwrap();
    assert_eq!(meminfo(&c)["MemTotal"], 128 * 1024);
}

#[test]
fn a_killed_monitor_is_an_error_and_another_takes_its_place() {
    let Some(lab) = Lab::new("a_killed_monitor_is_an_error_and_another_takes_its_place") else { return };
    let c = lab.start(&limited(&lab));
    let mounts = || std::fs::read_to_string(format!("/proc/{}/mountinfo", c.pid().unwrap())).unwrap().lines().count();
    let before = mounts();
    let script = "i=0; while [ $i -lt 50 ]; do
        (while :; do cat /proc/meminfo /proc/stat >/dev/null 2>/dev/null || echo failed >> /tmp/errors; done) & i=$((i+1)); done; sleep 1000";
    let mut doc = limited(&lab);
    doc["process"]["args"] = json!(["sh", "-c", script]);
    let busy = lab.start(&doc);
    let first = monitor_pid(&busy);
    std::thread::sleep(std::time::Duration::from_millis(300));
    signal(first, nix::sys::signal::Signal::SIGKILL);
    poll_until("the death of the monitor", || busy.monitor() == MonitorStatus::Dead);
    let read = |c: &Guard<'_>| -> String {
        std::fs::read_to_string(format!("/proc/{}/root/tmp/errors", c.pid().unwrap())).unwrap_or_default()
    };
    poll_until("errors of readers", || !read(&busy).is_empty());
    busy.restart_monitor().unwrap();
    assert_ne!(monitor_pid(&busy), first);
    assert_eq!(meminfo(&busy)["MemTotal"], 256 * 1024);
    busy.kill_all(libc::SIGKILL).unwrap();
    busy.finish();
    // Any exec does it as well, and nothing is piled up.
    let second = monitor_pid(&c);
    for _ in 0..3 {
        signal(monitor_pid(&c), nix::sys::signal::Signal::SIGKILL);
        poll_until("the death of the monitor", || c.monitor() == MonitorStatus::Dead);
        assert_eq!(meminfo(&c)["MemTotal"], 256 * 1024);
    }
    assert_ne!(monitor_pid(&c), second);
    assert_eq!(mounts(), before);
}

#[test]
fn a_stopped_monitor_is_noticed() {
    let Some(lab) = Lab::new("a_stopped_monitor_is_noticed") else { return };
    let mut doc = limited(&lab);
    doc["process"]["args"] = json!(["sh", "-c", "while :; do cat /proc/meminfo > /dev/null; done"]);
    let c = lab.start(&doc);
    let first = monitor_pid(&c);
    signal(first, nix::sys::signal::Signal::SIGSTOP);
    poll_until("a stopped monitor", || c.monitor() == MonitorStatus::Stuck(first));
    signal(first, nix::sys::signal::Signal::SIGCONT);
    poll_until("a monitor that goes on", || c.monitor() == MonitorStatus::Serves(first));
    signal(first, nix::sys::signal::Signal::SIGSTOP);
    poll_until("a stopped monitor", || c.monitor() == MonitorStatus::Stuck(first));
    assert_eq!(meminfo(&c)["MemTotal"], 256 * 1024);
    let second = monitor_pid(&c);
    assert_ne!(second, first);
    // A reader that waits does not keep the container from being killed.
    signal(second, nix::sys::signal::Signal::SIGSTOP);
    poll_until("a stopped monitor", || c.monitor() == MonitorStatus::Stuck(second));
    c.kill(libc::SIGKILL).unwrap();
    c.finish();
}

#[test]
fn who_unmounts_its_nodes_has_none() {
    let Some(lab) = Lab::new("who_unmounts_its_nodes_has_none") else { return };
    let c = lab.start(&limited(&lab));
    let monitor = monitor_pid(&c);
    c.sh("umount $(awk '/ sysbox-live / {print $5}' /proc/self/mountinfo)").ok();
    poll_until("the end of the monitor", || !std::path::Path::new(&format!("/proc/{monitor}/fd")).exists());
    assert_eq!(c.monitor(), MonitorStatus::None);
    assert_ne!(meminfo(&c)["MemTotal"], 256 * 1024);
    c.restart_monitor().unwrap();
    assert_eq!(c.monitor(), MonitorStatus::None);
}

#[test]
fn what_the_container_puts_over_a_node_stays() {
    let Some(lab) = Lab::new("what_the_container_puts_over_a_node_stays") else { return };
    let c = lab.start(&limited(&lab));
    c.sh("echo 'MemTotal: 7 kB' > /tmp/own && mount --bind /tmp/own /proc/meminfo").ok();
    signal(monitor_pid(&c), nix::sys::signal::Signal::SIGKILL);
    poll_until("the death of the monitor", || c.monitor() == MonitorStatus::Dead);
    c.restart_monitor().unwrap();
    monitor_pid(&c);
    assert_eq!(c.sh("cat /proc/meminfo; grep -c ^processor /proc/cpuinfo").ok(), "MemTotal: 7 kB\n1");
}

#[test]
fn it_ends_with_the_container() {
    let Some(lab) = Lab::new("it_ends_with_the_container") else { return };
    let c = lab.start(&limited(&lab));
    let monitor = monitor_pid(&c);
    c.kill(libc::SIGKILL).unwrap();
    c.finish();
    poll_until("the end of the monitor", || !std::path::Path::new(&format!("/proc/{monitor}/fd")).exists());
    assert_eq!(c.monitor(), MonitorStatus::None);
}

/// What /proc tells of a process, as pairs.
fn status(pid: i32) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k.into(), v.trim().into())).collect()
}

#[test]
fn it_can_do_nothing_else() {
    let Some(lab) = Lab::new("it_can_do_nothing_else") else { return };
    let c = lab.start(&limited(&lab));
    let pid = monitor_pid(&c);
    meminfo(&c);
    let s = status(pid);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(s[set], "0000000000000000", "{set}");
    }
    assert_eq!((s["Seccomp"].as_str(), s["NoNewPrivs"].as_str(), s["Threads"].as_str()), ("2", "1", "1"));
    let root = c.maps().unwrap().uid.to_outside(0).unwrap().to_string();
    assert!(s["Uid"].split_whitespace().all(|u| u == root), "{}", s["Uid"]);
    assert_eq!(s["Groups"], "");
    assert_eq!(s["Name"], "sysbox-monitor");
    // A terminal's signals go to its foreground group: it has a session of its own.
    assert_eq!(nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).unwrap().as_raw(), pid);
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    // Descriptors: no directory of the container's, nothing of the stage's.
    let links: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten().collect();
    assert!(links.len() < 100, "{} descriptors", links.len());
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    // What no other process can share: the program's own pages are in the page cache once for all.
    let line = rollup.lines().find_map(|l| l.strip_prefix("Anonymous:")).unwrap();
    let private: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
    eprintln!("private memory of the monitor: {private} kB");
    assert!(private < 1024, "{private} kB\n{rollup}");
}
