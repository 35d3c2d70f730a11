//! `docker run --runtime=sysbox-runc` with a Docker Engine of the host's: its features, one after the other.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::engine::{Engine, STEP};
use common::inner::{Inner, ENGINE};
use common::wait_for;

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
