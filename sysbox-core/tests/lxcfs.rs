//! Debian's lxcfs beside the live nodes, for the same process in the same cgroups. Skipped where lxcfs is not installed.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

#[path = "common/live.rs"]
mod common;

use common::{cpus_of, show, until, Lab};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use sysbox_core::procfs::live::Live;

/// lxcfs in a mount namespace of its own, on a directory of its own.
struct Lxcfs {
    child: Child,
    dir: tempfile::TempDir,
}

impl Lxcfs {
    fn start(name: &str) -> Option<Lxcfs> {
        if !Path::new("/dev/fuse").exists() || Command::new("lxcfs").arg("--version").output().is_err() {
            eprintln!("SKIP {name}: no lxcfs");
            return None;
        }
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::create_dir(dir.path().join("mnt")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "lxcfs", "-f", "-l", "--enable-cfs", "-p"]);
        command.arg(dir.path().join("pid")).arg(dir.path().join("mnt")).stdout(Stdio::null()).stderr(Stdio::null());
        let lxcfs = Lxcfs { child: command.spawn().unwrap(), dir };
        let mounts = format!("/proc/{}/mountinfo", lxcfs.child.id());
        until("lxcfs is mounted", || {
            std::fs::read_to_string(&mounts)
                .is_ok_and(|t| t.lines().any(|l| l.contains("/mnt ") && l.contains("fuse.lxcfs")))
        });
        Some(lxcfs)
    }

    /// Runs a script as first process of a pid namespace, whose cgroup is what lxcfs goes by, with lxcfs' files at `$L`.
    fn output(&self, lab: &Lab, script: &str) -> String {
        let mut child = Command::new("nsenter")
            .args(["-m", "-t", &self.child.id().to_string(), "sh", "-c"])
            .arg(format!("read go; exec unshare -pf sh -c '{script}'"))
            .env("L", self.dir.path().join("mnt"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        lab.place("", child.id());
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        child.wait().unwrap();
        text
    }
}

impl Drop for Lxcfs {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn values(meminfo: &str) -> BTreeMap<String, u64> {
    let value = |l: &str| {
        let (name, rest) = l.split_once(':')?;
        Some((name.to_owned(), rest.split_whitespace().next()?.parse().ok()?))
    };
    meminfo.lines().filter_map(value).collect()
}

#[test]
fn the_same_figures() {
    let name = "the_same_figures";
    let Some(mut lab) = Lab::new(name, r#"{"memory":{"limit":268435456},"cpu":{"quota":100000,"period":100000}}"#)
    else {
        return;
    };
    let Some(lxcfs) = Lxcfs::start(name) else { return };
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = dir.path().join("f");
    lab.run("", &format!("head -c 25165824 /dev/zero > {}; exec sleep 1000", file.display()));
    until("the file is written", || file.metadata().is_ok_and(|m| m.len() == 25_165_824));
    let mut s = lab.sources();
    let theirs = lxcfs.output(&lab, "cat $L/proc/meminfo");
    let ours = show(&mut s, Live::Meminfo, None);
    if std::env::var_os("SHOW").is_some() {
        for node in [Live::Meminfo, Live::Stat, Live::Loadavg, Live::Swaps, Live::Diskstats, Live::CpuOnline] {
            let theirs = lxcfs.output(&lab, &format!("cat $L{}", node.path()));
            eprintln!("== {} ours\n{}== lxcfs\n{theirs}", node.path(), show(&mut s, node, None));
        }
    }
    let (theirs, ours) = (values(&theirs), values(&ours));
    for line in ["MemTotal", "Buffers", "Shmem", "AnonPages", "SwapTotal", "SwapFree", "Dirty", "Writeback"] {
        let (a, b) = (ours[line], theirs[line]);
        assert!(a.abs_diff(b) <= 2048, "{line}: {a}, lxcfs {b}");
    }
    // What its reader needs is not yet there, or no more, when ours looks.
    for line in ["MemFree", "Cached", "Active", "Inactive"] {
        let (a, b) = (ours[line], theirs[line]);
        assert!(a.abs_diff(b) <= 4096, "{line}: {a}, lxcfs {b}");
    }
    // It takes tmpfs for memory that could be given back.
    let (a, b) = (ours["MemAvailable"], theirs["MemAvailable"] - theirs["Shmem"]);
    assert!(a.abs_diff(b) <= 4096, "MemAvailable: {a}, lxcfs without Shmem {b}");
    let cpuinfo = lxcfs.output(&lab, "cat $L/proc/cpuinfo");
    assert_eq!(cpus_of(&show(&mut s, Live::Cpuinfo, None)), cpus_of(&cpuinfo));
    let online = lxcfs.output(&lab, "cat $L/sys/devices/system/cpu/online");
    assert_eq!(show(&mut s, Live::CpuOnline, None), online);
}

/// Busy and idle ticks of all `cpu` lines between two texts of `/proc/stat`.
fn between(before: &str, after: &str) -> Vec<(i64, i64)> {
    let parse = |text: &str| {
        let cpus = text.lines().filter(|l| l.starts_with("cpu"));
        let numbers = cpus.map(|l| l.split_whitespace().skip(1).map(|n| n.parse::<i64>().unwrap()).collect::<Vec<_>>());
        numbers.map(|n| (n[0] + n[1] + n[2], n[3])).collect::<Vec<_>>()
    };
    parse(before).iter().zip(parse(after)).map(|(a, b)| (b.0 - a.0, b.1 - a.1)).collect()
}

#[test]
fn the_same_percentages() {
    let name = "the_same_percentages";
    for quota in [100_000, 50_000, 150_000] {
        let limits = format!(r#"{{"cpu":{{"quota":{quota},"period":100000}}}}"#);
        let Some(mut lab) = Lab::new(name, &limits) else { return };
        let Some(lxcfs) = Lxcfs::start(name) else { return };
        for _ in 0..3 {
            lab.run("", "while :; do :; done");
        }
        let mut s = lab.sources();
        // It counts from the first time that it was asked.
        lxcfs.output(&lab, "cat $L/proc/stat");
        for tries in 1.. {
            let (ours, theirs) = (show(&mut s, Live::Stat, None), lxcfs.output(&lab, "cat $L/proc/stat"));
            std::thread::sleep(std::time::Duration::from_secs(3));
            let ours = between(&ours, &show(&mut s, Live::Stat, None));
            let theirs = between(&theirs, &lxcfs.output(&lab, "cat $L/proc/stat"));
            // Each is asked at its own time; which CPU the time is shown for is anybody's choice.
            let share = |(busy, idle): (i64, i64)| busy as f64 / (busy + idle).max(1) as f64;
            if (share(ours[0]) - share(theirs[0])).abs() < 0.15
                && (ours[0].0 + ours[0].1).abs_diff(theirs[0].0 + theirs[0].1) < 60
            {
                break;
            }
            // The times lie far apart where this program is kept waiting in between.
            assert!(tries < 5, "quota {quota}: {ours:?}, lxcfs {theirs:?}");
        }
    }
}
