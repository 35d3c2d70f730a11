//! The only home of raw system calls and of `unsafe`.
//!
//! Everything here is a thin typed wrapper: no policy, no knowledge of containers. `nix` is used first, `rustix` for the
//! mount and descriptor calls that nix lacks, `libc` for what both lack.

pub mod bpf;
