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

#[test]
fn engine_profile_means_what_it_says() {
    let p = everywhere(engine_json());
    for arch in [Arch::X86_64, Arch::X32] {
        expect(&p, arch, "read", NONE, Action::Allow);
        expect(&p, arch, "mount", NONE, EPERM);
        expect(&p, arch, "clone3", NONE, ENOSYS);
        expect(&p, arch, "clone", first(0x11), Action::Allow);
        expect(&p, arch, "clone", first(0x1000_0000), EPERM);
        expect(&p, arch, "personality", first(8), Action::Allow);
        expect(&p, arch, "personality", first(0x1_0000_0008), EPERM);
        expect(&p, arch, "personality", first(9), EPERM);
        expect(&p, arch, "socket", first(2), Action::Allow);
        expect(&p, arch, "socket", first(40), EPERM);
    }
    expect(&p, Arch::X86, "read", NONE, Action::Allow);
    expect(&p, Arch::X86, "personality", first(0xffff_ffff), Action::Allow);
    expect(&p, Arch::X86, "umount", NONE, EPERM);
    expect(&p, Arch::Aarch64, "newfstatat", NONE, Action::Allow);
    expect(&p, Arch::Arm, "set_tls", NONE, Action::Allow);
    expect(&p, Arch::Riscv64, "newfstatat", NONE, Action::Allow);
}

#[test]
fn opened_profile_runs_engines_inside() {
    let (p, notes) = open_for_system_container(everywhere(engine_json()));
    for arch in [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm, Arch::Riscv64] {
        for name in ["mount", "umount2", "fsopen", "open_tree_attr", "clone3", "keyctl", "setns", "reboot"] {
            expect(&p, arch, name, NONE, Action::Allow);
        }
        expect(&p, arch, "clone", first(u64::MAX), Action::Allow);
        for name in ["swapon", "init_module", "bpf", "perf_event_open", "settimeofday", "acct"] {
            expect(&p, arch, name, NONE, EPERM);
        }
        // Out of the sequence of x32, and so taken for new; refused all the same.
        expect(&p, arch, "kexec_load", NONE, if arch == Arch::X32 { ENOSYS } else { EPERM });
        expect(&p, arch, "personality", first(9), EPERM);
    }
    for arch in [Arch::X86_64, Arch::Aarch64, Arch::Riscv64] {
        expect(&p, arch, "socket", first(40), EPERM);
    }
    assert!(notes.iter().any(|n| n.contains("all capabilities") && n.contains(" pivot_root ")), "{notes:#?}");
    assert!(notes.iter().any(|n| n.ends_with("conditions on the arguments of clone")), "{notes:#?}");
    assert!(notes.iter().any(|n| n.contains("refusal") && n.ends_with("of clone3")), "{notes:#?}");
    let (again, notes) = open_for_system_container(p.clone());
    assert_eq!((again, notes), (p, vec![]));
}

#[test]
fn large_profile_is_short_to_run() {
    let (p, _) = open_for_system_container(everywhere(large_json()));
    let program = compile_for(&p, Arch::X86_64).unwrap();
    check(&program);
    assert!(program.len() < 1000, "{}", program.len());
    for nr in 0..600 {
        let (answer, steps) = run(&program, &Call::new(Arch::X86_64, nr, NONE));
        assert_eq!(answer, judge(&p, Arch::X86_64, &Call::new(Arch::X86_64, nr, NONE)).code());
        // The longest is personality: five values to compare.
        assert!(steps < 40, "{nr}: {steps}");
    }
}

#[test]
fn calls_newer_than_the_profile_fail_as_on_an_old_kernel() {
    // fchmodat2, 452, is the engine's newest.
    for (p, newer) in
        [(everywhere(engine_json()), EPERM), (open_for_system_container(everywhere(engine_json())).0, Action::Allow)]
    {
        expect(&p, Arch::X86_64, "cachestat", NONE, EPERM);
        expect(&p, Arch::X86_64, "fchmodat2", NONE, Action::Allow);
        expect(&p, Arch::X86_64, "futex_wake", NONE, ENOSYS);
        assert_eq!(answer(&p, Arch::X86_64, Call::new(Arch::X86_64, 9999, NONE)), ENOSYS.code());
        assert_eq!(answer(&p, Arch::X86_64, Call::new(Arch::X32, 0x4000_0000 | 9999, NONE)), ENOSYS.code());
        // Opening newer calls does not make the profile newer.
        expect(&p, Arch::X86_64, "setxattrat", NONE, ENOSYS);
        let open_tree_attr = if newer == Action::Allow { Action::Allow } else { ENOSYS };
        expect(&p, Arch::X86_64, "open_tree_attr", NONE, open_tree_attr);
        // Blocks apart from the sequence do not make it newer either.
        expect(&p, Arch::X32, "futex_wake", NONE, ENOSYS);
        expect(&p, Arch::Arm, "futex_wake", NONE, ENOSYS);
    }
    let permissive = profile(json!({"defaultAction": "SCMP_ACT_LOG", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ERRNO"}]}));
    expect(&permissive, Arch::X86_64, "futex_wake", NONE, Action::Log);
    assert_eq!(answer(&Profile::new(EPERM), Arch::X86_64, Call::new(Arch::X86_64, 9999, NONE)), EPERM.code());
}

#[test]
fn conventions_that_are_not_served_kill() {
    let p = profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"]}));
    let kill = Action::KillThread.code();
    for call in [
        Call::new(Arch::X86, 1, NONE),
        Call::new(Arch::X32, 0x4000_0001, NONE),
        Call::new(Arch::X86_64, 0xffff_fffe, NONE),
        Call::new(Arch::Aarch64, 1, NONE),
    ] {
        assert_eq!(answer(&p, Arch::X86_64, call), kill, "{call:?}");
    }
    // A call that a tracer skips.
    assert_eq!(answer(&p, Arch::X86_64, Call::new(Arch::X86_64, u32::MAX, NONE)), Action::Allow.code());
    let (p, _) = open_for_system_container(p);
    assert_eq!(answer(&p, Arch::X86_64, Call::new(Arch::X86, 1, NONE)), kill, "the profile says so");
}

#[test]
fn profile_without_architectures_serves_32_bit_programs_once_opened() {
    let sub = Arch::native().unwrap().sub_architecture().unwrap();
    let p = profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": []}));
    let call = Call::named(sub, "read", NONE);
    assert_eq!(answer(&p, Arch::native().unwrap(), call), Action::KillThread.code());
    let (p, notes) = open_for_system_container(p);
    assert_eq!(answer(&p, Arch::native().unwrap(), call), Action::Allow.code());
    assert_eq!(notes.len(), 1);
    assert!(notes[0].contains(&sub.to_string()));
}

#[test]
fn deny_list_keeps_what_is_not_needed_inside() {
    let (p, notes) = open_for_system_container(profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mount", "ptrace", "chmod"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["unshare"], "action": "SCMP_ACT_KILL_PROCESS",
         "args": [{"index": 0, "value": 0x1000_0000, "valueTwo": 0x1000_0000, "op": "SCMP_CMP_MASKED_EQ"}]}]})));
    expect(&p, Arch::X86_64, "mount", NONE, Action::Allow);
    expect(&p, Arch::X86_64, "unshare", first(0x1000_0000), Action::Allow);
    expect(&p, Arch::X86_64, "ptrace", NONE, EPERM);
    expect(&p, Arch::X86_64, "chmod", NONE, EPERM);
    assert!(notes.iter().any(|n| n.contains("dropped") && n.ends_with("of unshare mount")), "{notes:#?}");
    assert!(notes.iter().any(|n| n.contains("kept") && n.ends_with("of ptrace")), "{notes:#?}");
}

#[test]
fn opening_leaves_calls_to_their_listener() {
    let (p, _) = open_for_system_container(profile(json!({
        "defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/run/agent.sock", "syscalls": [
            {"names": ["mount"], "action": "SCMP_ACT_NOTIFY"},
            {"names": ["setns"], "action": "SCMP_ACT_NOTIFY",
             "args": [{"index": 1, "value": 0, "op": "SCMP_CMP_EQ"}]}]})));
    expect(&p, Arch::X86_64, "mount", NONE, Action::Notify);
    expect(&p, Arch::X86_64, "setns", NONE, Action::Notify);
    expect(&p, Arch::X86_64, "setns", [0, 1, 0, 0, 0, 0], Action::Allow);
}

#[test]
fn precedence_of_rules() {
    let rule = |names: &[&str], action: &str, value: Option<u64>| {
        let args: Vec<Value> = value.iter().map(|v| json!({"index": 0, "value": v, "op": "SCMP_CMP_EQ"})).collect();
        json!({"names": names, "action": action, "args": args})
    };
    let p = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        // The default's own action says nothing.
        rule(&["read"], "SCMP_ACT_ERRNO", None), rule(&["read"], "SCMP_ACT_ALLOW", None),
        // No conditions beat conditions, and the first of them counts.
        rule(&["write"], "SCMP_ACT_TRAP", Some(1)), rule(&["write"], "SCMP_ACT_LOG", None),
        rule(&["write"], "SCMP_ACT_ALLOW", None),
        // Among conditions, the first that holds.
        rule(&["close"], "SCMP_ACT_TRAP", Some(1)), rule(&["close"], "SCMP_ACT_LOG", Some(1)),
        rule(&["close"], "SCMP_ACT_ALLOW", Some(2))]}));
    expect(&p, Arch::X86_64, "read", NONE, Action::Allow);
    expect(&p, Arch::X86_64, "write", first(1), Action::Log);
    expect(&p, Arch::X86_64, "close", first(1), Action::Trap);
    expect(&p, Arch::X86_64, "close", first(2), Action::Allow);
    expect(&p, Arch::X86_64, "close", first(3), EPERM);
}

#[test]
fn an_argument_given_twice_means_either() {
    let args = |second: u64| json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": second, "value": 2, "op": "SCMP_CMP_EQ"}]);
    let p = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": args(0)},
        {"names": ["write"], "action": "SCMP_ACT_ALLOW", "args": args(1)}]}));
    expect(&p, Arch::X86_64, "read", first(1), Action::Allow);
    expect(&p, Arch::X86_64, "read", first(2), Action::Allow);
    expect(&p, Arch::X86_64, "read", first(3), EPERM);
    expect(&p, Arch::X86_64, "write", first(1), EPERM);
    expect(&p, Arch::X86_64, "write", [1, 2, 0, 0, 0, 0], Action::Allow);
}

#[test]
fn old_32_bit_programs_cannot_go_round_a_rule() {
    let p = everywhere(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["socket", "shmget", "execve"], "action": "SCMP_ACT_ERRNO"}]}));
    expect(&p, Arch::X86, "socketcall", first(1), EPERM);
    expect(&p, Arch::X86, "socketcall", first(2), Action::Allow);
    expect(&p, Arch::X86, "ipc", first(0x1_0000 | 23), EPERM);
    expect(&p, Arch::X86, "ipc", first(24), Action::Allow);
    for nr in [59, 520] {
        assert_eq!(answer(&p, Arch::X86_64, Call::new(Arch::X32, 0x4000_0000 | nr, NONE)), EPERM.code());
    }
}

#[test]
fn actions_and_flags() {
    let p = profile(json!({
        "defaultAction": "SCMP_ACT_KILL", "listenerPath": "/run/agent.sock", "listenerMetadata": "m",
        "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
                  "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_KILL_PROCESS"}, {"names": ["write"], "action": "SCMP_ACT_TRAP"},
            {"names": ["open"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0},
            {"names": ["close"], "action": "SCMP_ACT_TRACE", "errnoRet": 65535},
            {"names": ["stat"], "action": "SCMP_ACT_LOG"}, {"names": ["fstat"], "action": "SCMP_ACT_NOTIFY"},
            {"names": ["lstat", "no_such_call"], "action": "SCMP_ACT_KILL_THREAD"}]}));
    for (name, code) in [
        ("read", 0x8000_0000),
        ("write", 0x0003_0000),
        ("open", 0x0005_0000),
        ("close", 0x7ff0_ffff),
        ("stat", 0x7ffc_0000),
        ("fstat", 0x7fc0_0000),
        ("lstat", 0),
    ] {
        assert_eq!(answer(&p, Arch::X86_64, Call::named(Arch::X86_64, name, NONE)), code, "{name}");
    }
    assert!(p.needs_listener());
    assert_eq!(p.filter_flags(), 0b10_1110);
    assert_eq!(p.listener.as_ref().unwrap().metadata.as_deref(), Some("m"));
    let silent = Profile { rules: vec![], ..p };
    assert!(!silent.needs_listener());
    assert_eq!(silent.filter_flags(), 0b110);
}

#[test]
fn errors_name_the_field() {
    let with = |syscall: Value| json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [syscall]});
    let read = |action: &str, errno: u64| json!({"names": ["read"], "action": action, "errnoRet": errno});
    for (json, field) in [
        (with(json!({"names": [], "action": "SCMP_ACT_ALLOW"})), "linux.seccomp.syscalls[0].names"),
        (with(json!({"names": [""], "action": "SCMP_ACT_ALLOW"})), "linux.seccomp.syscalls[0].names"),
        (with(read("SCMP_ACT_ALLOW", 1)), "linux.seccomp.syscalls[0].errnoRet"),
        (with(read("SCMP_ACT_ERRNO", 4096)), "linux.seccomp.syscalls[0].errnoRet"),
        (with(read("SCMP_ACT_TRACE", 65536)), "linux.seccomp.syscalls[0].errnoRet"),
        (
            with(json!({"names": ["read"], "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]})),
            "linux.seccomp.syscalls[0].args[0].index",
        ),
        (with(json!({"names": ["read"], "action": "SCMP_ACT_NOTIFY"})), "linux.seccomp.listenerPath"),
        (json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"}), "linux.seccomp.defaultAction"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}), "linux.seccomp.defaultErrnoRet"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "m"}), "linux.seccomp.listenerMetadata"),
    ] {
        let e = try_profile(json).unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidConfig);
        assert!(e.to_string().starts_with(&format!("{field}: ")), "{e}");
    }
}

#[test]
fn long_programs_jump_far_and_end_at_the_limit() {
    let p = |rules: u64| {
        let condition = |arg, v: u64| Condition { arg, test: Test::Eq(v << 32 | v) };
        let rules = (0..rules).map(|v| Rule {
            names: vec![["read", "futex_wait"][v as usize % 2].to_owned()],
            action: if v % 3 == 0 { Action::Allow } else { Action::Log },
            when: vec![condition(0, v), condition(5, v + 1)],
        });
        Profile { rules: rules.collect(), ..Profile::new(EPERM) }
    };
    let long = p(400);
    for v in [0, 1, 2, 3, 200, 398, 399, 400] {
        for args in [[v << 32 | v, 0, 0, 0, 0, (v + 1) << 32 | (v + 1)], [v << 32 | v, 0, 0, 0, 0, 7]] {
            for name in ["read", "futex_wait"] {
                let call = Call::named(Arch::X86_64, name, args);
                assert_eq!(answer(&long, Arch::X86_64, call), judge(&long, Arch::X86_64, &call).code());
            }
        }
    }
    let e = compile_for(&p(600), Arch::X86_64).unwrap_err();
    assert!(e.to_string().contains(&MAX_INSNS.to_string()), "{e}");
}

#[test]
fn instructions_are_compact_in_a_plan() {
    let insn = Insn { code: 0x15, jt: 1, jf: 2, k: 3 };
    assert_eq!(serde_json::to_string(&insn).unwrap(), "[21,1,2,3]");
    assert_eq!(serde_json::from_str::<Insn>("[21,1,2,3]").unwrap(), insn);
    let program = compile(&profile(engine_json())).unwrap();
    let back: Vec<Insn> = serde_json::from_str(&serde_json::to_string(&program).unwrap()).unwrap();
    assert_eq!(back, program);
}

/// Names that share numbers, sit at both ends of a table, are multiplexed, have numbers of their own, or do not exist.
const POOL: [&str; 24] = [
    "read",
    "write",
    "open",
    "close",
    "execve",
    "ioctl",
    "socket",
    "socketcall",
    "sendmsg",
    "ipc",
    "shmget",
    "semop",
    "clone",
    "clone3",
    "mount",
    "umount",
    "reboot",
    "personality",
    "open_tree_attr",
    "file_setattr",
    "set_tls",
    "arm_sync_file_range",
    "sync_file_range2",
    "nonsense",
];

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..4,
        Just(23),
        Just(0x1_0017),
        Just(u64::from(u32::MAX)),
        (0u64..3).prop_map(|v| v << 32 | 2),
        (0u64..3).prop_map(|v| u64::MAX - v),
        any::<u64>(),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Allow),
        Just(Action::Allow),
        Just(EPERM),
        Just(Action::Errno(13)),
        Just(Action::KillThread),
        Just(Action::KillProcess),
        Just(Action::Trap),
        Just(Action::Notify),
        Just(Action::Trace(7)),
        Just(Action::Log),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let test = prop_oneof![
        value().prop_map(Test::Ne),
        value().prop_map(Test::Lt),
        value().prop_map(Test::Le),
        value().prop_map(Test::Eq),
        value().prop_map(Test::Ge),
        value().prop_map(Test::Gt),
        (value(), value()).prop_map(|(mask, value)| Test::MaskedEq { mask, value }),
        (value(), value()).prop_map(|(mask, value)| Test::MaskedEq { mask, value: value & mask }),
    ];
    (0u8..6, test).prop_map(|(arg, test)| Condition { arg: arg.saturating_sub(3), test })
}

const ALL: [Arch; 6] = [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm, Arch::Riscv64];

fn names(most: usize) -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(proptest::sample::select(&POOL[..]).prop_map(str::to_owned), 1..most)
}

fn profiles() -> impl Strategy<Value = Profile> {
    let conditions = prop_oneof![Just(vec![]), proptest::collection::vec(condition(), 1..4)];
    let rule = (names(5), action(), conditions).prop_map(|(names, action, when)| Rule { names, action, when });
    let architectures = proptest::option::of(proptest::collection::btree_set(proptest::sample::select(&ALL[..]), 0..6));
    (action(), architectures, proptest::collection::vec(rule, 0..12), names(4), any::<bool>()).prop_map(
        |(default, architectures, rules, opened, open)| Profile {
            architectures,
            rules,
            opened: if open { opened.into_iter().collect() } else { BTreeSet::new() },
            ..Profile::new(default)
        },
    )
}

/// Calls by name and one beside it, whatever the profile is about, and numbers out of the blue.
fn calls() -> impl Strategy<Value = Call> {
    let nr = |arch: Arch| {
        let by_name = proptest::sample::select(&POOL[..]).prop_map(move |n| number::numbers(arch, n).last().copied());
        prop_oneof![
            8 => (by_name, 0u32..3).prop_map(|(nr, d)| nr.unwrap_or(0).wrapping_add(d).wrapping_sub(1)),
            1 => 0u32..600,
            1 => (0u32..600).prop_map(|nr| nr | 0x4000_0000),
            1 => Just(u32::MAX),
            1 => any::<u32>(),
        ]
    };
    let args = proptest::array::uniform6(value());
    let real = (proptest::sample::select(&ALL[..]), args)
        .prop_flat_map(move |(arch, args)| nr(arch).prop_map(move |nr| Call::new(arch, nr, args)));
    prop_oneof![20 => real, 1 => any::<u32>().prop_map(|audit| Call { nr: 1, audit, args: NONE })]
}

proptest! {
    #[test]
    fn the_program_answers_what_the_profile_says(p in profiles(), calls in proptest::collection::vec(calls(), 64)) {
        for native in [Arch::X86_64, Arch::Aarch64, Arch::Riscv64] {
            let program = compile_for(&p, native).unwrap();
            check(&program);
            for call in &calls {
                let (got, expected) = (run(&program, call).0, judge(&p, native, call).code());
                prop_assert_eq!(got, expected, "{:?} {:?}: {:#x}, not {:#x}", native, call, got, expected);
            }
        }
    }

    #[test]
    fn opening_only_ever_opens(p in profiles(), calls in proptest::collection::vec(calls(), 64)) {
        // Without a list, one is added, and then the default action decides where none did before.
        let p = Profile { architectures: Some(p.architectures.unwrap_or_default()), ..p };
        let (open, _) = open_for_system_container(p.clone());
        prop_assert_eq!(&open_for_system_container(open.clone()).0, &open);
        let native = Arch::native().unwrap();
        let (before, after) = (compile_for(&p, native).unwrap(), compile_for(&open, native).unwrap());
        for call in &calls {
            let (was, is) = (run(&before, call).0, run(&after, call).0);
            // The kernel orders actions by severity, as signed numbers.
            prop_assert!(was == is || is as i32 > was as i32, "{:?}: {:#x} became {:#x}", call, was, is);
        }
    }
}

#[test]
fn every_known_name_has_a_number_somewhere() {
    for name in all_names() {
        assert!(ALL.iter().any(|a| !number::numbers(*a, name).is_empty()), "{name}");
    }
}
