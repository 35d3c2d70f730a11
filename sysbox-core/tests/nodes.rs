//! Stored nodes: files of the container's own below /proc and /sys.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{debian, Guard, Lab};
use serde_json::json;
use std::path::{Path, PathBuf};
use sysbox_core::procfs::{Kind, Node, Nodes, Value};
use sysbox_core::SystemContainer;

/// Values that a row takes, neither of which is likely to be there already.
fn samples(node: &Node) -> Vec<String> {
    match &node.value {
        Value::Integers { count, min, max } => {
            let some = |n: i128| vec![n.to_string(); *count].join("\t");
            vec![some(i128::from(*min)), some(i128::from(*max))]
        }
        Value::Line(longest) => vec!["a word".into(), "x".repeat(*longest)],
        other => panic!("{other:?} is not written"),
    }
}

fn stored() -> impl Iterator<Item = Node> {
    Nodes::default().iter().filter(|n| matches!(n.kind, Kind::Stored { .. })).cloned().collect::<Vec<_>>().into_iter()
}

/// Those that are a mount of their own in a container.
fn covered(c: &Guard<'_>) -> Vec<PathBuf> {
    let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", c.pid().unwrap())).unwrap();
    let nodes = table.lines().filter(|l| l.contains(" sysbox-nodes "));
    nodes.map(|l| l.split(' ').nth(4).unwrap().into()).collect()
}

#[test]
fn every_row_keeps_what_is_written() {
    let Some(lab) = Lab::new("every_row_keeps_what_is_written") else { return };
    let mut doc = lab.doc("sleep 1000");
    doc["annotations"] = json!({"sysbox.net-nodes": "true"});
    let c = lab.start(&doc);
    let covered = covered(&c);
    let mut written = 0;
    for node in stored() {
        let path = node.path.display();
        let host = std::fs::read(&node.path).ok();
        if c.sh(&format!("test -e {path}")).exit.code() != 0 {
            continue;
        }
        let first = c.sh(&format!("cat {path}")).ok();
        assert!(node.value.accepts(&first), "{path} is {first:?}");
        let is_own = covered.contains(&node.path);
        let writable = matches!(node.kind, Kind::Stored { mode, .. } if mode & 0o222 != 0);
        if writable && is_own {
            for sample in samples(&node) {
                let back = c.sh(&format!("printf '%s\\n' '{sample}' > {path} && cat {path}")).ok();
                assert_eq!(back, sample.trim(), "{path}");
            }
            // Nobody judges the value; only root may give one.
            assert_eq!(c.sh(&format!("echo -12345x > {path} && cat {path}")).ok(), "-12345x");
            c.sh(&format!("setuidgid 1000 sh -c 'echo 1 > {path}' 2>&1 || su -s /bin/sh nobody -c 'echo 1 > {path}'"))
                .fails("");
            written += 1;
        } else if writable {
            // The kernel's own takes its own value.
            c.sh(&format!("v=$(cat {path}) && echo \"$v\" > {path} && test \"$(cat {path})\" = \"$v\"")).ok();
        } else {
            assert!(is_own, "{path}");
        }
        if node.path.file_name() != Some("uuid".as_ref()) {
            assert_eq!(std::fs::read(&node.path).ok(), host, "{path} of the host");
        }
    }
    assert!(written > 30, "only {written} rows could be written");
}

#[test]
fn what_is_the_kernels_stays_the_kernels() {
    let Some(lab) = Lab::new("what_is_the_kernels_stays_the_kernels") else { return };
    let c = lab.start(&lab.doc("sleep 1000"));
    let covered = covered(&c);
    for name in ["net/ipv4/ip_forward", "kernel/msgmax", "user/max_user_namespaces", "kernel/hostname"] {
        assert!(!covered.contains(&Path::new("/proc/sys").join(name)), "{name}");
    }
    // A directory is never covered: inner runtimes refuse to cross mounts on the way to a setting.
    for path in covered.iter().filter(|p| p.starts_with("/proc")) {
        assert!(!Path::new(path).is_dir(), "{path:?}");
    }
}

#[test]
fn a_node_is_used_exactly_where_the_kernel_refuses() {
    let Some(lab) = Lab::new("a_node_is_used_exactly_where_the_kernel_refuses") else { return };
    let with = |nodes: &str| {
        let mut doc = lab.doc("sleep 1000");
        doc["annotations"] = json!({"sysbox.nodes": nodes, "sysbox.net-nodes": "true"});
        lab.start(&doc)
    };
    let (native, c) = (with("off"), with("stored"));
    let covered = covered(&c);
    let mut kernels = 0;
    for node in stored().filter(|n| matches!(n.kind, Kind::Stored { mode, .. } if mode & 0o222 != 0)) {
        let path = node.path.display();
        let tried = native.sh(&format!("test -e {path} || exit 2; true 3>> {path}")).exit.code();
        assert_eq!(covered.contains(&node.path), tried == 1, "{path}: {tried}");
        kernels += usize::from(tried == 0);
    }
    // Some are the kernel's on every kernel that this runs on: from 6.9 or 6.14 on.
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let version: Vec<u32> = release.split('.').take(2).filter_map(|n| n.parse().ok()).collect();
    assert_eq!(kernels > 0, version >= vec![6, 9], "{release}");
}

#[test]
fn what_lies_in_a_network_namespace_is_there_on_request() {
    let Some(lab) = Lab::new("what_lies_in_a_network_namespace_is_there_on_request") else { return };
    let c = lab.start(&lab.doc("sleep 1000"));
    // A program in another network namespace does not find such a mount where the list of mounts has it.
    assert!(!covered(&c).iter().any(|p| p.starts_with("/proc/sys/net")));
    c.sh("for m in $(awk '/ sysbox-nodes / {print $5}' /proc/self/mountinfo); do
        unshare -n -i -m mount -o remount,bind,ro $m || exit 1; done")
        .ok();
}

#[test]
fn each_container_has_its_own() {
    let Some(lab) = Lab::new("each_container_has_its_own") else { return };
    let (a, b) = (lab.start(&lab.doc("sleep 1000")), lab.start(&lab.doc("sleep 1000")));
    a.sh("echo 1 > /proc/sys/vm/overcommit_memory; sysctl -w kernel.panic=30").ok();
    assert_eq!(a.sh("sysctl -n vm.overcommit_memory kernel.panic").ok(), "1\n30");
    assert_eq!(b.sh("sysctl -n vm.overcommit_memory kernel.panic").ok(), "0\n0");
    let boot = |c: &Guard<'_>| c.sh("cat /proc/sys/kernel/random/boot_id").ok();
    let host = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(boot(&a) != boot(&b) && boot(&a) != host.trim() && boot(&a) == boot(&a));
    // And a fresh proc inside is the kernel's.
    a.sh("mkdir -p /p && mount -t proc proc /p && test $(cat /p/sys/kernel/panic) != 30").ok();
    a.sh("umount /proc/sys/kernel/panic && test $(cat /proc/sys/kernel/panic) != 30").ok();
}

#[test]
fn nodes_can_be_left_out_and_added() {
    let Some(lab) = Lab::new("nodes_can_be_left_out_and_added") else { return };
    let mut doc = lab.doc("sleep 1000");
    doc["annotations"] = json!({"sysbox.nodes": "off"});
    let c = lab.start(&doc);
    assert!(!covered(&c).iter().any(|p| p.starts_with("/proc")));
    c.sh("echo 1 > /proc/sys/kernel/panic").fails("permission denied");
    drop(c);
    let own =
        Node::sysctl("vm/stat_interval", sysbox_core::procfs::Initial::Text("7\n".into()), Value::integer(1, 100));
    let mut lab = lab;
    lab.runtime = lab.runtime.clone().nodes(Nodes::none().with(own).unwrap());
    let c = lab.start(&lab.doc("sleep 1000"));
    assert_eq!(covered(&c), [Path::new("/proc/sys/vm/stat_interval")]);
    assert_eq!(c.sh("cat /proc/sys/vm/stat_interval").ok(), "7");
}

#[test]
fn debians_tools_write_them() {
    let Some(lab) = Lab::new("debians_tools_write_them") else { return };
    let Some(tree) = debian("debians_tools_write_them") else { return };
    let system = SystemContainer::new(tree.path().join("tree")).args(["sleep", "1000"]);
    let mut doc = system.tmpfs("/tmp", &["mode=1777"]).tmpfs("/etc/sysctl.d", &["mode=755"]).to_json();
    doc["annotations"] = json!({"sysbox.net-nodes": "true"});
    let c = lab.start(&doc);
    // What kubelet, kube-proxy and common guides set.
    let settings = [
        ("vm.overcommit_memory", "1"),
        ("kernel.panic", "10"),
        ("kernel.panic_on_oops", "1"),
        ("kernel.keys.root_maxkeys", "1000000"),
        ("kernel.keys.root_maxbytes", "25000000"),
        ("net.netfilter.nf_conntrack_max", "131072"),
        ("net.netfilter.nf_conntrack_tcp_timeout_established", "86400"),
        ("net.netfilter.nf_conntrack_tcp_timeout_close_wait", "3600"),
        ("vm.max_map_count", "262144"),
        ("fs.inotify.max_user_watches", "524288"),
        ("net.core.rmem_max", "8388608"),
        ("net.ipv4.ip_forward", "1"),
    ];
    let file: String = settings.iter().map(|(k, v)| format!("{k} = {v}\\n")).collect();
    c.sh(&format!("printf '{file}' > /etc/sysctl.d/50-test.conf && sysctl --system")).ok();
    for (key, value) in settings {
        assert_eq!(c.sh(&format!("sysctl -n {key}")).ok(), value, "{key}");
        c.sh(&format!("sysctl -w {key}={value}")).ok();
    }
    // kube-proxy.
    c.sh("p=/sys/module/nf_conntrack/parameters/hashsize; test ! -e $p || { echo 32768 > $p && grep -qx 32768 $p; }")
        .ok();
    // RESOLVE_NO_XDEV, as in runc, on a way that only passes by nodes.
    c.sh("perl -e '
        sysopen(my $d, \"/proc\", 0x10000) or die; my $how = pack(\"QQQ\", 0x80001, 0, 0x01);
        my ($native, $node) = (\"sys/net/ipv4/ip_forward\", \"sys/kernel/panic\");
        syscall(437, fileno($d), $native, $how, 24) >= 0 or die \"ip_forward: $!\";
        syscall(437, fileno($d), $node, $how, 24) < 0 or die \"a node is a mount\";'")
        .ok();
}
