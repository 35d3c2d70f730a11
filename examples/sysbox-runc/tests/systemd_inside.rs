//! systemd as a system container's init, with Docker as one of its services.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::{wait_for, Lab};
use std::time::Duration;

/// For booting and for shutting down on a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// There is no bus to ask at first; what failed is listed for who reads the test's output.
const BOOTED: &str = r"
while :; do
  state=$(systemctl is-system-running --wait 2>/dev/null)
  case $state in running | degraded) break ;; esac
  sleep 0.1
done
echo $state
systemctl list-units --failed --plain --no-legend
";

fn init(name: &'static str) -> Option<(Lab, common::Bundle)> {
    let lab = Lab::new(name, "systemd")?;
    let bundle = lab.bundle("systemd", &["/sbin/init"]);
    Some((lab, bundle))
}

#[test]
fn systemd_runs_services() {
    let Some((lab, bundle)) = init("systemd_runs_services") else { return };
    let id = lab.started("systemd", &bundle);
    assert_eq!(lab.sh(&id, BOOTED, LONG).ok().text(), "running");
    let told = "cat /proc/1/comm; tr '\\0' '\\n' </proc/1/environ | grep ^container=; systemd-detect-virt --container --quiet && echo seen";
    assert_eq!(lab.sh(&id, told, LONG).text(), "systemd\ncontainer=oci\nseen");
    let services = lab.sh(&id, "systemctl is-active docker dbus systemd-journald systemd-logind", LONG);
    assert_eq!(services.ok().text(), "active\nactive\nactive\nactive");
    // What stays away is what the runtime put something over; nothing was switched off.
    let docker = "docker import /opt/busybox.tar busybox >/dev/null && docker run --rm -p 80:80 busybox echo hello";
    assert_eq!(lab.sh(&id, docker, LONG).ok().text(), "hello");
    memory_limit(&lab, &id);
    let unit =
        "systemd-run --unit answer --service-type=oneshot --remain-after-exit sh -c 'echo from the journal' 2>/dev/null
        journalctl --sync; journalctl --unit answer --output cat | grep journal";
    assert!(lab.sh(&id, unit, LONG).ok().text().contains("from the journal"));
    lab.run(&["delete", "--force", &id]).ok();
    lab.assert_nothing_left();
}

fn memory_limit(lab: &Lab, id: &str) {
    let own =
        "cd /sys/fs/cgroup; if [ -e cgroup.controllers ]; then cat .$(sed -n s/^0:://p /proc/self/cgroup)/memory.max
        else cat memory$(sed -n s/.*:memory://p /proc/self/cgroup)/memory.limit_in_bytes; fi";
    let run = "systemd-run --wait --pipe -p MemoryMax=50M -p MemorySwapMax=0";
    let limit = lab.sh(id, &format!("{run} sh -c '{own}'"), LONG).ok();
    assert_eq!(limit.text(), "52428800");
    let hog = lab.sh(id, &format!("{run} tail /dev/zero"), LONG);
    assert_ne!(hog.code, 0, "{hog:?}");
    // systemd sees that it was the OOM killer only with cgroup v2.
    let killed = hog.err.contains("result: oom-kill") || hog.err.contains("status=KILL");
    assert!(killed, "{}", hog.err);
}

/// The kernel's answer to reboot(2) in a pid namespace is to end its init by a signal.
fn ends(name: &'static str, code: i32, end: impl FnOnce(&Lab, &str)) {
    let Some((lab, bundle)) = init(name) else { return };
    let id = lab.id("systemd");
    let run = lab.spawn(lab.runtime(&["run", "--bundle", bundle.path(), &id]));
    assert!(wait_for(LONG, || lab.status(&id) == "running"), "{id} is {}", lab.status(&id));
    assert_eq!(lab.sh(&id, BOOTED, LONG).ok().text(), "running");
    end(&lab, &id);
    run.finish(LONG).expect_code(code);
    lab.assert_nothing_left();
}

#[test]
fn poweroff_ends_by_sigint() {
    ends("poweroff_ends_by_sigint", 128 + 2, |lab, id| {
        lab.run(&["exec", id, "poweroff"]);
    });
}

#[test]
fn reboot_ends_by_sighup() {
    ends("reboot_ends_by_sighup", 128 + 1, |lab, id| {
        lab.run(&["exec", id, "reboot"]);
    });
}

/// What engines send to a systemd that shall halt.
#[test]
fn halt_signal_ends_by_sigint() {
    ends("halt_signal_ends_by_sigint", 128 + 2, |lab, id| {
        lab.run(&["kill", id, "SIGRTMIN+3"]).ok();
    });
}

/// systemd-sysctl writes without cutting the file: what is left of a longer value stands on lines of its own.
#[test]
fn settings_of_sysctl_d() {
    let Some((lab, bundle)) = init("settings_of_sysctl_d") else { return };
    bundle.edit(|c| {
        c["linux"]["resources"] = serde_json::json!({
            "memory": {"limit": 256 << 20}, "cpu": {"quota": 150_000, "period": 100_000, "cpus": "0"},
        });
    });
    let id = lab.started("systemd", &bundle);
    assert_eq!(lab.sh(&id, BOOTED, LONG).ok().text(), "running");
    let apply = "mkdir -p /run/sysctl.d; printf '%s\\n' kernel.panic=10 vm.overcommit_memory=1 vm.max_map_count=262144 \
        net.ipv4.ip_forward=1 fs.inotify.max_user_watches=1048576 >/run/sysctl.d/90-test.conf
        systemctl restart systemd-sysctl && systemctl is-active systemd-sysctl
        cd /proc/sys; head -qn 1 kernel/panic vm/overcommit_memory vm/max_map_count net/ipv4/ip_forward fs/inotify/max_user_watches";
    assert_eq!(lab.sh(&id, apply, LONG).ok().text(), "active\n10\n1\n262144\n1\n1048576");
    let agree = "nproc; free -m | awk '/^Mem/ {print $2}'; grep -c ^processor /proc/cpuinfo";
    assert_eq!(lab.sh(&id, agree, LONG).ok().text(), "1\n256\n1");
    lab.run(&["delete", "--force", &id]).ok();
    lab.assert_nothing_left();
}
