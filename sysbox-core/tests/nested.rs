//! Nodes on mounts of proc and sysfs made inside, and sysinfo(2): calls that the monitor answers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{debian, monitor_pid, pids_with_uid, poll_until, Guard, Lab};
use serde_json::{json, Value};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use sysbox_core::container::MonitorStatus;
use sysbox_core::SystemContainer;

const MIB: u64 = 1 << 20;

/// With nodes in inner containers, and limits that make live nodes differ.
fn nested(mut doc: Value) -> Value {
    doc["annotations"] = json!({"sysbox.nested-nodes": "true"});
    doc["linux"]["resources"] = json!({"memory": {"limit": 256 * MIB}, "cpu": {"cpus": "0"}});
    doc
}

fn start(lab: &Lab) -> Guard<'_> {
    provide(&lab.tree());
    lab.start(&nested(lab.doc("mkdir -p /p /s /t; echo up; exec sleep 1000")))
}

/// Whether the mount of proc at $1 carries nodes: a stored one is written and read back, a live one follows the limit.
const CARRIES: &str = r#"#!/bin/sh
for value in 77 0; do
    echo $value > $1/sys/kernel/panic && grep -qx $value $1/sys/kernel/panic || { echo "no stored nodes in $1"; exit 1; }
done
grep -q '^MemTotal: *262144 kB' $1/meminfo || { echo "no live nodes in $1"; exit 1; }
"#;

fn provide(tree: &Path) {
    let file = tree.join("bin/carries");
    std::fs::write(&file, CARRIES).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A line of /proc/PID/status.
fn status(pid: i32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).unwrap().trim().to_owned()
}

#[test]
fn mounts_inside_carry_the_nodes() {
    let Some(lab) = Lab::new("mounts_inside_carry_the_nodes") else { return };
    let c = start(&lab);
    c.await_word("up");
    c.sh("mount -t proc proc /p && carries /p").ok();
    c.sh("mount -t sysfs sysfs /s && grep -qx 0 /s/devices/system/cpu/online").ok();
    // Each is what the caller's namespaces make of it.
    // What has mounted it ends a moment later.
    let own = "unshare -mpf sh -c 'mount -t proc proc /p && cat /p/1/comm
        for i in $(seq 50); do set -- /p/[0-9]*; test $# = 1 && break; sleep 0.1; done; echo $#'";
    assert_eq!(c.sh(own).ok(), "sh\n1");
    c.sh("unshare -mpf --mount-proc carries /proc").ok();
    c.sh("unshare -Urmpf --mount-proc carries /proc").ok();
    c.sh("unshare -Urm unshare -Urmpf --mount-proc carries /proc").ok();
    // In a root of one's own, where there is no other proc.
    c.sh("mkdir -p /r/bin /r/proc && cp /bin/busybox /bin/carries /r/bin && chroot /r /bin/busybox sh -c '
        for a in sh mount grep; do /bin/busybox ln -s busybox /bin/$a; done
        mount -t proc proc proc && carries /proc'")
        .ok();
    // Options and flags are the caller's, and so are the errors.
    c.sh("mount -t proc -o subset=pid,hidepid=2 proc /t && test ! -e /t/meminfo && grep -q ' /t .*hidepid=invisible' /proc/mounts").ok();
    c.sh("mount -t proc -o ro,nosuid proc /t && grep -q ' /t proc ro,nosuid' /proc/mounts").ok();
    c.sh("echo 1 > /t/sys/kernel/panic").fails("read-only");
    c.sh("mount -t proc -o nonsense proc /t").fails("invalid argument");
    c.sh("mount -t proc proc /nowhere").fails("no such file");
    c.sh("mount -t proc proc /bin/busybox").fails("not a directory");
}

#[test]
fn mounts_over_a_node_stay_where_they_are_made() {
    let Some(lab) = Lab::new("mounts_over_a_node_stay_where_they_are_made") else { return };
    let c = start(&lab);
    c.await_word("up");
    // As systemd does.
    c.sh("mount --make-rshared /").ok();
    let inner = "carries /proc && echo mine > /p/mine && mount --bind /p/mine /proc/meminfo && cat /proc/meminfo";
    assert_eq!(c.sh(&format!("unshare -mpf --mount-proc sh -c '{inner}'")).ok(), "mine");
    c.sh("carries /proc && ! grep -q ' /proc/meminfo proc\\| /p/mine' /proc/mounts").ok();
    // Where mounts go on to other namespaces, so do those with nodes.
    let other =
        "unshare -m --propagation slave sh -c 'echo > /ready; until test -e /go; do sleep 0.1; done; carries /p'";
    let main = "until test -e /ready; do sleep 0.1; done; mount -t proc proc /p && carries /p && echo > /go";
    c.sh(&format!("{other} & {main} && wait $! && umount /p && ! test -e /p/1")).ok();
}

#[test]
fn what_carries_nodes_is_unmounted_as_ever() {
    let Some(lab) = Lab::new("what_carries_nodes_is_unmounted_as_ever") else { return };
    let c = start(&lab);
    c.await_word("up");
    let mounts = || c.sh("wc -l < /proc/mounts").ok();
    let before = mounts();
    c.sh("mount -t proc proc /p && carries /p && umount /p && rmdir /p && mkdir /p").ok();
    c.sh("mount -t sysfs sysfs /s && umount /s").ok();
    c.sh("cd /s && mount -t sysfs sysfs ../p && umount ../p").ok();
    c.sh("unshare -Urmpf sh -c 'mount -t proc proc /p && carries /p && umount /p && ! test -e /p/1'").ok();
    c.sh("mount -t proc proc /p && umount -l /p").ok();
    assert_eq!(mounts(), before);
    // What is busy stays, with its nodes.
    c.sh("mount -t proc proc /p && cd /p/1 && umount /p").fails("busy");
    c.sh("carries /p && umount /p").ok();
    c.sh("mount -t proc proc /p && mount -t tmpfs none /p/tty && umount /p").fails("busy");
    c.sh("carries /p && umount /p/tty && umount /p").ok();
    // As the caller may.
    c.sh("mount -t proc proc /p").ok();
    let user = json!({"args": ["umount", "/p"], "user": {"uid": 1000, "gid": 1000}});
    c.exec(&user).unwrap().fails("permitted");
    c.sh("unshare -Urm umount /p").fails("invalid argument");
    c.sh("carries /p && umount /p; umount /nowhere").fails("no such file");
    c.sh("umount /t").fails("invalid argument");
    c.sh("umount /proc").fails("invalid argument");
    c.sh("carries /proc").ok();
    assert_eq!(mounts(), before);
}

#[test]
fn the_caller_has_no_more_rights_than_it_has() {
    let Some(lab) = Lab::new("the_caller_has_no_more_rights_than_it_has") else { return };
    let c = start(&lab);
    c.await_word("up");
    let user = |args: &[&str]| c.exec(&json!({"args": args, "user": {"uid": 1000, "gid": 1000}})).unwrap();
    user(&["mount", "-t", "proc", "proc", "/p"]).fails("permission denied");
    // Not over somebody else's mounts: a user namespace of its own, but no mount namespace.
    c.sh("unshare -Ur mount -t proc proc /p").fails("permission denied");
    // Nor a procfs of a pid namespace that is not its own.
    c.sh("unshare -Urm mount -t proc proc /p").fails("permission denied");
    c.sh("unshare -Urmp mount -t sysfs sysfs /s").fails("permission denied");
    // A program that somebody without IDs in his own user namespace runs has no rights.
    c.sh("unshare -Umpf sh -c 'id -u; mount -t proc proc /p'").fails("65534\nmount: permission denied");
    // A directory of root's alone is no target for a user who is root of his own.
    c.sh("mkdir -m 700 /hidden && mkdir /hidden/d").ok();
    let script = "unshare -Urmpf sh -c 'mount -t proc proc /hidden/d'";
    user(&["sh", "-c", script]).fails("permission denied");
    user(&["unshare", "-Urmpf", "--mount-proc", "cat", "/proc/self/comm"]).ok();
}

#[test]
fn a_threads_rights_are_its_own() {
    let name = "a_threads_rights_are_its_own";
    let Some(lab) = Lab::new(name) else { return };
    let Some(()) = provide_program(name, "threads", &lab.tree()) else { return };
    let c = start(&lab);
    c.await_word("up");
    assert_eq!(c.sh("threads /p").ok(), "mounted\nOperation not permitted");
    c.sh("carries /p && umount /p && ! umount /p").ok();
}

#[test]
fn what_is_no_proc_is_the_kernels() {
    let Some(lab) = Lab::new("what_is_no_proc_is_the_kernels") else { return };
    let c = start(&lab);
    c.await_word("up");
    c.sh("mount -t tmpfs -o size=1m mine /t && grep -q '^mine /t tmpfs.*size=1024k' /proc/mounts").ok();
    c.sh("mount --bind /proc /p && mount -o remount,bind,ro /p && mount --make-private /p && umount /p").ok();
    c.sh("mount -t nonsense x /t").fails("no such device");
    c.sh("mount -t devpts devpts /s && test -e /s/ptmx").ok();
}

/// An i386 program that mounts a tmpfs on /t, a procfs on /p, and exits with the errno of either.
fn program_of_32_bits() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const START: u32 = BASE + 52 + 32;
    let mut code: Vec<u8> = Vec::new();
    // mov eax, ebx, ecx, edx, esi, edi; int 0x80; then neg eax; jne to the end.
    let call = |code: &mut Vec<u8>, target: u32, fstype: u32| {
        for (register, value) in [(0, 21), (3, fstype), (1, target), (2, fstype), (6, 0), (7, 0)] {
            code.push(0xb8 + register);
            code.extend(u32::to_le_bytes(value));
        }
        code.extend([0xcd, 0x80, 0xf7, 0xd8]);
    };
    let strings = START + 2 * 34 + 2 + 6;
    call(&mut code, strings, strings + 3);
    code.extend([0x75, 34]);
    call(&mut code, strings + 9, strings + 12);
    // xchg ebx, eax; xor eax, eax; inc eax; int 0x80: exit.
    code.extend([0x93, 0x31, 0xc0, 0x40, 0xcd, 0x80]);
    assert_eq!(START + code.len() as u32, strings);
    code.extend(b"/t\0tmpfs\0/p\0proc\0");
    let size = 52 + 32 + code.len() as u32;
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    for word in [1, START, 52, 0, 0, 52 | 32 << 16, 1, 0, 1, 0, BASE, BASE, size, size, 5, 0x1000] {
        elf.extend(u32::to_le_bytes(word));
    }
    elf.extend(code);
    elf
}

#[test]
fn programs_of_32_bits_mount_what_the_kernel_has() {
    let name = "programs_of_32_bits_mount_what_the_kernel_has";
    let Some(lab) = Lab::new(name) else { return };
    let file = lab.tree().join("bin/small");
    std::fs::write(&file, program_of_32_bits()).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    let c = start(&lab);
    c.await_word("up");
    let Ok(done) = c.exec(&json!({"args": ["/bin/small"]})) else {
        return eprintln!("SKIP {name}: this machine runs no i386 programs");
    };
    done.ok();
    c.sh("grep -q ' /t tmpfs' /proc/mounts && grep -q ' /p proc' /proc/mounts && ! echo 1 > /p/sys/kernel/panic").ok();
}

#[test]
fn sysinfo_says_what_the_limits_are() {
    let Some(lab) = Lab::new("sysinfo_says_what_the_limits_are") else { return };
    let c = start(&lab);
    c.await_word("up");
    // busybox asks sysinfo(2) for memory, and meminfo for what can be had.
    let free = c.sh("free -k").ok();
    let total = free.lines().nth(1).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(total, "262144", "{free}");
    let uptime = c.sh("uptime").ok();
    assert!(uptime.contains("up 0 min") || uptime.contains("up 1 min"), "{uptime}");
    c.exec(&json!({"args": ["free"], "user": {"uid": 1000, "gid": 1000}})).unwrap().ok();
    // Of an inner limit, too.
    let inner = "d=/sys/fs/cgroup/memory; test -d $d || d=/sys/fs/cgroup; mkdir $d/in;
        f=$d/in/memory.limit_in_bytes; test -e $f || f=$d/in/memory.max; echo 67108864 > $f;
        sh -c \"echo \\$\\$ > $d/in/cgroup.procs; exec free -k\"";
    let free = c.sh(inner).ok();
    assert_eq!(free.lines().nth(1).unwrap().split_whitespace().nth(1), Some("65536"), "{free}");
}

#[test]
fn without_the_request_nothing_is_trapped() {
    let Some(lab) = Lab::new("without_the_request_nothing_is_trapped") else { return };
    let mut doc = nested(lab.doc("sleep 1000"));
    let filters = |c: &Guard<'_>| status(c.pid().unwrap(), "Seccomp_filters");
    let with = lab.start(&doc);
    doc["annotations"] = json!({});
    let without = lab.start(&doc);
    assert_eq!((filters(&with).as_str(), filters(&without).as_str()), ("1", "0"));
    assert_eq!(status(without.pid().unwrap(), "Seccomp"), "0");
    assert_eq!(status(monitor_pid(&without), "CapEff"), "0000000000000000");
    without.sh("mkdir /p && mount -t proc proc /p && ! echo 5 > /p/sys/kernel/panic").ok();
    // It needs no limits, and no live nodes.
    let c = lab.start(&{
        let mut doc = lab.doc("sleep 1000");
        doc["annotations"] = json!({"sysbox.nested-nodes": "true", "sysbox.nodes": "stored"});
        doc
    });
    monitor_pid(&c);
    c.sh("mkdir -p /p && mount -t proc proc /p && echo 5 > /p/sys/kernel/panic").ok();
    doc["annotations"] = json!({"sysbox.nested-nodes": "true", "sysbox.nodes": "off"});
    let e = lab.try_create(&doc, sysbox_core::Stdio::default()).err().unwrap();
    assert!(e.to_string().contains("sysbox.nested-nodes"), "{e}");
}

#[test]
fn a_killed_monitor_is_an_error_at_once() {
    let Some(lab) = Lab::new("a_killed_monitor_is_an_error_at_once") else { return };
    provide(&lab.tree());
    let doc = nested(lab.doc(
        "mkdir /p /t; mount -t proc proc /p && carries /p && umount -l /p; echo before $?
        until test -e /go; do sleep 0.1; done
        mount -t proc proc /p; mount -t tmpfs none /t; mount --bind /tmp /t && echo bound; echo after; exec sleep 1000",
    ));
    let c = lab.start(&doc);
    c.await_word("before 0");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(monitor_pid(&c)), nix::sys::signal::Signal::SIGKILL).unwrap();
    poll_until("the death of the monitor", || c.monitor() == MonitorStatus::Dead);
    std::fs::write(lab.tree().join("go"), "").unwrap();
    c.await_word("after");
    assert_eq!(c.printed().matches("Function not implemented").count(), 2, "{}", c.printed());
    assert!(c.printed().contains("bound"), "{}", c.printed());
    // A program that is run from now on has the new monitor's ear.
    c.sh("mount -t proc proc /p && carries /p").ok();
    monitor_pid(&c);
}

fn kill_monitor(c: &Guard<'_>) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(monitor_pid(c)), nix::sys::signal::Signal::SIGKILL).unwrap();
    poll_until("the death of the monitor", || c.monitor() == MonitorStatus::Dead);
}

#[test]
fn another_monitor_knows_of_nodes_put_before() {
    let Some(lab) = Lab::new("another_monitor_knows_of_nodes_put_before") else { return };
    let c = start(&lab);
    c.await_word("up");
    for _ in 0..2 {
        c.sh("mount -t proc proc /p && carries /p").ok();
        kill_monitor(&c);
        c.sh("umount /p && ! test -e /p/1").ok();
    }
    // What stays busy keeps what it has.
    c.sh("mount -t proc proc /p").ok();
    kill_monitor(&c);
    c.sh("cd /p/1 && umount /p").fails("busy");
    c.sh("echo 5 > /p/sys/kernel/panic && ! cat /p/meminfo && umount /p && ! test -e /p/1").ok();
}

#[test]
fn programs_at_once_wait_for_another_monitor() {
    let Some(lab) = Lab::new("programs_at_once_wait_for_another_monitor") else { return };
    let c = start(&lab);
    c.await_word("up");
    let id = c.id().to_owned();
    for round in 0..3 {
        kill_monitor(&c);
        if round == 2 {
            // One that has been given up is tried again by who needs it.
            std::fs::write(lab.path("state").join(&id).join("monitor.lost"), "").unwrap();
        }
        std::thread::scope(|s| {
            let run = |i: i32| {
                // There is one value for all of them.
                let has = "echo 7 > sys/kernel/panic && grep -q '^MemTotal: *262144 kB' meminfo";
                c.sh(&format!("mkdir -p /q{i} && mount -t proc proc /q{i} && cd /q{i} && {has}"))
            };
            let all: Vec<_> = (0..4).map(|i| s.spawn(move || run(i))).collect();
            all.into_iter().for_each(|t| drop(t.join().unwrap().ok()));
        });
        c.sh("for i in 0 1 2 3; do umount -l /q$i || exit 1; done").ok();
    }
}

/// Pids of the monitor and of all that has come from it and is root inside.
fn monitors(c: &Guard<'_>) -> Vec<i32> {
    at_work(c, 0)
}

#[test]
fn a_call_that_takes_too_long_fails() {
    let Some(lab) = Lab::new("a_call_that_takes_too_long_fails") else { return };
    provide(&lab.tree());
    let c =
        lab.start(&nested(lab.doc("mkdir /p; while :; do mount -t proc proc /p || echo failed; umount -l /p; done")));
    let monitor = monitor_pid(&c);
    // One of the two processes that work for a call; the other must not be left.
    let file = |pid: i32, name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let own = file(c.pid().unwrap(), "cgroup");
    let memory = |text: &str| text.lines().find_map(|l| l.split_once("memory:")).map(|(_, path)| path.to_owned());
    poll_until("a child to stop", || {
        use nix::sys::signal::{kill, Signal};
        let Some(found) = monitors(&c).into_iter().find(|p| *p != monitor) else { return false };
        let found = nix::unistd::Pid::from_raw(found);
        let stopped = kill(found, Signal::SIGSTOP).is_ok() && file(found.as_raw(), "stat").contains(") T ");
        // By then it is subject to the container's limits, unless it has just been born.
        if stopped && memory(&file(found.as_raw(), "cgroup")) == memory(&own) {
            return true;
        }
        let _ = kill(found, Signal::SIGCONT);
        false
    });
    // Others are served meanwhile.
    c.sh("mkdir /q && mount -t proc proc /q && carries /q").ok();
    c.await_word("failed");
    assert!(c.printed().contains("timed out"), "{}", c.printed());
    c.kill_all(libc::SIGKILL).unwrap();
    c.finish();
    poll_until("the end of all of it", || monitors(&c).is_empty());
}

/// Puts a program of tests/programs into the tree.
fn provide_program(test: &str, program: &str, tree: &Path) -> Option<()> {
    let source = format!("{}/tests/programs/{program}.c", env!("CARGO_MANIFEST_DIR"));
    let made =
        Command::new("cc").args(["-static", "-pthread", "-o"]).arg(tree.join("bin").join(program)).arg(source).output();
    let Ok(made) = made else {
        eprintln!("SKIP {test}: no C compiler");
        return None;
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(())
}

/// What has come from the monitor and has this ID inside.
fn at_work(c: &Guard<'_>, id: u32) -> Vec<i32> {
    let name = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let first = c.maps().unwrap().uid.to_outside(id).unwrap();
    pids_with_uid(first, 1).into_iter().filter(|p| name(p).starts_with("sysbox-monitor")).collect()
}

#[test]
fn children_that_cannot_be_killed_are_few() {
    let name = "children_that_cannot_be_killed_are_few";
    let Some(lab) = Lab::new(name) else { return };
    let Some(()) = provide_program(name, "silent_fuse", &lab.tree()) else { return };
    provide(&lab.tree());
    let mut doc = nested(lab.doc("mkdir -p /p /t /f; silent_fuse /f & exec sleep 1000"));
    doc["linux"]["resources"]["pids"] = json!({"limit": 500});
    let c = lab.start(&doc);
    c.await_word("serves");
    let monitor = monitor_pid(&c);
    c.sh("for i in $(seq 60); do mount -t proc proc /f/x >>/said 2>&1 & done").ok();
    let children = || {
        let text = std::fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).unwrap();
        text.split_whitespace().count()
    };
    // Each with one of its own.
    poll_until("children that are stuck", || children() == 32 && monitors(&c).len() == 65);
    poll_until("the end of the others", || {
        std::fs::read_to_string(lab.tree().join("said")).is_ok_and(|t| t.matches("timed out").count() == 32)
    });
    // From here on the kernel does it.
    c.sh("mount -t proc proc /p && ! carries /p && umount /p && mount -t tmpfs none /t").ok();
    assert_eq!((children(), monitors(&c).len()), (32, 65));
    // They count to the container's processes, those that make the call at least.
    let group = |pid: i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        text.lines().filter(|l| l.contains(":pids:") || l.starts_with("0::/")).map(str::to_owned).collect::<Vec<_>>()
    };
    let limited = |g: &[String]| g.iter().find(|l| l.contains(":pids:")).or(g.last()).cloned();
    let own = limited(&group(c.pid().unwrap()));
    assert!(monitors(&c).into_iter().filter(|p| *p != monitor).all(|p| limited(&group(p)) == own));
    assert_ne!(limited(&group(monitor)), own);
    c.sh("killall silent_fuse").ok();
    poll_until("the end of them", || monitors(&c) == [monitor]);
    c.sh("mount -t proc proc /p && carries /p").ok();
}

#[test]
fn a_file_system_that_does_not_answer_does_not_keep_callers_waiting() {
    let name = "a_file_system_that_does_not_answer_does_not_keep_callers_waiting";
    let Some(lab) = Lab::new(name) else { return };
    let Some(()) = provide_program(name, "silent_fuse", &lab.tree()) else { return };
    let c = lab.start(&nested(lab.doc("mkdir /p; silent_fuse - /p /gone & exec sleep 1000")));
    c.await_word("serves");
    let monitor = monitor_pid(&c);
    // Until there is a signal for it, it only sleeps.
    let asks = format!("{} ", libc::SYS_fstatfs);
    let is_stuck =
        |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|s| s.starts_with(&asks));
    poll_until("a child that is stuck", || monitors(&c).into_iter().any(|p| p != monitor && is_stuck(p)));
    kill_monitor(&c);
    poll_until("an answer", || lab.tree().join("gone").exists());
    assert!(c.printed().contains("move_mount: Function not implemented"), "{}", c.printed());
}

#[test]
fn one_user_does_not_keep_the_others_waiting() {
    let name = "one_user_does_not_keep_the_others_waiting";
    let Some(lab) = Lab::new(name) else { return };
    let Some(()) = provide_program(name, "silent_fuse", &lab.tree()) else { return };
    provide(&lab.tree());
    let c = lab.start(&nested(lab.doc("mkdir -p /p /f; echo up; exec sleep 1000")));
    c.await_word("up");
    let script = "silent_fuse /f & until grep -q \" /f \" /proc/mounts; do sleep 0.1; done; for i in $(seq 16); do mount -t proc proc /f/x & done; exec sleep 100";
    let user = json!({"args": ["sh", "-c", format!("unshare -Urmpf sh -c '{script}' >/dev/null 2>&1 &")], "user": {"uid": 1000, "gid": 1000}});
    c.exec(&user).unwrap().ok();
    // Each is given up after five seconds, cannot be killed, and the next one takes its place.
    poll_until("calls that wait", || at_work(&c, 1000).len() >= 4);
    c.sh("mount -t proc proc /p && carries /p && free >/dev/null").ok();
    // All sixteen would be there at once.
    assert!(at_work(&c, 1000).len() <= 12);
    poll_until("calls that wait", || at_work(&c, 1000).len() >= 8);
}

#[test]
fn it_can_do_nothing_outside() {
    let Some(lab) = Lab::new("it_can_do_nothing_outside") else { return };
    let c = start(&lab);
    c.await_word("up");
    c.sh("mount -t proc proc /p && carries /p && free").ok();
    let pid = monitor_pid(&c);
    let root = c.maps().unwrap().uid.to_outside(0).unwrap().to_string();
    assert!(status(pid, "Uid").split_whitespace().all(|u| u == root));
    assert_eq!((status(pid, "Seccomp").as_str(), status(pid, "NoNewPrivs").as_str()), ("2", "1"));
    let namespace = |pid: i32, name: &str| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
    let init = c.pid().unwrap();
    assert_eq!(namespace(pid, "user"), namespace(init, "user"));
    assert_ne!(namespace(pid, "pid"), namespace(init, "pid"));
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    // It tells nobody where the runtime is: as much of its name is there as there was room for.
    let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let arguments = arguments.trim_end_matches('\0');
    assert!(arguments.len() > 5 && "sysbox-monitor".starts_with(arguments), "{arguments:?}");
    // No child is left, and nobody inside sees it.
    let children = || std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    poll_until("the end of its children", || children().is_empty());
    assert_eq!(c.sh("grep -l sysbox-mon /proc/[0-9]*/comm | wc -l").ok(), "0");
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|l| l.strip_prefix("Anonymous:")).unwrap();
    let private: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
    eprintln!("private memory of the monitor: {private} kB");
    assert!(private < 1024, "{private} kB\n{rollup}");
    // Listeners of programs that have ended are not kept.
    let open = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let before = open();
    (0..5).for_each(|_| drop(c.sh("true").ok()));
    poll_until("the end of listeners", || open() <= before);
}

/// System calls by number, in Debian's perl, which has no other way to make these.
const CALLS: &str = r#"
use strict;
my %number = (`uname -m` =~ /x86_64/ ? (mount => 165, umount2 => 166, sysinfo => 99, mprotect => 10, mmap => 9, capset => 126, prctl => 157, setfsuid => 122, unshare => 272)
    : (mount => 40, umount2 => 39, sysinfo => 179, mprotect => 226, mmap => 222, capset => 91, prctl => 167, setfsuid => 151, unshare => 97),
    move_mount => 429, fsopen => 430, fsconfig => 431, fsmount => 432, openat2 => 437);
sub call { my ($name, @args) = @_; return syscall($number{$name}, @args) }
sub try { my $r = call(@_); die "$_[0]: $!\n" if $r < 0; return $r }
sub refused { my ($errno, @rest) = @_; my $r = call(@rest); die "$rest[0]: $r $!, not $errno\n" unless $r < 0 && $!{$errno} }
sub zero { return "$_[0]\0" }
sub carries { system("carries", $_[0]) == 0 or die "$_[1]\n" }
sub detached {
    my ($type) = @_;
    my $fs = try("fsopen", my $t = zero($type), 0);
    try("fsconfig", $fs, 6, 0, 0, 0);
    return try("fsmount", $fs, 0, 0);
}
# Of whose capabilities only these are left.
sub capable { my $set = pack('L6', ($_[0]) x 2, 0, (0) x 3); try('capset', my $head = pack('LL', 0x20080522, 0), $set) }
# What is done to calls of that name from now on.
sub filter {
    my ($name, $action) = @_;
    my @insns = ([0x20, 0, 0, 0], [0x15, 0, 1, $number{$name}], [6, 0, 0, $action], [6, 0, 0, 0x7fff0000]);
    my $code = join '', map { pack('SCCL', @$_) } @insns;
    try('prctl', 38, 1, 0, 0, 0);
    try('prctl', 22, 2, my $program = pack('Sx6P', scalar @insns, $code), 0, 0);
}
use constant DOCKER => 0xa80425fb;
use Errno;
use Fcntl;
$^F = 100;
my ($none, $proc, $p, $t) = map { zero($_) } "", "proc", "/p", "/t";
"#;

/// A container of Debian's with the trapped calls at hand: what runs a script of perl in it.
fn perl<'a>(c: &'a Guard<'a>) -> impl Fn(&str) -> common::Output + 'a {
    move |script| c.exec(&json!({"args": ["perl", "-e", format!("{CALLS}{script}")]})).unwrap()
}

fn start_debian<'a>(lab: &'a Lab, tree: &Path) -> Guard<'a> {
    let system = SystemContainer::new(tree).args(["sh", "-c", "mkdir -p /p /s /t; echo up; exec sleep 1000"]);
    let c = lab.start(&nested(system.to_json()));
    c.await_word("up");
    c
}

#[test]
fn every_way_to_mount_leads_to_nodes() {
    let name = "every_way_to_mount_leads_to_nodes";
    let (Some(lab), Some(tree)) = (Lab::new(name), debian(name)) else { return };
    let tree = tree.path().join("tree");
    provide(&tree);
    let c = start_debian(&lab, &tree);
    let perl = perl(&c);
    // As newer mount(8) does it, and others by descriptors for both ends.
    perl("try('move_mount', detached('proc'), $none, -100, $p, 4); carries('/p', 'path');").ok();
    perl("sysopen(my $d, '/p', 0x210000) or die; try('move_mount', detached('proc'), $none, fileno($d), $none, 0x44); carries('/p', 'descriptor')").ok();
    perl("chdir '/p'; my $dot = zero('.'); try('move_mount', detached('sysfs'), $none, -100, $dot, 4); exit(`cat /p/devices/system/cpu/online` ne \"0\n\")").ok();
    c.sh("umount /p && umount /p && umount /p && ! umount /p").ok();
    // By names of descriptors, as runc does it.
    for (i, link) in ["/proc/self/fd/", "/proc/thread-self/fd/", "/dev/fd/", "/proc/./self/fd/"].iter().enumerate() {
        let script = format!(
            "mkdir '/d{i}'; sysopen(my $d, '/d{i}', 0x200000) or die; my $to = zero('{link}' . fileno($d));
            try('mount', $proc, $to, $proc, 0, 0); carries('/d{i}', 'link'); try('umount2', my $x = zero('/d{i}'), 0);"
        );
        perl(&script).ok();
    }
    perl("sysopen(my $d, '/', 0x200000) or die; my $to = zero('/proc/self/fd/' . fileno($d) . '/p'); try('mount', 0, $to, $proc, 0, 0); carries('/p', 'below')").ok();
    // Nothing is at that number here, whatever the monitor's child has open.
    for n in [0, 1, 50, 2048, 2060, 4095, 1_000_000] {
        let script = format!("close(STDIN); close(STDOUT); my $to = zero('/proc/self/fd/{n}'); refused('ENOENT', 'mount', $proc, $to, $proc, 0, 0)");
        perl(&script).ok();
    }
    // A procfs that is mounted nowhere is nobody's to touch, and what is moved once more is left alone.
    let private =
        "my $fs = detached('proc'); my ($how, $panic) = (pack('QQQ', 0x80000, 0, 1), zero('sys/kernel/panic'));
        try('openat2', $fs, $panic, $how, 24);
        try('move_mount', $fs, $none, -100, $t, 4); refused('EXDEV', 'openat2', $fs, $panic, $how, 24);
        mkdir '/t2'; try('move_mount', $fs, $none, -100, zero('/t2'), 4); carries('/t2', 'moved'); die if -e '/t/1';";
    perl(private).ok();
}

#[test]
fn what_the_caller_lacks_the_child_lacks() {
    let name = "what_the_caller_lacks_the_child_lacks";
    let (Some(lab), Some(tree)) = (Lab::new(name), debian(name)) else { return };
    let tree = tree.path().join("tree");
    provide(&tree);
    let c = start_debian(&lab, &tree);
    let perl = perl(&c);
    let monitor = monitor_pid(&c);
    perl("capable(DOCKER); refused('EPERM', 'mount', $proc, $p, $proc, 0, 0)").ok();
    perl("capable(DOCKER | 1 << 21); try('mount', $proc, $p, $proc, 0, 0); carries('/p', 'SYS_ADMIN')").ok();
    c.sh("umount /p").ok();
    perl("my $fs = detached('proc'); capable(DOCKER); refused('EPERM', 'move_mount', $fs, $none, -100, $p, 4)").ok();
    perl("try('mount', $proc, $p, $proc, 0, 0); unless (fork) { capable(DOCKER); refused('EPERM', 'umount2', $p, 0); exit 0 } wait; exit($? || !-e '/p/1')").ok();
    c.sh("umount /p").ok();
    // The ID for files, without what root may do with all of them.
    c.sh("mkdir -m 700 /own && mkdir /own/d && chown 1000 /own").ok();
    let d = "my $d = zero('/own/d'); ";
    let rights = "try('setfsuid', $ID); capable(1 << 21);";
    let as_user = |id: &str, then: &str| perl(&format!("{d}{}{then}", rights.replace("$ID", id)));
    as_user("1000", "try('mount', $proc, $d, $proc, 0, 0); try('umount2', $d, 2)").ok();
    as_user("1001", "refused('EACCES', 'mount', $proc, $d, $proc, 0, 0)").ok();
    as_user("0", "refused('EACCES', 'mount', $proc, $d, $proc, 0, 0)").ok();
    // Who has no IDs in his own user namespace has all rights there until he runs another program.
    perl("try('unshare', 0x30020000); unless (fork) { try('mount', $proc, $p, $proc, 0, 0); exit(!(-e '/p/meminfo') || $> != 65534) } wait; exit($?)").ok();
    // So many groups that what the kernel tells of the caller is longer than what is read of it: whatever is cut off, no right comes of it.
    // The monitor sees numbers of processes in it that are longer than those seen here.
    let groups = r#"
        sub groups { my ($of5, $of4) = @_; $) = join ' ', 0, 10000 .. 9999 + $of5, 1000 .. 999 + $of4; }
        sub until_caps { open(my $f, '<', '/proc/self/status') or die; local $/; my $text = <$f>; return index($text, "CapEff:	") + 8 }
        my $base = 0; groups(10000, 0); $base = until_caps() - 60000; die "base $base" if $base < 100;
        capable(DOCKER | 1 << 6);
        my ($first, $last) = (65536 - 90, 65536 + 20);
        for my $end ($first .. $last) {
            my $room = $end - $base; my $of4 = (6 - $room % 6) % 6;
            groups(($room - 5 * $of4) / 6, $of4);
            $end == until_caps() or die "at " . until_caps() . ", not $end";
            refused('EPERM', 'mount', $proc, $p, $proc, 0, 0);
        }
        groups(20000, 0); refused('EPERM', 'mount', $proc, $p, $proc, 0, 0);
        print "tried"
    "#;
    assert_eq!(perl(groups).ok(), "tried");
    // With rights it is mounted, by the kernel.
    perl("$) = join ' ', 0, 10000 .. 30000; try('mount', $proc, $p, $proc, 0, 0); die if !-e '/p/1'").ok();
    c.sh("umount /p").ok();
    assert_eq!(monitor_pid(&c), monitor);
}

#[test]
fn filters_inside_hold_but_for_those_that_are_asked_later() {
    let name = "filters_inside_hold_but_for_those_that_are_asked_later";
    let (Some(lab), Some(tree)) = (Lab::new(name), debian(name)) else { return };
    let tree = tree.path().join("tree");
    provide(&tree);
    let c = start_debian(&lab, &tree);
    let perl = perl(&c);
    // SECCOMP_RET_ERRNO comes before what asks the monitor.
    perl("filter('mount', 0x50000 | 71); refused('EPROTO', 'mount', $proc, $p, $proc, 0, 0); refused('EPROTO', 'mount', $p, $p, 0, 0x1000, 0)").ok();
    // SECCOMP_RET_TRACE comes after it: a call that is trapped is made, though there is no tracer to permit it.
    let traced = "filter('mount', 0x7ff00000); refused('ENOSYS', 'mount', $p, $p, 0, 0x1000, 0);";
    perl(&format!("{traced} try('mount', $proc, $p, $proc, 0, 0); carries('/p', 'traced'); try('mount', $none, $t, my $x = zero('tmpfs'), 0, 0)")).ok();
}

#[test]
fn what_cannot_be_written_is_not_written() {
    let name = "what_cannot_be_written_is_not_written";
    let (Some(lab), Some(tree)) = (Lab::new(name), debian(name)) else { return };
    let c = start_debian(&lab, &tree.path().join("tree"));
    let perl = perl(&c);
    let page = "my $at = try('mmap', 0, 4096, 3, 0x22, -1, 0); my $bytes = sub { unpack('P112', pack('Q', $at)) }; ";
    perl(&format!("{page} try('sysinfo', $at); die if $bytes->() =~ /^\\0*$/")).ok();
    perl(&format!("{page} try('mprotect', $at, 4096, 1); refused('EFAULT', 'sysinfo', $at); die 'written' unless $bytes->() =~ /^\\0*$/")).ok();
}

#[test]
fn nonsense_is_answered_as_by_the_kernel() {
    let name = "nonsense_is_answered_as_by_the_kernel";
    let (Some(lab), Some(tree)) = (Lab::new(name), debian(name)) else { return };
    let tree = tree.path().join("tree");
    provide(&tree);
    let c = start_debian(&lab, &tree);
    let perl = perl(&c);
    let scripts = [
        "refused('EFAULT', 'mount', 1, 2, 3, 0, 0)",
        "refused('EFAULT', 'mount', $proc, 8, $proc, 0, 0)",
        "refused('EFAULT', 'mount', 8, $p, $proc, 0, 0)",
        "refused('EFAULT', 'mount', $proc, $p, $proc, 0, 8)",
        "refused('EFAULT', 'mount', -1, -1, -1, 0, -1)",
        "refused('EINVAL', 'mount', $proc, $p, 0, 0, 0)",
        "refused('EINVAL', 'mount', $proc, $p, my $x = 'x' x 10000, 0, 0)",
        "refused('ENAMETOOLONG', 'mount', $proc, my $x = 'x' x 10000, $proc, 0, 0)",
        "refused('ENOENT', 'mount', $proc, $none, $proc, 0, 0)",
        "refused('EBADF', 'move_mount', 77, $none, -100, $p, 4)",
        "refused('EBADF', 'move_mount', detached('proc'), $none, 77, my $x = zero('x'), 4)",
        "refused('EFAULT', 'move_mount', detached('proc'), $none, -100, 8, 4)",
        "refused('EINVAL', 'move_mount', detached('proc'), $none, -100, $p, 0xffff)",
        "sysopen(my $d, '/p', 0x210000); refused('EINVAL', 'move_mount', fileno($d), $none, -100, $t, 4)",
        "refused('EFAULT', 'sysinfo', 8)",
        "refused('EFAULT', 'umount2', 8, 0)",
        "refused('EINVAL', 'umount2', $p, 0x100)",
        "try('mount', $proc, $p, $proc, 0xc0ed0000, 0); carries('/p', 'old programs'); try('umount2', $p, 8)",
    ];
    scripts.iter().for_each(|s| drop(perl(s).ok()));
    // Three thousand, twenty at a time; then with callers that are killed on the way.
    let storm = "for my $n (1..20) { next if fork; mkdir \"/p$n\"; my $to = zero(\"/p$n\");
        for (1..50) {
            while (call('mount', $proc, $to, $proc, 0, 0) < 0) { die \"mount: $!\n\" unless $!{ETIMEDOUT} }
            while (call('umount2', $to, 2) == 0) {}
        } exit 0 }
        while (wait > 0) { $? == 0 or die \"status $?\\n\" }";
    let killed = "for (1..20) { my $pid = fork || do { while (1) { call('mount', $proc, $p, $proc, 0, 0); call('umount2', $p, 2) } };
            select(undef, undef, undef, 0.05); kill 9, $pid; wait }";
    let mounts = || std::fs::read_to_string(format!("/proc/{}/mountinfo", c.pid().unwrap())).unwrap().lines().count();
    let before = mounts();
    (0..3).for_each(|_| drop(perl(storm).ok()));
    perl(killed).ok();
    // A child can be about to mount for a caller that has been killed.
    let monitor = monitor_pid(&c);
    poll_until("the end of its children", || monitors(&c) == [monitor]);
    c.sh("for p in /p /p[0-9]*; do while umount -l $p 2>/dev/null; do :; done; done").ok();
    assert_eq!(mounts(), before);
    c.sh("mount -t proc proc /p && carries /p").ok();
}
