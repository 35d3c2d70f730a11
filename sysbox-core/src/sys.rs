//! The only home of raw system calls and of `unsafe`.
//!
//! Everything here is a thin typed wrapper: no policy, no knowledge of containers. `nix` is used first, `rustix` for the
//! mount and descriptor calls that nix lacks, `libc` for what both lack.

pub(crate) mod bpf;
pub(crate) mod channel;
pub(crate) mod clone;
pub(crate) mod cred;
pub(crate) mod fd;
pub(crate) mod mount;
pub(crate) mod net;
pub(crate) mod netlink;
pub(crate) mod nftables;
pub(crate) mod ns;
pub(crate) mod pidfd;
pub(crate) mod pty;
pub(crate) mod sched;
pub(crate) mod seccomp;
