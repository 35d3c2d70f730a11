//! What people look at a machine with, in a container with limits: all must tell the same.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{debian, monitor_pid, Guard, Lab};
use serde_json::{json, Value};
use sysbox_core::SystemContainer;

fn limits(mut doc: Value) -> Value {
    doc["linux"]["resources"] = json!({
        "memory": {"limit": 256 << 20}, "cpu": {"quota": 150_000, "period": 100_000, "cpus": "0"},
    });
    doc
}

/// One word each, of several programs.
fn all_say(c: &Guard<'_>, wanted: &str, scripts: &[&str]) {
    for script in scripts {
        assert_eq!(c.sh(script).ok(), wanted, "{script}");
    }
}

#[test]
fn debians_tools_agree() {
    let Some(lab) = Lab::new("debians_tools_agree") else { return };
    let Some(tree) = debian("debians_tools_agree") else { return };
    let system = SystemContainer::new(tree.path().join("tree")).args(["sleep", "1000"]);
    let c = lab.start(&limits(system.tmpfs("/tmp", &["mode=1777"]).to_json()));
    all_say(
        &c,
        "256",
        &[
            "free -m | awk '/^Mem/ {print $2}'",
            "top -b -n 1 | awk '/^MiB Mem/ {printf \"%d\\n\", $4}'",
            "vmstat -s -S M | awk '/total memory/ {print $1}'",
            "awk '/^MemTotal/ {print $2 / 1024}' /proc/meminfo",
        ],
    );
    all_say(
        &c,
        "1",
        &[
            "nproc",
            "getconf _NPROCESSORS_ONLN",
            "grep -c ^processor /proc/cpuinfo",
            "grep -c '^cpu[0-9]' /proc/stat",
            "lscpu | awk '/^On-line CPU.s. list/ {n = split($4, a, \",\"); print n}'",
            "python3 -c 'import os; print(os.cpu_count())'",
            "perl -e 'open F, \"/sys/devices/system/cpu/online\"; print 1 + split(/,/, <F>) - 1, \"\\n\"'",
        ],
    );
    // What is used is less than all, in every program.
    for script in [
        "free -k | awk '/^Mem/ {exit !($3 <= $2 && $4 <= $2 && $7 <= $2 && $2 == 262144)}'",
        // Its first report is since the start, of which the host has had more.
        "vmstat | tail -n 1 | awk '{exit !($7 == 0 && $8 == 0 && $9 < 1000000 && $10 < 1000000)}'",
        "vmstat 1 2 | tail -n 1 | awk '{exit !($4 < 262144 && $15 >= 0 && $15 <= 100)}'",
        // The container has just started, whatever the host has been doing.
        "awk '{exit !($1 < 60)}' /proc/uptime && uptime | grep -q load && test $(ps -o etimes= -p 1) -lt 60",
        "awk '/^btime/ {exit !(systime() - $2 < 60)}' /proc/stat || test $(( $(date +%s) - $(awk '/^btime/ {print $2}' /proc/stat) )) -lt 60",
    ] {
        c.sh(script).ok();
    }
    // Who uses all that there is sees no time idle: the first report of top is since the start.
    let busy = "timeout 60 sh -c 'while :; do :; done' & sleep 0.5; top -b -d 1 -n 2 | awk '/^%Cpu/ {idle = $8} END {print idle}'; kill $!";
    let idle: f64 = c.sh(busy).ok().replace(',', ".").parse().unwrap();
    assert!(idle < 90.0, "{idle} % idle");
}

#[test]
fn busyboxs_tools_agree() {
    let Some(lab) = Lab::new("busyboxs_tools_agree") else { return };
    let c = lab.start(&limits(lab.doc("sleep 1000")));
    all_say(&c, "1", &["nproc", "grep -c ^processor /proc/cpuinfo", "grep -c '^cpu[0-9]' /proc/stat"]);
    c.sh("top -b -n 1 | awk 'NR == 1 {used = $2; free = $4; exit !(used + free <= 262144)}'").ok();
    c.sh("uptime | grep -q 'load average'; ps | grep -q sleep; sysctl -w vm.swappiness=10 && test $(sysctl -n vm.swappiness) = 10")
        .ok();
}

/// Descriptors, mounts and processes of this host that have to do with containers.
fn traces(c: &Guard<'_>) -> (usize, usize, usize) {
    let pid = c.pid().unwrap();
    let monitor = monitor_pid(c);
    let lines = |path: String| std::fs::read_to_string(path).unwrap().lines().count();
    let fds = std::fs::read_dir(format!("/proc/{monitor}/fd")).unwrap().count();
    (fds, lines(format!("/proc/{pid}/mountinfo")), c.processes().unwrap().len())
}

#[test]
fn a_crowd_of_readers_and_a_hostile_one() {
    let Some(lab) = Lab::new("a_crowd_of_readers_and_a_hostile_one") else { return };
    let Some(tree) = debian("a_crowd_of_readers_and_a_hostile_one") else { return };
    let system = SystemContainer::new(tree.path().join("tree")).args(["sleep", "1000"]);
    let c = lab.start(&limits(system.tmpfs("/tmp", &["mode=1777"]).to_json()));
    let before = traces(&c);
    let host = std::fs::read_to_string("/proc/meminfo").unwrap().lines().count();
    // 50 readers, 200 times each, of whole texts.
    let crowd = "python3 -c '
import os
files = [\"/proc/meminfo\", \"/proc/stat\", \"/proc/cpuinfo\", \"/proc/loadavg\"]
pids = []
for i in range(50):
    pid = os.fork()
    if pid == 0:
        for k in range(200):
            text = open(files[(i + k) % 4]).read()
            if not text.endswith(\"\\n\"): os._exit(1)
        os._exit(0)
    pids.append(pid)
print(sum(os.waitpid(p, 0)[1] == 0 for p in pids))'";
    assert_eq!(c.sh(crowd).ok(), "50");
    let hostile = "python3 -c '
import os, errno
nodes = [l.split()[4] for l in open(\"/proc/self/mountinfo\") if \" sysbox-live \" in l]
assert len(nodes) > 5, nodes
for n in nodes:
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        try: os.close(os.open(n, flags)); raise SystemExit(n + \" can be opened for writing\")
        except OSError as e: assert e.errno in (errno.EACCES, errno.EPERM, errno.EROFS), e
    for what in (lambda: os.truncate(n, 0), lambda: os.chmod(n, 0o777), lambda: os.unlink(n), lambda: os.rename(n, \"/tmp/x\"),
                 lambda: os.setxattr(n, \"user.x\", b\"y\"), lambda: os.link(n, \"/tmp/y\"), lambda: os.chown(n, 1000, 1000)):
        try: what(); raise SystemExit(n + \" can be changed\")
        except OSError: pass
    if not open(n).read(): continue
    fds = [os.open(n, os.O_RDONLY) for _ in range(300)]
    for fd in fds:
        os.read(fd, 1); os.lseek(fd, 1 << 40, 0); assert os.read(fd, 10) == b\"\"
        assert os.pread(fd, 10, 0)
    for fd in fds: os.close(fd)
print(\"unmoved\")'";
    assert_eq!(c.sh(hostile).ok(), "unmoved");
    // Descriptors are closed a moment later.
    common::poll_until("as before", || traces(&c) == before);
    assert_eq!(std::fs::read_to_string("/proc/meminfo").unwrap().lines().count(), host);
    let is_stuck = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('D'))
    };
    let first = c.maps().unwrap().uid.to_outside(0).unwrap();
    // Who waits for a disk does not for long.
    common::poll_until("nobody is stuck", || !common::pids_with_uid(first, 65536).iter().any(is_stuck));
}
