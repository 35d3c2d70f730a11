//! What a monitor gives up before it serves.

use crate::error::{Result, SysResult};
use crate::mount::{self, Attrs, Root};
use crate::seccomp::{compile, Action, Condition, Profile, Rule, Test};
use crate::sys::cred::{self, CapSets};
use crate::sys::seccomp;
use nix::mount::{umount2, MntFlags};
use nix::sched::{setns, unshare, CloneFlags};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Descriptors it may have at a time. It keeps some dozens, and opens a few more for inner control groups.
const DESCRIPTORS: u64 = 256;

/// The same of one that serves traps: two for each call that is served, one for each program that was run by exec.
pub(super) const DESCRIPTORS_WITH_TRAPS: u64 = 4096;

/// As [`enter`], for a monitor that serves traps: it becomes root of the container of which `init` is a pidfd, with all capabilities
/// there, worth nothing on the host. It has one thread.
pub(super) fn enter_container(init: BorrowedFd<'_>) -> Result<()> {
    empty_root()?;
    limit(DESCRIPTORS_WITH_TRAPS).map_err(|e| e.hint("raise the limit of open files of the calling process"))?;
    setns(init, CloneFlags::CLONE_NEWUSER).op("setns to the container's user namespace")?;
    cred::become_user(0, 0, &[]).op("become the container's root")?;
    confine(&profile_with_traps())
}

/// Gives up the file system, all capabilities, every user ID but `uid`, and all system calls that it does not need. Needs
/// CAP_SYS_ADMIN and CAP_SETPCAP.
pub(super) fn enter(uid: u32, gid: u32) -> Result<()> {
    empty_root()?;
    limit(DESCRIPTORS)?;
    cred::limit_bounding(0).op("empty the bounding set")?;
    cred::become_user(uid, gid, &[]).op("give up the host's root")?;
    let none = CapSets { bounding: 0, permitted: 0, effective: 0, inheritable: 0, ambient: 0 };
    cred::set_caps(&none).op("capset")?;
    confine(&profile())
}

fn limit(descriptors: u64) -> Result<()> {
    for (resource, limit) in [(libc::RLIMIT_NOFILE, descriptors), (libc::RLIMIT_CORE, 0)] {
        cred::set_rlimit(0, resource, limit, limit).op(format!("prlimit resource {resource}"))?;
    }
    Ok(())
}

fn confine(profile: &Profile) -> Result<()> {
    // A change of identity may have made it what the host's suid_dumpable says.
    cred::set_dumpable(false).op("prctl PR_SET_DUMPABLE")?;
    cred::set_no_new_privs().op("prctl PR_SET_NO_NEW_PRIVS")?;
    let program: Vec<_> = compile(profile)?.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
    seccomp::install(&program, 0).map(drop).op("install the monitor's seccomp filter")
}

/// A mount namespace with nothing in it. Descriptors keep working.
fn empty_root() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).op("unshare the mount namespace")?;
    let fs = mount::new_fs("tmpfs", None, &["mode=555".into(), "nr_inodes=1".into()], Attrs::RDONLY)?;
    let root = Root::open(Path::new("/"))?;
    mount::attach(fs.as_fd(), root.as_fd(), Path::new("/"))?;
    drop(root);
    rustix::process::fchdir(&fs).op("fchdir to the empty root")?;
    nix::unistd::pivot_root(".", ".").op("pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).op("unmount the host's root")?;
    nix::unistd::chdir("/").op("chdir")
}

fn allow(names: &[&str], when: Vec<Condition>) -> Rule {
    Rule { names: names.iter().map(|n| (*n).to_owned()).collect(), action: Action::Allow, when }
}

/// What one does besides that serves traps, for the most part in a child of its own for each call: becoming the caller.
fn profile_with_traps() -> Profile {
    let mut profile = profile();
    // Nothing is created, and nothing made longer or shorter.
    let making = (libc::O_CREAT | libc::O_TRUNC) as u64;
    let opening = Condition { arg: 2, test: Test::MaskedEq { mask: making, value: 0 } };
    let calls = |r: &u32| Condition { arg: 1, test: Test::MaskedEq { mask: u32::MAX.into(), value: (*r).into() } };
    profile.rules.extend(seccomp::REQUESTS.iter().map(|r| allow(&["ioctl"], vec![calls(r)])));
    profile.rules.push(allow(&["openat"], vec![opening]));
    profile.rules.push(allow(
        &[
            // Children.
            "clone3",
            "unshare",
            "waitid",
            "pidfd_send_signal",
            "getpid",
            "alarm",
            "setitimer",
            "set_robust_list",
            "prctl",
            // Descriptors.
            "recvmsg",
            "fcntl",
            "dup2",
            "dup3",
            "close_range",
            // Becoming the caller.
            "setns",
            "fchdir",
            "chroot",
            "setgroups",
            "setresgid",
            "setresuid",
            "setfsgid",
            "setfsuid",
            "capset",
            // Its memory, and what it asks for.
            "pwrite64",
            "openat2",
            "readlinkat",
            "statx",
            "fstatfs",
            "mount",
            "umount2",
            "open_tree",
            "move_mount",
            "mount_setattr",
        ],
        vec![],
    ));
    profile
}

/// Reading what is open, opening for reading, and what Rust's allocator and clock need.
fn profile() -> Profile {
    let writing = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
    let reading = Condition { arg: 2, test: Test::MaskedEq { mask: writing, value: 0 } };
    // glibc grows and shrinks its heap; nothing becomes executable.
    let plain = Condition { arg: 2, test: Test::MaskedEq { mask: libc::PROT_EXEC as u64, value: 0 } };
    let mut profile = Profile::new(Action::Errno(libc::EPERM as u16));
    profile.rules = vec![
        allow(
            &[
                "read",
                "readv",
                "pread64",
                "write",
                "writev",
                "close",
                "fstat",
                "newfstatat",
                "lseek",
                "getdents64",
                "poll",
                "ppoll",
                "accept4",
                "sendmsg",
                "sendto",
                "shutdown",
                "clock_gettime",
                "brk",
                "munmap",
                "mremap",
                "madvise",
                "futex",
                "getrandom",
                "rt_sigreturn",
                "rt_sigprocmask",
                "sigaltstack",
                "restart_syscall",
                "exit",
                "exit_group",
            ],
            vec![],
        ),
        // Rust's own checks, in builds that have them.
        allow(&["fcntl"], vec![Condition { arg: 1, test: Test::Eq(libc::F_GETFD as u64) }]),
        allow(&["openat"], vec![reading]),
        allow(&["mmap", "mprotect"], vec![plain]),
    ];
    profile
}
