//! System call filters: a profile of the OCI runtime specification in, a program for the kernel out.
//!
//! Three steps, each pure. [`Profile`] is the validated form of `linux.seccomp`; [`open_for_system_container`] opens
//! the calls that the software inside a system container lives on; [`compile`] makes the program. Installing it is
//! not done here.
//!
//! Sources: [seccomp(2)](https://man7.org/linux/man-pages/man2/seccomp.2.html), the kernel's
//! `Documentation/userspace-api/seccomp_filter.rst` and the
//! [runtime specification](https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp). Where
//! these leave a question open, the answer is what runc with libseccomp does, because profiles are written against
//! that; every place where we differ says so and why.

mod arch;
mod assemble;
mod compile;
mod number;
mod open;
mod profile;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod tests;

pub use arch::Arch;
pub use assemble::{Insn, MAX_INSNS};
pub use compile::{compile, compile_for};
pub use open::open_for_system_container;
pub use profile::{Action, Condition, Listener, Profile, Rule, Test};
