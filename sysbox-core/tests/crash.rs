//! The creating process is killed at any moment: `delete` with force leaves nothing.
#![allow(clippy::unwrap_used)]

mod common;
use common::{poll_until, Lab};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use sysbox_core::idmap::pool::{Pool, SubidConfig, DEFAULT_DIR};
use sysbox_core::runtime::StageProgram;
use sysbox_core::{CreateOptions, Kind, Runtime, Spec};

const STATE: &str = "SYSBOX_TEST_CREATE_IN";

/// The creator: this test program again, told by its environment what to make.
#[test]
fn creator() {
    let Some(dir) = std::env::var_os(STATE) else { return };
    let dir = Path::new(&dir);
    let runtime = Runtime::new(dir.join("state")).stage(StageProgram::Path(env!("CARGO_BIN_EXE_sysbox-stage").into()));
    let spec = Spec::from_json(&std::fs::read(dir.join("crash.json")).unwrap()).unwrap();
    let made = runtime.create("crash", &spec, dir, CreateOptions::default());
    std::thread::sleep(Duration::from_secs(20));
    drop(made);
}

fn kill_after(lab: &Lab, wait: Duration) -> String {
    let mut creator = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "creator"])
        .env(STATE, lab.dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(wait);
    creator.kill().unwrap();
    creator.wait().unwrap();
    let reached = match lab.runtime.open("crash") {
        Err(e) => {
            assert_eq!(e.kind(), Kind::NotFound, "{e}");
            "nothing".into()
        }
        Ok(c) => {
            let status = c.status().to_string();
            c.delete(true).unwrap_or_else(|e| panic!("after {wait:?}, when it was {status}: {e}"));
            status
        }
    };
    assert!(!lab.runtime.root().join("crash").exists(), "state after {wait:?}");
    let pool = Pool::open(Path::new(DEFAULT_DIR), SubidConfig::default()).unwrap();
    let ids = pool.list().unwrap();
    assert!(!ids.iter().any(|a| a.owner.state_dir.starts_with(lab.dir.path())), "IDs after {wait:?}");
    // The parent, which the lab removes, is all that may be there.
    poll_until("the cgroups are gone", || !lab.cgroup_dirs().iter().any(|d| d.ends_with("crash")));
    reached
}

/// Processes whose program is the stage of this build and whose state directory is the lab's are found by what they hold:
/// a stage and a waiting init both have nothing but sockets, so it is their cgroup and their parent that tell.
fn strays(lab: &Lab) -> Vec<String> {
    let root = lab.tree();
    let of = |e: std::fs::DirEntry| {
        let name = std::fs::read_to_string(e.path().join("cmdline")).ok()?;
        let inside = std::fs::read_to_string(e.path().join("mountinfo")).ok()?;
        // Its own copy of the host's mounts, or already the container's root.
        let ours = name.starts_with("sysbox-stage") && inside.contains(&*root.to_string_lossy());
        ours.then(|| format!("{:?} {name}", e.path()))
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(of).collect()
}

#[test]
fn delete_leaves_nothing_of_a_creation_that_was_cut_short() {
    let Some(lab) = Lab::new("delete_leaves_nothing_of_a_creation_that_was_cut_short") else { return };
    let mut doc = lab.doc("sleep 100");
    doc["linux"]["cgroupsPath"] = serde_json::json!(format!("/sysbox-test-crash-{}/crash", std::process::id()));
    // With a monitor.
    doc["linux"]["resources"] = serde_json::json!({ "memory": { "limit": 64 << 20 } });
    std::fs::write(lab.path("crash.json"), doc.to_string()).unwrap();
    let mut reached = BTreeMap::<String, usize>::new();
    let mut step = 0;
    // How far it comes in that time depends on how fast this host is.
    while step < 90 || (step < 500 && reached.get("creating").is_none_or(|n| *n <= 2)) {
        *reached.entry(kill_after(&lab, Duration::from_micros(step * 400))).or_insert(0) += 1;
        step += 1;
    }
    poll_until("no stage and no init is left", || strays(&lab).is_empty());
    let cgroup = format!("sysbox-test-crash-{}", std::process::id());
    poll_until("no monitor is left", || common::monitors(&cgroup).is_empty());
    // If it was never hit in the middle, the test has shown nothing.
    assert!(reached.get("creating").is_some_and(|n| *n > 2), "{reached:?}");
    for h in sysbox_core::cgroup::Layout::detect().unwrap().hierarchies {
        let parent = h.mount.join(format!("sysbox-test-crash-{}", std::process::id()));
        assert!(!parent.join("crash").exists(), "{parent:?}");
        let _ = std::fs::remove_dir(parent);
    }
}

#[test]
fn a_hook_that_hangs_does_not_keep_a_crashed_creation() {
    let Some(lab) = Lab::new("a_hook_that_hangs_does_not_keep_a_crashed_creation") else { return };
    let mut doc = lab.doc("sleep 100");
    let started = lab.path("hook-runs");
    let script = format!("touch {}; exec sleep 60", started.display());
    doc["hooks"] = serde_json::json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
    doc["linux"]["cgroupsPath"] = serde_json::json!(format!("/sysbox-test-hook-{}", std::process::id()));
    std::fs::write(lab.path("crash.json"), doc.to_string()).unwrap();
    let mut creator = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "creator"])
        .env(STATE, lab.dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    poll_until("the hook runs", || started.exists());
    creator.kill().unwrap();
    creator.wait().unwrap();
    let begin = std::time::Instant::now();
    lab.runtime.open("crash").unwrap().delete(true).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
}
