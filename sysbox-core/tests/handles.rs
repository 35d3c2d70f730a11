//! Handles that are made elsewhere than in the container's creator, or while it is being made.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{poll_until, Lab, PROGRAM};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use sysbox_core::container::Event;
use sysbox_core::runtime::StageProgram;
use sysbox_core::state::Status;
use sysbox_core::{CreateOptions, Exit, Kind, Limit, Runtime, Spec};

const CREATOR: &str = "SYSBOX_TEST_CREATE_AND_WAIT_IN";

fn stage() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sysbox-stage"))
}

/// A creator that reaps its container's init only when it is told to: this test program again, told by its environment where.
#[test]
fn creator() {
    let Some(dir) = std::env::var_os(CREATOR) else { return };
    let dir = Path::new(&dir);
    let runtime = Runtime::new(dir.join("state")).stage(StageProgram::Path(stage().into()));
    let spec = Spec::from_json(&std::fs::read(dir.join("c.json")).unwrap()).unwrap();
    let mut c = runtime.create("c", &spec, dir, CreateOptions::default()).unwrap();
    c.start().unwrap();
    std::fs::write(dir.join("started"), "").unwrap();
    let end = Instant::now() + PROGRAM;
    while !dir.join("reap").exists() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(c.wait().unwrap(), Exit::Signal(libc::SIGKILL));
}

#[test]
fn who_did_not_create_it_waits_for_the_creator_to_reap() {
    let name = "who_did_not_create_it_waits_for_the_creator_to_reap";
    let Some(lab) = Lab::new(name) else { return };
    let probes = lab.runtime.check_host().unwrap();
    if probes.iter().any(|p| p.name.starts_with("exit status") && p.cost.is_some()) {
        return eprintln!("SKIP {name}: the kernel keeps no exit status (Linux 6.15)");
    }
    let mut doc = lab.system().to_json();
    doc["linux"]["cgroupsPath"] = serde_json::json!(format!("/sysbox-test-handles-{}", std::process::id()));
    std::fs::write(lab.path("c.json"), doc.to_string()).unwrap();
    let mut creator = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "creator"])
        .env(CREATOR, lab.dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    poll_until("it is started", || lab.path("started").exists());
    let c = lab.runtime.open("c").unwrap();
    c.kill(libc::SIGKILL).unwrap();
    poll_until("it has ended", || c.status() == Status::Stopped);
    let after = |ms| Limit::none().at(Instant::now() + Duration::from_millis(ms));
    for ms in [0, 300] {
        assert_eq!(c.wait_within(&after(ms)).unwrap_err().kind(), Kind::TimedOut);
    }
    std::thread::scope(|s| {
        let waiters: Vec<_> = (0..3).map(|_| s.spawn(|| c.wait_within(&after(20_000)))).collect();
        std::thread::sleep(Duration::from_millis(50));
        std::fs::write(lab.path("reap"), "").unwrap();
        for w in waiters {
            assert_eq!(w.join().unwrap().unwrap(), Exit::Signal(libc::SIGKILL));
        }
    });
    assert!(creator.wait().unwrap().success());
    c.delete(false).unwrap();
}

/// Opens a container while it is being made, and says what the handle and a watch tell until it is deleted.
fn opened_early(test: &str, hold_in_hook: bool) {
    let Some(lab) = Lab::new(test) else { return };
    let (there, go) = (lab.path("there"), lab.path("go"));
    let hold = format!("touch {}; while ! [ -e {} ]; do sleep 0.02; done", there.display(), go.display());
    let mut doc = lab.system().to_json();
    doc["linux"]["cgroupsPath"] =
        serde_json::json!(format!("/sysbox-test-handles-{}-{hold_in_hook}", std::process::id()));
    let mut runtime = lab.runtime.clone();
    if hold_in_hook {
        let hook = serde_json::json!({ "path": "/bin/sh", "args": ["sh", "-c", hold], "env": ["PATH=/usr/bin:/bin"] });
        doc["hooks"]["createRuntime"] = serde_json::json!([hook]);
    } else {
        // Before there is an init: the stage is late.
        let late = lab.path("late");
        let script = format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{hold}\nexec {}\n", stage().display());
        std::fs::write(&late, script).unwrap();
        std::fs::set_permissions(&late, PermissionsExt::from_mode(0o755)).unwrap();
        runtime = runtime.stage(StageProgram::Path(late));
    }
    let spec = Spec::from_json(doc.to_string().as_bytes()).unwrap();
    std::thread::scope(|s| {
        let making = s.spawn(|| runtime.create("early", &spec, lab.dir.path(), CreateOptions::default()));
        poll_until("it is being made", || there.exists());
        let c = lab.runtime.open("early").unwrap();
        let mut watch = c.watch().unwrap();
        assert_eq!((c.status(), c.pid().is_some()), (Status::Creating, hold_in_hook));
        assert_eq!(watch.next_event().unwrap(), None);
        std::fs::write(&go, "").unwrap();
        let mut made = making.join().unwrap().unwrap();
        assert_eq!((c.status(), c.pid()), (Status::Created, made.pid()));
        assert!(c.pid().is_some() && c.pidfd().is_some());
        assert_eq!(watch.next_event().unwrap(), None);
        let mut event = || {
            let end = Instant::now() + PROGRAM;
            loop {
                if let Some(event) = watch.next_event().unwrap() {
                    return event;
                }
                assert!(Instant::now() < end, "no event");
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        made.start().unwrap();
        assert_eq!(event(), Event::Started);
        c.kill(libc::SIGKILL).unwrap();
        assert_eq!(event(), Event::Stopped);
        assert_eq!(c.wait().unwrap(), Exit::Signal(libc::SIGKILL));
        // The exit status is with whoever reaped it, or with the kernel.
        c.delete(false).unwrap();
        assert_eq!(event(), Event::Deleted);
    });
}

#[test]
fn opened_in_a_hook_of_its_creation() {
    opened_early("opened_in_a_hook_of_its_creation", true);
}

#[test]
fn opened_before_it_has_an_init() {
    opened_early("opened_before_it_has_an_init", false);
}
