//! Profiles of engines, as they are and opened.

use super::*;

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
