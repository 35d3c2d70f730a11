//! What is not the container's, and a container's root that tries to reach it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{debian, make_dir, perl, pids_with_uid, Lab};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use sysbox_core::cgroup::{Layout, Version};
use sysbox_core::SystemContainer;

#[test]
fn own_limits_cannot_be_raised() {
    let Some(lab) = Lab::new("own_limits_cannot_be_raised") else { return };
    let c = lab.start(&lab.system().memory(64 << 20).pids(50).to_json());
    let layout = Layout::detect().unwrap();
    for (controller, v1, v2, limit) in
        [("memory", "memory.limit_in_bytes", "memory.max", 64 << 20), ("pids", "pids.max", "pids.max", 50)]
    {
        let Some(h) = layout.hierarchies.iter().find(|h| h.has(controller)) else {
            eprintln!("SKIP own_limits_cannot_be_raised: no controller {controller}");
            return;
        };
        let (dir, file) =
            (Path::new("/sys/fs/cgroup").join(&h.directory), if h.version == Version::V1 { v1 } else { v2 });
        let (dir, path) = (dir.display(), dir.join(file).display().to_string());
        let more = limit * 2;
        let limit = limit.to_string();
        assert_eq!(c.sh(&format!("cat {path}")).ok(), limit);
        c.sh(&format!("echo {more} > {path}")).fails("Permission denied");
        c.sh(&format!("unshare -Urm sh -c 'echo {more} > {path}'")).fails("Permission denied");
        c.sh(&format!("chmod 666 {path}")).fails("Operation not permitted");
        c.sh(&format!("chown 0 {path}")).fails("Operation not permitted");
        // A new mount shows the same tree.
        let fs = if h.version == Version::V1 { format!("-t cgroup -o {controller}") } else { "-t cgroup2".into() };
        c.sh(&format!("mkdir -p /tmp/{controller} && mount {fs} none /tmp/{controller}")).ok();
        assert_eq!(c.sh(&format!("cat /tmp/{controller}/{file}")).ok(), limit);
        c.sh(&format!("echo {more} > /tmp/{controller}/{file}")).fails("Permission denied");
        // What it makes below is its own.
        c.sh(&format!("mkdir {dir}/own")).ok();
        if h.version == Version::V1 {
            c.sh(&format!("echo {limit} > {dir}/own/{file} && echo {more} > {dir}/own/{file}")).ok();
            c.sh(&format!("echo $$ > {dir}/own/cgroup.procs && cat {path}")).ok();
        }
        c.sh(&format!("test ! -e {dir}/release_agent")).ok();
        c.sh(&format!("echo $$ > {dir}/../{}/cgroup.procs", h.directory)).ok();
    }
    // And they hold.
    c.sh("for i in $(seq 60); do sleep 100 & done; wait").fails("can't fork");
    c.sh("for i in $(seq 60); do sleep 100 & done; wait").fails("can't fork");
    let memory = c.sh("head -c 100m /dev/zero | tail -c 100m | wc -c");
    assert_ne!(memory.text.trim(), "104857600", "{memory:?}");
}

#[test]
fn processes_of_the_host_are_out_of_reach() {
    let Some(lab) = Lab::new("processes_of_the_host_are_out_of_reach") else { return };
    let (c, other) = (lab.start(&lab.system().to_json()), lab.start(&lab.system().to_json()));
    let mine = std::process::id();
    // A pid that exists on both sides would prove nothing.
    c.sh(&format!("sleep 1000 & kill -0 $!; test ! -e /proc/{mine}")).ok();
    c.sh(&format!("kill -0 {mine}")).fails("No such process");
    c.sh(&format!("kill -9 {}", other.pid().unwrap())).fails("No such process");
    c.sh("kill -9 -1").ok();
    assert!(c.pid().is_some() && other.pid().is_some());
    let pids = c.sh("ls -d /proc/[0-9]* | wc -l").ok();
    assert!(pids.parse::<u32>().unwrap() < 10, "{pids} processes are seen");
    // Nor is there a way up by the init's directories.
    assert_eq!(c.sh("ls /proc/1/root/").ok(), c.sh("ls /").ok());
    assert_eq!(c.sh("ls /proc/1/cwd/../..").ok(), c.sh("ls /").ok());
}

#[test]
fn containers_have_disjoint_ids_and_namespaces() {
    let Some(lab) = Lab::new("containers_have_disjoint_ids_and_namespaces") else { return };
    let (a, b) = (lab.start(&lab.system().to_json()), lab.start(&lab.system().to_json()));
    for (x, y) in [(&a, &b), (&b, &a)] {
        for (m, n) in [
            (x.maps().unwrap().uid.ranges(), y.maps().unwrap().uid.ranges()),
            (x.maps().unwrap().gid.ranges(), y.maps().unwrap().gid.ranges()),
        ] {
            for r in m {
                assert!(r.outside > 0 && r.count >= 65536, "{r:?}");
                assert!(n.iter().all(|s| u64::from(r.outside) + u64::from(r.count) <= s.outside.into()
                    || u64::from(s.outside) + u64::from(s.count) <= r.outside.into()));
            }
        }
        // The kernel thinks so too.
        let r = &x.maps().unwrap().uid.ranges()[0];
        let pids = pids_with_uid(r.outside, r.count);
        assert!(pids.contains(&x.pid().unwrap()) && !pids.contains(&y.pid().unwrap()), "{pids:?}");
    }
    for ns in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time"] {
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{ns}")).unwrap();
        let (host, a, b) = (of("self"), of(&a.pid().unwrap().to_string()), of(&b.pid().unwrap().to_string()));
        assert!(host != a && host != b && a != b, "{ns}: {host:?} {a:?} {b:?}");
    }
}

#[test]
fn devices_of_the_host_are_out_of_reach() {
    let Some(lab) = Lab::new("devices_of_the_host_are_out_of_reach") else { return };
    use nix::sys::stat::{makedev, mknod, Mode, SFlag};
    let mode = Mode::from_bits_truncate(0o666);
    let devices = [
        ("mem", SFlag::S_IFCHR, 1, 1),
        ("disk", SFlag::S_IFBLK, 8, 0),
        ("loop", SFlag::S_IFBLK, 7, 0),
        ("kmsg", SFlag::S_IFCHR, 1, 11),
    ];
    make_dir(&lab.path("bind"));
    for dir in [lab.tree().join("mnt"), lab.path("bind")] {
        for (name, kind, major, minor) in devices {
            mknod(&dir.join(name), kind, mode, makedev(major, minor)).unwrap();
            nix::sys::stat::fchmodat(
                nix::fcntl::AT_FDCWD,
                &dir.join(name),
                mode,
                nix::sys::stat::FchmodatFlags::FollowSymlink,
            )
            .unwrap();
        }
        mknod(&dir.join("null"), SFlag::S_IFCHR, mode, makedev(1, 3)).unwrap();
    }
    let c = lab.start(&lab.system().bind(lab.path("bind"), "/srv", false).to_json());
    c.sh("mkfifo /tmp/p; echo > /dev/null; head -c1 /dev/urandom | wc -c; : < /dev/net/tun; : < /dev/fuse").ok();
    for (name, kind, major, minor) in devices {
        let (letter, test) = if kind == SFlag::S_IFBLK { ("b", "-b") } else { ("c", "-c") };
        c.sh(&format!("mknod /tmp/x {letter} {major} {minor}")).fails("Operation not permitted");
        c.sh(&format!("mknod /dev/x {letter} {major} {minor}")).fails("Operation not permitted");
        for dir in ["/mnt", "/srv"] {
            c.sh(&format!("test {test} {dir}/{name}")).ok();
            for open in ["<", ">", "<>"] {
                let refused = c.sh(&format!(": {open} {dir}/{name}"));
                assert!(refused.exit.code() != 0, "{dir}/{name} {open}");
                assert!(refused.text.contains("not permitted") || refused.text.contains("denied"), "{}", refused.text);
            }
        }
    }
    // /dev/kmsg swallows what it is told and says nothing.
    assert_eq!(c.sh("echo to nobody > /dev/kmsg; cat /dev/kmsg").ok(), "");
    let v1 = Layout::detect().unwrap().v1("devices").is_some();
    if v1 {
        c.sh("echo a > /sys/fs/cgroup/devices/devices.allow").fails("ermi");
    }
}

#[test]
fn settings_of_the_host_are_out_of_reach() {
    let Some(lab) = Lab::new("settings_of_the_host_are_out_of_reach") else { return };
    // What lies under the container's own files.
    let mut doc = lab.system().to_json();
    doc["annotations"] = serde_json::json!({ "sysbox.nodes": "off" });
    let c = lab.start(&doc);
    // What belongs to its namespaces is its own.
    c.sh("echo 1 > /proc/sys/net/ipv4/ip_forward && cat /proc/sys/net/ipv4/ip_forward").ok();
    c.sh("hostname changed && echo 123456 > /proc/sys/kernel/shmmax && ip link set lo down").ok();
    assert_ne!(nix::unistd::gethostname().unwrap(), "changed");
    let files = [
        "/proc/sys/kernel/panic",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/fs/file-max",
        "/proc/sys/kernel/sysrq",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
        "/sys/power/state",
        "/sys/kernel/mm/transparent_hugepage/enabled",
    ];
    let mut tried = 0;
    for file in files.iter().filter(|f| Path::new(f).exists()) {
        tried += 1;
        // An empty write would change nothing if it got through.
        for within in ["", "unshare -Urm ", "unshare -Urmpf --mount-proc "] {
            c.sh(&format!("{within}sh -c 'exec 3>> {file}'")).fails("denied");
        }
        c.sh(&format!("chmod 777 {file}")).fails("Operation not permitted");
    }
    assert!(tried > 4, "nothing here to try");
    if Path::new("/proc/kcore").exists() {
        c.sh("cat /proc/kcore").fails("denied");
    }
    c.sh("dmesg -c").fails("Operation not permitted");
    c.sh("date -s 2000-01-01 2>&1 | grep 'Operation not permitted'").ok();
    c.sh("swapoff -a; swapon /bin/busybox").fails("Operation not permitted");
    if Path::new("/proc/modules").exists() {
        c.sh("insmod /bin/busybox").fails("Operation not permitted");
    }
}

#[test]
fn files_of_the_host_are_out_of_reach() {
    let Some(lab) = Lab::new("files_of_the_host_are_out_of_reach") else { return };
    let outside = lab.path("outside");
    std::fs::write(&outside, "secret").unwrap();
    let up = "../".repeat(20) + outside.strip_prefix("/").unwrap().to_str().unwrap();
    // A target that leads out of the tree, were it followed as the host follows it.
    make_dir(&lab.path("data"));
    std::fs::write(lab.path("data/file"), "data").unwrap();
    make_dir(&lab.tree().join("var/escape"));
    std::os::unix::fs::symlink("/var/escape", lab.tree().join("link")).unwrap();
    std::os::unix::fs::symlink(&up, lab.tree().join("up")).unwrap();
    let c = lab.start(&lab.system().bind(lab.path("data"), "/link/in", false).to_json());
    assert_eq!(c.sh("cat /var/escape/in/file").ok(), "data");
    assert!(!Path::new("/var/escape").exists());
    c.sh("cat /up").fails("No such file");
    c.sh(&format!("cat {}", outside.display())).fails("No such file");
    c.sh("mkdir /tmp/r && cd / && chroot /tmp/r /bin/sh").fails("No such file");
    // The classic way out of a chroot.
    c.sh("mkdir -p /tmp/r/bin && cp /bin/busybox /tmp/r/bin/sh && chroot /tmp/r /bin/sh -c 'cd ../../../../..; pwd'")
        .ok();
    let mounts = c.sh("cat /proc/self/mountinfo").ok();
    assert!(!mounts.contains("/state"), "{mounts}");
    let fds = c.sh("ls -l /proc/1/fd/ /proc/self/fd/").ok();
    assert!(!fds.contains("/state") && !fds.contains("socket:"), "{fds}");
}

#[test]
fn an_init_that_waits_is_out_of_reach() {
    let name = "an_init_that_waits_is_out_of_reach";
    let (Some(lab), Some(debian)) = (Lab::new(name), debian(name)) else { return };
    let system = SystemContainer::new(debian.path().join("tree")).args(["sleep", "1000"]);
    let mut c = lab.create(&system.to_json());
    let reads = [
        "ls /proc/1/fd/",
        "ls -L /proc/1/root/",
        "ls -L /proc/1/cwd/",
        "stat -L /proc/1/exe",
        "cat /proc/1/environ",
        "cat /proc/1/maps",
        "head -c1 /proc/1/mem",
    ];
    for read in reads {
        // The same of a process of its own.
        if !read.contains("mem") {
            c.sh(&format!("sleep 100 & {}; r=$?; kill $!; exit $r", read.replace("/1/", "/$!/"))).ok();
        }
        let o = c.sh(read);
        assert!(o.exit.code() != 0 && (o.text.contains("denied") || o.text.contains("not permitted")), "{read}: {o:?}");
        let o = c.sh(&format!("unshare -Urpf {read}"));
        assert!(o.exit.code() != 0, "{read}: {o:?}");
    }
    let attach = "sleep 100 & timeout -s INT 0.3 strace -q -o /dev/null -p $!; r=$?; kill $!; test $r = 124";
    c.sh(attach).ok();
    c.sh("timeout 20 strace -q -p 1").fails("not permitted");
    c.sh("timeout 20 nsenter -t 1 -m true").fails("denied");
    c.container.start().unwrap();
    c.sh("ls /proc/1/fd/ && nsenter -t 1 -m true").ok();
}

#[test]
fn the_session_keyring_is_not_shared() {
    let name = "the_session_keyring_is_not_shared";
    let (Some(lab), Some(debian)) = (Lab::new(name), debian(name)) else { return };
    let system = SystemContainer::new(debian.path().join("tree")).args(["sh", "-c", "cat /proc/keys; sleep 1000"]);
    let c = lab.start(&system.to_json());
    c.await_word("_ses.");
    // KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING.
    let id = perl(&format!("{}, 0, -3, 0", libc::SYS_keyctl));
    let own = c.sh(&id).ok();
    let keys = c.sh("cat /proc/keys").ok();
    let hex = format!("{:08x}", own.parse::<i64>().unwrap());
    assert!(keys.lines().any(|l| l.starts_with(&hex) && l.contains("_ses.")), "{hex} in {keys}");
    // Keyrings of earlier containers with the same IDs may be there until the kernel collects them; the creator's may not.
    let host = std::process::Command::new("sh").args(["-c", &id]).output().unwrap();
    let host: i64 = String::from_utf8(host.stdout).unwrap().trim().parse().unwrap();
    assert_ne!(own, host.to_string());
    assert!(!keys.lines().any(|l| l.starts_with(&format!("{host:08x}"))), "{host:08x} in {keys}");
}

#[test]
fn a_socket_of_the_host_is_not_mapped() {
    let name = "a_socket_of_the_host_is_not_mapped";
    let (Some(lab), Some(debian)) = (Lab::new(name), debian(name)) else { return };
    let path = lab.path("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let system = SystemContainer::new(debian.path().join("tree")).args(["sleep", "1000"]);
    let c = lab.start(&system.bind(&path, "/mnt/socket", false).to_json());
    let connect = "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Peer => \"/mnt/socket\") or die \"$!\\n\"'";
    for (mode, owner) in [(0o600, "65534"), (0o660, "65534")] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        c.sh(connect).fails("Permission denied");
        c.sh(&format!("unshare -Ur {connect}")).fails("Permission denied");
        assert_eq!(c.sh("stat -c %u /mnt/socket").ok(), owner);
        c.sh("chmod 666 /mnt/socket").fails("Operation not permitted");
    }
    // Who opens it to all opens it to the container.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    c.sh(connect).ok();
    listener.accept().unwrap();
}
