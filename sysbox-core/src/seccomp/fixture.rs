//! Profiles in the shape in which engines put them into `config.json`.

use super::{Arch, Profile};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{json, Value};
use std::collections::BTreeSet;

pub(super) fn profile(json: Value) -> Profile {
    try_profile(json).unwrap()
}

pub(super) fn try_profile(json: Value) -> crate::Result<Profile> {
    let oci: LinuxSeccomp = serde_json::from_value(json).unwrap();
    Profile::try_from(&oci)
}

/// As an allow-list engine resolves its profile for a container with few capabilities.
pub(super) fn engine_json() -> Value {
    with_common(&[
        "accept",
        "accept4",
        "access",
        "arch_prctl",
        "bind",
        "brk",
        "clock_gettime",
        "close",
        "connect",
        "dup",
        "epoll_wait",
        "execve",
        "exit",
        "exit_group",
        "fchmodat2",
        "fork",
        "fstat",
        "futex",
        "getpid",
        "ioctl",
        "listen",
        "lseek",
        "mmap",
        "mprotect",
        "munmap",
        "newfstatat",
        "openat",
        "openat2",
        "poll",
        "prctl",
        "read",
        "recvfrom",
        "rt_sigaction",
        "rt_sigreturn",
        "seccomp",
        "sendto",
        "set_tid_address",
        "socketcall",
        "time",
        "uname",
        "wait4",
        "waitid",
        "write",
        "writev",
    ])
}

/// The same, with every call of every architecture that the engine would not gate.
pub(super) fn large_json() -> Value {
    let gated: BTreeSet<&str> = GATED.into_iter().collect();
    let names: BTreeSet<&str> = all_names().into_iter().filter(|n| !gated.contains(n)).collect();
    with_common(&names.into_iter().collect::<Vec<_>>())
}

const GATED: [&str; 60] = [
    "acct",
    "add_key",
    "bpf",
    "chroot",
    "clock_settime",
    "clone",
    "clone3",
    "create_module",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_mempolicy",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "listmount",
    "lookup_dcookie",
    "mbind",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "open_tree_attr",
    "perf_event_open",
    "personality",
    "pivot_root",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "setdomainname",
    "sethostname",
    "set_mempolicy",
    "setns",
    "settimeofday",
    "socket",
    "statmount",
    "swapoff",
    "swapon",
    "syslog",
    "umount",
    "umount2",
    "unshare",
    "userfaultfd",
    "vhangup",
    "vm86",
];

pub(super) fn all_names() -> BTreeSet<&'static str> {
    let mut names: BTreeSet<&str> = syscalls::x86_64::Sysno::iter().map(|s| s.name()).collect();
    names.extend(syscalls::x86::Sysno::iter().map(|s| s.name()));
    names.extend(syscalls::aarch64::Sysno::iter().map(|s| s.name()));
    names.extend(syscalls::arm::Sysno::iter().map(|s| s.name()));
    names.extend(syscalls::riscv64::Sysno::iter().map(|s| s.name()));
    names
}

fn with_common(names: &[&str]) -> Value {
    let personality = |v: u64| {
        json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": v, "op": "SCMP_CMP_EQ"}]})
    };
    let sub: Vec<String> = Arch::native().unwrap().family().iter().map(ToString::to_string).collect();
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": sub,
        "syscalls": [
            {"names": names, "action": "SCMP_ACT_ALLOW"},
            {"names": ["process_vm_readv", "process_vm_writev", "ptrace"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},
            personality(0), personality(8), personality(0x2_0000), personality(0x2_0008), personality(0xffff_ffff),
            {"names": ["breakpoint", "cacheflush", "set_tls", "sync_file_range2"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["modify_ldt", "swapcontext"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
        ]
    })
}
