//! What programs answer, against what profiles say.

mod engine;
mod properties;
mod rules;

use super::fixture::{all_names, engine_json, large_json, profile, try_profile};
use super::machine::{check, judge, run, Call};
use super::{compile, compile_for, number, open_for_system_container};
use super::{Action, Arch, Condition, Insn, Profile, Rule, Test, MAX_INSNS};
use crate::Kind;
use proptest::prelude::*;
use serde_json::{json, Value};
use std::collections::BTreeSet;

const NONE: [u64; 6] = [0; 6];
const EPERM: Action = Action::Errno(1);
const ENOSYS: Action = Action::Errno(38);

/// Compiles, checks and asks.
fn answer(profile: &Profile, native: Arch, call: Call) -> u32 {
    let program = compile_for(profile, native).unwrap();
    check(&program);
    run(&program, &call).0
}

fn expect(profile: &Profile, arch: Arch, name: &str, args: [u64; 6], action: Action) {
    let native = [Arch::X86_64, Arch::Aarch64, Arch::Riscv64].into_iter().find(|n| n.family().contains(&arch)).unwrap();
    let got = answer(profile, native, Call::named(arch, name, args));
    assert_eq!(got, action.code(), "{arch} {name} {args:x?}: {got:#x}, not {action:?}");
}

/// The engine's profile for all architectures at once.
fn everywhere(mut json: Value) -> Profile {
    json["architectures"] = json!([
        "SCMP_ARCH_X86_64",
        "SCMP_ARCH_X86",
        "SCMP_ARCH_X32",
        "SCMP_ARCH_AARCH64",
        "SCMP_ARCH_ARM",
        "SCMP_ARCH_RISCV64",
        "SCMP_ARCH_S390X"
    ]);
    profile(json)
}

fn first(value: u64) -> [u64; 6] {
    [value, 0, 0, 0, 0, 0]
}
