//! The calls that a container's monitor answers, so that mounts of proc and sysfs made inside carry the nodes too, and
//! sysinfo(2) follows the limits.

use super::settings::{Settings, NESTED_NODES};
use super::Filter;
use crate::error::{Error, Kind, Result};
use crate::seccomp::{compile, Action, Arch, Condition, Profile, Rule, Test};
use oci_spec::runtime as oci;

/// mount(2) with one of these makes no new file system. The kernel looks at them in the same way (do_mount in fs/namespace.c).
const NOT_NEW: u64 = libc::MS_REMOUNT
    | libc::MS_BIND
    | libc::MS_MOVE
    | libc::MS_SHARED
    | libc::MS_PRIVATE
    | libc::MS_SLAVE
    | libc::MS_UNBINDABLE;

/// `MS_MGC_VAL`, which old programs put into the upper half: then the kernel looks at the lower half only.
const MAGIC: u64 = 0xc0ed_0000;
const UPPER: u64 = 0xffff_0000;

/// The filter, if it is asked for.
pub(super) fn plan(settings: &Settings, linux: Option<&oci::Linux>) -> Result<Option<Filter>> {
    if !settings.nested_nodes {
        return Ok(None);
    }
    let seccomp = linux.and_then(|l| l.seccomp().as_ref());
    let calls = seccomp.and_then(|s| s.syscalls().as_deref()).unwrap_or_default();
    if calls.iter().any(|c| c.action() == oci::LinuxSeccompAction::ScmpActNotify) {
        return Err(Error::new(
            Kind::Unsupported,
            format!("annotation {NESTED_NODES} and SCMP_ACT_NOTIFY in linux.seccomp: a program can have one listener"),
        )
        .hint("remove one of them"));
    }
    let profile = profile();
    let insns = compile(&profile).map_err(|e| e.within(NESTED_NODES))?;
    Ok(Some(Filter {
        flags: profile.filter_flags(),
        program: insns.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect(),
        listener: None,
    }))
}

/// umount2(2) is among them since the kernel calls a procfs busy that has nodes on it; with MNT_DETACH it does not ask.
///
/// By the calls' arguments, as far as the kernel hands them over by value. A bind costs no more than the look at its flags.
fn profile() -> Profile {
    let when = |arg, mask, value| vec![Condition { arg, test: Test::MaskedEq { mask, value } }];
    let trap = |name: &str, when| Rule { names: vec![name.to_owned()], action: Action::Notify, when };
    let mut profile = Profile::new(Action::Allow);
    profile.architectures = Arch::native().map(|a| a.family().iter().copied().collect());
    profile.spec_allow = true;
    profile.wait_killable = true;
    profile.rules = vec![
        trap("mount", when(3, NOT_NEW, 0)),
        trap("mount", when(3, UPPER | NOT_NEW & !UPPER, MAGIC)),
        trap("move_mount", when(4, u64::from(FROM_DESCRIPTOR), u64::from(FROM_DESCRIPTOR))),
        trap("umount2", when(1, (libc::MNT_DETACH | libc::MNT_EXPIRE) as u64, 0)),
        trap("sysinfo", vec![]),
    ];
    profile
}

/// `MOVE_MOUNT_F_EMPTY_PATH`: what is moved is given as a descriptor, as by fsmount(2).
pub(crate) const FROM_DESCRIPTOR: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::compile_for;

    #[test]
    fn every_architecture_is_served() {
        for arch in [Arch::X86_64, Arch::Aarch64, Arch::Riscv64] {
            let profile = Profile { architectures: Some(arch.family().iter().copied().collect()), ..profile() };
            assert!(compile_for(&profile, arch).unwrap().len() < 200);
        }
    }
}
