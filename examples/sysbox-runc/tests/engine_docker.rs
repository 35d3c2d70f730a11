//! `docker run --runtime=sysbox-runc` with a Docker Engine of the host's: its features, one after the other.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::engine::{Engine, STEP};
use common::inner::Inner;
use common::wait_for;

/// pid 1 of the system container: an engine, and its end on SIGTERM.
const INIT: &str = r#"
trap 'kill "$dockerd"; wait "$dockerd"; exit 0' TERM
rm -f /var/run/docker.pid
dockerd >/var/log/dockerd.log 2>&1 &
dockerd=$!
wait "$dockerd"
"#;

/// A container with an engine inside that is up.
fn with_engine(engine: &Engine, kind: &str, name: &str, args: &[&str]) {
    engine.image(kind);
    let mut all = vec!["-d", "--name", name];
    all.extend(args);
    all.extend([kind, "sh", "-c", INIT]);
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
