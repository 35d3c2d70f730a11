//! State that somebody has damaged: it is told, and the container can be taken away.
#![allow(clippy::unwrap_used)]

mod common;

use common::{pids_with_uid, poll_until, Lab};
use std::path::Path;
use sysbox_core::idmap::pool::{Pool, SubidConfig, DEFAULT_DIR};
use sysbox_core::{Kind, Status};

/// What is done to a file.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Empty,
    CutShort,
    Nonsense,
    Directory,
    Removed,
}

fn harm(file: &Path, how: Harm) {
    let old = std::fs::read(file).unwrap();
    match how {
        Harm::Empty => std::fs::write(file, "").unwrap(),
        Harm::CutShort => std::fs::write(file, &old[..old.len() / 2]).unwrap(),
        Harm::Nonsense => std::fs::write(file, b"\0\xff{}").unwrap(),
        Harm::Directory | Harm::Removed => std::fs::remove_file(file).unwrap(),
    }
    if matches!(how, Harm::Directory) {
        std::fs::create_dir(file).unwrap();
    }
}

/// Harms files of a running container, and takes it away as another process would. `paused`: it is frozen as well.
fn survives(lab: &Lab, files: &[&str], how: Harm, paused: bool) {
    let what = format!("{files:?} {how:?}");
    let c = lab.start(&lab.doc("sleep 1000 & mkdir /sys/fs/cgroup/pids/inner /sys/fs/cgroup/inner; echo up; wait"));
    c.await_word("up");
    let ids = c.maps().unwrap().uid.to_outside(0).unwrap();
    assert!(pids_with_uid(ids, 65536).len() >= 2);
    if paused {
        c.pause().unwrap();
    }
    let dir = lab.runtime.root().join(c.id());
    files.iter().for_each(|f| harm(&dir.join(f), how));
    assert_eq!(lab.runtime.list().unwrap(), [c.id()], "{what}");
    let other = lab.runtime.open(c.id()).unwrap();
    let told = files.iter().any(|f| f.ends_with(".json")) && !matches!(how, Harm::Removed);
    match other.damage() {
        Some(e) => {
            let text = e.to_string();
            assert_eq!(e.kind(), Kind::Damaged);
            assert!(told && text.contains(files[0]) && text.contains("delete it with --force"), "{what}: {text}");
            assert_eq!(other.delete(false).unwrap_err().kind(), Kind::Damaged, "{what}");
        }
        None => assert!(!told, "{what}"),
    }
    other.delete(true).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(!dir.exists(), "{what}");
    let left: Vec<_> = lab.cgroup_dirs().into_iter().filter(|d| d.to_string_lossy().contains(c.id())).collect();
    assert!(left.is_empty(), "{what} leaves {left:?}");
    // Who reads no more than the files does not know that init is a child of this process.
    assert_eq!(c.status(), Status::Stopped, "{what}");
    let _ = c.wait();
    poll_until("no process is left", || pids_with_uid(ids, 65536).is_empty());
    let pool = Pool::open(Path::new(DEFAULT_DIR), SubidConfig::default()).unwrap();
    assert!(!pool.list().unwrap().iter().any(|a| a.owner.state_dir == dir), "{what} keeps its IDs");
}

#[test]
fn a_container_whose_state_is_damaged_can_be_deleted() {
    let Some(lab) = Lab::new("a_container_whose_state_is_damaged_can_be_deleted") else { return };
    for how in [Harm::Empty, Harm::CutShort, Harm::Nonsense, Harm::Directory, Harm::Removed] {
        survives(&lab, &["state.json"], how, false);
        survives(&lab, &["init.json"], how, false);
    }
    survives(&lab, &["state.json", "init.json"], Harm::Empty, false);
    survives(&lab, &["state.json", "config.json"], Harm::CutShort, true);
    survives(&lab, &["init.json", "config.json"], Harm::CutShort, true);
}

#[test]
fn one_damaged_container_keeps_nothing_from_the_others() {
    let Some(lab) = Lab::new("one_damaged_container_keeps_nothing_from_the_others") else { return };
    let (bad, good) = (lab.start(&lab.system().to_json()), lab.start(&lab.system().to_json()));
    harm(&lab.runtime.root().join(bad.id()).join("state.json"), Harm::CutShort);
    assert_eq!(lab.runtime.list().unwrap(), [bad.id(), good.id()]);
    let mut opened = lab.runtime.open(bad.id()).unwrap();
    // It runs, which init.json tells, and nothing can be done with it that needs the rest.
    assert_eq!((opened.status(), opened.pid()), (Status::Running, bad.pid()));
    let resources = Default::default();
    for r in [opened.start(), opened.pause(), opened.update(&resources), opened.kill_all(9)] {
        assert_eq!(r.unwrap_err().kind(), Kind::Damaged);
    }
    opened.kill(libc::SIGKILL).unwrap();
    assert_eq!(good.sh("echo fine").ok(), "fine");
    // A claim without which nobody knows whose the cgroups are: they go if they are empty.
    harm(&lab.runtime.root().join(good.id()).join("cgroups-made"), Harm::CutShort);
    good.delete(true).unwrap();
    assert!(!lab.cgroup_dirs().iter().any(|d| d.ends_with(good.id())), "{:?}", lab.cgroup_dirs());
}
