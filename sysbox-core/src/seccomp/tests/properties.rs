//! Arbitrary profiles and calls.

use super::*;

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
