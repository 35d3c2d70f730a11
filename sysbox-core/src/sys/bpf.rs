//! bpf(2), as far as control groups need it: load a device program, attach it to a cgroup.
#![allow(unsafe_code)]

use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Both this program and those of the ancestors must agree; without it, an ancestor's program would forbid ours or be replaced.
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes what a shorter one lacks as zero.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    name: [u8; 16],
}

/// The head of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`; each element is one encoded instruction.
///
/// # Errors
/// What bpf(2) says: `EPERM` without `CAP_BPF`/`CAP_SYS_ADMIN`, `EINVAL` or `EACCES` from the verifier, `ENOSYS`.
pub(crate) fn load_cgroup_device(program: &[u64]) -> Result<OwnedFd, Errno> {
    let mut attr = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        name: *b"sysbox_devices\0\0",
    };
    // SAFETY: `attr` is valid for the size given; the instructions and the licence it points to outlive the call, which
    // only reads them, `insn_cnt` being their exact number.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, std::ptr::from_mut(&mut attr), std::mem::size_of::<Load>())
    };
    let fd = Errno::result(fd)?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just returned this descriptor to us (close-on-exec), and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a loaded program to a cgroup of the v2 hierarchy, given by its directory.
///
/// The cgroup keeps the program until it is removed, whatever happens to the descriptors.
///
/// # Errors
/// What bpf(2) says: `EPERM` if an ancestor carries an exclusive program, `EBADF` if the directory is not of a cgroup2 mount.
pub(crate) fn attach_cgroup_device(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut attr = Attach {
        // Descriptors of a live BorrowedFd are never negative.
        target_fd: cgroup.as_raw_fd().unsigned_abs(),
        attach_bpf_fd: program.as_raw_fd().unsigned_abs(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: `attr` is valid for the size given and holds no pointers.
    let r = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, std::ptr::from_mut(&mut attr), std::mem::size_of::<Attach>())
    };
    Errno::result(r).map(drop)
}
