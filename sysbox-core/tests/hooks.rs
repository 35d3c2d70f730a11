//! Hooks: when and where they run, and what becomes of those that do not behave.
#![allow(clippy::unwrap_used)]

mod common;

use common::{poll_until, Lab};
use serde_json::{json, Value};
use sysbox_core::runtime::Stdio;
use sysbox_core::Kind;

#[track_caller]
fn kind<T>(r: sysbox_core::Result<T>) -> Kind {
    match r {
        Ok(_) => panic!("succeeded"),
        Err(e) => e.kind(),
    }
}

/// A hook that appends its point, its namespaces and the status it is told to a file.
fn hook(lab: &Lab, point: &str) -> Value {
    let script = format!(
        "read -r state; s=$(echo \"$state\" | sed 's/.*\"status\":\"\\([a-z]*\\)\".*/\\1/'); \
         i=$(echo \"$state\" | sed 's/.*\"id\":\"\\([^\"]*\\)\".*/\\1/'); \
         echo {point} $s $i $VAR $(readlink /proc/self/ns/mnt) $(readlink /proc/self/ns/net) >> {}",
        lab.path("hooks").display()
    );
    json!([{ "path": "/bin/sh", "args": ["hook", "-c", script], "env": ["VAR=v", "PATH=/usr/bin:/bin"], "timeout": 20 }])
}

#[test]
fn hooks_run_at_their_points_in_their_namespaces() {
    let Some(lab) = Lab::new("hooks_run_at_their_points_in_their_namespaces") else { return };
    let mut doc = lab.system().to_json();
    let points = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    for point in points {
        doc["hooks"][point] = hook(&lab, point);
    }
    // This one runs inside, where nothing but the container's own files exists.
    let inside = "read -r s; echo $s > /start-hook; echo $$ $(readlink /proc/self/ns/mnt) >> /start-hook";
    doc["hooks"]["startContainer"] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", inside], "env": ["PATH=/bin"] }]);
    let log = || std::fs::read_to_string(lab.path("hooks")).unwrap_or_default();
    let mut c = lab.create(&doc);
    assert_eq!(log().lines().count(), 3, "{}", log());
    assert!(!lab.tree().join("start-hook").exists());
    c.container.start().unwrap();
    assert_eq!(log().lines().count(), 4, "{}", log());
    let ns = |pid: &str, ns: &str| std::fs::read_link(format!("/proc/{pid}/ns/{ns}")).unwrap().display().to_string();
    let init = c.pid().unwrap().to_string();
    let (host_mnt, host_net, own_mnt, own_net) =
        (ns("self", "mnt"), ns("self", "net"), ns(&init, "mnt"), ns(&init, "net"));
    let id = c.id().to_owned();
    c.delete(true).unwrap();
    let log = log();
    let lines: Vec<Vec<&str>> = log.lines().map(|l| l.split(' ').collect()).collect();
    let order: Vec<&str> = lines.iter().map(|l| l[0]).collect();
    assert_eq!(order, points);
    let status: Vec<&str> = lines.iter().map(|l| l[1]).collect();
    assert_eq!(status, ["creating", "creating", "creating", "running", "stopped"]);
    for l in &lines {
        assert_eq!((l[2], l[3]), (id.as_str(), "v"), "{log}");
        // createContainer runs in the container's namespaces, but before its root.
        if l[0] == "createContainer" {
            assert!(l[4] != host_mnt && l[5] == own_net, "{l:?}");
        } else {
            assert_eq!((l[4], l[5]), (host_mnt.as_str(), host_net.as_str()), "{l:?}");
        }
    }
    let start = std::fs::read_to_string(lab.tree().join("start-hook")).unwrap();
    let lines: Vec<&str> = start.lines().collect();
    assert!(lines[0].contains("\"status\":\"created\"") && lines[0].contains(&id), "{start}");
    assert!(lines[1].ends_with(&own_mnt), "{start} {own_mnt}");
}

#[test]
fn a_hook_that_takes_too_long_is_killed() {
    let Some(lab) = Lab::new("a_hook_that_takes_too_long_is_killed") else { return };
    let mut doc = lab.system().to_json();
    doc["hooks"]["createRuntime"] = json!([{ "path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1 }]);
    let e = lab.try_create(&doc, Stdio::default()).err().unwrap();
    assert_eq!(e.kind(), Kind::Busy, "{e}");
    assert!(e.to_string().contains("createRuntime"), "{e}");
}

#[test]
fn a_hook_that_takes_too_long_is_killed_with_its_children() {
    let Some(lab) = Lab::new("a_hook_that_takes_too_long_is_killed_with_its_children") else { return };
    let pid = lab.path("child");
    for point in ["createRuntime", "createContainer"] {
        let script = format!("sleep 1000 & echo $! > {}; wait", pid.display());
        let mut doc = lab.system().to_json();
        doc["hooks"][point] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 1 }]);
        let mut child = String::new();
        // On a slow host it may be killed before it has a child.
        poll_until("a hook with a child", || {
            assert_eq!(kind(lab.try_create(&doc, Stdio::default())), Kind::Busy, "{point}");
            child = std::fs::read_to_string(&pid).unwrap_or_default();
            child.ends_with('\n')
        });
        poll_until("its child is gone", || {
            let state = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
            state.is_empty() || state.contains("(sleep) Z")
        });
        std::fs::remove_file(&pid).unwrap();
    }
}

#[test]
fn little_is_kept_of_what_a_hook_prints() {
    let Some(lab) = Lab::new("little_is_kept_of_what_a_hook_prints") else { return };
    let size = lab.path("size");
    // The file that it has for its output, after 64 MiB.
    let script = format!(
        "head -c 67108864 /dev/zero; echo by name > /dev/stdout; stat -L -c %s /proc/self/fd/1 > {}; echo last words >&2; exit 3",
        size.display()
    );
    let mut doc = lab.system().to_json();
    doc["hooks"]["createRuntime"] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 60 }]);
    let e = lab.try_create(&doc, Stdio::default()).err().unwrap().to_string();
    assert!(e.contains("last words") && e.contains("by name") && e.contains("exit status: 3"), "{:.200}", e);
    assert!(e.len() < 64 << 10, "{} bytes", e.len());
    let kept: u64 = std::fs::read_to_string(size).unwrap().trim().parse().unwrap();
    assert!(kept < 1 << 20, "{kept} bytes are kept");
    // One that never stops.
    doc["hooks"]["createRuntime"] = json!([{ "path": "/usr/bin/yes", "args": ["yes"], "timeout": 1 }]);
    assert_eq!(kind(lab.try_create(&doc, Stdio::default())), Kind::Busy);
    // What it leaves running holds its output, and is not waited for.
    let begin = std::time::Instant::now();
    doc["hooks"]["createRuntime"] =
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", "sleep 20 & true"], "timeout": 60 }]);
    lab.try_create(&doc, Stdio::default()).unwrap();
    assert!(begin.elapsed().as_secs() < 15);
}
