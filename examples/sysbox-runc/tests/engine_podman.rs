//! `podman run --runtime sysbox-runc` with a Podman of the host's: its features, one after the other.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::archive::{LAYERS, SHOWN};
use common::etc::NETWORK;
use common::inner::{Inner, ENGINE};
use common::podman::{Podman, STEP};
use common::wait_for;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Podman gives out the IDs. Without a number it gives as many as the image's users need, which are not enough.
const AUTO: &str = "--userns=auto:size=65536";

/// Ends with 7 on SIGTERM; says when it can.
const SERVICE: &str = "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done";

const OWNERS: &str = "stat -c %u:%g / /etc /layers/changed /etc/hosts /dev/shm; touch /new; stat -c %u:%g /new";

#[test]
fn podman_runs_to_the_end() {
    let Some(p) = Podman::start("podman_runs_to_the_end", "busybox") else { return };
    let run = |script: &str| p.run(&["--rm", "busybox", "sh", "-c", script]);
    assert_eq!(run(LAYERS).ok().text(), SHOWN);
    assert_eq!(run("echo out; exit 3").expect_code(3).text(), "out");
    assert_eq!(run(OWNERS).ok().text(), ["0:0"; 6].join("\n"));
    assert_ne!(run("cat /proc/self/uid_map").ok().text().split_whitespace().nth(1), Some("0"));

    for (program, code) in [("nonexistent", 127), ("/nonexistent", 127), ("/layers/changed", 126)] {
        let done = p.run(&["--rm", "busybox", program]).expect_code(code);
        assert!(done.err.contains(program), "{done:?}");
    }
    for (option, why) in [("--privileged", "--privileged"), ("--pid=host", "--pid=host"), ("--ipc=host", "--ipc=host")]
    {
        let done = p.run(&["--rm", option, "busybox", "true"]).expect_code(126);
        assert!(done.err.contains(why), "{done:?}");
    }

    std::fs::create_dir(p.lab.path("given")).unwrap();
    let volume = format!("{}:/given", p.lab.path("given").display());
    let script = "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes 2>/dev/null; touch /given/made";
    let done = p.run(&["--rm", "-m", "32m", "-v", &volume, "busybox", "sh", "-c", script]).ok();
    assert_eq!(done.text(), "33554432");
    assert_eq!(owner(&p.lab.path("given/made")), (0, 0));
    p.run(&["--rm", "-v", "kept:/kept", "busybox", "sh", "-c", "echo kept >/kept/f"]).ok();
    assert_eq!(p.run(&["--rm", "-v", "kept:/kept", "busybox", "cat", "/kept/f"]).ok().text(), "kept");
    p.run(&["--rm", "--read-only", "busybox", "touch", "/new"]).expect_code(1);
    let done = p.on_terminal(&["run", "--rm", "-t", "--network", "none", "busybox", "tty"]).ok();
    assert!(done.out.contains("/dev/"), "{done:?}");
    p.assert_nothing_left();
}

/// Whatever Podman's own IDs are.
fn life(p: &Podman, options: &[&str]) {
    let script = format!("echo written >/written; mkdir -p /var/lib/docker; echo data >/var/lib/docker/f; {SERVICE}");
    let run = [&["-d", "--name", "long"], options, &["busybox", "sh", "-c", &script]].concat();
    p.run(&run).ok();
    assert!(wait_for(STEP, || p.podman(&["logs", "long"]).text() == "up"));
    let exec = |program: &[&str]| p.podman(&[&["exec", "long"], program].concat());
    assert_eq!(exec(&["sh", "-c", "cat /written; exit 5"]).expect_code(5).text(), "written");
    // It ends before the runtime does that has started it.
    for _ in 0..5 {
        exec(&["false"]).expect_code(1);
    }
    for (program, code) in [("nonexistent", 127), ("/layers/changed", 126)] {
        let done = exec(&[program]).expect_code(code);
        assert!(done.err.contains(program), "{done:?}");
    }
    let done = p.on_terminal(&["exec", "-t", "long", "tty"]).ok();
    assert!(done.out.contains("/dev/pts/"), "{done:?}");
    assert_eq!(
        p.podman(&["exec", "-u", "1000", "-w", "/tmp", "long", "sh", "-c", "id -u; pwd"]).ok().text(),
        "1000\n/tmp"
    );
    let stats = p.podman(&["stats", "--no-stream", "--format", "{{.PIDs}}", "long"]).ok();
    assert!(stats.text().parse().is_ok_and(|n: u32| n > 0), "{stats:?}");
    assert!(p.podman(&["top", "long", "pid", "args"]).ok().text().contains("trap"));

    p.podman(&["pause", "long"]).ok();
    assert_eq!(p.inspect("long", "{{.State.Status}}"), "paused");
    p.podman(&["unpause", "long"]).ok();
    assert_eq!(p.inspect("long", "{{.State.Status}}"), "running");

    p.podman(&["stop", "-t", "60", "long"]).ok();
    assert_eq!(p.inspect("long", "{{.State.ExitCode}}"), "7");
    let changed = p.podman(&["diff", "long"]).ok().out;
    assert!(changed.contains("A /written\n") && !changed.contains("layers"), "{changed}");
    p.podman(&["start", "long"]).ok();
    // It writes them anew.
    assert!(wait_for(STEP, || exec(&["cat", "/written", "/var/lib/docker/f"]).text() == "written\ndata"));
    p.podman(&["pause", "long"]).ok();
    p.podman(&["kill", "long"]).ok();
    assert_eq!(p.podman(&["wait", "long"]).ok().text(), "137");
}

#[test]
fn podman_follows_a_containers_life() {
    let Some(p) = Podman::start("podman_follows_a_containers_life", "busybox") else { return };
    life(&p, &[]);
    let upper = p.inspect("long", "{{.GraphDriver.Data.UpperDir}}");
    assert_eq!(owner(&Path::new(&upper).join("written")), (0, 0));
    p.podman(&["commit", "-q", "long", "copy"]).ok();
    p.remove(&["rm", "long"]);
    let files = ["--rm", "copy", "sh", "-c", "cat /written /var/lib/docker/f; stat -c %u:%g /var/lib/docker/f"];
    assert_eq!(p.run(&files).ok().text(), "written\ndata\n0:0");
    p.assert_nothing_left();
}

#[test]
fn podman_gives_out_the_ids() {
    let Some(p) = Podman::with_ids("podman_gives_out_the_ids", "busybox") else { return };
    let run = |options: &[&str], script: &str| {
        p.run(&[&["--rm"], options, &["busybox", "sh", "-c", &format!("{LAYERS}; {script}")]].concat())
    };
    let owners = format!("{SHOWN}\n{}", ["0:0"; 6].join("\n"));
    assert_eq!(run(&[AUTO], OWNERS).ok().text(), owners);
    let maps = ["--uidmap", "0:3300000000:65536", "--gidmap", "0:3300000000:65536"];
    assert_eq!(run(&maps, OWNERS).ok().text(), owners);
    assert_eq!(run(&maps, "echo $(cat /proc/self/uid_map)").ok().text(), format!("{SHOWN}\n0 3300000000 65536"));
    let few = p.run(&["--rm", "--userns=auto:size=5000", "busybox", "true"]).expect_code(126);
    assert!(few.err.contains("only 5000 IDs") && few.err.contains("auto:size=65536"), "{few:?}");

    life(&p, &[AUTO]);
    // Written by the container's root as it is on the host: Podman maps the layers below, and not this one.
    let upper = p.inspect("long", "{{.GraphDriver.Data.UpperDir}}");
    let maps = p.inspect("long", "{{json .HostConfig.IDMappings.UIDMap}}");
    let id: u32 = maps.split(':').nth(1).unwrap().parse().unwrap();
    assert_eq!(owner(&Path::new(&upper).join("written")), (id, id));
    p.remove(&["rm", "long"]);

    // An engine's data in a layer that Podman has mapped, and unmounted again.
    p.run(&["--name", "base", "busybox", "sh", "-c", "mkdir -p /var/lib/docker; echo data >/var/lib/docker/f"]).ok();
    p.podman(&["commit", "-q", "base", "copy"]).ok();
    p.remove(&["rm", "base"]);
    let script = "cat /var/lib/docker/f; stat -c %u:%g /var/lib/docker/f; stat -f -c %T /var/lib/docker";
    let done = p.run(&["--rm", AUTO, "copy", "sh", "-c", script]).ok();
    assert!(done.text().starts_with("data\n0:0\n") && !done.text().ends_with("overlayfs"), "{done:?}");
    p.assert_nothing_left();
}

#[test]
fn podman_connects_networks_and_pods() {
    let Some(p) = Podman::with_ids("podman_connects_networks_and_pods", "busybox") else { return };
    let backend = p.podman(&["info", "--format", "{{.Host.NetworkBackend}}"]).ok();
    if backend.text() != "cni" {
        eprintln!("SKIP podman_connects_networks_and_pods: networks are by {}, not by cni", backend.text());
        return;
    }
    let gateway = p.etc.as_ref().unwrap().gateway();
    let serve = "mkdir /www; echo page >/www/index.html; exec httpd -f -h /www";
    let get = "for i in $(seq 300); do busybox wget -qO- http://$0/ && exit 0; sleep 0.1; done; exit 1";
    p.run(&["--rm", AUTO, "--network", NETWORK, "busybox", "ping", "-c", "1", "-W", "5", &gateway]).ok();
    p.run(&["-d", "--name", "web", AUTO, "--network", NETWORK, "busybox", "sh", "-c", serve]).ok();
    let address = p.inspect("web", &format!("{{{{(index .NetworkSettings.Networks {NETWORK:?}).IPAddress}}}}"));
    let run = |options: &[&str], host: &str| p.run(&[&["--rm"], options, &["busybox", "sh", "-c", get, host]].concat());
    assert_eq!(run(&[AUTO, "--network", NETWORK], &address).ok().text(), "page");
    assert_eq!(run(&["--userns=container:web", "--network", "container:web"], "127.0.0.1").ok().text(), "page");
    // Another container's network is another user namespace's.
    let done = run(&[AUTO, "--network", "container:web"], "127.0.0.1").expect_code(126);
    assert!(done.err.contains("user namespace"), "{done:?}");
    // Made by Podman, it is the host's.
    let done = run(&["--network", NETWORK], "127.0.0.1").expect_code(126);
    assert!(done.err.contains("/run/netns/") && done.err.contains("--userns=auto"), "{done:?}");

    let parent = p.lab.cgroup_parent();
    let pod = ["pod", "create", "--name", "pod", "--cgroup-parent", &parent, "--infra-image", "busybox"];
    for options in [&[AUTO, "--network", NETWORK][..], &["--network", "none"]] {
        p.podman(&[&pod[..], &["--infra-command", "sleep 1000"], options].concat()).ok();
        p.run(&["-d", "--pod", "pod", "busybox", "sh", "-c", serve]).ok();
        assert_eq!(run(&["--pod", "pod"], "127.0.0.1").ok().text(), "page");
        p.remove(&["pod", "rm", "-f", "-t", "0", "pod"]);
    }
    p.remove(&["rm", "-f", "-t", "0", "web"]);
    p.assert_nothing_left();
}

fn with_docker_inside(p: &Podman, options: &[&str], list: impl FnOnce(&mut Inner)) {
    p.run(&[&["-d", "--name", "outer"], options, &["docker-bookworm", "sh", "-c", ENGINE]].concat()).ok();
    list(&mut Inner::new(&p.lab, |script| p.client(&["exec", "outer", "sh", "-c", script])));
    p.podman(&["stop", "-t", "60", "outer"]).ok();
    p.podman(&["start", "outer"]).ok();
    let mut inner = Inner::new(&p.lab, |script| p.client(&["exec", "outer", "sh", "-c", script]));
    inner.prints(
        "after a restart",
        "until docker info; do sleep 0.2; done >/dev/null 2>&1; docker run --rm busybox echo hello",
        "hello",
    );
    inner.judge();
    p.remove(&["rm", "-f", "-t", "60", "outer"]);
    p.assert_nothing_left();
}

#[test]
fn podman_with_docker_inside() {
    let Some(p) = Podman::start("podman_with_docker_inside", "docker-bookworm") else { return };
    with_docker_inside(&p, &[], |inner| {
        inner.start();
        inner.judge();
    });
}

#[test]
fn podman_with_its_ids_and_docker_inside() {
    let Some(p) = Podman::with_ids("podman_with_its_ids_and_docker_inside", "docker-bookworm") else { return };
    with_docker_inside(&p, &[AUTO], |inner| inner.whole_list());
}

#[track_caller]
fn owner(path: &Path) -> (u32, u32) {
    let m = std::fs::symlink_metadata(path).unwrap();
    (m.uid(), m.gid())
}
