//! Calling conventions that a kernel can serve.

use oci_spec::runtime::Arch as OciArch;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A system call convention: a CPU architecture, or one of its 32-bit modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86, on its own or on a 64-bit kernel.
    X86,
    /// 64-bit x86 with 32-bit pointers. To the kernel it is [`Arch::X86_64`] with a bit set in the call's number.
    X32,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM with the embedded ABI.
    Arm,
    /// 64-bit RISC-V.
    Riscv64,
}

// linux/audit.h: the ELF machine, with a bit for 64-bit and one for little-endian.
const AUDIT_64BIT: u32 = 0x8000_0000;
const AUDIT_LE: u32 = 0x4000_0000;

impl Arch {
    /// The architecture this library was compiled for, unless it is one whose calls are not known here.
    pub const fn native() -> Option<Arch> {
        if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
            Some(Arch::X86_64)
        } else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
            Some(Arch::Aarch64)
        } else if cfg!(target_arch = "riscv64") {
            Some(Arch::Riscv64)
        } else {
            None
        }
    }

    /// What `seccomp_data.arch` holds; see `AUDIT_ARCH_*` in `linux/audit.h`.
    pub const fn audit(self) -> u32 {
        match self {
            Arch::X86_64 | Arch::X32 => 62 | AUDIT_64BIT | AUDIT_LE,
            Arch::X86 => 3 | AUDIT_LE,
            Arch::Aarch64 => 183 | AUDIT_64BIT | AUDIT_LE,
            Arch::Arm => 40 | AUDIT_LE,
            Arch::Riscv64 => 243 | AUDIT_64BIT | AUDIT_LE,
        }
    }

    /// All conventions that a kernel of this native architecture may serve.
    pub const fn family(self) -> &'static [Arch] {
        match self {
            Arch::X86_64 => &[Arch::X86_64, Arch::X86, Arch::X32],
            Arch::Aarch64 => &[Arch::Aarch64, Arch::Arm],
            Arch::X86 => &[Arch::X86],
            Arch::X32 => &[Arch::X32],
            Arch::Arm => &[Arch::Arm],
            Arch::Riscv64 => &[Arch::Riscv64],
        }
    }

    /// The ordinary 32-bit mode of a 64-bit architecture. x32 is not one: hardly a kernel is built with it.
    pub const fn sub_architecture(self) -> Option<Arch> {
        match self {
            Arch::X86_64 => Some(Arch::X86),
            Arch::Aarch64 => Some(Arch::Arm),
            _ => None,
        }
    }

    /// Whether the arguments are full 64-bit registers.
    ///
    /// libseccomp counts x32 as 32-bit and compares the lower halves only. The kernel hands x32 calls the whole
    /// registers, so a comparison of halves could be passed with a value that it was meant to stop.
    pub(super) const fn wide(self) -> bool {
        !matches!(self, Arch::X86 | Arch::Arm)
    }

    /// The OCI name's meaning; `None` for `SCMP_ARCH_NATIVE`, which a filter always includes, and for architectures
    /// that no supported kernel can serve, whose calls can therefore never arrive.
    pub(super) fn from_oci(arch: OciArch) -> Option<Arch> {
        match arch {
            OciArch::ScmpArchX86_64 => Some(Arch::X86_64),
            OciArch::ScmpArchX86 => Some(Arch::X86),
            OciArch::ScmpArchX32 => Some(Arch::X32),
            OciArch::ScmpArchAarch64 => Some(Arch::Aarch64),
            OciArch::ScmpArchArm => Some(Arch::Arm),
            OciArch::ScmpArchRiscv64 => Some(Arch::Riscv64),
            _ => None,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Arch::X86_64 => "SCMP_ARCH_X86_64",
            Arch::X86 => "SCMP_ARCH_X86",
            Arch::X32 => "SCMP_ARCH_X32",
            Arch::Aarch64 => "SCMP_ARCH_AARCH64",
            Arch::Arm => "SCMP_ARCH_ARM",
            Arch::Riscv64 => "SCMP_ARCH_RISCV64",
        })
    }
}
