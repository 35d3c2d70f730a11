//! From create to delete: what can be done in which state, and what is told about it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{oci_process, poll_until, Guard, Lab};
use serde_json::{json, Value};
use std::path::Path;
use sysbox_core::cgroup::{Layout, Version};
use sysbox_core::runtime::{StageProgram, Stdio};
use sysbox_core::state::Status;
use sysbox_core::{CreateOptions, ExecOptions, Exit, Kind, Runtime, Spec};

#[track_caller]
fn kind<T>(r: sysbox_core::Result<T>) -> Kind {
    match r {
        Ok(_) => panic!("succeeded"),
        Err(e) => e.kind(),
    }
}

#[test]
fn states_and_what_they_allow() {
    let Some(lab) = Lab::new("states_and_what_they_allow") else { return };
    assert_eq!(lab.runtime.list().unwrap(), Vec::<String>::new());
    assert_eq!(kind(lab.runtime.open("c0")), Kind::NotFound);
    let mut c = lab.create(&lab.system().annotation("org.example", "x").to_json());
    assert_eq!(lab.runtime.list().unwrap(), [c.id()]);

    // Created: everything but resume.
    let state = c.state();
    assert_eq!((state.status, state.pid, state.annotations["org.example"].as_str()), (Status::Created, c.pid(), "x"));
    assert_eq!(state.bundle, lab.dir.path().canonicalize().unwrap());
    assert_eq!(kind(c.resume()), Kind::WrongState);
    assert_eq!(c.sh("echo early").ok(), "early");
    c.pause().unwrap();
    assert_eq!(c.status(), Status::Paused);
    assert_eq!(kind(c.container.start()), Kind::WrongState);
    c.resume().unwrap();

    c.container.start().unwrap();
    assert_eq!(c.status(), Status::Running);
    assert_eq!(kind(c.container.start()), Kind::WrongState);
    assert_eq!(kind(c.delete(false)), Kind::WrongState);
    // Another handle, as another process would have it.
    let mut again = lab.runtime.open(c.id()).unwrap();
    assert_eq!((again.pid(), again.status(), again.created()), (c.pid(), Status::Running, c.created()));
    assert_eq!(kind(again.start()), Kind::WrongState);

    c.pause().unwrap();
    assert_eq!(again.status(), Status::Paused);
    assert_eq!(kind(c.pause()), Kind::WrongState);
    assert_eq!(kind(c.delete(false)), Kind::WrongState);
    assert_eq!(kind(c.exec(&json!({ "args": ["true"] }))), Kind::WrongState);
    again.resume().unwrap();
    assert_eq!(c.status(), Status::Running);

    again.kill(libc::SIGKILL).unwrap();
    assert_eq!(c.finish().exit, Exit::Signal(libc::SIGKILL));
    assert_eq!((c.status(), c.state().pid), (Status::Stopped, None));
    for r in [c.kill(libc::SIGTERM), c.pause(), c.resume(), c.exec(&json!({ "args": ["true"] })).map(drop)] {
        assert_eq!(kind(r), Kind::WrongState);
    }
    again.delete(false).unwrap();
    assert_eq!(kind(lab.runtime.open(c.id())), Kind::NotFound);
    assert!(lab.runtime.list().unwrap().is_empty());
}

#[test]
fn a_container_that_was_never_started_can_be_deleted() {
    let Some(lab) = Lab::new("a_container_that_was_never_started_can_be_deleted") else { return };
    let c = lab.create(&lab.doc("echo never"));
    let pid = c.pid().unwrap();
    c.delete(false).unwrap();
    assert_eq!(c.printed(), "");
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_container_that_nobody_waited_for_leaves_no_zombie() {
    let Some(lab) = Lab::new("a_container_that_nobody_waited_for_leaves_no_zombie") else { return };
    let mut c = lab.create(&lab.doc("exit 5"));
    let proc = format!("/proc/{}", c.pid().unwrap());
    c.container.start().unwrap();
    poll_until("it has ended", || c.status() == Status::Stopped);
    assert!(Path::new(&proc).exists(), "reaped by somebody else");
    c.delete(false).unwrap();
    assert!(!Path::new(&proc).exists());
}

#[test]
fn no_stage_stays_behind_while_the_creator_lives_on() {
    let Some(lab) = Lab::new("no_stage_stays_behind_while_the_creator_lives_on") else { return };
    let me = std::process::id().to_string();
    let zombies = || {
        let of = |e: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(e.path().join("stat")).ok()?;
            let (name, rest) = stat.rsplit_once(')')?;
            let mut rest = rest.split_whitespace();
            let found = (rest.next()?, rest.next()?) == ("Z", &me) && name.ends_with("(sysbox-stage");
            found.then(|| e.file_name())
        };
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(of).collect::<std::collections::BTreeSet<_>>()
    };
    let mut c = lab.create(&lab.system().to_json());
    c.container.start().unwrap();
    c.sh("true").ok();
    // Those of other tests, which run beside this one, come and go.
    let seen = zombies();
    poll_until("they are reaped", || zombies().is_disjoint(&seen));
    drop(c);
}

#[test]
fn a_paused_container_can_be_deleted_by_force() {
    let Some(lab) = Lab::new("a_paused_container_can_be_deleted_by_force") else { return };
    let c = lab.start(&lab.system().to_json());
    c.pause().unwrap();
    c.delete(true).unwrap();
    assert_eq!(lab.runtime.list().unwrap(), Vec::<String>::new());
}

#[test]
fn names_are_taken_once_and_checked() {
    let Some(lab) = Lab::new("names_are_taken_once_and_checked") else { return };
    let c = lab.create(&lab.system().to_json());
    let spec = lab.system().spec().unwrap();
    let create = |id: &str| lab.runtime.create(id, &spec, lab.dir.path(), CreateOptions::default());
    assert_eq!(kind(create(c.id())), Kind::Exists);
    // And the one that has it is none the worse.
    assert_eq!(c.status(), Status::Created);
    for id in ["", ".", "..", "a/b", "a b", "\n"] {
        assert_eq!(kind(create(id)), Kind::InvalidConfig, "{id:?}");
        assert_eq!(kind(lab.runtime.open(id)), Kind::NotFound, "{id:?}");
    }
}

#[test]
fn exit_codes_and_signals_are_told() {
    let Some(lab) = Lab::new("exit_codes_and_signals_are_told") else { return };
    for (script, exit) in [("exit 0", Exit::Code(0)), ("exit 7", Exit::Code(7)), ("exit 255", Exit::Code(255))] {
        assert_eq!(lab.run(&lab.doc(script)).exit, exit);
    }
    let c = lab.start(&lab.doc("trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.05; done"));
    c.await_word("ready");
    let sh = |script: &str| c.sh(script).exit;
    assert_eq!(sh("exit 9"), Exit::Code(9));
    assert_eq!(sh("kill -KILL $$"), Exit::Signal(libc::SIGKILL));
    assert_eq!(sh("kill -TERM $$"), Exit::Signal(libc::SIGTERM));
    c.kill(libc::SIGTERM).unwrap();
    let end = c.finish();
    assert_eq!((end.exit, end.text.as_str()), (Exit::Code(3), "ready\ncaught\n"));
    // Somebody who did not make it, and comes late.
    assert_eq!(kind(lab.runtime.open(c.id()).unwrap().wait()), Kind::WrongState);
}

#[test]
fn programs_that_cannot_be_run_are_told_apart() {
    let Some(lab) = Lab::new("programs_that_cannot_be_run_are_told_apart") else { return };
    std::fs::write(lab.tree().join("data"), "x").unwrap();
    let cases = [
        (json!(["nothing"]), Kind::ProgramNotFound),
        (json!(["/no/thing"]), Kind::ProgramNotFound),
        (json!(["/data"]), Kind::ProgramNotExecutable),
        (json!(["/etc"]), Kind::ProgramNotExecutable),
    ];
    let c = lab.start(&lab.system().to_json());
    for (args, want) in cases {
        assert_eq!(kind(c.exec(&json!({ "args": args }))), want, "exec {args}");
        let mut doc = lab.system().to_json();
        doc["process"]["args"] = args.clone();
        assert_eq!(kind(lab.try_create(&doc, Stdio::default())), want, "create {args}");
    }
    assert_eq!(kind(c.exec(&json!({ "args": [] }))), Kind::InvalidConfig);
    // Nothing is left of the failed ones.
    assert_eq!(lab.runtime.list().unwrap(), [c.id()]);
    // A program that goes away between create and start.
    std::fs::copy(lab.tree().join("bin/busybox"), lab.tree().join("bin/gone")).unwrap();
    let mut gone = lab.create(&lab.system().args(["/bin/gone"]).to_json());
    std::fs::remove_file(lab.tree().join("bin/gone")).unwrap();
    assert_eq!(kind(gone.container.start()), Kind::ProgramNotFound);
    poll_until("the container is stopped", || gone.status() == Status::Stopped);
}

#[test]
fn what_cannot_be_made_leaves_nothing() {
    let Some(lab) = Lab::new("what_cannot_be_made_leaves_nothing") else { return };
    let mut broken: Vec<(&str, Value)> = Vec::new();
    let mut with = |what, change: &dyn Fn(&mut Value)| {
        let mut doc = lab.system().to_json();
        change(&mut doc);
        broken.push((what, doc));
    };
    with("a bind without a source", &|d| {
        d["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": "/x", "type": "bind", "source": "/nowhere", "options": ["bind"]}))
    });
    with("an unknown file system", &|d| {
        d["mounts"].as_array_mut().unwrap().push(json!({"destination": "/x", "type": "nofs", "source": "none"}))
    });
    with("a bad mount option", &|d| {
        d["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": "/x", "type": "tmpfs", "source": "none", "options": ["bogus=1"]}))
    });
    with("a limit that the kernel refuses", &|d| d["linux"]["resources"]["cpu"] = json!({"cpus": "900-901"}));
    with("a failing hook", &|d| d["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]}));
    with("a hook that is not there", &|d| d["hooks"] = json!({"createContainer": [{"path": "/no/hook"}]}));
    with("a target of the wrong sort", &|d| {
        d["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": "/bin/busybox", "type": "tmpfs", "source": "none"}))
    });
    with("a sysctl with a bad value", &|d| d["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "many"}));
    with("a host namespace", &|d| d["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "network"));
    with("a program that is not there", &|d| d["process"]["args"] = json!(["/nothing"]));
    for (what, doc) in &broken {
        let e = match lab.try_create(doc, Stdio::default()) {
            Ok(_) => panic!("{what} is accepted"),
            Err(e) => e,
        };
        assert!(!e.to_string().is_empty());
        assert!(lab.runtime.list().unwrap().is_empty(), "{what} leaves its state");
        let left: Vec<_> = lab
            .cgroup_dirs()
            .into_iter()
            .filter(|d| d.file_name().unwrap().to_str().unwrap().starts_with('c'))
            .collect();
        assert!(left.is_empty(), "{what} leaves {left:?}");
    }
    let mut missing = Runtime::new(lab.path("other")).stage(StageProgram::Path("/no/stage".into()));
    assert_eq!(
        kind(missing.create("x", &lab.system().spec().unwrap(), lab.dir.path(), CreateOptions::default())),
        Kind::System
    );
    missing = missing.stage(StageProgram::Path("/bin/true".into()));
    assert_eq!(
        kind(missing.create("x", &lab.system().spec().unwrap(), lab.dir.path(), CreateOptions::default())),
        Kind::Protocol
    );
    assert!(missing.list().unwrap().is_empty());
}

fn limits(c: &Guard<'_>) -> (String, String) {
    let layout = Layout::detect().unwrap();
    let read = |controller: &str, v1: &str, v2: &str| {
        let h = layout.hierarchies.iter().find(|h| h.has(controller)).unwrap();
        let file = if h.version == Version::V1 { v1 } else { v2 };
        c.sh(&format!("cat /sys/fs/cgroup/{}/{file}", h.directory)).ok()
    };
    (read("memory", "memory.limit_in_bytes", "memory.max"), read("pids", "pids.max", "pids.max"))
}

#[test]
fn limits_can_be_changed() {
    let Some(lab) = Lab::new("limits_can_be_changed") else { return };
    let c = lab.start(&lab.system().memory(64 << 20).pids(50).to_json());
    assert_eq!(limits(&c), ("67108864".into(), "50".into()));
    c.update(&serde_json::from_value(json!({ "memory": { "limit": 134_217_728 }, "pids": { "limit": 60 } })).unwrap())
        .unwrap();
    assert_eq!(limits(&c), ("134217728".into(), "60".into()));
    c.kill(libc::SIGKILL).unwrap();
    c.finish();
    assert_eq!(kind(c.update(&Default::default())), Kind::WrongState);
}

#[test]
fn signals_reach_init_or_all() {
    let Some(lab) = Lab::new("signals_reach_init_or_all") else { return };
    let c = lab.start(&lab.doc("trap 'echo one' USR1; sh -c \"trap 'echo two' USR1; echo ready; while :; do sleep 0.05; done\" & while :; do sleep 0.05; done"));
    c.await_word("ready");
    assert!(c.processes().unwrap().len() >= 2);
    c.kill(libc::SIGUSR1).unwrap();
    c.await_word("one");
    assert!(!c.printed().contains("two"));
    c.kill_all(libc::SIGUSR1).unwrap();
    c.await_word("two");
    // An exec'd program is one of all.
    let child = c.container.exec(&oci_process(&json!({ "args": ["sleep", "1000"] })), ExecOptions::default()).unwrap();
    assert!(c.processes().unwrap().contains(&child.pid()));
    c.kill_all(libc::SIGKILL).unwrap();
    assert_eq!(child.wait().unwrap(), Exit::Signal(libc::SIGKILL));
    assert_eq!(c.finish().exit, Exit::Signal(libc::SIGKILL));
    assert!(c.processes().unwrap().is_empty());
}

#[test]
fn an_exec_that_would_be_frozen_does_not_keep_its_caller() {
    let name = "an_exec_that_would_be_frozen_does_not_keep_its_caller";
    let Some(lab) = Lab::new(name) else { return };
    let Some(v2) = Layout::detect().unwrap().unified().map(|h| h.mount.clone()) else {
        eprintln!("SKIP {name}: no cgroup v2");
        return;
    };
    let c = lab.start(&lab.system().to_json());
    c.pause().unwrap();
    let e = c.exec(&json!({ "args": ["true"] })).unwrap_err();
    assert!(e.to_string().contains("cannot exec in a paused container"), "{e}");
    c.resume().unwrap();
    // Not by the runtime's own freezer, so that it cannot be seen beforehand: as software inside does with a cgroup of its own.
    let dirs = lab.cgroup_dirs();
    let own = dirs.iter().filter(|d| d.starts_with(&v2) && d.to_string_lossy().contains(c.id()));
    let freeze = own.max_by_key(|d| d.as_os_str().len()).unwrap().join("cgroup.freeze");
    std::fs::write(&freeze, "1").unwrap();
    let e = c.exec(&json!({ "args": ["true"] })).unwrap_err();
    std::fs::write(&freeze, "0").unwrap();
    assert_eq!(e.kind(), Kind::Busy, "{e}");
    assert!(e.to_string().contains("frozen"), "{e}");
    // The one that was stuck is gone, and nothing else has come to harm.
    poll_until("the end of it", || c.processes().unwrap() == [c.pid().unwrap()]);
    assert_eq!(c.sh("echo fine").ok(), "fine");
}

#[test]
fn the_end_of_init_ends_what_was_executed() {
    let Some(lab) = Lab::new("the_end_of_init_ends_what_was_executed") else { return };
    let c = lab.start(&lab.system().to_json());
    let child = c.container.exec(&oci_process(&json!({ "args": ["sleep", "1000"] })), ExecOptions::default()).unwrap();
    c.kill(libc::SIGKILL).unwrap();
    assert_eq!(child.wait().unwrap(), Exit::Signal(libc::SIGKILL));
    assert!(common::readable(c.pidfd().unwrap(), common::PROGRAM));
}

#[test]
fn the_configuration_survives_whole() {
    let Some(lab) = Lab::new("the_configuration_survives_whole") else { return };
    let mut doc = lab.system().to_json();
    doc["linux"]["cgroupsPath"] = json!(format!("/sysbox-test-{}-whole/c", std::process::id()));
    doc["x-unknown"] = json!({ "of": ["somebody", 1] });
    let c = lab.create(&doc);
    assert_eq!(c.spec().unwrap().to_json(), &doc);
    assert_eq!(c.spec().unwrap(), Spec::from_json(doc.to_string().as_bytes()).unwrap());
    c.delete(true).unwrap();
    for h in Layout::detect().unwrap().hierarchies {
        let _ = std::fs::remove_dir(h.mount.join(format!("sysbox-test-{}-whole", std::process::id())));
    }
}

#[test]
fn later_mounts_of_the_host_appear_only_where_asked() {
    use nix::mount::{mount, umount2, MntFlags, MsFlags};
    let Some(lab) = Lab::new("later_mounts_of_the_host_appear_only_where_asked") else { return };
    let source = lab.path("source");
    std::fs::create_dir_all(source.join("sub")).unwrap();
    let none: Option<&str> = None;
    mount(Some(&source), &source, none, MsFlags::MS_BIND, none).unwrap();
    mount(none, &source, none, MsFlags::MS_SHARED, none).unwrap();
    let mut doc = lab.doc("sleep 100");
    for (target, option) in [("/slave", "rslave"), ("/none", "rw")] {
        let bind = serde_json::json!({
            "destination": target, "type": "bind", "source": source, "options": ["rbind", option]
        });
        doc["mounts"].as_array_mut().unwrap().push(bind);
    }
    let c = lab.start(&doc);
    mount(Some("tmpfs"), &source.join("sub"), Some("tmpfs"), MsFlags::empty(), none).unwrap();
    std::fs::write(source.join("sub/later"), "").unwrap();
    let seen = c.sh("ls /slave/sub; ls /none/sub");
    umount2(&source.join("sub"), MntFlags::MNT_DETACH).unwrap();
    umount2(&source, MntFlags::MNT_DETACH).unwrap();
    assert_eq!(seen.ok(), "later");
}
