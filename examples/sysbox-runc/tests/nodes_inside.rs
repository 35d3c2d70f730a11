//! Nodes of /proc and /sys in the inner containers of Docker Engine: with nodes in the system container alone, and in all of them.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::inner::{Inner, ENGINE};
use common::Lab;

/// What kubelet writes (--protect-kernel-defaults=false), and reads back.
const KUBELET: &str = "for s in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    f=/proc/sys/${s%=*}; v=${s#*=}; echo $v > $f && test $(cat $f) = $v || exit 1; done; echo written";

/// A procfs in a user namespace in an inner container.
const USERS: &str = "unshare -Urmpf --mount-proc cat /proc/self/comm";

/// An engine with every node, live ones included, and a limit that they show.
fn engine(name: &'static str, kind: &'static str, nested: bool, steps: impl FnOnce(&mut Inner<'_>)) {
    let Some(lab) = Lab::new(name, kind) else { return };
    let bundle = lab.bundle("engine", &["/bin/sh", "-c", ENGINE]);
    bundle.edit(|c| {
        c["annotations"]["sysbox.nodes"] = "live".into();
        c["annotations"]["sysbox.nested-nodes"] = if nested { "true" } else { "false" }.into();
        c["linux"]["resources"]["memory"]["limit"] = (1u64 << 30).into();
    });
    let id = lab.started("engine", &bundle);
    let mut inner = Inner::new(&lab, |script| lab.runtime(&["exec", &id, "sh", "-c", script]));
    inner.start();
    steps(&mut inner);
    inner.judge();
    lab.run(&["kill", &id, "TERM"]).ok();
    lab.wait_status(&id, "stopped");
    lab.run(&["delete", &id]).ok();
    lab.assert_nothing_left();
}

/// Inner containers start, whatever their runtime thinks of mounts in /proc, and see the kernel's own.
fn plain(inner: &mut Inner<'_>) {
    inner.prints("sysctl of the network", "docker run --rm --sysctl net.ipv4.ip_unprivileged_port_start=80 busybox cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "80");
    inner.prints(
        "privileged",
        "docker run --rm --privileged busybox sh -c 'mount -t tmpfs none /mnt && echo done'",
        "done",
    );
    let host = std::fs::read_to_string("/proc/meminfo").unwrap().lines().next().unwrap().to_owned();
    inner.prints("memory", "docker run --rm busybox grep MemTotal /proc/meminfo", &host);
    inner.step("kubelet", &format!("docker run --rm --privileged busybox sh -c '{KUBELET}'"), |code, _| code != 0);
    inner.prints("a user namespace", &format!("docker run --rm --privileged busybox {USERS}"), "cat");
}

/// They have the nodes.
fn nested(inner: &mut Inner<'_>) {
    inner.prints("sysctl of the network", "docker run --rm --sysctl net.ipv4.ip_unprivileged_port_start=80 busybox cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "80");
    inner.prints("kubelet", &format!("docker run --rm --privileged busybox sh -c '{KUBELET}'"), "written");
    let total = "sed -n \"s/^MemTotal: *//p\" /proc/meminfo; free -k | sed -n \"s/^Mem: *\\([0-9]*\\).*/\\1/p\"";
    inner.prints("memory", &format!("docker run --rm busybox sh -c '{total}'"), "1048576 kB\n1048576");
    inner.prints(
        "memory of a smaller one",
        &format!("docker run --rm -m 64m busybox sh -c '{total}'"),
        "65536 kB\n65536",
    );
    inner.prints("exec", &format!("docker run -d --name other -m 64m busybox sleep 1000 >/dev/null && docker exec other sh -c '{total}' && docker rm -f other"), "65536 kB\n65536\nother");
    let own = "mkdir /p && mount -t proc none /p && test $(cat /p/1/comm) = sh && echo 3 > /p/sys/kernel/panic && umount /p && rmdir /p && cat /proc/sys/kernel/panic";
    inner.prints("a mount of its own", &format!("docker run --rm --privileged busybox sh -c '{own}'"), "3");
    inner.prints("an init of its own", "docker run --rm --init busybox cat /proc/1/comm", "docker-init");
    inner.prints("no network", "docker run --rm --network none busybox ls /sys/class/net", "lo");
    // The kernel wants to see one proc that nothing is mounted on.
    inner.step("a user namespace", &format!("docker run --rm --privileged busybox {USERS} 2>&1"), |code, out| {
        code != 0 && out.contains("not permitted")
    });
    inner.prints("masked", "docker run --rm busybox sh -c 'cat /proc/kcore | wc -c'", "0");
    let build = "mkdir -p /b && printf 'FROM busybox\\nRUN grep -c processor /proc/cpuinfo >/n\\n' >/b/Dockerfile && docker build -q -t built /b >/dev/null 2>&1; docker run --rm built test -s /n && echo built";
    inner.prints("build", build, "built");
    let many = "for i in $(seq 6); do docker run --rm --privileged busybox cat /proc/sys/kernel/panic & done; wait";
    inner.prints("six at once", many, &["3"; 6].join("\n"));
}

#[test]
fn docker_of_bookworm_with_nodes() {
    engine("docker_of_bookworm_with_nodes", "docker-bookworm", false, plain);
}

#[test]
fn docker_of_trixie_with_nodes() {
    engine("docker_of_trixie_with_nodes", "docker-trixie", false, plain);
}

#[test]
fn docker_of_bookworm_with_nodes_in_inner_containers() {
    engine("docker_of_bookworm_with_nodes_in_inner_containers", "docker-bookworm", true, nested);
}

#[test]
fn docker_of_trixie_with_nodes_in_inner_containers() {
    engine("docker_of_trixie_with_nodes_in_inner_containers", "docker-trixie", true, nested);
}

/// runc from 1.2.8 and 1.3.3 on refuses to cross a mount on the way to a setting (openat2(2), RESOLVE_NO_XDEV).
#[test]
fn the_newest_docker_with_nodes() {
    engine("the_newest_docker_with_nodes", "docker-forky", false, plain);
}

#[test]
fn the_newest_docker_with_nodes_in_inner_containers() {
    engine("the_newest_docker_with_nodes_in_inner_containers", "docker-forky", true, nested);
}
