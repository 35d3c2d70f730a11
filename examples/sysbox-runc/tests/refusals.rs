//! Requests that break isolation are refused by the name of their field; what engines ask for by habit is made to work.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::{Bundle, Lab, LIMIT};
use serde_json::{json, Value};

/// Refused with these words by create, run and plan alike, and nothing is left.
#[track_caller]
fn refused(lab: &Lab, bundle: &Bundle, words: &[&str]) {
    let id = lab.id("refused");
    lab.run(&["create", "--bundle", bundle.path(), &id]).refused(words);
    lab.run(&["run", "--bundle", bundle.path(), &id]).refused(words);
    lab.run(&["plan", "--bundle", bundle.path()]).refused(words);
    assert_eq!(lab.status(&id), "gone");
    lab.assert_nothing_left();
}

/// The configuration changed so is refused with these words.
#[track_caller]
fn refuses(lab: &Lab, bundle: &Bundle, words: &[&str], change: impl FnOnce(&mut Value)) {
    let before = bundle.config();
    bundle.edit(change);
    refused(lab, bundle, words);
    bundle.write(&before);
}

fn namespaces(config: &mut Value) -> &mut Vec<Value> {
    config["linux"]["namespaces"].as_array_mut().unwrap()
}

#[test]
fn host_namespaces() {
    let Some(lab) = Lab::new("host_namespaces", "busybox") else { return };
    let bundle = lab.bundle("b", &["true"]);
    for (name, option) in
        [("pid", "--pid=host"), ("ipc", "--ipc=host"), ("network", "--network=host"), ("uts", "--uts=host")]
    {
        let entry = format!("linux.namespaces has no \"{name}\" entry");
        refuses(&lab, &bundle, &[&entry, option], |c| namespaces(c).retain(|n| n["type"] != name));
        refuses(&lab, &bundle, &["linux.namespaces", name, "/proc/1/ns/"], |c| {
            let own = namespaces(c).iter_mut().find(|n| n["type"] == name).unwrap();
            own["path"] = format!("/proc/1/ns/{}", if name == "network" { "net" } else { name }).into();
        });
    }
    refuses(&lab, &bundle, &["linux.namespaces", "user", "/proc/1/ns/user"], |c| {
        namespaces(c).iter_mut().find(|n| n["type"] == "user").unwrap()["path"] = "/proc/1/ns/user".into();
    });
    refuses(&lab, &bundle, &["linux.namespaces", "two entries", "pid"], |c| {
        namespaces(c).push(json!({ "type": "pid" }))
    });
    // And the same bundle, unchanged, works.
    lab.run(&["run", "--bundle", bundle.path(), &lab.id("works")]).ok();
    lab.assert_nothing_left();
}

/// As `docker run --privileged` has it: every device allowed, and the host's listed.
#[test]
fn privileged() {
    let Some(lab) = Lab::new("privileged", "busybox") else { return };
    let bundle = lab.bundle("b", &["true"]);
    let all = json!([{ "allow": true, "access": "rwm" }]);
    for node in [
        json!({ "path": "/dev/mem", "type": "c", "major": 1, "minor": 1, "fileMode": 0o640, "uid": 0, "gid": 15 }),
        json!({ "path": "/dev/sda", "type": "b", "major": 8, "minor": 0, "fileMode": 0o660, "uid": 0, "gid": 6 }),
        json!({ "path": "/dev/loop-control", "type": "c", "major": 10, "minor": 237, "fileMode": 0o660, "uid": 0, "gid": 6 }),
    ] {
        let path = node["path"].as_str().unwrap().to_owned();
        refuses(&lab, &bundle, &["linux.resources.devices", "linux.devices", &path, "--privileged"], |c| {
            c["linux"]["resources"]["devices"] = all.clone();
            c["linux"]["devices"] = json!([node]);
        });
    }
    // Rules alone give nothing: there is no node to open, and none can be made.
    bundle.edit(|c| {
        c["linux"]["resources"]["devices"] = all.clone();
        c["process"]["args"] = json!(["sh", "-c", "! mknod /tmp/mem c 1 1"]);
    });
    lab.run(&["run", "--bundle", bundle.path(), &lab.id("rules")]).ok();
}

#[test]
fn what_reaches_out_of_the_container() {
    let Some(lab) = Lab::new("what_reaches_out_of_the_container", "busybox") else { return };
    let bundle = lab.bundle("b", &["true"]);
    refuses(&lab, &bundle, &["linux.sysctl", "vm.overcommit_memory"], |c| {
        c["linux"]["sysctl"] = json!({ "vm.overcommit_memory": "1" })
    });
    refuses(&lab, &bundle, &["linux.sysctl"], |c| c["linux"]["sysctl"] = json!({ "net/../vm/swappiness": "1" }));
    refuses(&lab, &bundle, &["linux.cgroupsPath", ".."], |c| c["linux"]["cgroupsPath"] = "/a/../../b".into());
    refuses(&lab, &bundle, &["linux.cgroupsPath", "root"], |c| c["linux"]["cgroupsPath"] = "/".into());
    for (from, to) in [
        ("/proc", "/proc"),
        ("/sys", "/sys"),
        ("/dev", "/dev"),
        ("/sys/fs/cgroup", "/sys/fs/cgroup"),
        ("/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory"),
    ] {
        if !std::path::Path::new(from).exists() {
            continue;
        }
        refuses(&lab, &bundle, &["mounts[", to], |c| {
            let bind = json!({ "destination": to, "source": from, "type": "bind", "options": ["rbind"] });
            c["mounts"].as_array_mut().unwrap().push(bind);
        });
    }
}

#[test]
fn unusable_id_maps() {
    let Some(lab) = Lab::new("unusable_id_maps", "busybox") else { return };
    let bundle = lab.bundle("b", &["true"]);
    let map = |host: u64, size: u64| json!([{ "containerID": 0, "hostID": host, "size": size }]);
    // The host's own root, a single ID, only one of both, one that leaves the range of IDs.
    for (uid, gid) in [
        (map(0, 65536), map(0, 65536)),
        (map(1_000_000, 1), map(1_000_000, 1)),
        (map(1_000_000, 65536), json!([])),
        (map(4_294_967_000, 65536), map(4_294_967_000, 65536)),
    ] {
        let id = lab.id("maps");
        bundle.edit(|c| {
            c["linux"]["uidMappings"] = uid;
            c["linux"]["gidMappings"] = gid;
        });
        lab.run(&["run", "--bundle", bundle.path(), &id]).refused(&["linux."]);
        assert_eq!(lab.status(&id), "gone");
    }
    lab.assert_nothing_left();
    bundle.edit(|c| {
        c["linux"]["uidMappings"] = map(1_900_000_000, 65536);
        c["linux"]["gidMappings"] = map(1_900_100_000, 65536);
        c["process"]["args"] = json!(["sh", "-c", "tr -s ' ' </proc/self/uid_map; tr -s ' ' </proc/self/gid_map"]);
    });
    let used = lab.run(&["run", "--bundle", bundle.path(), &lab.id("good")]).ok();
    let lines: Vec<&str> = used.out.lines().map(str::trim).collect();
    assert_eq!(lines, ["0 1900000000 65536", "0 1900100000 65536"]);
}

/// A profile that nobody knows is not dropped in silence: it is applied, or the host cannot, and says so.
#[test]
fn apparmor_profiles() {
    let Some(lab) = Lab::new("apparmor_profiles", "busybox") else { return };
    let bundle = lab.bundle("b", &["true"]);
    bundle.edit(|c| c["process"]["apparmorProfile"] = "docker-default".into());
    lab.run(&["run", "--bundle", bundle.path(), &lab.id("default")]).ok();
    assert!(lab.run(&["plan", "--bundle", bundle.path()]).ok().out.contains("docker-default"));
    bundle.edit(|c| c["process"]["apparmorProfile"] = "my-own-profile".into());
    lab.run(&["run", "--bundle", bundle.path(), &lab.id("own")]).refused(&["AppArmor", "my-own-profile"]);
    lab.assert_nothing_left();
}

/// What Docker 20.10 makes of a plain `docker run`, with its hook replaced by one that leaves a trace.
fn docker_config(lab: &Lab, bundle: &Bundle) -> Value {
    let caps: Vec<String> = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
        .split(' ')
        .map(|c| format!("CAP_{c}"))
        .collect();
    let mount = |to: &str, kind: &str, options: &str| json!({ "destination": to, "type": kind, "source": kind, "options": options.split(',').collect::<Vec<_>>() });
    let bind = |name: &str| {
        let source = lab.path(name);
        std::fs::write(&source, format!("{name} of the engine\n")).unwrap();
        json!({ "destination": format!("/etc/{name}"), "type": "bind", "source": source, "options": ["rbind", "rprivate"] })
    };
    let device = |allow: bool, major: u32, minor: u32| json!({ "allow": allow, "type": "c", "major": major, "minor": minor, "access": "rwm" });
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    rules.extend([(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)].map(|(a, b)| device(true, a, b)));
    rules.push(device(false, 10, 229));
    let hook = ["sh", "-c", "cat >\"$0\"", lab.path("hook").to_str().unwrap()].map(String::from);
    json!({
        "ociVersion": "1.0.2-dev",
        "process": {
            "user": { "uid": 0, "gid": 0, "additionalGids": [1, 2, 3, 4, 6, 10] },
            "args": ["sh", "-c", "echo ready; sleep 1000"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=4ab2f8a3c5d6"],
            "cwd": "/",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            "apparmorProfile": "docker-default",
            "oomScoreAdj": 0,
        },
        "root": { "path": bundle.rootfs() },
        "hostname": "4ab2f8a3c5d6",
        "mounts": [
            mount("/proc", "proc", "nosuid,noexec,nodev"),
            mount("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
            mount("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
            mount("/sys", "sysfs", "nosuid,noexec,nodev,ro"),
            mount("/sys/fs/cgroup", "cgroup", "ro,nosuid,noexec,nodev"),
            mount("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
            mount("/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777,size=67108864"),
            bind("resolv.conf"), bind("hostname"), bind("hosts"),
        ],
        "hooks": { "prestart": [{ "path": "/bin/sh", "args": hook }, { "path": "/bin/true", "args": ["true"] }] },
        "linux": {
            "sysctl": { "net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647" },
            "resources": {
                "devices": rules, "memory": { "disableOOMKiller": false }, "cpu": { "shares": 0 },
                "pids": { "limit": 0 }, "blockIO": { "weight": 0 },
            },
            "cgroupsPath": format!("{}/docker", lab.cgroup_parent()),
            "namespaces": (["mount", "network", "uts", "pid", "ipc"].map(|n| json!({ "type": n }))),
            "seccomp": seccomp(),
            "maskedPaths": ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// Docker's default profile in short: what is not named fails, and neither mounts nor namespaces are named.
fn seccomp() -> Value {
    let plain = "access alarm arch_prctl bind brk capget capset chdir chmod chown clock_gettime clock_nanosleep close \
        close_range connect copy_file_range dup dup2 dup3 epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd2 execve \
        execveat exit exit_group faccessat faccessat2 fchdir fchmod fchmodat fchown fchownat fcntl fdatasync flock fork \
        fstat fstatfs fsync ftruncate futex getcwd getdents getdents64 getegid geteuid getgid getgroups getpeername \
        getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid getsockname \
        getsockopt gettid gettimeofday getuid inotify_add_watch inotify_init1 ioctl kill lchown link linkat listen lseek \
        lstat madvise membarrier memfd_create mincore mkdir mkdirat mknod mknodat mmap mprotect mremap munmap nanosleep \
        newfstatat open openat openat2 pause pidfd_open pipe pipe2 poll ppoll prctl pread64 preadv prlimit64 pselect6 \
        pwrite64 pwritev read readlink readlinkat readv recvfrom recvmsg rename renameat renameat2 restart_syscall rmdir \
        rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
        sched_getaffinity sched_yield select sendfile sendmmsg sendmsg sendto setfsgid setfsuid setgid setgroups \
        setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt set_robust_list \
        set_tid_address setuid shutdown sigaltstack socket socketpair stat statfs statx symlink symlinkat sync sysinfo \
        tgkill time times tkill truncate umask uname unlink unlinkat utimensat vfork wait4 waitid write writev chroot";
    let call = |names: Value, args: Value| json!({ "names": names, "action": "SCMP_ACT_ALLOW", "args": args });
    let personality =
        |value: u32| call(json!(["personality"]), json!([{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }]));
    let no_namespaces = json!([{ "index": 0, "value": 2_114_060_288_u32, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }]);
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            call(plain.split_whitespace().collect(), json!([])),
            personality(0), personality(8), personality(0xffff_ffff),
            call(json!(["clone"]), no_namespaces),
            { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
        ],
    })
}

/// From an ordinary `docker run` to a system container: everything inside works as in one that was asked for as such.
#[test]
fn ordinary_docker_configuration() {
    let Some(lab) = Lab::new("ordinary_docker_configuration", "busybox") else { return };
    let bundle = lab.bundle("b", &["true"]);
    bundle.write(&docker_config(&lab, &bundle));
    let id = lab.started("docker", &bundle);
    let prints = |script: &str, wanted: &str| {
        let done = lab.sh(&id, script, LIMIT);
        assert_eq!((done.code, done.text()), (0, wanted), "{script}\n{}", done.err);
    };
    let all = "000001ffffffffff";
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap();
    let all = if last.trim() == "40" {
        all.to_owned()
    } else {
        format!("{:016x}", (1u64 << (last.trim().parse::<u32>().unwrap() + 1)) - 1)
    };
    // Of init, not only of the exec.
    prints("sed -n 's/^Cap[PEB][a-z]*:\t//p' /proc/1/status", &[all.as_str(); 3].join("\n"));
    prints(
        "read a b c </proc/1/uid_map; test $a = 0 && test $b -ge 65536 && test $c -ge 65536 && echo mapped",
        "mapped",
    );
    prints("mkdir $(ls -d /sys/fs/cgroup/memory 2>/dev/null || echo /sys/fs/cgroup)/inner && echo made", "made");
    prints("echo 1 >/proc/sys/net/ipv4/ip_forward && cat /proc/sys/net/ipv4/ip_forward", "1");
    prints("set -- $(cat /proc/sys/net/ipv4/ping_group_range); test $2 -ge 65535 && test $2 -lt 2147483647 && echo clamped", "clamped");
    prints("cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    prints("mount -t tmpfs none /mnt && unshare -m true && unshare -p -f true && echo mounted", "mounted");
    prints("unshare -Urmpf --mount-proc true && echo nested", "nested");
    prints("cat /etc/hostname; echo more >>/etc/hosts && stat -c %u:%g /etc/hosts", "hostname of the engine\n0:0");
    assert_eq!(std::fs::read_to_string(lab.path("hosts")).unwrap(), "hosts of the engine\nmore\n");
    prints("test -c /dev/fuse && test -c /dev/net/tun && : <>/dev/fuse && echo device", "device");
    prints("id -G", "0 1 2 3 4 6 10");
    prints("hostname; df -k /dev/shm | tail -n 1 | awk '{ print $2 }'", "4ab2f8a3c5d6\n65536");
    // The filter is there: what neither Docker nor a system container needs is still refused.
    prints("sed -n 's/^Seccomp:\t//p' /proc/1/status", "2");
    let hook = common::json(&std::fs::read_to_string(lab.path("hook")).unwrap());
    assert_eq!((&hook["id"], &hook["bundle"]), (&json!(id), &json!(bundle.dir)));
    assert!(hook["pid"].as_i64().is_some_and(|p| p > 1), "{hook}");
    // docker exec brings the same short list of capabilities.
    let process = lab.path("process.json");
    let mut exec = bundle.config()["process"].clone();
    exec["args"] = json!(["sh", "-c", "sed -n 's/^CapEff:\t//p' /proc/self/status"]);
    std::fs::write(&process, exec.to_string()).unwrap();
    let given = lab.run(&["exec", "--process", process.to_str().unwrap(), &id]).ok();
    assert_eq!(given.text(), all);
    lab.run(&["delete", "--force", &id]).ok();
    lab.assert_nothing_left();
}
