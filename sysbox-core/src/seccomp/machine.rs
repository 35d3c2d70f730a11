//! The kernel's machine for filters, and what a filter should answer, by the slow and obvious way.

use super::assemble::{Jump, AND, JUMP, LOAD, RETURN};
use super::number;
use super::{Action, Arch, Condition, Insn, Profile, Test, MAX_INSNS};

/// `struct seccomp_data`, without the instruction pointer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) nr: u32,
    pub(super) audit: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    pub(super) fn new(arch: Arch, nr: u32, args: [u64; 6]) -> Call {
        Call { nr, audit: arch.audit(), args }
    }

    /// A call by name, which must have a number.
    pub(super) fn named(arch: Arch, name: &str, args: [u64; 6]) -> Call {
        let nr = *number::numbers(arch, name).last().unwrap_or_else(|| panic!("{arch} has no {name}"));
        Call::new(arch, nr, args)
    }

    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.nr,
            4 => self.audit,
            16..=60 if offset % 8 == 0 => self.args[(offset as usize - 16) / 8] as u32,
            20..=60 if offset % 8 == 4 => (self.args[(offset as usize - 16) / 8] >> 32) as u32,
            _ => panic!("load from {offset}"),
        }
    }
}

/// What the kernel demands of a program before it takes it.
pub(super) fn check(program: &[Insn]) {
    assert!(!program.is_empty() && program.len() <= MAX_INSNS);
    assert_eq!(program.last().unwrap().code, RETURN);
    for (i, insn) in program.iter().enumerate() {
        let left = program.len() - i - 1;
        match insn.code {
            JUMP => assert!((insn.k as usize) < left),
            LOAD => assert!(insn.k < 64 && insn.k % 4 == 0 && left > 0),
            AND => assert!(left > 0),
            RETURN => {}
            code => {
                assert!([Jump::Equal, Jump::Greater, Jump::GreaterEqual].iter().any(|j| *j as u16 == code));
                assert!((insn.jt as usize) < left && (insn.jf as usize) < left);
            }
        }
    }
}

/// The answer, and after how many instructions.
pub(super) fn run(program: &[Insn], call: &Call) -> (u32, usize) {
    let (mut pc, mut acc, mut steps) = (0, 0, 0);
    loop {
        let Insn { code, jt, jf, k } = program[pc];
        pc += 1;
        steps += 1;
        let taken = match code {
            RETURN => return (k, steps),
            LOAD => {
                acc = call.word(k);
                continue;
            }
            AND => {
                acc &= k;
                continue;
            }
            JUMP => {
                pc += k as usize;
                continue;
            }
            0x15 => acc == k,
            0x25 => acc > k,
            0x35 => acc >= k,
            _ => panic!("operation {code:#x}"),
        };
        pc += usize::from(if taken { jt } else { jf });
    }
}

/// What [`Profile`] and [`super::compile_for`] promise, sentence by sentence.
pub(super) fn judge(profile: &Profile, native: Arch, call: &Call) -> Action {
    let served = |a: Arch| {
        a == native || profile.architectures.as_ref().is_some_and(|l| l.contains(&a)) && native.family().contains(&a)
    };
    let all = [Arch::X86_64, Arch::X86, Arch::Aarch64, Arch::Arm, Arch::Riscv64];
    let Some(mut arch) = all.into_iter().find(|a| a.audit() == call.audit).filter(|a| served(*a)) else {
        return Action::KillThread;
    };
    if call.nr == u32::MAX {
        return Action::Allow;
    }
    if arch == Arch::X86_64 && call.nr >= 0x4000_0000 {
        arch = Arch::X32;
        if !served(arch) {
            return Action::KillThread;
        }
    }
    let means = |name: &String| number::numbers(arch, name).contains(&call.nr);
    let opened = profile.opened.iter().any(means);

    // The rules about this number, the ones for other numbers that reach it through a multiplexer included.
    let mut rules: Vec<(Vec<Condition>, Action)> = Vec::new();
    for rule in &profile.rules {
        for name in &rule.names {
            if means(name) {
                rules.push((rule.when.clone(), rule.action));
            }
            match number::multiplexed(arch, name) {
                Some(m) if m.nr == call.nr && rule.when.is_empty() && call.args[0] & m.mask == m.call => {
                    rules.push((vec![Condition { arg: 0, test: Test::Eq(call.args[0]) }], rule.action));
                }
                _ => {}
            }
        }
    }
    let is_named = profile.rules.iter().flat_map(|r| &r.names).any(means);
    rules.retain(|(_, action)| *action != profile.default);
    if opened {
        rules.retain(|(_, action)| !action.refuses());
    }
    if let Some((_, action)) = rules.iter().find(|(when, _)| when.is_empty()) {
        return *action;
    }
    for (when, action) in &rules {
        if when.iter().all(|c| holds(c, call, arch)) {
            return *action;
        }
    }
    if !profile.default.refuses() {
        return profile.default;
    }
    if opened {
        return Action::Allow;
    }
    let own = |nr: &u32| match arch {
        Arch::X32 => *nr >= 0x4000_0000 + 512,
        Arch::Arm => *nr >= 0xf0000,
        _ => false,
    };
    // A call that is reached through a multiplexer makes that one known.
    let through =
        |r: &crate::seccomp::Rule, n: &str| number::multiplexed(arch, n).filter(|_| r.when.is_empty()).map(|m| m.nr);
    let numbers = |r: &crate::seccomp::Rule, n: &str| number::numbers(arch, n).into_iter().chain(through(r, n));
    let known = profile.rules.iter().flat_map(|r| r.names.iter().flat_map(|n| numbers(r, n)).collect::<Vec<u32>>());
    match known.filter(|nr| !own(nr)).max() {
        Some(highest) if call.nr > highest && !is_named => Action::Errno(38),
        _ => profile.default,
    }
}

fn holds(condition: &Condition, call: &Call, arch: Arch) -> bool {
    let width = if matches!(arch, Arch::X86 | Arch::Arm) { u64::from(u32::MAX) } else { u64::MAX };
    let arg = call.args[usize::from(condition.arg)] & width;
    match condition.test {
        Test::Ne(v) => arg != v & width,
        Test::Lt(v) => arg < v & width,
        Test::Le(v) => arg <= v & width,
        Test::Eq(v) => arg == v & width,
        Test::Ge(v) => arg >= v & width,
        Test::Gt(v) => arg > v & width,
        Test::MaskedEq { mask, value } => arg & mask == value & width,
    }
}
