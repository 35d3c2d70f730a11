//! Ways out that paths inside could lead to: none may.
#![allow(clippy::unwrap_used)]

mod common;
use common::{poll_until, Lab};
use serde_json::json;
use sysbox_core::{Kind, Status};

/// A path from anywhere of the host's to a file that only the host has.
fn secret(lab: &Lab) -> String {
    std::fs::write(lab.path("secret"), "of the host").unwrap();
    format!("{}{}", "../".repeat(16), lab.path("secret").display().to_string().trim_start_matches('/'))
}

#[test]
fn a_start_hook_stands_in_the_container() {
    let Some(lab) = Lab::new("a_start_hook_stands_in_the_container") else { return };
    let secret = secret(&lab);
    let mut doc = lab.doc("cat /hook");
    let script =
        format!("pwd > /hook; cat {secret} >> /hook 2>&1; ls -l /proc/self/fd | grep -c /sys/fs/cgroup >> /hook; true");
    doc["hooks"] = json!({ "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
    let said = lab.run(&doc).ok();
    assert!(said.starts_with("/\n"), "{said}");
    assert!(!said.contains("of the host"), "{said}");
    assert!(said.ends_with("\n0"), "{said}");
}

#[test]
fn a_working_directory_that_is_swapped_while_init_waits_leads_nowhere() {
    let Some(lab) = Lab::new("a_working_directory_that_is_swapped_while_init_waits_leads_nowhere") else { return };
    let secret = secret(&lab);
    let mut doc = lab.doc(&format!("pwd; cat {secret}"));
    doc["process"]["cwd"] = json!("/work/dir");
    for link in ["/proc/self/cwd", "/proc/self/fd/9", "/proc/1/cwd"] {
        let mut c = lab.create(&doc);
        c.sh(&format!("rm -rf /work/dir; ln -s {link} /work/dir")).ok();
        match c.container.start() {
            // The directory that was there is gone, and says so.
            Err(e) => assert_eq!(e.kind(), Kind::Refused, "{e}"),
            Ok(()) => assert!(!c.finish().text.contains("of the host")),
        }
        c.container.delete(true).unwrap();
        std::fs::remove_dir_all(lab.tree().join("work")).unwrap();
    }
}

#[test]
fn a_program_behind_a_descriptor_is_not_found() {
    let Some(lab) = Lab::new("a_program_behind_a_descriptor_is_not_found") else { return };
    let c = lab.start(&lab.doc("sleep 100"));
    for fd in 3..40 {
        let link = lab.tree().join(format!("bin/out{fd}"));
        std::os::unix::fs::symlink(format!("/proc/self/fd/{fd}/{}bin/true", "../".repeat(16)), link).unwrap();
    }
    for fd in 3..40 {
        let e = c.exec(&json!({ "args": [format!("out{fd}")] })).unwrap_err();
        assert_eq!(e.kind(), Kind::ProgramNotFound, "{fd}: {e}");
    }
    // And one that is there is found.
    c.exec(&json!({ "args": ["true"] })).unwrap().ok();
}

#[test]
fn a_working_directory_of_an_exec_that_keeps_changing_leads_nowhere() {
    let Some(lab) = Lab::new("a_working_directory_of_an_exec_that_keeps_changing_leads_nowhere") else { return };
    let secret = secret(&lab);
    let swap = "mkdir /w; while :; do for n in 5 7 9 11 13 15 16 17 19; do \
                rm -rf /w; ln -s /proc/self/fd/$n /w; rm -f /w; mkdir /w; done; done";
    let c = lab.start(&lab.doc(swap));
    poll_until("/w", || lab.tree().join("w").symlink_metadata().is_ok());
    for _ in 0..60 {
        // Most fail, since the directory comes and goes.
        if let Ok(out) = c.exec(&json!({ "args": ["cat", secret], "cwd": "/w" })) {
            assert!(!out.text.contains("of the host"), "{}", out.text);
        }
    }
}

#[test]
fn device_nodes_of_an_image_stay_shut() {
    let Some(lab) = Lab::new("device_nodes_of_an_image_stay_shut") else { return };
    // /dev/kmsg of the host, and the memory device "full", which every container has under another name.
    for (name, minor) in [("kmsg", 11), ("full", 7)] {
        let path = lab.tree().join(name);
        let dev = nix::sys::stat::makedev(1, minor);
        nix::sys::stat::mknod(
            &path,
            nix::sys::stat::SFlag::S_IFCHR,
            nix::sys::stat::Mode::from_bits_truncate(0o666),
            dev,
        )
        .unwrap();
    }
    let mut doc = lab.doc("head -c 1 /full | wc -c; head -c 1 /kmsg && echo open");
    doc["linux"]["resources"].as_object_mut().unwrap().remove("devices");
    let out = lab.run(&doc);
    assert!(out.text.starts_with('1'), "{}", out.text);
    assert!(out.text.to_lowercase().contains("not permitted"), "{}", out.text);
    assert!(!out.text.contains("open\n"), "{}", out.text);
}

#[test]
fn a_failed_creation_harms_nobody_in_the_cgroup_it_wanted() {
    let Some(lab) = Lab::new("a_failed_creation_harms_nobody_in_the_cgroup_it_wanted") else { return };
    let first = lab.start(&lab.doc("sleep 100"));
    let mut doc = lab.doc("true");
    doc["linux"]["cgroupsPath"] = first.container.spec().unwrap().to_json()["linux"]["cgroupsPath"].clone();
    let e = lab.try_create(&doc, Default::default()).map(drop).unwrap_err();
    assert_eq!(e.kind(), Kind::Exists, "{e}");
    assert_eq!(first.container.status(), Status::Running);
    first.sh("true").ok();
}

#[test]
fn a_container_cannot_freeze_itself_into_staying() {
    let Some(lab) = Lab::new("a_container_cannot_freeze_itself_into_staying") else { return };
    let c = lab.start(&lab.doc("sleep 100"));
    let freeze =
        "if [ -d /sys/fs/cgroup/freezer ]; then mkdir /sys/fs/cgroup/freezer/x && cd /sys/fs/cgroup/freezer/x && \
                  echo FROZEN > freezer.state && echo 1 > cgroup.procs && cat freezer.state; \
                  else mkdir /sys/fs/cgroup/x && echo 1 > /sys/fs/cgroup/x/cgroup.freeze; fi";
    c.sh(freeze).ok();
    let begin = std::time::Instant::now();
    c.container.delete(true).unwrap();
    assert!(begin.elapsed() < std::time::Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn an_old_handle_does_not_delete_a_new_container() {
    let Some(lab) = Lab::new("an_old_handle_does_not_delete_a_new_container") else { return };
    let spec = lab.system().cgroup("/sysbox-test-old-handle").spec().unwrap();
    let make = || lab.runtime.create("same", &spec, lab.dir.path(), Default::default()).unwrap();
    let old = make();
    lab.runtime.open("same").unwrap().delete(true).unwrap();
    let new = make();
    assert_eq!(old.delete(true).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(new.status(), Status::Created);
    new.delete(true).unwrap();
}

#[test]
fn a_start_of_a_dead_init_fails() {
    let Some(lab) = Lab::new("a_start_of_a_dead_init_fails") else { return };
    let mut c = lab.create(&lab.doc("true"));
    let pid = nix::unistd::Pid::from_raw(c.container.pid().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    });
    let e = c.container.start().unwrap_err();
    assert_eq!(e.kind(), Kind::WrongState, "{e}");
    killer.join().unwrap();
}

#[test]
fn containers_have_ids_of_their_own() {
    let Some(lab) = Lab::new("containers_have_ids_of_their_own") else { return };
    let doc = lab.doc("sleep 100");
    let all: Vec<_> = (0..8).map(|_| lab.start(&doc)).collect();
    for (i, a) in all.iter().enumerate() {
        for b in &all[i + 1..] {
            let (a, b) = (a.container.maps().unwrap(), b.container.maps().unwrap());
            assert!(!a.uid.overlaps_outside(&b.uid) && !a.gid.overlaps_outside(&b.gid), "{a:?} {b:?}");
        }
    }
}
