//! The nodes that every container has, as data.
//!
//! It holds what system software writes and the kernel refuses the container's root. What the kernel lets it write is the
//! kernel's on any kernel: a stored node is used only where writing is refused. Two kinds of settings are left to the kernel although
//! it refuses them. `kernel/hostname` and `kernel/domainname` show what sethostname(2) has set, and a copy would not. And where the
//! kernel has no file at all in a network namespace (`net/core/default_qdisc`, `net/ipv4/neigh/default/gc_thresh1`) there is
//! nothing to cover.

use super::live::Live;
use super::node::{Initial, Kind, Node, Value};

const BOOL: Value = Value::integer(0, 1);
/// `int` of the kernel that may not be negative.
const COUNT: Value = Value::integer(0, i32::MAX as u64);
const LONG: Value = Value::integer(0, i64::MAX as u64);
const PERCENT: Value = Value::integer(0, 100);

/// A setting, with the kernel's default.
fn own(name: &str, default: &str, value: Value) -> Node {
    Node::sysctl(name, Initial::Text(format!("{default}\n")), value)
}

/// A limit of the host that binds, so that it is shown as it is until somebody writes another.
fn limit(name: &str, value: Value) -> Node {
    let node = own(name, "", value);
    let initial = Initial::Copy(node.path.clone());
    Node { kind: Kind::Stored { initial, mode: 0o644 }, ..node }
}

/// All of them.
pub(super) fn table() -> Vec<Node> {
    let mut all = sysctls();
    all.extend(network());
    all.extend(others());
    // Which CPUs are possible is the host's in any case (`live`): there is nothing to cover.
    all.extend(Live::ALL.iter().filter(|l| **l != Live::CpuPossible).map(|live| Node {
        path: live.path().into(),
        kind: Kind::Live(*live),
        value: Value::Text,
        note: "native without limits that make it differ".into(),
        on_request: false,
    }));
    all
}

fn sysctls() -> Vec<Node> {
    vec![
        limit("fs/aio-max-nr", LONG),
        limit("fs/file-max", LONG),
        limit("fs/nr_open", COUNT),
        limit("fs/inotify/max_queued_events", COUNT),
        limit("fs/inotify/max_user_instances", COUNT).because("user/max_inotify_instances is the kernel's own"),
        limit("fs/inotify/max_user_watches", COUNT).because("user/max_inotify_watches is the kernel's own"),
        own("fs/protected_fifos", "0", Value::integer(0, 2)),
        limit("fs/protected_hardlinks", BOOL),
        own("fs/protected_regular", "0", Value::integer(0, 2)),
        limit("fs/protected_symlinks", BOOL),
        own("fs/suid_dumpable", "0", Value::integer(0, 2)),
        limit("kernel/core_pattern", Value::Line(127)),
        own("kernel/core_uses_pid", "0", BOOL),
        limit("kernel/dmesg_restrict", BOOL),
        limit("kernel/keys/maxbytes", COUNT),
        limit("kernel/keys/maxkeys", COUNT),
        limit("kernel/keys/root_maxbytes", COUNT),
        limit("kernel/keys/root_maxkeys", COUNT),
        limit("kernel/kptr_restrict", Value::integer(0, 2)),
        own("kernel/panic", "0", Value::integer(i32::MIN as i64, i32::MAX as u64)),
        own("kernel/panic_on_oops", "0", BOOL),
        limit("kernel/pid_max", Value::integer(1, 4_194_304)).because("native from Linux 6.14"),
        limit("kernel/printk", Value::Integers { count: 4, min: 0, max: i32::MAX as u64 }),
        limit("kernel/shmall", Value::integer(0, u64::MAX)).because("native from Linux 6.9").on_request(),
        limit("kernel/shmmax", Value::integer(0, u64::MAX)).because("native from Linux 6.9").on_request(),
        limit("kernel/shmmni", COUNT).because("native from Linux 6.9").on_request(),
        limit("kernel/sysrq", Value::integer(0, 511)),
        limit("kernel/threads-max", COUNT),
        limit("kernel/yama/ptrace_scope", Value::integer(0, 3)),
        own("vm/dirty_background_ratio", "10", PERCENT),
        own("vm/dirty_ratio", "20", PERCENT),
        limit("vm/max_map_count", COUNT),
        limit("vm/mmap_min_addr", LONG),
        own("vm/overcommit_memory", "0", Value::integer(0, 2)),
        own("vm/panic_on_oom", "0", Value::integer(0, 2)),
        own("vm/swappiness", "60", Value::integer(0, 200)),
        own("vm/vfs_cache_pressure", "100", COUNT),
    ]
}

/// Settings that are not of a network namespace but lie among those that are: read-only there.
fn network() -> Vec<Node> {
    let rows = [
        ("net/core/rmem_default", COUNT),
        ("net/core/rmem_max", COUNT),
        ("net/core/wmem_default", COUNT),
        ("net/core/wmem_max", COUNT),
        ("net/ipv4/vs/conn_reuse_mode", BOOL),
        ("net/ipv4/vs/conntrack", BOOL),
        ("net/ipv4/vs/expire_nodest_conn", BOOL),
        ("net/ipv4/vs/expire_quiescent_template", BOOL),
        ("net/netfilter/nf_conntrack_buckets", COUNT),
        ("net/netfilter/nf_conntrack_expect_max", COUNT),
        ("net/netfilter/nf_conntrack_max", COUNT),
    ];
    rows.map(|(name, value)| limit(name, value).on_request()).into()
}

fn others() -> Vec<Node> {
    let file = |path: &str, initial, mode, value| Node {
        path: path.into(),
        kind: Kind::Stored { initial, mode },
        value,
        note: String::new(),
        on_request: false,
    };
    let dir = |path: &str, kind| Node {
        path: path.into(),
        kind,
        value: Value::Directory,
        note: String::new(),
        on_request: false,
    };
    vec![
        file(
            "/proc/sys/kernel/random/boot_id",
            Initial::Copy("/proc/sys/kernel/random/uuid".into()),
            0o444,
            Value::Uuid,
        )
        .because("a start of the container is its boot"),
        file("/sys/devices/virtual/dmi/id/product_uuid", Initial::NameUuid, 0o400, Value::Uuid)
            .because("the kernel's is for the host's root only; made from the container's name"),
        file(
            "/sys/module/nf_conntrack/parameters/hashsize",
            Initial::Copy("/proc/sys/net/netfilter/nf_conntrack_buckets".into()),
            0o600,
            COUNT,
        )
        .because("kube-proxy writes it; the kernel's is for the host's root only"),
        dir("/sys/kernel/config", Kind::Empty).because("systemd would try, and fail, to mount what is missing here"),
        dir("/sys/kernel/debug", Kind::Empty).because("systemd would try, and fail, to mount what is missing here"),
        dir("/sys/kernel/tracing", Kind::Empty).because("systemd would try, and fail, to mount what is missing here"),
        dir("/sys/kernel/security", Kind::Hidden).because("the host's security modules are not the container's"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_make_sense() {
        let all = table();
        for (i, n) in all.iter().enumerate() {
            assert!(n.path.starts_with("/proc") || n.path.starts_with("/sys"), "{n:?}");
            assert!(all[..i].iter().all(|m| m.path != n.path), "{n:?} twice");
            match &n.kind {
                Kind::Stored { initial: Initial::Text(text), .. } => assert!(n.value.accepts(text), "{n:?}"),
                Kind::Empty | Kind::Hidden => assert_eq!(n.value, Value::Directory),
                _ => {}
            }
        }
    }
}
