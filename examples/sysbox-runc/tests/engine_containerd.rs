//! `ctr run --runc-binary sysbox-runc` with a containerd of the host's: its features, one after the other.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::archive::{LAYERS, SHOWN};
use common::containerd::{Containerd, STEP};
use common::inner::{Inner, ENGINE};
use common::{has_metrics, wait_for};
use std::os::unix::fs::MetadataExt;

/// Ends with 7 on SIGTERM.
const SERVICE: &str = "trap 'exit 7' TERM; while :; do sleep 0.1; done";

#[test]
fn containerd_runs_to_the_end() {
    let Some(c) = Containerd::start("containerd_runs_to_the_end", "busybox") else { return };
    let run = |script: &str| c.run(&["--rm"], "short", &["sh", "-c", script]);
    assert_eq!(run(LAYERS).ok().text(), SHOWN);
    assert_eq!(run("echo out; exit 3").expect_code(3).text(), "out");
    // The container's own root owns the image, and nobody on the host does what it does.
    let done = run("stat -c %u:%g / /etc /layers/changed; id -u; cut -c 1-20 /proc/self/uid_map").ok();
    let lines: Vec<&str> = done.text().lines().collect();
    assert_eq!(lines[..4], ["0:0", "0:0", "0:0", "0"], "{lines:?}");
    assert_ne!(lines[4].split_whitespace().nth(1), Some("0"), "{lines:?}");

    // The client has no exit status of its own for these.
    for (program, why) in [("/nonexistent", "no such file"), ("/layers/changed", "permission denied")] {
        c.run(&["--rm"], "short", &[program]).refused(&["OCI runtime create failed", program, why]);
    }
    c.run(&["--rm"], "short", &["nonexistent"]).refused(&["executable file not found in $PATH"]);
    for (option, why) in [("--net-host", "--network=host"), ("--privileged", "--privileged")] {
        c.run(&["--rm", option], "short", &["true"]).refused(&[why]);
    }

    std::fs::create_dir(c.lab.path("given")).unwrap();
    let mount = format!("type=bind,src={},dst=/given,options=rbind:rw", c.lab.path("given").display());
    let options = ["--rm", "--memory-limit", "33554432", "--mount", &mount];
    let limit = "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes 2>/dev/null; touch /given/made";
    assert_eq!(c.run(&options, "short", &["sh", "-c", limit]).ok().text(), "33554432");
    assert_eq!(owner(&c.lab.path("given/made")), (0, 0));
    c.run(&["--rm", "--read-only"], "short", &["touch", "/new"]).expect_code(1);
    let native = ["--rm", "--snapshotter", "native"];
    assert_eq!(c.run(&native, "short", &["sh", "-c", LAYERS]).ok().text(), SHOWN);
    c.assert_nothing_left();
}

#[test]
fn containerd_follows_a_containers_life() {
    let Some(c) = Containerd::start("containerd_follows_a_containers_life", "busybox") else { return };
    c.run(&["-d", "--null-io"], "long", &["sh", "-c", &format!("echo written >>/written; {SERVICE}")]).ok();
    assert_eq!(c.status("long").as_deref(), Some("RUNNING"));
    let exec = |n: &str, program: &[&str]| {
        let mut args = vec!["task", "exec", "--exec-id", n, "long"];
        args.extend(program);
        c.ctr(&args)
    };
    // It may not have come to writing it.
    let script = "until test -s /written; do sleep 0.1; done; cat /written; exit 5";
    assert_eq!(exec("1", &["sh", "-c", script]).expect_code(5).text(), "written");
    // It ends before the runtime does that has started it.
    for n in ["2", "3", "4", "5", "6"] {
        exec(n, &["false"]).expect_code(1);
    }
    exec("7", &["nonexistent"]).refused(&["OCI runtime exec failed", "executable file not found in $PATH"]);
    exec("8", &["/layers/changed"]).refused(&["permission denied"]);
    let done = c.on_terminal(&["task", "exec", "-t", "--exec-id", "9", "long", "tty"]).ok();
    assert!(done.out.contains("/dev/pts/"), "{done:?}");

    c.ctr(&["task", "pause", "long"]).ok();
    assert_eq!(c.status("long").as_deref(), Some("PAUSED"));
    exec("10", &["true"]).expect_code(1);
    c.ctr(&["task", "resume", "long"]).ok();
    assert_eq!(c.status("long").as_deref(), Some("RUNNING"));
    if has_metrics("containerd_follows_a_containers_life") {
        let metrics = c.ctr(&["task", "metrics", "long"]).ok().out;
        assert!(metrics.contains("memory.usage") && metrics.contains("pids.current"), "{metrics}");
    }
    let processes = c.ctr(&["task", "ps", "long"]).ok().out;
    assert!(processes.lines().count() >= 2, "{processes}");

    // The shim is its parent: the daemon may come and go.
    c.kill();
    c.launch();
    assert_eq!(c.status("long").as_deref(), Some("RUNNING"));
    assert_eq!(exec("11", &["cat", "/written"]).ok().text(), "written");

    assert_eq!(owner(&c.upper("long").join("written")), (0, 0));
    c.ctr(&["task", "kill", "-s", "SIGTERM", "long"]).ok();
    c.wait_status("long", "STOPPED");
    let deleted = c.ctr(&["task", "rm", "long"]).ok();
    assert!(deleted.err.contains("exit code 7"), "{deleted:?}");
    // What it has written stays until the container goes.
    c.ctr(&["task", "start", "-d", "--null-io", "long"]).ok();
    assert!(wait_for(STEP, || exec("12", &["cat", "/written"]).text() == "written\nwritten"));
    c.ctr(&["task", "rm", "-f", "long"]).ok();
    c.ctr(&["container", "rm", "long"]).ok();

    c.run(&["-d", "--null-io"], "long", &["sleep", "1000"]).ok();
    c.ctr(&["task", "pause", "long"]).ok();
    c.ctr(&["task", "kill", "-s", "SIGKILL", "long"]).ok();
    c.wait_status("long", "STOPPED");
    c.ctr(&["task", "rm", "-f", "long"]).ok();
    c.ctr(&["container", "rm", "long"]).ok();
    c.assert_nothing_left();
}

#[test]
fn containerd_maps_the_ids_itself() {
    let Some(c) = Containerd::start("containerd_maps_the_ids_itself", "busybox") else { return };
    let maps = ["--rm", "--uidmap", "0:3200000000:65536", "--gidmap", "0:3200000000:65536"];
    let script = "echo $(cat /proc/self/uid_map) $(stat -c %u:%g / /etc /layers/changed); touch /new; stat -c %u /new";
    assert_eq!(c.run(&maps, "mapped", &["sh", "-c", script]).ok().text(), "0 3200000000 65536 0:0 0:0 0:0\n0");
    c.assert_nothing_left();
}

#[test]
fn containerd_connects_a_network() {
    let Some(c) = Containerd::with_network("containerd_connects_a_network", "busybox") else { return };
    let gateway = c.etc.as_ref().unwrap().gateway();
    // It is connected after the start.
    let script = "for i in $(seq 100); do ip route | grep -q default && break; sleep 0.1; done; ping -c 1 -W 5 $0";
    c.run(&["--rm", "--cni"], "net", &["sh", "-c", script, &gateway]).ok();
    c.assert_nothing_left();
}

#[test]
fn containerd_with_docker_inside() {
    let Some(c) = Containerd::start("containerd_with_docker_inside", "docker-bookworm") else { return };
    c.run(&["-d", "--null-io"], "outer", &["sh", "-c", ENGINE]).ok();
    let n = std::cell::Cell::new(0);
    let exec = |script: &str| {
        n.set(n.get() + 1);
        c.client(&["task", "exec", "--exec-id", &n.get().to_string(), "outer", "sh", "-c", script])
    };
    Inner::new(&c.lab, exec).whole_list();
    let data = c.upper("outer").join("var/lib/docker");
    assert_eq!(owner(&data), (0, 0));
    c.ctr(&["task", "kill", "-s", "SIGTERM", "outer"]).ok();
    assert!(wait_for(STEP, || c.status("outer").as_deref() == Some("STOPPED")));
    c.ctr(&["task", "rm", "outer"]).ok();
    c.ctr(&["container", "rm", "outer"]).ok();
    c.assert_nothing_left();
}

#[track_caller]
fn owner(path: &std::path::Path) -> (u32, u32) {
    let m = std::fs::symlink_metadata(path).unwrap();
    (m.uid(), m.gid())
}
