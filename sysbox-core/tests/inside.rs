//! What software inside must be able to do: other containers' everyday work.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{debian, Guard, Lab};
use std::sync::Arc;
use sysbox_core::SystemContainer;
use tempfile::TempDir;

/// A running container on Debian: util-linux and bubblewrap do things that busybox cannot.
struct Debian {
    _tree: Arc<TempDir>,
    lab: Lab,
}

impl Debian {
    fn new(name: &str) -> Option<Debian> {
        Some(Debian { lab: Lab::new(name)?, _tree: debian(name)? })
    }

    fn start(&self) -> Guard<'_> {
        let system = SystemContainer::new(self._tree.path().join("tree")).args(["sleep", "1000"]);
        self.lab.start(&system.tmpfs("/tmp", &["mode=1777"]).to_json())
    }
}

#[test]
fn nested_user_namespaces_with_their_own_proc() {
    let Some(d) = Debian::new("nested_user_namespaces_with_their_own_proc") else { return };
    let c = d.start();
    let nested = "unshare -Urmpf --mount-proc";
    assert_eq!(c.sh(&format!("{nested} sh -c 'echo $$; ls -d /proc/[0-9]* | wc -l'")).ok().lines().next(), Some("1"));
    // Of any user, and in each other.
    c.sh(&format!("setpriv --reuid 1000 --regid 1000 --clear-groups {nested} true")).ok();
    c.sh(&format!("{nested} {nested} sh -c 'test $$ = 1 && ps ax'")).ok();
    c.sh(
        "unshare -Urmn sh -c 'mount -t sysfs none /sys && test -d /sys/class/net/lo && ! test -e /sys/class/net/eth0'",
    )
    .ok();
    // And afterwards there is nothing left.
    c.sh("ps ax | grep -v grep | grep unshare").fails("");
}

#[test]
fn bubblewrap_works() {
    let Some(d) = Debian::new("bubblewrap_works") else { return };
    let c = d.start();
    let box_in = "bwrap --unshare-all --die-with-parent --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp";
    assert_eq!(
        c.sh(&format!("{box_in} sh -c 'echo in $(id -u); ls /proc | grep -c ^1$; touch /x'")).text.lines().next(),
        Some("in 0")
    );
    c.sh(&format!("{box_in} touch /x")).fails("Read-only");
    c.sh(&format!("{box_in} --uid 1000 --gid 1000 id -u")).ok();
    c.sh(&format!("setpriv --reuid 1000 --regid 1000 --clear-groups {box_in} id")).ok();
}

#[test]
fn what_the_kernel_provides_can_be_bound_elsewhere() {
    let Some(d) = Debian::new("what_the_kernel_provides_can_be_bound_elsewhere") else { return };
    let c = d.start();
    c.sh("mkdir /tmp/t").ok();
    for (dir, probe) in [("/dev", "null"), ("/proc", "self/status"), ("/sys", "class/net/lo")] {
        c.sh(&format!(
            "mount --bind {dir} /tmp/t && test -e /tmp/t/{probe} && umount /tmp/t && ! test -e /tmp/t/{probe}"
        ))
        .ok();
        c.sh(&format!(
            "mount --rbind {dir} /tmp/t && test -e /tmp/t/{probe} && umount -R /tmp/t && ! test -e /tmp/t/{probe}"
        ))
        .ok();
        c.sh(&format!("mount --rbind {dir} /tmp/t && mount --make-rslave /tmp/t && umount -R /tmp/t")).ok();
        c.sh(&format!("mount --rbind {dir} /tmp/t && umount -l /tmp/t && test -e {dir}/{probe}")).ok();
    }
    assert_eq!(c.sh("findmnt -Rn /tmp/t; true").ok(), "");
    // With what was attached below.
    c.sh("mount --rbind /dev /tmp/t && echo x > /tmp/t/shm/f && cat /dev/shm/f && test -c /tmp/t/pts/ptmx && umount -R /tmp/t").ok();
    c.sh("mount --rbind / /tmp/t && test -e /tmp/t/etc/passwd && test -c /tmp/t/dev/null && umount -l /tmp/t").ok();
}

#[test]
fn fresh_kernel_file_systems_can_be_mounted() {
    let Some(d) = Debian::new("fresh_kernel_file_systems_can_be_mounted") else { return };
    let c = d.start();
    c.sh("mkdir /tmp/t").ok();
    for (fs, probe) in [
        ("-t proc proc", "self/status"),
        ("-t sysfs sysfs", "class/net/lo"),
        ("-t tmpfs -o size=1m none", "."),
        ("-t devpts -o newinstance,ptmxmode=666 none", "ptmx"),
        ("-t mqueue none", "."),
        ("-t ramfs none", "."),
    ] {
        c.sh(&format!("mount {fs} /tmp/t && test -e /tmp/t/{probe} && umount /tmp/t")).ok();
    }
    c.sh("mkdir -p /tmp/l /tmp/u /tmp/w && echo low > /tmp/l/f && mount -t overlay -o lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w,userxattr o /tmp/t && echo up > /tmp/t/f && cat /tmp/l/f /tmp/u/f && umount /tmp/t").ok();
    // As their own owner sees it, everything may be set in a fresh one.
    c.sh("mount -t proc proc /tmp/t && echo 0 > /tmp/t/sys/net/ipv4/ip_forward && umount /tmp/t").ok();
}

#[test]
fn propagation_can_be_changed() {
    let Some(d) = Debian::new("propagation_can_be_changed") else { return };
    let c = d.start();
    c.sh("mount --make-rshared / && mkdir -p /tmp/a /tmp/b && mount -t tmpfs none /tmp/a && mount --bind /tmp/a /tmp/b && mkdir /tmp/a/in && mount -t tmpfs none /tmp/a/in && touch /tmp/a/in/f && test -e /tmp/b/in/f").ok();
    c.sh("unshare -m --propagation slave sh -c 'mount -t tmpfs none /mnt' && ! mountpoint /mnt").ok();
    c.sh("umount -R /tmp/a /tmp/b; mount --make-rprivate / && mount --make-rslave / && mount --make-rshared /").ok();
    // None of it reached the host.
    let host = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let dir = d._tree.path().to_str().unwrap();
    assert!(!host.contains(dir), "{host}");
}

#[test]
fn namespaces_can_be_entered() {
    let Some(d) = Debian::new("namespaces_can_be_entered") else { return };
    let c = d.start();
    let child = |flags: &str, enter: &str| {
        format!(
            "unshare {flags} sh -c 'hostname nested 2>/dev/null; echo ready > /tmp/ready; exec sleep 100' & \
             u=$!; until [ -s /tmp/ready ]; do sleep 0.01; done; rm /tmp/ready; \
             until p=$(pgrep -f '^sleep 100$' | tail -1); [ -n \"$p\" ]; do sleep 0.01; done; \
             nsenter -t $p {enter} sh -c 'echo name $(hostname)'; r=$?; kill -9 $u $p; exit $r"
        )
    };
    assert_eq!(c.sh(&child("-muinpCTf", "-a")).ok(), "name nested");
    assert_eq!(c.sh(&child("-Urmuinpf --mount-proc", "-U --preserve-credentials -m -u -i -n -p")).ok(), "name nested");
    // Of its own init, from a nested mount namespace.
    c.sh("nsenter -t 1 -a true && unshare -m nsenter -t 1 -a true").ok();
}

#[test]
fn chroots_with_the_binds_of_debootstrap() {
    let Some(d) = Debian::new("chroots_with_the_binds_of_debootstrap") else { return };
    let c = d.start();
    c.sh("mkdir -p /tmp/c/bin /tmp/c/proc /tmp/c/sys /tmp/c/dev /tmp/c/run && cp $(command -v busybox) /tmp/c/bin/sh")
        .ok();
    let build = "set -ex; cd /tmp/c; mount -t proc proc proc; mount -t sysfs sysfs sys; mount --bind /dev dev; mount --bind /dev/pts dev/pts; \
                 mount -t tmpfs none run; chroot . /bin/sh -c 'echo x > /dev/null && test -d /proc/1 && test -e /dev/ptmx'; \
                 umount run dev/pts dev sys proc; test -z \"$(find dev proc sys -mindepth 1)\"";
    c.sh(build).ok();
    let build = "set -ex; cd /tmp/c; for d in proc sys dev run; do mount --rbind /$d $d; mount --make-rslave $d; done; \
                 chroot . /bin/sh -c 'test -c /dev/null && test -d /sys/fs/cgroup && test -d /dev/pts'; umount -R proc sys dev run";
    c.sh(build).ok();
    // A device is bound, since the kernel lets nobody in a user namespace make one; whiteouts and pipes are no devices.
    c.sh("touch /tmp/c/null && mount --bind /dev/null /tmp/c/null && echo x > /tmp/c/null && umount /tmp/c/null").ok();
    c.sh("mknod /tmp/c/whiteout c 0 0 && mkfifo /tmp/c/fifo && chown 5:6 /tmp/c/fifo").ok();
}
