//! What the configuration says of the program, and what the program sees of it: at start and in exec.
#![allow(clippy::unwrap_used)]

mod common;

use common::{readable, Lab, PROGRAM};
use nix::sys::socket::{recvmsg, socketpair, AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType};
use serde_json::{json, Value};
use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;
use sysbox_core::runtime::Stdio;
use sysbox_core::Kind;

/// Runs a script as a container's program and again as an exec in another that has the same configuration.
#[track_caller]
fn both(lab: &Lab, script: &str, process: &Value) -> [String; 2] {
    let merged = |base: &mut Value| {
        for (k, v) in process.as_object().unwrap() {
            base[k] = v.clone();
        }
    };
    let mut doc = lab.doc(script);
    merged(&mut doc["process"]);
    let first = lab.run(&doc).ok();
    let mut exec = json!({ "args": ["sh", "-c", script] });
    merged(&mut exec);
    let second = lab.start(&lab.system().to_json()).exec(&exec).unwrap().ok();
    [first, second]
}

#[track_caller]
fn says(lab: &Lab, script: &str, process: &Value, expected: &str) {
    assert_eq!(both(lab, script, process), [expected, expected], "{script}");
}

#[test]
fn identity_and_capabilities() {
    let Some(lab) = Lab::new("identity_and_capabilities") else { return };
    let user = |uid: u32, gid: u32, more: &[u32]| json!({ "user": { "uid": uid, "gid": gid, "additionalGids": more } });
    says(&lab, "id -u; id -g; id -G", &user(0, 0, &[]), "0\n0\n0");
    says(&lab, "id -u; id -g; id -G", &user(1000, 1001, &[5, 65534]), "1000\n1001\n1001 5 65534");
    says(&lab, "umask", &json!({ "user": { "uid": 0, "gid": 0, "umask": 0o27 } }), "0027");
    says(&lab, "umask", &json!({}), "0022");
    // Everything for root, and for others nothing but the bound.
    let sets = "grep -E '^Cap(Eff|Prm|Inh|Amb)' /proc/self/status | awk '{print $2}' | sort -u";
    let bound = "grep -E '^CapBnd' /proc/self/status | awk '{print $2}'";
    says(&lab, sets, &user(1000, 1000, &[]), "0000000000000000");
    let all = lab.run(&lab.doc(bound)).ok();
    let last: u32 = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
    let full = format!("{:016x}", (1u64 << (last + 1)) - 1);
    assert_eq!(all, full);
    says(&lab, bound, &user(1000, 1000, &[]), &full);
    says(&lab, "grep CapEff /proc/self/status | awk '{print $2}'", &json!({}), &full);
    // An engine's default list is answered with all; one that lacks something of it has had that dropped by name.
    let list =
        |names: &[&str]| json!({ "capabilities": { "bounding": names, "effective": names, "permitted": names } });
    let effective = "grep CapEff /proc/self/status | awk '{print $2}'";
    says(&lab, effective, &list(&["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]), &full);
    let dropped = (1u64 << (last + 1)) - 1 - (0xa804_25fb - (1 << 5));
    says(&lab, effective, &list(&["CAP_KILL"]), &format!("{dropped:016x}"));
    // An ID it does not have.
    let mut doc = lab.doc("true");
    doc["process"]["user"] = json!({ "uid": 4_000_000_000u32, "gid": 0 });
    assert_eq!(lab.try_create(&doc, Stdio::default()).err().unwrap().kind(), Kind::InvalidConfig);
}

#[test]
fn surroundings() {
    let Some(lab) = Lab::new("surroundings") else { return };
    says(&lab, "pwd", &json!({ "cwd": "/made/for it" }), "/made/for it");
    says(&lab, "echo $A-$B-$HOME", &json!({ "env": ["PATH=/bin", "A=1", "B=two words"] }), "1-two words-/root");
    says(&lab, "echo $HOME", &json!({ "env": ["PATH=/bin"], "user": { "uid": 1000, "gid": 1000 } }), "/home");
    says(&lab, "echo $HOME", &json!({ "env": ["PATH=/bin", "HOME=/x"] }), "/x");
    // Signals are as new: a host that ignores some must not pass that on.
    says(
        &lab,
        "grep -E '^Sig(Ign|Blk)' /proc/self/status | awk '{print $2}' | sort -u",
        &json!({}),
        "0000000000000000",
    );
    let c = lab.start(&lab.system().hostname("of-its-own").to_json());
    assert_eq!(c.sh("hostname").ok(), "of-its-own");
    let mut doc = lab.doc("cat /proc/sys/kernel/domainname; cat /proc/self/oom_score_adj");
    doc["domainname"] = json!("nis.example");
    doc["process"]["oomScoreAdj"] = json!(321);
    assert_eq!(lab.run(&doc).ok(), "nis.example\n321");
}

#[test]
fn resource_limits() {
    let Some(lab) = Lab::new("resource_limits") else { return };
    let limits = json!({ "rlimits": [
        { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
        { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
        { "type": "RLIMIT_NPROC", "soft": 4000, "hard": 5000 },
    ] });
    let script = "awk '/open files|core file|processes/ {print $(NF-2), $(NF-1), $NF}' /proc/self/limits";
    let [first, second] = both(&lab, script, &limits);
    assert_eq!(first, second);
    for want in ["0 0 bytes", "100 200 files", "4000 5000 processes"] {
        assert!(first.contains(want), "{first}");
    }
    // So tight that nothing but the program itself could work under it.
    let tight = json!({ "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 3, "hard": 3 }] });
    says(&lab, "ulimit -Sn; ulimit -Hn", &tight, "3\n3");
    let mut user = tight.clone();
    user["user"] = json!({ "uid": 1000, "gid": 1000 });
    user["noNewPrivileges"] = json!(true);
    says(&lab, "ulimit -n", &user, "3");
    let twice =
        json!([{ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }, { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]);
    let above = json!([{ "type": "RLIMIT_CORE", "soft": 2, "hard": 1 }]);
    for bad in [twice, above] {
        let mut doc = lab.doc("true");
        doc["process"]["rlimits"] = bad;
        assert_eq!(lab.try_create(&doc, Stdio::default()).err().unwrap().kind(), Kind::InvalidConfig);
    }
}

#[test]
fn limits_above_the_callers_own() {
    let name = "limits_above_the_callers_own";
    let Some(lab) = Lab::new(name) else { return };
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let caps = status.lines().find_map(|l| l.strip_prefix("CapEff:")).unwrap().trim();
    if u64::from_str_radix(caps, 16).unwrap() & (1 << 24) == 0 {
        eprintln!("SKIP {name}: no CAP_SYS_RESOURCE");
        return;
    }
    let high = json!({ "rlimits": [{ "type": "RLIMIT_MEMLOCK", "soft": 1u64 << 40, "hard": 1u64 << 41 }] });
    says(&lab, "awk '/locked memory/ {print $4, $5}' /proc/self/limits", &high, "1099511627776 2199023255552");
}

#[test]
fn scheduling_and_personality() {
    let Some(lab) = Lab::new("scheduling_and_personality") else { return };
    // Nice value and policy, see proc(5).
    let script = "cut -d' ' -f19,41 /proc/self/stat; ionice; uname -m";
    let mut doc = lab.doc(script);
    doc["linux"]["personality"] = json!({ "domain": "LINUX" });
    let plain = lab.run(&doc).ok();
    assert!(plain.starts_with("0 0\nnone") && plain.ends_with("64"), "{plain}");
    doc["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": -3 });
    doc["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
    doc["linux"]["personality"] = json!({ "domain": "LINUX32" });
    let said = lab.run(&doc).ok();
    let machine = if cfg!(target_arch = "x86_64") { "i686" } else { "armv8l" };
    assert_eq!(said, format!("-3 3\nbest-effort: prio 6\n{machine}"));
    // An exec has what its own process says, and the personality of the container.
    doc["process"]["args"] = json!(["sleep", "1000"]);
    let c = lab.start(&doc);
    let exec = |more: Value| {
        let mut process = json!({ "args": ["sh", "-c", script] });
        process.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        c.exec(&process).map(|out| out.ok())
    };
    let idle = json!({ "scheduler": { "policy": "SCHED_IDLE" }, "ioPriority": { "class": "IOPRIO_CLASS_IDLE", "priority": 0 } });
    assert_eq!(exec(idle).unwrap(), format!("0 5\nidle\n{machine}"));
    let bad = json!({ "scheduler": { "policy": "SCHED_OTHER", "nice": 20 } });
    assert_eq!(exec(bad).unwrap_err().kind(), Kind::InvalidConfig);
}

#[test]
fn cpus_of_an_exec() {
    let name = "cpus_of_an_exec";
    let Some(lab) = Lab::new(name) else { return };
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = own.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned();
    let last = allowed.rsplit([',', '-']).next().unwrap();
    if last == allowed {
        eprintln!("SKIP {name}: one CPU");
        return;
    }
    let c = lab.start(&lab.system().to_json());
    let runs_on = |affinity: Value| {
        let args = ["sed", "-n", "s/^Cpus_allowed_list:\t//p", "/proc/self/status"];
        c.exec(&json!({ "args": args, "execCPUAffinity": affinity }))
    };
    assert_eq!(runs_on(json!({})).unwrap().ok(), allowed);
    assert_eq!(runs_on(json!({ "final": last })).unwrap().ok(), last);
    assert_eq!(runs_on(json!({ "initial": last, "final": allowed })).unwrap().ok(), allowed);
    let absent = runs_on(json!({ "final": "1023" })).unwrap_err();
    assert!(absent.to_string().contains("process.execCPUAffinity.final"), "{absent}");
    assert_eq!(runs_on(json!({ "initial": "1024" })).unwrap_err().kind(), Kind::InvalidConfig);
}

#[test]
fn settings_of_its_namespaces() {
    let Some(lab) = Lab::new("settings_of_its_namespaces") else { return };
    let mut doc =
        lab.doc("cd /proc/sys; cat net/ipv4/ip_forward kernel/shmmni net/ipv4/ping_group_range fs/mqueue/msg_max");
    doc["linux"]["sysctl"] = json!({
        "net.ipv4.ip_forward": "1", "kernel.shmmni": "1234", "fs.mqueue.msg_max": "11",
        // Docker asks for more groups than there are.
        "net.ipv4.ping_group_range": "0 2147483647",
    });
    let said = lab.run(&doc).ok();
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["1", "1234", "0", "65535", "11"]);
    for (of_host, value) in [
        ("kernel.panic", "1"),
        ("vm.overcommit_memory", "1"),
        ("kernel.core_pattern", "x"),
        ("net/../kernel/panic", "1"),
    ] {
        doc["linux"]["sysctl"] = json!({ of_host: value });
        assert_eq!(lab.try_create(&doc, Stdio::default()).err().unwrap().kind(), Kind::Refused, "{of_host}");
    }
}

#[test]
fn its_clock_starts_with_it() {
    let Some(lab) = Lab::new("its_clock_starts_with_it") else { return };
    if !std::path::Path::new("/proc/self/ns/time").exists() {
        eprintln!("SKIP its_clock_starts_with_it: no time namespaces");
        return;
    }
    let begin = Instant::now();
    let c = lab.start(&lab.system().to_json());
    let seconds = |text: String| text.split(['.', ' ']).next().unwrap().parse::<u64>().unwrap();
    let uptime = seconds(c.sh("cat /proc/uptime").ok());
    let host = seconds(std::fs::read_to_string("/proc/uptime").unwrap());
    assert!(host > uptime, "{host} {uptime}");
    assert!(uptime <= 2 + begin.elapsed().as_secs(), "up for {uptime} s");
    // In hundredths of a second: its first process is not older than its clock.
    let started: u64 = c.sh("awk '{print $22}' /proc/1/stat").ok().parse().unwrap();
    assert!(started < 1000, "{started}");
    let mut doc = lab.doc("cat /proc/uptime");
    doc["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1_000_000 }, "monotonic": { "secs": 500 } });
    let shifted = seconds(lab.run(&doc).ok());
    assert!(shifted.abs_diff(host + 1_000_000) < 60, "{shifted} {host}");
}

#[test]
fn privileges_can_be_given_up_and_calls_refused() {
    let Some(lab) = Lab::new("privileges_can_be_given_up_and_calls_refused") else { return };
    let mut doc = lab.doc("grep NoNewPrivs /proc/self/status; grep ^Seccomp: /proc/self/status; mkdir /tmp/refused; echo code $?; mkfifo /tmp/f && echo other calls work");
    for (nnp, user) in [(false, 0), (true, 0), (false, 1000), (true, 1000)] {
        doc["process"]["noNewPrivileges"] = json!(nnp);
        doc["process"]["user"] = json!({ "uid": user, "gid": user });
        // ENAMETOOLONG: nothing else would say that.
        doc["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"],
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENAMETOOLONG }],
        });
        let said = lab.run(&doc).ok();
        let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let want = format!(
            "NoNewPrivs: {} Seccomp: 2 mkdir: can't create directory '/tmp/refused': File name too long code 1",
            u8::from(nnp)
        );
        assert!(flat.starts_with(&want) && flat.ends_with("other calls work"), "{flat}");
        let _ = std::fs::remove_file(lab.tree().join("tmp/f"));
    }
    // An exec is under the same filter.
    doc["process"]["args"] = json!(["sleep", "1000"]);
    lab.start(&doc).sh("mkdir /tmp/refused").fails("File name too long");
}

#[test]
fn a_read_only_root() {
    let Some(lab) = Lab::new("a_read_only_root") else { return };
    std::fs::create_dir_all(lab.path("data")).unwrap();
    let system = lab.system().readonly(true).tmpfs("/tmp", &["mode=1777"]).bind(lab.path("data"), "/mnt/data", false);
    let c = lab.start(&system.to_json());
    for path in ["/new", "/etc/new", "/mnt/new"] {
        c.sh(&format!("touch {path}")).fails("Read-only file system");
    }
    c.sh("mount -o remount,rw,bind /").fails("denied");
    c.sh("unshare -Urm mount -o remount,rw,bind /").fails("denied");
    c.sh("touch /tmp/new /dev/shm/new /dev/new /mnt/data/new && echo 1 > /proc/sys/net/ipv4/ip_forward").ok();
    assert!(lab.path("data/new").exists());
}

#[test]
fn descriptors_that_are_given_and_no_others() {
    let Some(lab) = Lab::new("descriptors_that_are_given_and_no_others") else { return };
    let given = |text: &str| -> OwnedFd {
        std::fs::write(lab.path(text), text).unwrap();
        File::open(lab.path(text)).unwrap().into()
    };
    // One that this process has open, without close-on-exec, must not come along.
    std::fs::write(lab.path("leaked"), "").unwrap();
    let leak = File::open(lab.path("leaked")).unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let stdio = || Stdio { preserved: vec![(3, given("three")), (7, given("seven"))], ..Default::default() };
    // A pipe would be the shell's own, and open while ls looks.
    let script = "cat <&3; cat <&7; echo; ls /proc/$$/fd; true";
    let mut c = lab.try_create(&lab.doc(script), stdio()).unwrap();
    c.container.start().unwrap();
    let said = c.finish().ok();
    let expected = "threeseven\n0\n1\n2\n3\n7";
    assert_eq!(said, expected);
    let c = lab.start(&lab.system().to_json());
    let out = c.exec_with(&json!({ "args": ["sh", "-c", script] }), stdio()).unwrap().ok();
    assert_eq!(out, expected);
    let open = c.sh("ls -ln /proc/1/fd/ /proc/self/fd/").ok();
    assert!(open.contains(" 0 -> /dev/null") && !open.contains("leaked"), "{open}");
}

/// The master of a terminal, from a console socket.
fn receive(socket: &OwnedFd) -> File {
    assert!(readable(socket.as_fd(), PROGRAM));
    let mut buf = [0u8; 64];
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut iov = [IoSliceMut::new(&mut buf)];
    let m = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
    for c in m.cmsgs().unwrap() {
        if let ControlMessageOwned::ScmRights(fds) = c {
            // The number itself stays open until this program ends: only a raw conversion could take it over.
            return sysbox_core::dup_number(fds[0]).unwrap().into();
        }
    }
    panic!("no descriptor came");
}

#[test]
fn a_terminal_is_sent_to_the_console_socket() {
    let name = "a_terminal_is_sent_to_the_console_socket";
    let Some(lab) = Lab::new(name) else { return };
    let pair = || socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let script =
        "stty size; tty; test -c /dev/console && stat -c '%u %a' /dev/console; read -r line; echo got $line; exit 4";
    let mut doc = lab.doc(script);
    doc["process"]["terminal"] = json!(true);
    doc["process"]["consoleSize"] = json!({ "height": 33, "width": 99 });
    // One without the other.
    assert_eq!(lab.try_create(&doc, Stdio::default()).err().unwrap().kind(), Kind::InvalidConfig);
    let (ours, theirs) = pair();
    assert_eq!(
        lab.try_create(&lab.doc("true"), Stdio { console: Some(theirs), ..Default::default() }).err().unwrap().kind(),
        Kind::InvalidConfig
    );
    drop(ours);

    let (ours, theirs) = pair();
    let mut c = lab.try_create(&doc, Stdio { console: Some(theirs), ..Default::default() }).unwrap();
    let mut master = receive(&ours);
    c.container.start().unwrap();
    master.write_all(b"a line\n").unwrap();
    let mut said = String::new();
    let mut buf = [0u8; 512];
    while !said.contains("got") && readable(master.as_fd(), PROGRAM) {
        // EIO: the last process has closed it.
        let Ok(n) = master.read(&mut buf) else { break };
        said += &String::from_utf8_lossy(&buf[..n]);
    }
    assert_eq!(c.finish().exit.code(), 4);
    for want in ["33 99", "/dev/pts/0", "0 620", "got a line"] {
        assert!(said.contains(want), "no {want:?} in {said:?}");
    }
}

#[test]
fn an_init_that_is_systemd_gets_what_it_expects() {
    let name = "an_init_that_is_systemd_gets_what_it_expects";
    let Some(lab) = Lab::new(name) else { return };
    // By what the name leads to, not by the name.
    std::fs::create_dir_all(lab.tree().join("lib/systemd")).unwrap();
    let script = "#!/bin/sh\necho container=$container; for d in /run /run/lock /tmp; do grep -q \" $d tmpfs \" /proc/mounts && echo $d; done; [ -d /sys/kernel/debug ] && grep -c ' /sys/kernel/debug ' /proc/mounts\nexit 0\n";
    std::fs::write(lab.tree().join("lib/systemd/systemd"), script).unwrap();
    std::fs::set_permissions(
        lab.tree().join("lib/systemd/systemd"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    std::fs::remove_file(lab.tree().join("sbin/init")).unwrap();
    std::os::unix::fs::symlink("/lib/systemd/systemd", lab.tree().join("sbin/init")).unwrap();
    let said = lab.run(&lab.system().args(["/sbin/init"]).to_json()).ok();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..4], ["container=oci", "/run", "/run/lock", "/tmp"], "{said}");
    assert!(lines.get(4).is_none_or(|n| *n == "1"), "{said}");
    let other = lab.run(&lab.doc("echo container=$container; grep -c ' /tmp tmpfs ' /proc/mounts; true")).ok();
    assert_eq!(other, "container=\n0");
    let given = lab.run(&lab.system().args(["/sbin/init"]).env("container", "mine").to_json()).ok();
    assert!(given.starts_with("container=mine"), "{given}");
}
