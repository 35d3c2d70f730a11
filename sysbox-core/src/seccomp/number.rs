//! Names of system calls to their numbers.

use super::arch::Arch;
use std::str::FromStr;

/// The bit that marks a call as x32: `__X32_SYSCALL_BIT` in `asm/unistd.h`.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Calls that x32 has under numbers of its own, from 512: `arch/x86/entry/syscalls/syscall_64.tbl`, ABI `x32`.
const X32_OWN: u32 = 512;
const X32_NAMES: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// The private calls of ARM: `__ARM_NR_*` in `arch/arm/include/uapi/asm/unistd.h`. Every 32-bit program makes
/// `set_tls` when it starts.
const ARM_OWN: u32 = 0x000f_0000;
const ARM_NAMES: [(&str, u32); 6] =
    [("breakpoint", 1), ("cacheflush", 2), ("usr26", 3), ("usr32", 4), ("set_tls", 5), ("get_tls", 6)];

/// What profiles call a thing, where the table of the `syscalls` crate has another name for it.
const ALIASES: [(Arch, &str, &str); 5] = [
    (Arch::Aarch64, "newfstatat", "fstatat"),
    (Arch::Aarch64, "sync_file_range", "sync_file_range2"),
    (Arch::Riscv64, "newfstatat", "fstatat"),
    (Arch::Riscv64, "sync_file_range", "sync_file_range2"),
    (Arch::Arm, "sync_file_range2", "arm_sync_file_range"),
];

/// Calls that are newer than the table of the `syscalls` crate. Its later versions have them, but need more than our
/// rust-version. One number for all architectures, as for all calls since Linux 5.1: `asm-generic/unistd.h`.
const NEWER: [(&str, u32); 8] = [
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("open_tree_attr", 467),
    ("file_getattr", 468),
    ("file_setattr", 469),
];
const NEWER_X86_64: [(&str, u32); 2] = [("uretprobe", 335), ("uprobe", 336)];

/// The numbers that a name stands for: none where the architecture has no such call, which is no error, as profiles
/// name the calls of all architectures and of all kernels.
///
/// x32 calls with numbers of their own have the one of [`Arch::X86_64`] too. Kernels before 5.4 took either, and a
/// rule about `execve` should not be evaded by the choice.
pub(super) fn numbers(arch: Arch, name: &str) -> Vec<u32> {
    let name = ALIASES.iter().find(|(a, profile, _)| *a == arch && *profile == name).map_or(name, |(.., table)| table);
    let id = match arch {
        Arch::X86_64 | Arch::X32 => syscalls::x86_64::Sysno::from_str(name).map(|s| s.id()),
        Arch::X86 => syscalls::x86::Sysno::from_str(name).map(|s| s.id()),
        Arch::Aarch64 => syscalls::aarch64::Sysno::from_str(name).map(|s| s.id()),
        Arch::Arm => syscalls::arm::Sysno::from_str(name).map(|s| s.id()),
        Arch::Riscv64 => syscalls::riscv64::Sysno::from_str(name).map(|s| s.id()),
    };
    let mut found: Vec<u32> = id.ok().and_then(|id| u32::try_from(id).ok()).into_iter().collect();
    if found.is_empty() {
        let own = if matches!(arch, Arch::X86_64 | Arch::X32) { &NEWER_X86_64[..] } else { &[] };
        found.extend(NEWER.iter().chain(own).filter(|(n, _)| *n == name).map(|(_, nr)| *nr));
    }
    match arch {
        Arch::X32 => {
            found.extend(X32_NAMES.iter().zip(X32_OWN..).filter(|(n, _)| **n == name).map(|(_, nr)| nr));
            found.iter_mut().for_each(|nr| *nr |= X32_BIT);
        }
        Arch::Arm => found.extend(ARM_NAMES.iter().filter(|(n, _)| *n == name).map(|(_, nr)| ARM_OWN + nr)),
        _ => {}
    }
    found
}

/// Whether a number is of a block apart from the common sequence, to which new calls are appended.
pub(super) fn out_of_sequence(arch: Arch, nr: u32) -> bool {
    match arch {
        Arch::X32 => nr >= X32_BIT + X32_OWN,
        Arch::Arm => nr >= ARM_OWN,
        _ => false,
    }
}

/// Numbers from here to [`end`] belong to the convention.
pub(super) fn start(arch: Arch) -> u32 {
    if arch == Arch::X32 {
        X32_BIT
    } else {
        0
    }
}

/// The first number that does not belong to the convention any more. The highest is no call at all: see [`SKIPPED`].
pub(super) fn end(arch: Arch) -> u32 {
    if arch == Arch::X86_64 {
        X32_BIT
    } else {
        SKIPPED
    }
}

/// The number -1, which a tracer sets to have a call skipped.
pub(super) const SKIPPED: u32 = u32::MAX;

/// A call that is also reached through another, whose first argument says which is meant.
pub(super) struct Multiplexed {
    /// The number of the other.
    pub(super) nr: u32,
    /// The bits of the first argument that say which.
    pub(super) mask: u64,
    /// What these bits are for this call.
    pub(super) call: u64,
}

// linux/net.h and linux/ipc.h; the two calls are in arch/x86/entry/syscalls/syscall_32.tbl.
const SOCKETCALL: u32 = 102;
const SOCKET_CALLS: [&str; 20] = [
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];
const IPC: u32 = 117;
const IPC_CALLS: [(&str, u64); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// The other way to a call on 32-bit x86, where a rule about `socket` alone would miss every program of old.
pub(super) fn multiplexed(arch: Arch, name: &str) -> Option<Multiplexed> {
    if arch != Arch::X86 {
        return None;
    }
    if let Some((_, call)) = SOCKET_CALLS.iter().zip(1..).find(|(n, _)| **n == name) {
        return Some(Multiplexed { nr: SOCKETCALL, mask: u64::from(u32::MAX), call });
    }
    // The upper half of the number is a version, which the kernel takes off.
    let (_, call) = IPC_CALLS.iter().find(|(n, _)| *n == name)?;
    Some(Multiplexed { nr: IPC, mask: 0xffff, call: *call })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_one_number_by_whatever_name_a_profile_calls_it() {
        for (arch, name, number) in [
            (Arch::X86_64, "read", 0),
            (Arch::Riscv64, "newfstatat", 79),
            (Arch::Aarch64, "newfstatat", 79),
            (Arch::Aarch64, "sync_file_range", 84),
            (Arch::X86_64, "uretprobe", 335),
            (Arch::X86, "open_tree_attr", 467),
            (Arch::X86_64, "file_setattr", 469),
            (Arch::X32, "mseal", X32_BIT | 462),
        ] {
            assert_eq!(numbers(arch, name), [number], "{arch} {name}");
        }
        // A later table that has them makes this list needless, and must not disagree with it.
        for (name, number) in NEWER {
            for arch in [Arch::X86_64, Arch::X86, Arch::Aarch64, Arch::Arm, Arch::Riscv64] {
                assert_eq!(numbers(arch, name), [number], "{arch} {name}");
            }
        }
        assert!(numbers(Arch::Aarch64, "uprobe").is_empty());
        assert!(numbers(Arch::X86_64, "no_such_call").is_empty());
    }
}
