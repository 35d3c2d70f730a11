//! Rules, actions, and programs of any length.

use super::*;

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
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "x"}), "linux.seccomp.listenerPath"),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x", "syscalls": [{"names": ["read", "sendmsg"], "action": "SCMP_ACT_NOTIFY"}]}),
            "linux.seccomp.syscalls",
        ),
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
