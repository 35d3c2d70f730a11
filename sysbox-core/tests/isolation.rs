//! Mounts that protect something, and a container's root that tries to be rid of them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{debian, make_dir, perl, Guard, Lab};
use serde_json::json;
use std::path::Path;
use sysbox_core::SystemContainer;

/// A container whose protected mounts all cover something: what is underneath must stay hidden.
fn protected<'a>(lab: &'a Lab, system: SystemContainer, tree: &Path) -> Guard<'a> {
    for (name, text) in [("ro", "of the host"), ("rw", "of the host")] {
        let dir = make_dir(&lab.path(name));
        std::fs::write(dir.join("file"), text).unwrap();
    }
    for target in ["mnt/ro", "mnt/rw", "mnt/hidden", "mnt/kept"] {
        let dir = make_dir(&tree.join(target));
        std::fs::write(dir.join("beneath"), "secret").unwrap();
    }
    std::fs::write(tree.join("mnt/hidden-file"), "secret").unwrap();
    std::fs::write(tree.join("mnt/kept-file"), "kept").unwrap();
    let mut doc = system.bind(lab.path("ro"), "/mnt/ro", true).bind(lab.path("rw"), "/mnt/rw", false).to_json();
    doc["linux"]["maskedPaths"] = json!(["/mnt/hidden", "/mnt/hidden-file", "/proc/keys", "/nowhere"]);
    doc["linux"]["readonlyPaths"] = json!(["/mnt/kept", "/mnt/kept-file", "/proc/sys", "/nowhere"]);
    let c = lab.start(&doc);
    // They are there, and do what they are for.
    assert_eq!(c.sh("cat /mnt/ro/file").ok(), "of the host");
    c.sh("echo inside > /mnt/rw/file").ok();
    assert_eq!(std::fs::read_to_string(lab.path("rw/file")).unwrap(), "inside\n");
    assert_eq!(c.sh("ls -A /mnt/hidden; cat /mnt/hidden-file").ok(), "");
    assert_eq!(c.sh("cat /mnt/kept/beneath /mnt/kept-file").ok(), "secretkept");
    c
}

const LOCKED: [&str; 6] = ["/mnt/ro", "/mnt/rw", "/mnt/hidden", "/mnt/hidden-file", "/mnt/kept", "/mnt/kept-file"];
const READ_ONLY: [&str; 4] = ["/mnt/ro", "/mnt/hidden", "/mnt/kept", "/mnt/kept-file"];

#[test]
fn locked_mounts_cannot_be_unmounted() {
    let Some(lab) = Lab::new("locked_mounts_cannot_be_unmounted") else { return };
    let c = protected(&lab, lab.system(), &lab.tree());
    // Unmounting is possible as such.
    c.sh("mkdir /tmp/a && mount -t tmpfs none /tmp/a && umount /tmp/a").ok();
    c.sh("unshare -Urm sh -c 'mount -t tmpfs none /tmp/a && umount /tmp/a'").ok();
    for path in LOCKED.iter().chain(&["/proc", "/sys", "/dev", "/"]) {
        for umount in ["umount", "umount -l"] {
            c.sh(&format!("{umount} {path}")).fails("Invalid argument");
            c.sh(&format!("unshare -m {umount} {path}")).fails("Invalid argument");
            c.sh(&format!("unshare -Urm {umount} {path}")).fails("Invalid argument");
            c.sh(&format!("unshare -Urm unshare -Urm {umount} {path}")).fails("Invalid argument");
        }
    }
    assert_eq!(c.sh("cat /mnt/ro/file; ls -A /mnt/hidden").ok(), "of the host");
}

#[test]
fn what_is_beneath_locked_mounts_stays_hidden() {
    let Some(lab) = Lab::new("what_is_beneath_locked_mounts_stays_hidden") else { return };
    let c = protected(&lab, lab.system(), &lab.tree());
    c.sh("mkdir -p /tmp/a /etc/d && echo x > /etc/d/f && mount --bind /etc /tmp/a && cat /tmp/a/d/f && umount /tmp/a")
        .ok();
    for parent in ["/", "/mnt"] {
        // A copy without what covers would uncover.
        c.sh(&format!("mount --bind {parent} /tmp/a")).fails("Invalid argument");
        c.sh(&format!("unshare -Urm mount --bind {parent} /tmp/a")).fails("Invalid argument");
    }
    // A copy with it covers just as well, and cannot be taken apart.
    let script = "mount --rbind /mnt /tmp/a && cat /tmp/a/ro/file && ls -A /tmp/a/hidden && cat /tmp/a/hidden-file";
    assert_eq!(c.sh(script).ok(), "of the host");
    for name in ["ro", "rw", "hidden", "hidden-file", "kept", "kept-file"] {
        c.sh(&format!("umount /tmp/a/{name}")).fails("Invalid argument");
        c.sh(&format!("umount -l /tmp/a/{name}")).fails("Invalid argument");
        c.sh(&format!("unshare -Urm umount -l /tmp/a/{name}")).fails("Invalid argument");
    }
    // Nor can a mount be moved away.
    c.sh("mkdir /tmp/b").ok();
    for name in ["ro", "hidden", "kept"] {
        c.sh(&format!("mount --move /mnt/{name} /tmp/b")).fails("Invalid argument");
        c.sh(&format!("mount --move /tmp/a/{name} /tmp/b")).fails("Invalid argument");
    }
    assert_eq!(c.sh("ls -A /tmp/b").ok(), "");
}

#[test]
fn read_only_mounts_cannot_be_made_writable() {
    let Some(lab) = Lab::new("read_only_mounts_cannot_be_made_writable") else { return };
    let c = protected(&lab, lab.system(), &lab.tree());
    // Remounting is possible as such.
    c.sh("mkdir /tmp/a && mount -t tmpfs none /tmp/a && mount -o remount,bind,ro /tmp/a && ! touch /tmp/a/f").ok();
    c.sh("mount -o remount,bind,rw /tmp/a && touch /tmp/a/f && umount /tmp/a").ok();
    for path in READ_ONLY {
        let write = format!("if [ -d {path} ]; then touch {path}/new; else echo x >> {path}; fi");
        c.sh(&write).fails("Read-only file system");
        for options in ["remount,bind,rw", "remount,rw"] {
            c.sh(&format!("mount -o {options} {path}")).fails("Permission denied");
            c.sh(&format!("unshare -Urm mount -o {options} {path}")).fails("Permission denied");
        }
        for bind in ["bind", "rbind"] {
            let at = if path.ends_with("file") { "/tmp/file" } else { "/tmp/a" };
            let copy = format!("touch /tmp/file; mount --{bind} {path} {at}");
            let script = format!("{copy} && mount -o remount,bind,rw {at}");
            c.sh(&format!("unshare -m sh -c '{script}'")).fails("Permission denied");
            c.sh(&format!("unshare -Urm sh -c '{script}'")).fails("Permission denied");
            let script = format!("{copy} && if [ -d {at} ]; then touch {at}/new; else echo x >> {at}; fi");
            c.sh(&format!("unshare -Urm sh -c '{script}'")).fails("Read-only file system");
        }
        c.sh(&write).fails("Read-only file system");
    }
    assert_eq!(std::fs::read_dir(lab.path("ro")).unwrap().count(), 1);
}

#[test]
fn the_new_mount_calls_are_no_way_around_locks() {
    let name = "the_new_mount_calls_are_no_way_around_locks";
    let (Some(lab), Some(debian)) = (Lab::new(name), debian(name)) else { return };
    let tree = debian.path().join("tree");
    let c = protected(&lab, SystemContainer::new(&tree).args(["sleep", "1000"]).tmpfs("/tmp", &[]), &tree);
    let open_tree =
        |path: &str, flags: i64| perl(&format!("{}, -100, my $p = \"{path}\", {flags}", libc::SYS_open_tree));
    let (clone, recursive) = (1, 0x8000);
    // A struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    let set_attr = |path: &str, set: u64, clear: u64, flags: i64| {
        let attr = format!("my $a = pack(\"QQQQ\", {set}, {clear}, 0, 0)");
        perl(&format!("{}, -100, my $p = \"{path}\", {flags}, {attr}, 32", libc::SYS_mount_setattr))
    };
    let read_only = 1;
    c.sh(&open_tree("/etc", clone)).ok();
    c.sh(&open_tree("/mnt", clone)).fails("Invalid argument");
    c.sh(&open_tree("/", clone)).fails("Invalid argument");
    c.sh(&open_tree("/mnt", clone | recursive)).ok();
    c.sh("mkdir -p /tmp/a && mount -t tmpfs none /tmp/a").ok();
    c.sh(&set_attr("/tmp/a", read_only, 0, 0)).ok();
    c.sh("touch /tmp/a/f").fails("Read-only");
    c.sh(&set_attr("/tmp/a", 0, read_only, 0)).ok();
    c.sh("touch /tmp/a/f").ok();
    for path in READ_ONLY {
        c.sh(&set_attr(path, 0, read_only, 0)).fails("Operation not permitted");
        c.sh(&format!("unshare -Urm {}", set_attr(path, 0, read_only, 0))).fails("Operation not permitted");
    }
    c.sh(&set_attr("/", 0, read_only, recursive)).fails("Operation not permitted");
}
