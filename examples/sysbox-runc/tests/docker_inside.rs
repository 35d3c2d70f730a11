//! Docker Engine in a system container: that of Debian bookworm and that of Debian trixie, used as people use it.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::inner::{Inner, ENGINE, STEP};
use common::{wait_for, Lab};

/// One engine, the whole list.
fn docker(name: &'static str, kind: &'static str) {
    let Some(lab) = Lab::new(name, kind) else { return };
    let bundle = lab.bundle("engine", &["/bin/sh", "-c", ENGINE]);
    let id = lab.started("engine", &bundle);
    Inner::new(&lab, |script| lab.runtime(&["exec", &id, "sh", "-c", script])).whole_list();
    nobody_on_the_host(&lab, &id);
    lab.run(&["kill", &id, "TERM"]).ok();
    lab.wait_status(&id, "stopped");
    lab.run(&["delete", &id]).ok();
    lab.assert_nothing_left();
}

/// Every process of the container, those of inner containers included, has a user that means nothing on the host.
fn nobody_on_the_host(lab: &Lab, id: &str) {
    lab.sh(id, "docker run -d --name last --privileged busybox sleep 1000", STEP).ok();
    let inner = lab.sh(id, "docker inspect --format '{{.State.Status}}' last", STEP).ok();
    assert_eq!(inner.text(), "running");
    let mut pids: Vec<i64> = Vec::new();
    // A container runs, for its engine, before its process has executed the program.
    let sleeps = wait_for(STEP, || {
        let listed = common::json(&lab.run(&["ps", "--format", "json", id]).ok().out);
        pids = listed.as_array().unwrap().iter().map(|p| p.as_i64().unwrap()).collect();
        let mut sleeps = 0;
        for pid in &pids {
            // Some are gone by now.
            let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
            let field =
                |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned();
            let ids: Vec<u32> = field("Uid:").split_whitespace().map(|u| u.parse().unwrap()).collect();
            assert!(ids.iter().all(|u| *u >= 65536), "{} (pid {pid}) has user IDs {ids:?} on the host", field("Name:"));
            sleeps += usize::from(field("Name:") == "sleep");
        }
        sleeps > 0
    });
    assert!(sleeps, "the inner container's process is not among {pids:?}");
    assert!(wait_for(STEP, || lab.sh(id, "docker rm -f last", STEP).code == 0));
}

#[test]
fn docker_of_bookworm() {
    docker("docker_of_bookworm", "docker-bookworm");
}

#[test]
fn docker_of_trixie() {
    docker("docker_of_trixie", "docker-trixie");
}

#[test]
fn the_newest_docker() {
    docker("the_newest_docker", "docker-forky");
}
