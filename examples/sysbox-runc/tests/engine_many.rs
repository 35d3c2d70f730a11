//! Many system containers at once, and an engine of the host's that dies under them.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::engine::{Engine, STEP};
use common::wait_for;
use std::time::Duration;

const INIT: &str = "dockerd >/var/log/dockerd.log 2>&1 & wait";

const UP: &str =
    "for i in $(seq 900); do docker info >/dev/null 2>&1 && exit 0; sleep 0.1; done; tail /var/log/dockerd.log; exit 1";

/// Twenty engines inside, each with an image and a container of its own.
#[test]
fn twenty_engines() {
    let Some(engine) = Engine::start("twenty_engines", &[]) else { return };
    engine.image("docker-bookworm");
    assert_eq!(engine.leavings(), "");
    let processes = || std::fs::read_dir("/proc").unwrap().flatten().filter(|e| is_ours(&engine, &e.path())).count();
    let before = processes();
    let names: Vec<String> = (0..20).map(|i| format!("many{i}")).collect();
    for name in &names {
        engine.run(&["-d", "--name", name, "docker-bookworm", "sh", "-c", INIT]).ok();
    }
    let limit = Duration::from_secs(300);
    let all = |script: &str| -> Vec<String> {
        let command = |name: &String| engine.client(&["exec", name, "sh", "-ec", &script.replace("NAME", name)]);
        let running: Vec<_> = names.iter().map(|n| engine.lab.spawn(command(n))).collect();
        running.into_iter().map(|r| r.finish(limit).ok().text().to_owned()).collect()
    };
    all(UP);
    all(
        "docker import /opt/busybox.tar of-NAME >/dev/null; docker run -d --name in-NAME of-NAME sleep 1000 >/dev/null",
    );
    let seen = all("docker info --format '{{.Driver}}'; docker images --format '{{.Repository}}'; docker ps --format '{{.Names}}'; cut -c11-21 /proc/self/uid_map");
    let mut ranges = Vec::new();
    for (name, seen) in names.iter().zip(&seen) {
        let lines: Vec<&str> = seen.lines().collect();
        assert_eq!(lines[..3], ["overlay2", &format!("of-{name}"), &format!("in-{name}")], "{name} sees {seen}");
        ranges.push(lines[3].trim().to_owned());
    }
    ranges.sort();
    ranges.dedup();
    assert_eq!(ranges.len(), names.len(), "every container has host IDs of its own");
    let mut rm = vec!["rm", "-f"];
    rm.extend(names.iter().map(String::as_str));
    engine.lab.spawn(engine.client(&rm)).finish(limit).ok();
    assert!(wait_for(STEP, || engine.leavings().is_empty() && processes() == before), "{}", engine.leavings());
}

/// A shim or a runtime of this engine's: what it started inside has nothing of ours in its command line, and ends with it.
fn is_ours(engine: &Engine, process: &std::path::Path) -> bool {
    let words = std::fs::read(process.join("cmdline")).unwrap_or_default();
    let dir = engine.path("exec");
    String::from_utf8_lossy(&words).contains(dir.to_str().unwrap())
        && !String::from_utf8_lossy(&words).starts_with("docker")
        && !String::from_utf8_lossy(&words).starts_with("containerd\0")
}

/// dockerd killed and started again with live-restore, while a container runs a build inside.
#[test]
fn the_engine_dies_and_comes_back() {
    let Some(engine) = Engine::start("the_engine_dies", &[("live-restore", true.into())]) else { return };
    engine.image("docker-bookworm");
    engine.run(&["-d", "--name", "stays", "docker-bookworm", "sh", "-c", INIT]).ok();
    let sh = |script: &str| engine.docker(&["exec", "stays", "sh", "-ec", script]);
    sh(UP).ok();
    sh("docker import /opt/busybox.tar busybox; mkdir /b; printf 'FROM busybox\\nRUN sleep 8; echo built >/made\\n' >/b/Dockerfile").ok();
    engine
        .docker(&["exec", "-d", "stays", "sh", "-c", "docker build -t made /b >/build.log 2>&1; echo $? >/build.code"])
        .ok();
    assert!(wait_for(STEP, || sh("grep -q 'sleep 8' /build.log").code == 0), "the build does not begin");
    let pid = engine.inspect("stays", "{{.State.Pid}}");
    engine.kill();
    std::thread::sleep(Duration::from_secs(1));
    engine.launch();
    assert_eq!(engine.inspect("stays", "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
    assert!(wait_for(STEP, || sh("test -s /build.code").code == 0), "the build does not end");
    assert_eq!(sh("cat /build.code; docker run --rm made cat /made").ok().text(), "0\nbuilt");
    // Everything goes on working, and ends as it should.
    engine.docker(&["pause", "stays"]).ok();
    engine.docker(&["unpause", "stays"]).ok();
    engine.docker(&["rm", "-f", "stays"]).ok();
    assert!(wait_for(STEP, || engine.leavings().is_empty()), "{}", engine.leavings());
}
