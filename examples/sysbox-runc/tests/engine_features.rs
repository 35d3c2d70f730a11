//! Docker's features through `--runtime=sysbox-runc`, on small containers.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::engine::{Engine, STEP};
use common::{has_metrics, wait_for};
use std::sync::Arc;

/// The engine that these tests share, with the image `busybox`.
fn engine(name: &'static str) -> Option<Arc<Engine>> {
    let engine = Engine::shared(name)?;
    engine.image("busybox");
    Some(engine)
}

/// What a script prints in a new container.
#[track_caller]
fn prints(engine: &Engine, options: &[&str], script: &str) -> String {
    let mut args = vec!["--rm"];
    args.extend(options);
    args.extend(["busybox", "sh", "-c", script]);
    engine.run(&args).ok().text().to_owned()
}

#[test]
fn options_have_their_effect() {
    let Some(engine) = engine("options_have_their_effect") else { return };
    let dir = engine.path("options");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("f"), "from the host\n").unwrap();
    let bind = format!("{}:/b", dir.display());
    let subnet = engine.subnet();
    let cases: &[(&[&str], &str, &str)] = &[
        (&["--hostname", "called-so"], "hostname", "called-so"),
        (&["--domainname", "example.org"], "cat /proc/sys/kernel/domainname", "example.org"),
        (&["--user", "1000"], "id -u; touch /tmp/f && stat -c %u /tmp/f", "1000\n1000"),
        (&["--user", "user"], "id -un", "user"),
        (&["--group-add", "5"], "id -G", "0 5"),
        (&["--workdir", "/made/here"], "pwd", "/made/here"),
        (&["--env", "A=b c"], "echo $A", "b c"),
        (&["--ulimit", "nofile=100:200"], "ulimit -Sn; ulimit -Hn", "100\n200"),
        (&["--sysctl", "net.ipv4.ip_forward=0"], "cat /proc/sys/net/ipv4/ip_forward", "0"),
        (&["--sysctl", "kernel.msgmax=9999"], "cat /proc/sys/kernel/msgmax", "9999"),
        (
            &["--read-only"],
            "touch /f 2>&1; echo x >/dev/shm/f && cat /dev/shm/f",
            "touch: /f: Read-only file system\nx",
        ),
        (&["--tmpfs", "/t"], "touch /t/f && stat -c '%u %a' /t; grep -c ' /t tmpfs' /proc/mounts", "0 1777\n1"),
        (&["--tmpfs", "/t", "--user", "1000"], "touch /t/f && stat -c %u /t/f", "1000"),
        (&["--tmpfs", "/t:size=1m,mode=700"], "stat -c %a /t; grep ' /t ' /proc/mounts | grep -c size=1024k", "700\n1"),
        (&["--shm-size", "1m"], "grep ' /dev/shm ' /proc/mounts | grep -c size=1024k", "1"),
        (&["--init"], "cat /proc/1/comm", "docker-init"),
        (&["--dns", "192.0.2.7"], "grep nameserver /etc/resolv.conf", "nameserver 192.0.2.7"),
        (&["--add-host", "peer:192.0.2.8"], "grep peer /etc/hosts", "192.0.2.8\tpeer"),
        (&["--device", "/dev/zero:/dev/nought"], "head -c 3 /dev/nought | wc -c; stat -c %u:%g /dev/nought", "3\n0:0"),
        (&["--network", "none"], "ls /sys/class/net", "lo"),
        (
            &["--volume", &bind],
            "cat /b/f; stat -c %u:%g /b/f; echo more >>/b/f && echo done",
            "from the host\n0:0\ndone",
        ),
        (
            &["--volume", &format!("{bind}:ro")],
            "touch /b/g 2>&1; mount -o remount,rw,bind /b 2>/dev/null; touch /b/g 2>&1; true",
            "touch: /b/g: Read-only file system\ntouch: /b/g: Read-only file system",
        ),
        (&["--cap-drop", "NET_RAW"], "ping -c 1 127.0.0.1 2>&1 | grep -o 'permission denied'", "permission denied"),
        (&["--cap-drop", "CHOWN"], "touch /tmp/f; chown 5 /tmp/f 2>/dev/null || echo no", "no"),
        (&["--env", "SYSBOX_HONOR_CAPS=TRUE"], "grep CapEff /proc/self/status", "CapEff:\t00000000a80425fb"),
        (&["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"),
        (&["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj", "500"),
        (&["--entrypoint", "/bin/echo"], "x", "-c x"),
        (
            &["--label", "a=b"],
            "echo >>/etc/hosts && echo >>/etc/resolv.conf && echo >>/etc/hostname && echo writable",
            "writable",
        ),
    ];
    let mut wrong = Vec::new();
    for (options, script, wanted) in cases {
        let mut args = vec!["--rm"];
        args.extend(*options);
        args.push("busybox");
        let with_shell: &[&str] = if options[0] == "--entrypoint" { &["-c"] } else { &["sh", "-c"] };
        args.extend(with_shell);
        args.push(script);
        let done = engine.run(&args);
        if done.code != 0 || done.text() != *wanted {
            wrong.push(format!("{options:?}: {} {:?} {:?} instead of {wanted:?}", done.code, done.text(), done.err));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let address = prints(&engine, &[], "ip -4 addr show eth0 | grep -o 'inet [0-9.]*'");
    assert!(address.starts_with(&format!("inet {}", subnet.trim_end_matches('0'))), "{address}");
    // On the host it is root's, whoever of the container's root wrote it.
    use std::os::unix::fs::MetadataExt;
    prints(&engine, &["--volume", &bind], "echo x >/b/made");
    assert_eq!(std::fs::metadata(dir.join("made")).unwrap().uid(), 0);
}

/// What a profile of the user's own denies stays denied; what only an engine's default denies is open.
#[test]
fn seccomp_profiles_of_ones_own() {
    let Some(engine) = engine("seccomp_profiles_of_ones_own") else { return };
    let profile = engine.path("seccomp.json");
    let deny = |names: &[&str]| serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO"}]});
    std::fs::write(&profile, deny(&["mkdir", "mkdirat"]).to_string()).unwrap();
    let option = format!("seccomp={}", profile.display());
    let script = "mkdir /d 2>/dev/null || echo denied; mount -t tmpfs none /mnt && echo mounted";
    assert_eq!(prints(&engine, &["--security-opt", &option], script), "denied\nmounted");
    assert_eq!(prints(&engine, &[], "mount -t tmpfs none /mnt && unshare -Ur id -u"), "0");
    assert_eq!(
        prints(&engine, &["--security-opt", "seccomp=unconfined"], "grep Seccomp: /proc/self/status"),
        "Seccomp:\t0"
    );
}

#[test]
fn limits_are_the_kernels() {
    let Some(engine) = engine("limits_are_the_kernels") else { return };
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        eprintln!("SKIP limits_are_the_kernels: the script reads cgroup v1");
        return;
    }
    let script =
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max cpuset/cpuset.cpus";
    let options = ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "30", "--cpuset-cpus", "0"];
    assert_eq!(prints(&engine, &options, script), "67108864\n50000\n30\n0");
    let name = "limited";
    engine
        .run(&[
            "-d",
            "--name",
            name,
            "--memory",
            "64m",
            "--cgroup-parent",
            "/sysbox-parent-test",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    engine.docker(&["update", "--memory", "32m", "--memory-swap", "32m", name]).ok();
    let limit = engine.docker(&["exec", name, "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]).ok();
    assert_eq!(limit.text(), "33554432");
    let id = engine.inspect(name, "{{.Id}}");
    assert!(std::path::Path::new("/sys/fs/cgroup/memory/sysbox-parent-test").join(id).is_dir());
    engine.docker(&["rm", "-f", name]).ok();
    let _ = std::process::Command::new("sh")
        .args(["-c", "rmdir /sys/fs/cgroup/*/sysbox-parent-test"])
        .stderr(std::process::Stdio::null())
        .status();
}

#[test]
fn life_and_death() {
    let Some(engine) = engine("life_and_death") else { return };
    engine.run(&["--rm", "busybox", "sh", "-c", "exit 42"]).expect_code(42);
    let missing = engine.run(&["--rm", "busybox", "/no/such"]).expect_code(127);
    assert!(missing.err.contains("no such file or directory"), "{}", missing.err);
    let unfound = engine.run(&["--rm", "busybox", "nosuchprogram"]).expect_code(127);
    assert!(unfound.err.contains("executable file not found in $PATH"), "{}", unfound.err);
    engine.run(&["--rm", "busybox", "/etc/passwd"]).expect_code(126);

    let name = "lives";
    let script = "trap 'echo term; exit 3' TERM; echo hello; echo error >&2; while :; do sleep 0.1; done";
    engine.run(&["-d", "--name", name, "busybox", "sh", "-c", script]).ok();
    // Before that it may not have said yet what it does on SIGTERM.
    let hellos = |n: usize| {
        let said = wait_for(STEP, || engine.docker(&["logs", name]).out.matches("hello").count() >= n);
        assert!(said, "{}", engine.docker(&["logs", name]).out);
    };
    hellos(1);
    assert!(wait_for(STEP, || engine.docker(&["logs", name]).err.trim() == "error"));
    assert!(engine.docker(&["top", name]).ok().out.contains("trap"));
    // The client says `--` when the engine takes more than two seconds, of which it needs almost as many.
    let stats = || engine.docker(&["stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", name]).ok().out;
    let counted = |s: &str| !s.starts_with("0 ") && !s.contains("0B /") && !s.contains("--");
    assert!(!has_metrics("life_and_death") || wait_for(STEP, || counted(&stats())), "{}", stats());
    engine.docker(&["pause", name]).ok();
    assert_eq!(engine.inspect(name, "{{.State.Status}}"), "paused");
    engine.docker(&["unpause", name]).ok();
    engine.docker(&["stop", name]).ok();
    assert_eq!(engine.inspect(name, "{{.State.ExitCode}} {{.State.OOMKilled}}"), "3 false");
    engine.docker(&["start", name]).ok();
    hellos(2);
    engine.docker(&["restart", "-t", "1", name]).ok();
    hellos(3);
    engine.docker(&["kill", "-s", "KILL", name]).ok();
    assert!(wait_for(STEP, || engine.inspect(name, "{{.State.ExitCode}}") == "137"));
    engine.docker(&["rm", name]).ok();

    engine.run(&["-d", "--name", "again", "--restart", "on-failure:2", "busybox", "sh", "-c", "exit 9"]).ok();
    assert!(wait_for(STEP, || engine.inspect("again", "{{.RestartCount}} {{.State.Status}}") == "2 exited"));
    engine.docker(&["rm", "again"]).ok();
}

#[test]
fn exec_and_terminals() {
    let Some(engine) = engine("exec_and_terminals") else { return };
    let name = "execs";
    engine.run(&["-d", "--name", name, "--env", "A=outer", "--cap-drop", "MKNOD", "busybox", "sleep", "1000"]).ok();
    let exec = |options: &[&str], script: &str| {
        let mut args = vec!["exec"];
        args.extend(options);
        args.extend([name, "sh", "-c", script]);
        engine.docker(&args)
    };
    let caps = exec(&[], "grep CapEff /proc/self/status; echo $A; exit 7").expect_code(7);
    assert_eq!(caps.text(), "CapEff:\t000001fff7ffffff\nouter");
    assert_eq!(
        exec(&["-u", "1000", "-w", "/tmp", "-e", "A=inner"], "id -u; pwd; echo $A").ok().text(),
        "1000\n/tmp\ninner"
    );
    assert_eq!(exec(&["--privileged"], "grep CapEff /proc/self/status").ok().text(), "CapEff:\t000001ffffffffff");
    assert_eq!(exec(&["-t"], "test -t 0 && tty").ok().text(), "/dev/pts/0");
    // As with runc and this engine.
    engine.docker(&["exec", name, "/no/such"]).expect_code(126);
    engine.docker(&["exec", name, "/etc/passwd"]).expect_code(126);
    engine.docker(&["exec", "-d", name, "touch", "/touched"]).ok();
    assert!(wait_for(STEP, || exec(&[], "test -e /touched").code == 0));

    // Interactive, on a terminal that is resized.
    let script = format!(
        "stty rows 33 cols 77; (sleep 2; echo 'stty size; exit 5') | docker -H unix://{} run -i --rm --runtime=sysbox-runc busybox sh",
        engine.path("sock").display()
    );
    let mut piped = std::process::Command::new("sh");
    piped.args(["-c", &script.replace("stty rows 33 cols 77; ", "").replace("stty size", "echo typed")]);
    assert_eq!(engine.lab.spawn(piped).finish(STEP).expect_code(5).text(), "typed");
    // The client says how big the terminal is after the start.
    let seen =
        "for i in $(seq 300); do stty size | grep -q \"33 77\" && break; sleep 0.1; done; stty size; tty; exit 6";
    let inner = format!(
        "stty rows 33 cols 77; docker -H unix://{} run -it --rm --runtime=sysbox-runc busybox sh -c '{seen}'",
        engine.path("sock").display()
    );
    let mut terminal = std::process::Command::new("script");
    terminal.args(["-qec", &inner, "/dev/null"]).stdin(std::process::Stdio::piped());
    let done = engine.lab.spawn(terminal).finish(STEP).expect_code(6);
    assert!(done.out.contains("33 77") && done.out.contains("/dev/pts/0"), "{:?}", done.out);
    engine.docker(&["rm", "-f", name]).ok();
}

#[test]
fn users_by_name_and_files_across_the_two_overlays() {
    let Some(engine) = engine("users_by_name") else { return };
    let name = "shares";
    engine.run(&["-d", "--name", name, "busybox", "sleep", "1000"]).ok();
    let sh = |script: &str| engine.docker(&["exec", name, "sh", "-c", script]);
    // Each side has looked up what the other changes.
    engine.docker(&["exec", "-u", "new", name, "true"]).expect_code(126);
    sh("test ! -e /etc/group- && test ! -e /came; { cat /etc/passwd; echo new:x:1001:1001::/:/bin/sh; } >/etc/p && mv /etc/p /etc/passwd && id -u new").ok();
    assert_eq!(engine.docker(&["exec", "-u", "new", name, "id", "-un"]).ok().text(), "new");

    let file = engine.path("given");
    std::fs::write(&file, "given\n").unwrap();
    sh("test ! -e /came").ok();
    engine.docker(&["cp", file.to_str().unwrap(), &format!("{name}:/came")]).ok();
    assert_eq!(sh("cat /came; stat -c %u:%g /came").ok().text(), "given\n0:0");
    // The container looks for it again and again, and finds it after the next call of the runtime.
    let poll = "until test -e /polled; do sleep 0.05; done; cat /polled >/seen";
    engine.docker(&["exec", "-d", name, "sh", "-c", poll]).ok();
    engine.docker(&["cp", file.to_str().unwrap(), &format!("{name}:/polled")]).ok();
    assert!(wait_for(STEP, || sh("cat /seen").out == "given\n"));
    sh("echo changed >/came; echo new >/new").ok();
    let back = engine.path("back");
    engine.docker(&["cp", &format!("{name}:/came"), back.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read_to_string(&back).unwrap(), "changed\n");
    sh("echo again >/came").ok();
    engine.docker(&["cp", &format!("{name}:/came"), back.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read_to_string(&back).unwrap(), "again\n");
    engine.docker(&["cp", &format!("{name}:/new"), back.to_str().unwrap()]).ok();

    // Images see what root of the container wrote as root's.
    sh("mkdir /d && chown 1000:1000 /d && rm -r /home && echo kept >/d/f").ok();
    let diff = engine.docker(&["diff", name]).ok().out;
    for line in ["A /came", "A /d/f", "D /home", "C /etc/passwd"] {
        assert!(diff.lines().any(|l| l == line), "no {line:?} in {diff}");
    }
    engine.docker(&["commit", name, "committed"]).ok();
    let script = "stat -c %u:%g /came /d /d/f; cat /d/f; ls -d /home 2>&1";
    let seen = engine.run(&["--rm", "committed", "sh", "-c", script]);
    assert_eq!(seen.text(), "0:0\n1000:1000\n0:0\nkept\nls: /home: No such file or directory");
    let listing = format!(
        "docker -H unix://{} export {name} | tar -tv --numeric-owner | grep -E ' (came|d/)$'",
        engine.path("sock").display()
    );
    let mut export = std::process::Command::new("sh");
    export.args(["-c", &listing]);
    let export = engine.lab.spawn(export).finish(STEP).ok().out;
    assert!(export.contains("0/0") && export.contains("1000/1000"), "{export}");
    engine.docker(&["rm", "-f", name]).ok();
    engine.docker(&["rmi", "committed"]).ok();
}

#[test]
fn containers_share_namespaces_with_each_other_only() {
    let Some(engine) = engine("containers_share_namespaces") else { return };
    engine.run(&["-d", "--name", "first", "--ipc", "shareable", "busybox", "sleep", "1000"]).ok();
    engine.docker(&["run", "-d", "--name", "plain", "--network", "none", "busybox", "sleep", "1000"]).ok();
    let script = "for n in net ipc user uts pid; do readlink /proc/self/ns/$n; done; cat /dev/shm/f";
    let first = engine.docker(&["exec", "first", "sh", "-c", &format!("echo shared >/dev/shm/f; {script}")]).ok().out;
    let second = prints(&engine, &["--network", "container:first", "--ipc", "container:first"], script);
    let (first, second): (Vec<&str>, Vec<&str>) = (first.lines().collect(), second.lines().collect());
    assert_eq!(first[..3], second[..3], "network, IPC and user namespace are the same");
    assert_ne!(first[3], second[3]);
    assert_ne!(first[4], second[4]);
    assert_eq!(second[5], "shared");
    // Root of both, it may configure the network.
    prints(
        &engine,
        &["--network", "container:first"],
        "ip link add dummy9 type dummy || ip addr add 192.0.2.9/32 dev lo",
    );
    // The range stays taken as long as one of them lives.
    engine.run(&["-d", "--name", "second", "--network", "container:first", "busybox", "sleep", "1000"]).ok();
    let map = |name: &str| engine.docker(&["exec", name, "cat", "/proc/self/uid_map"]).ok().text().to_owned();
    let shared = map("second");
    assert_eq!(shared, map("first"));
    engine.docker(&["rm", "-f", "first"]).ok();
    engine.run(&["-d", "--name", "third", "busybox", "sleep", "1000"]).ok();
    assert_ne!(map("third"), shared);
    engine.docker(&["rm", "-f", "second", "third"]).ok();

    for (options, words) in [
        (&["--network", "host"][..], "--network=host"),
        (&["--network", "container:plain"], "belongs to the host's user namespace"),
        (&["--pid", "host"], "--pid=host"),
        (&["--ipc", "host"], "--ipc=host"),
        (&["--uts", "host"], "--uts=host"),
        (&["--privileged"], "without --privileged"),
    ] {
        let mut args = vec!["--rm"];
        args.extend(options);
        args.extend(["busybox", "true"]);
        let done = engine.run(&args).expect_code(125);
        assert!(done.err.contains(words), "{options:?}: {}", done.err);
    }
    engine.docker(&["rm", "-f", "plain"]).ok();
}

#[test]
fn nothing_stays() {
    // Alone with an engine of its own, or others' containers would be counted.
    let Some(engine) = Engine::start("nothing_stays", &[]) else { return };
    engine.image("busybox");
    for i in 0..3 {
        let name = format!("gone{i}");
        engine.run(&["-d", "--name", &name, "busybox", "sleep", "1000"]).ok();
        engine.docker(&["exec", &name, "true"]).ok();
    }
    engine.run(&["--name", "failed", "busybox", "/no/such"]).expect_code(127);
    assert_ne!(engine.leavings(), "", "there is something to leave");
    engine.docker(&["rm", "-f", "gone0", "gone1", "gone2", "failed"]).ok();
    assert!(wait_for(STEP, || engine.leavings().is_empty()), "{}", engine.leavings());
}
