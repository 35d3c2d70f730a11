//! `docker run --runtime=sysbox-runc` with a Docker Engine of the host's: its features, one after the other.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::engine::{Engine, STEP};
use common::inner::{Inner, ENGINE};
use common::{has_metrics, wait_for};

/// A container with an engine inside that is up.
fn with_engine(engine: &Engine, kind: &str, name: &str, args: &[&str]) {
    engine.image(kind);
    let mut all = vec!["-d", "--name", name];
    all.extend(args);
    all.extend([kind, "sh", "-c", ENGINE]);
    engine.run(&all).ok();
    let up = wait_for(STEP, || engine.docker(&["exec", name, "docker", "info"]).code == 0);
    let said = || engine.docker(&["exec", name, "tail", "/var/log/dockerd.log"]);
    assert!(up, "no engine inside: {:?}", said());
}

fn whole_list(name: &'static str, kind: &'static str) {
    let Some(engine) = Engine::shared(name) else { return };
    with_engine(&engine, kind, name, &[]);
    Inner::new(&engine.lab, |script| engine.client(&["exec", name, "sh", "-c", script])).whole_list();
    engine.docker(&["rm", "-f", name]).ok();
}

#[test]
fn inner_docker_of_bookworm() {
    whole_list("inner_docker_of_bookworm", "docker-bookworm");
}

#[test]
fn inner_docker_of_trixie() {
    whole_list("inner_docker_of_trixie", "docker-trixie");
}

/// Health, statistics and the OOM killer's work are those of all that runs inside.
#[test]
fn what_runs_inside_counts() {
    let Some(engine) = Engine::shared("what_runs_inside_counts") else { return };
    let check = ["--health-cmd", "docker info", "--health-interval", "1s", "--health-retries", "60"];
    let limits = ["--memory", "300m", "--memory-swap", "300m"];
    with_engine(&engine, "docker-bookworm", "counts", &[&check[..], &limits[..]].concat());
    assert!(wait_for(STEP, || engine.inspect("counts", "{{.State.Health.Status}}") == "healthy"));
    let sh = |script: &str| engine.docker(&["exec", "counts", "sh", "-c", script]);
    sh("docker import /opt/busybox.tar busybox").ok();
    // The client says `--` when the engine takes more than two seconds, of which it needs almost as many.
    let pids = || engine.docker(&["stats", "--no-stream", "--format", "{{.PIDs}}", "counts"]).ok().text().parse().ok();
    let mut before: Option<u32> = None;
    let metrics = has_metrics("what_runs_inside_counts");
    assert!(
        !metrics
            || wait_for(STEP, || {
                before = pids();
                before.is_some()
            })
    );
    let twenty = "i=0; while [ $i -lt 20 ]; do sleep 1000 & i=$((i+1)); done; wait";
    sh(&format!("docker run -d --name many busybox sh -c '{twenty}'")).ok();
    assert!(!metrics || wait_for(STEP, || pids() >= before.map(|n| n + 20)), "inner processes are not counted");
    // An inner container hits its own limit, the container does not; then the container's.
    sh("docker run --rm -m 20m --memory-swap 20m busybox tail /dev/zero").expect_code(137);
    let hog = sh("docker run --rm busybox tail /dev/zero");
    assert_eq!(hog.code, 137, "{hog:?}");
    // The one process that stays is the container's first.
    assert_eq!(engine.inspect("counts", "{{.State.Status}}"), "running");
    engine.docker(&["rm", "-f", "counts"]).ok();
    // With all its processes killed by its own limit it says why it has ended.
    let hungry = ["--name", "hungry", "--memory", "20m", "--memory-swap", "20m", "busybox", "tail", "/dev/zero"];
    engine.image("busybox");
    engine.run(&hungry).expect_code(137);
    // The news of it and that of the end come by different ways.
    assert!(!metrics || wait_for(STEP, || engine.inspect("hungry", "{{.State.OOMKilled}}") == "true"));
    engine.docker(&["rm", "hungry"]).ok();
}

/// dockerd's own `userns-remap`: its IDs are used, and nothing is mapped twice.
#[test]
fn the_engines_own_remapping() {
    let subids = [("subuid", "daemon:700000:65536\n"), ("subgid", "daemon:800000:65536\n")];
    let Some(engine) = Engine::start_with("the_engines_own_remapping", &[("userns-remap", "daemon".into())], &subids)
    else {
        return;
    };
    engine.image("docker-bookworm");
    engine.run(&["-d", "--name", "remapped", "docker-bookworm", "sh", "-c", ENGINE]).ok();
    let sh = |script: &str| engine.docker(&["exec", "remapped", "sh", "-ec", script]);
    assert!(wait_for(STEP, || sh("docker info").code == 0), "no engine inside: {:?}", sh("tail /var/log/dockerd.log"));
    let script = "echo $(cat /proc/self/uid_map) $(cat /proc/self/gid_map); stat -c %u:%g /etc/passwd /etc/hosts; touch /f && stat -c %u:%g /f
        docker info --format '{{.Driver}}'; docker import /opt/busybox.tar busybox >/dev/null; docker run --rm busybox echo greeting";
    let wanted = "0 700000 65536 0 800000 65536\n0:0\n0:0\n0:0\noverlay2\ngreeting";
    assert_eq!(sh(script).ok().text(), wanted);
    engine.docker(&["rm", "-f", "remapped"]).ok();
}

/// Docker 26.1 outside as well, which makes networks and configurations in other ways than 20.10.
#[test]
fn the_engine_of_trixie_outside() {
    let Some(engine) = Engine::start_of("the_engine_of_trixie_outside", "docker-trixie") else { return };
    assert!(engine.docker(&["version", "--format", "{{.Server.Version}}"]).ok().text().starts_with("26."));
    with_engine(&engine, "docker-bookworm", "outer", &[]);
    Inner::new(&engine.lab, |script| engine.client(&["exec", "outer", "sh", "-c", script])).whole_list();
    engine.docker(&["network", "create", "names"]).ok();
    engine.docker(&["run", "-d", "--name", "peer", "--network", "names", "docker-bookworm", "sleep", "1000"]).ok();
    with_engine(&engine, "docker-bookworm", "named", &["--network", "names"]);
    let look = "docker import /opt/busybox.tar busybox >/dev/null; docker run --rm busybox ping -c 1 peer";
    engine.docker(&["exec", "named", "sh", "-ec", look]).ok();
    engine.docker(&["rm", "-f", "outer", "peer", "named"]).ok();
    assert!(wait_for(STEP, || engine.leavings().is_empty()), "{}", engine.leavings());
}
