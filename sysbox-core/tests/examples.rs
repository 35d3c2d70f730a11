//! The examples do what they say.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::Lab;
use serde_json::json;
use std::path::PathBuf;
use std::process::{Command, Output};

/// cargo builds examples before it tests, beside the directory of the tests.
fn example(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let path: PathBuf = tests.parent().unwrap().parent().unwrap().join("examples").join(name);
    let mut command = Command::new(path);
    command.stdin(std::process::Stdio::null());
    command
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&[out.stdout.as_slice(), out.stderr.as_slice()].concat()).into_owned()
}

#[test]
fn run_is_a_whole_container() {
    let Some(lab) = Lab::new("run_is_a_whole_container") else { return };
    let out = example("run").arg(lab.tree()).arg("id -u; cat /proc/self/uid_map; exit 7").output().unwrap();
    assert_eq!(out.status.code(), Some(7), "{}", said(&out));
    let text = said(&out);
    assert!(text.starts_with("0\n") && text.contains("65536"), "{text}");
    let none = example("run").args(["/nonexistent", "true"]).output().unwrap();
    assert!(none.status.code() != Some(0) && said(&none).contains("/nonexistent"), "{}", said(&none));
}

#[test]
fn parts_work_alone() {
    let Some(lab) = Lab::new("parts_work_alone") else { return };
    let mut doc = lab.doc("sleep 1000");
    doc["linux"]["resources"] = json!({"memory": {"limit": 64 << 20}});
    let c = lab.start(&doc);
    let group = doc["linux"]["cgroupsPath"].as_str().map(String::from).unwrap_or_else(|| {
        let text = std::fs::read_to_string(format!("/proc/{}/cgroup", c.pid().unwrap())).unwrap();
        let line =
            text.lines().find(|l| l.contains(":memory:")).or_else(|| text.lines().find(|l| l.starts_with("0::")));
        line.unwrap().rsplit(':').next().unwrap().trim_end_matches("/init.scope").to_owned()
    });
    let panic = || std::fs::read_to_string("/proc/sys/kernel/panic").unwrap();
    let before = panic();
    let out = example("parts").arg(group).output().unwrap();
    let text = said(&out);
    assert!(out.status.success(), "{text}");
    for line in ["Some(101000)", "MemTotal:          65536 kB", "/proc/sys/kernel/panic: 30"] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
    assert_eq!(panic(), before);
}
