//! To whom things belong, inside and outside.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{debian, make_dir, Lab};
use serde_json::json;
use std::os::unix::fs::{chown, MetadataExt, PermissionsExt};
use sysbox_core::idmap::pool::{Pool, SubidConfig, DEFAULT_DIR};
use sysbox_core::runtime::Stdio;
use sysbox_core::{Kind, SystemContainer};

#[test]
fn files_in_a_bind_have_the_same_owners_on_both_sides() {
    let Some(lab) = Lab::new("files_in_a_bind_have_the_same_owners_on_both_sides") else { return };
    let dir = make_dir(&lab.path("data"));
    for id in [0, 1000, 65534] {
        let file = dir.join(format!("host-{id}"));
        std::fs::write(&file, "h").unwrap();
        chown(&file, Some(id), Some(id)).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let single = lab.path("single");
    std::fs::write(&single, "s").unwrap();
    let c = lab.start(&lab.system().bind(&dir, "/data", false).bind(&single, "/data-file", false).to_json());
    assert_eq!(c.sh("cd /data && stat -c '%u:%g' host-0 host-1000 host-65534").ok(), "0:0\n1000:1000\n65534:65534");
    c.sh("cd /data && echo i > inside && mkdir dir && ln -s x link && chown 1000:1001 dir && chmod 4755 inside && cat host-1000").ok();
    c.sh("echo more >> /data-file && test $(stat -c %u /data-file) = 0").ok();
    let owner = |name: &str| {
        let m = std::fs::symlink_metadata(dir.join(name)).unwrap();
        (m.uid(), m.gid())
    };
    assert_eq!((owner("inside"), owner("dir"), owner("link")), ((0, 0), (1000, 1001), (0, 0)));
    assert_eq!(std::fs::read_to_string(&single).unwrap(), "smore\n");
    // As another user inside: as that user outside, and no further.
    let as_user =
        |script: &str| c.exec(&json!({ "args": ["sh", "-c", script], "user": { "uid": 1000, "gid": 1000 } })).unwrap();
    as_user("cat /data/host-0").fails("Permission denied");
    as_user("echo changed > /data/host-1000 && touch /data/dir/new").ok();
    assert_eq!(owner("dir/new"), (1000, 1000));
    // The root file system is the host's as well, and the process is not.
    c.sh("echo x > /made").ok();
    assert_eq!(std::fs::metadata(lab.tree().join("made")).unwrap().uid(), 0);
    assert!(std::fs::metadata(format!("/proc/{}", c.pid().unwrap())).unwrap().uid() >= 65536);
}

#[test]
fn an_owner_the_container_does_not_have_is_nobody() {
    let Some(lab) = Lab::new("an_owner_the_container_does_not_have_is_nobody") else { return };
    let dir = make_dir(&lab.path("data"));
    std::fs::write(dir.join("far"), "x").unwrap();
    chown(dir.join("far"), Some(4_000_000_000), Some(4_000_000_000)).unwrap();
    let c = lab.start(&lab.system().bind(&dir, "/data", false).to_json());
    assert_eq!(c.sh("stat -c %u:%g /data/far").ok(), "65534:65534");
    c.sh("chown 0 /data/far").fails("not permitted");
    // EOVERFLOW: the owner has no number there.
    c.sh("chmod 777 /data/far").fails("too large");
}

#[test]
fn a_container_gets_as_many_ids_as_it_asks_for() {
    let Some(lab) = Lab::new("a_container_gets_as_many_ids_as_it_asks_for") else { return };
    let mut doc = lab.system().to_json();
    doc["annotations"] = json!({ "sysbox.ids": "200000" });
    let c = lab.start(&doc);
    let counts = "for m in uid gid; do tr -s ' ' </proc/self/${m}_map | cut -d' ' -f4; done";
    assert_eq!(c.sh(counts).ok(), "200000\n200000");
    c.sh("touch /tmp/f && chown 199999:199999 /tmp/f && test $(stat -c %u:%g /tmp/f) = 199999:199999").ok();
    c.sh("chown 200000 /tmp/f").fails("Invalid argument");
    let own = c.maps().unwrap().clone();
    // The next one's range begins behind it, whatever its size.
    let other = lab.start(&lab.system().to_json());
    let (end, next) = (own.root().0 + 200_000, other.maps().unwrap().root().0);
    assert!(next >= end || next + 65536 <= own.root().0, "{own:?} {next}");
    assert_eq!(other.sh(counts).ok(), "65536\n65536");
    doc["annotations"]["sysbox.ids"] = json!("65535");
    let e = lab.try_create(&doc, Stdio::default()).err().unwrap();
    assert!(e.kind() == Kind::InvalidConfig && e.to_string().contains("sysbox.ids"), "{e}");
    doc["annotations"]["sysbox.ids"] = json!("4294967295");
    assert_eq!(lab.try_create(&doc, Stdio::default()).err().unwrap().kind(), Kind::Exhausted);
}

#[test]
fn maps_of_the_configuration_take_no_ids_of_another_container() {
    let Some(lab) = Lab::new("maps_of_the_configuration_take_no_ids_of_another_container") else { return };
    let with_map = |first: u32| {
        let mut doc = lab.system().to_json();
        for which in ["uidMappings", "gidMappings"] {
            doc["linux"][which] = json!([{ "containerID": 0, "hostID": first, "size": 65536 }]);
        }
        doc
    };
    let first = lab.start(&lab.system().to_json());
    let ids = first.maps().unwrap().uid.to_outside(0).unwrap();
    let e = lab.try_create(&with_map(ids + 65_535), Stdio::default()).err().unwrap();
    assert_eq!(e.kind(), Kind::Busy);
    assert!(e.to_string().contains(&format!("container {},", first.id())), "{e}");
    assert_eq!(lab.runtime.list().unwrap(), [first.id()]);
    // An engine that remaps users gives all its containers one map.
    let (a, b) = (lab.start(&with_map(3_000_000_000)), lab.start(&with_map(3_000_000_000)));
    assert_eq!((a.sh("echo a").ok(), b.sh("echo b").ok()), ("a".into(), "b".into()));
    first.delete(true).unwrap();
    lab.start(&with_map(ids)).sh("true").ok();
}

#[test]
fn ids_that_are_shared_by_joining_are_kept_until_the_last_is_gone() {
    let Some(lab) = Lab::new("ids_that_are_shared_by_joining_are_kept_until_the_last_is_gone") else { return };
    let first = lab.start(&lab.system().to_json());
    let mut doc = lab.system().to_json();
    let path = format!("/proc/{}/ns/net", first.pid().unwrap());
    for ns in doc["linux"]["namespaces"].as_array_mut().unwrap() {
        if ns["type"] == "network" {
            ns["path"] = json!(path);
        }
    }
    let second = lab.start(&doc);
    assert_eq!(second.maps().unwrap(), first.maps().unwrap());
    first.delete(true).unwrap();
    let pool = Pool::open(std::path::Path::new(DEFAULT_DIR), SubidConfig::default()).unwrap();
    let taken = pool.list().unwrap();
    let keeps = taken.iter().find(|a| a.maps == *second.maps().unwrap()).expect("the IDs are free");
    assert!(!keeps.exclusive && keeps.owner.state_dir.ends_with(second.id()), "{keeps:?}");
    second.sh("true").ok();
}

#[test]
fn a_bind_of_a_tree_brings_the_mounts_below_it() {
    let Some(lab) = Lab::new("a_bind_of_a_tree_brings_the_mounts_below_it") else { return };
    let sub = make_dir(&lab.path("data/sub dir"));
    nix::mount::mount(Some("none"), &sub, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=1m")).unwrap();
    struct Unmount(std::path::PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
        }
    }
    let _unmount = Unmount(sub.clone());
    std::fs::write(sub.join("f"), "below").unwrap();
    let c = lab.start(&lab.system().bind(lab.path("data"), "/rw", false).bind(lab.path("data"), "/ro", true).to_json());
    assert_eq!(c.sh("cat '/rw/sub dir/f'; stat -c %u '/rw/sub dir/f'").ok(), "below0");
    c.sh("touch '/rw/sub dir/new'").ok();
    assert_eq!(std::fs::metadata(sub.join("new")).unwrap().uid(), 0);
    c.sh("umount '/rw/sub dir'").fails("Invalid argument");
    // Read-only is what lies below as well; in config.json `ro` is about the bind alone, as with mount(8).
    for (script, why) in [
        ("touch /ro/new", "Read-only"),
        ("touch '/ro/sub dir/new2'", "Read-only"),
        ("mount -o remount,rw,bind '/ro/sub dir'", "denied"),
        ("unshare -Urm mount -o remount,rw,bind '/ro/sub dir'", "denied"),
    ] {
        c.sh(script).fails(why);
    }
    let mut doc = lab.system().to_json();
    doc["mounts"] =
        json!([{ "destination": "/ro", "source": lab.path("data"), "type": "bind", "options": ["rbind", "ro"] }]);
    let c = lab.start(&doc);
    c.sh("touch /ro/new").fails("Read-only");
    c.sh("touch '/ro/sub dir/new3'").ok();
}

#[test]
fn terminals_queues_and_shared_memory_belong_to_root_inside() {
    let name = "terminals_queues_and_shared_memory_belong_to_root_inside";
    let (Some(lab), Some(debian)) = (Lab::new(name), debian(name)) else { return };
    let system = SystemContainer::new(debian.path().join("tree")).args(["sleep", "1000"]);
    let c = lab.start(&system.tmpfs("/tmp", &["size=1m", "mode=1777"]).to_json());
    let owners = c.sh("stat -c '%n %u:%g' /dev /dev/null /dev/tty /dev/fuse /dev/net/tun /dev/pts /dev/pts/ptmx /dev/shm /dev/mqueue /tmp /sys/fs/cgroup").ok();
    for line in owners.lines() {
        assert!(line.ends_with(" 0:0"), "{owners}");
    }
    // Made, used and removed.
    c.sh("echo x > /dev/shm/f && chown 1000:1000 /dev/shm/f && test $(stat -c %u /dev/shm/f) = 1000 && rm /dev/shm/f")
        .ok();
    c.sh("touch /dev/mqueue/q && cat /dev/mqueue/q && rm /dev/mqueue/q").ok();
    let typescript = c.sh("script -qec 'tty; stat -c %u $(tty); echo typed > $(tty)' /dev/null").ok();
    assert!(typescript.starts_with("/dev/pts/0") && typescript.contains("typed"), "{typescript}");
    assert_eq!(typescript.lines().nth(1).map(str::trim), Some("0"));
    c.sh("mknod /dev/made p && chmod 600 /dev/null && chmod 666 /dev/null && rm /dev/made").ok();
    for (dir, options) in [("/dev/shm", "size=2m"), ("/tmp", "size=2m"), ("/dev/shm", "ro"), ("/dev/shm", "rw")] {
        c.sh(&format!("mount -o remount,{options} none {dir}")).ok();
    }
    assert_eq!(c.sh("df --output=size /tmp /dev/shm | tail -2 | tr -d ' '").ok(), "2048\n2048");
    c.sh("umount /dev/mqueue && umount /dev/shm && mount -t tmpfs none /dev/shm && mount -t mqueue none /dev/mqueue")
        .ok();
}

#[test]
fn streams_that_are_pipes_can_be_opened_by_name() {
    let Some(lab) = Lab::new("streams_that_are_pipes_can_be_opened_by_name") else { return };
    let c = lab.start(&lab.system().to_json());
    let (read, write) = nix::unistd::pipe().unwrap();
    let process = json!({ "args": ["sh", "-c", "echo by name > /dev/stdout"] });
    c.exec_with(&process, Stdio { stdout: Some(write), ..Default::default() }).unwrap().ok();
    assert!(common::readable(std::os::fd::AsFd::as_fd(&read), common::PROGRAM));
    let mut buf = [0; 64];
    let n = nix::unistd::read(&read, &mut buf).unwrap();
    assert_eq!(&buf[..n], b"by name\n");
}
