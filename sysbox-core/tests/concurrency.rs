//! Many containers from many threads of one process. The only test here: it counts what the process has.
#![allow(clippy::unwrap_used)]

mod common;
use common::{Lab, PROGRAM};
use serde_json::json;
use std::path::Path;
use sysbox_core::idmap::pool::{Pool, SubidConfig, DEFAULT_DIR};
use sysbox_core::Exit;

const THREADS: usize = 8;
const EACH: usize = 25;

/// What containers are made of and could leave behind, as far as it is this process's or this lab's.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    descriptors: usize,
    mounts: usize,
    cgroups: usize,
    ids: usize,
    children: usize,
    states: usize,
    monitors: usize,
}

fn counts(lab: &Lab) -> Counts {
    let state = lab.runtime.root().to_owned();
    let pool = Pool::open(Path::new(DEFAULT_DIR), SubidConfig::default()).unwrap();
    let me = std::process::id().to_string();
    let parent = |pid: &Path| {
        let stat = std::fs::read_to_string(pid.join("stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1).map(String::from)
    };
    let entries = |p: &Path| std::fs::read_dir(p).map_or(0, Iterator::count);
    Counts {
        descriptors: entries(Path::new("/proc/self/fd")),
        mounts: std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(),
        cgroups: lab.cgroup_dirs().len(),
        ids: pool.list().unwrap().iter().filter(|a| a.owner.state_dir.starts_with(&state)).count(),
        // Zombies included.
        children: std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(|e| parent(&e.path()).as_ref() == Some(&me))
            .count(),
        states: entries(&state),
        monitors: lab.monitors().len(),
    }
}

#[test]
fn two_hundred_containers_from_eight_threads_leave_nothing() {
    let Some(lab) = Lab::new("two_hundred_containers_from_eight_threads_leave_nothing") else { return };
    let mut doc = lab.doc("sleep 100");
    doc["linux"]["resources"] = json!({ "memory": { "limit": 64 << 20 } });
    // The first makes what stays: the state directory and the lab's cgroup.
    drop(lab.start(&doc));
    let before = counts(&lab);
    std::thread::scope(|s| {
        for _ in 0..THREADS {
            s.spawn(|| {
                for i in 0..EACH {
                    let c = lab.start(&doc);
                    let out = c.exec(&json!({ "args": ["sh", "-c", format!("echo $$; exit {i}")] })).unwrap();
                    assert_eq!(out.exit, Exit::Code(i as i32));
                    c.container.delete(true).unwrap();
                }
            });
        }
    });
    // Descriptors of a reader of /proc may be open in another test's thread for a moment.
    let end = std::time::Instant::now() + PROGRAM;
    while counts(&lab) != before && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(counts(&lab), before);
}
