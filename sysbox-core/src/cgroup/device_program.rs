//! Device rules as a program for the kernel's BPF machine: what cgroup v2 has instead of `devices.allow`.
//!
//! The program gets `struct bpf_cgroup_dev_ctx` (linux/bpf.h): `access_type` (the access bits in the upper half, 1 for a block or
//! 2 for a character device in the lower one), `major`, `minor`, 32 bits each. It returns 1 to allow and 0 to deny. Rules are
//! tried from the last to the first; a register holds the bits of the request that no rule has decided yet.

use super::devices::{effective, Access, DeviceKind, DeviceRule};

/// `BPF_DEVCG_DEV_BLOCK` of linux/bpf.h.
const BLOCK: u32 = 1;
/// `BPF_DEVCG_DEV_CHAR` of linux/bpf.h.
const CHAR: u32 = 2;

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const UNDECIDED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The few instructions that are needed, all on 32 bits, so that any device number fits the immediate operand.
#[derive(Debug, Clone, Copy)]
enum Instruction {
    /// `to = *(u32 *)(CONTEXT + offset)`
    Load { to: u8, offset: i16 },
    /// `to = from`
    Copy { to: u8, from: u8 },
    /// `to = value`
    Set { to: u8, value: u32 },
    /// `to &= value`
    And { to: u8, value: u32 },
    /// `to >>= value`
    Shift { to: u8, value: u32 },
    /// Skips instructions.
    Jump { skip: i16 },
    /// Skips instructions if `of != value`.
    JumpUnless { of: u8, value: u32, skip: i16 },
    /// Skips instructions if `of & value != 0`.
    JumpIfAny { of: u8, value: u32, skip: i16 },
    /// Returns `RESULT`.
    Exit,
}

impl Instruction {
    fn encode(self) -> u64 {
        // class | operation | source (RFC 9669, "BPF Instruction Set Architecture", sections 3 to 5)
        let (code, to, from, offset, value) = match self {
            Instruction::Load { to, offset } => (0x61, to, CONTEXT, offset, 0),
            Instruction::Copy { to, from } => (0xbc, to, from, 0, 0),
            Instruction::Set { to, value } => (0xb4, to, 0, 0, value),
            Instruction::And { to, value } => (0x54, to, 0, 0, value),
            Instruction::Shift { to, value } => (0x74, to, 0, 0, value),
            Instruction::Jump { skip } => (0x05, 0, 0, skip, 0),
            Instruction::JumpUnless { of, value, skip } => (0x56, of, 0, skip, value),
            Instruction::JumpIfAny { of, value, skip } => (0x46, of, 0, skip, value),
            Instruction::Exit => (0x95, 0, 0, 0, 0),
        };
        let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        let [o0, o1] = offset.to_ne_bytes();
        let [v0, v1, v2, v3] = value.to_ne_bytes();
        u64::from_ne_bytes([code, registers, o0, o1, v0, v1, v2, v3])
    }
}

/// The encoded program for these rules; without any, it denies everything.
pub fn program(rules: &[DeviceRule]) -> Vec<u64> {
    use Instruction::{And, Copy, Exit, Load, Set, Shift};
    let mut code = vec![
        Load { to: KIND, offset: 0 },
        Copy { to: UNDECIDED, from: KIND },
        And { to: KIND, value: 0xffff },
        Shift { to: UNDECIDED, value: 16 },
        Load { to: MAJOR, offset: 4 },
        Load { to: MINOR, offset: 8 },
    ];
    let rules = effective(rules);
    for rule in rules.iter().rev() {
        push_rule(&mut code, rule);
    }
    // After a rule about everything, which can only be the first, a default would be unreachable, which the verifier refuses.
    if !rules.first().is_some_and(DeviceRule::is_everything) {
        code.extend([Set { to: RESULT, value: 0 }, Exit]);
    }
    code.into_iter().map(Instruction::encode).collect()
}

fn push_rule(code: &mut Vec<Instruction>, rule: &DeviceRule) {
    use Instruction::{And, Exit, Jump, JumpIfAny, JumpUnless, Set};
    let verdict = [Set { to: RESULT, value: u32::from(rule.allow) }, Exit];
    let bits = u32::from(rule.access.bits());
    let mut body = Vec::with_capacity(4);
    if rule.access == Access::ALL {
        // Whatever is undecided yet is decided here.
    } else if rule.allow {
        body.extend([And { to: UNDECIDED, value: !bits & 0xffff }, JumpUnless { of: UNDECIDED, value: 0, skip: 2 }]);
    } else {
        body.extend([JumpIfAny { of: UNDECIDED, value: bits, skip: 1 }, Jump { skip: 2 }]);
    }
    body.extend(verdict);

    let kind = match rule.kind {
        DeviceKind::All => None,
        DeviceKind::Block => Some(BLOCK),
        DeviceKind::Char => Some(CHAR),
    };
    let tests = [(KIND, kind), (MAJOR, rule.major), (MINOR, rule.minor)];
    let tests: Vec<(u8, u32)> = tests.into_iter().filter_map(|(of, value)| value.map(|v| (of, v))).collect();
    // At most three tests and four instructions: the distance always fits.
    let mut left = tests.len() + body.len();
    for (of, value) in tests {
        left -= 1;
        code.push(JumpUnless { of, value, skip: left as i16 });
    }
    code.extend(body);
}

#[cfg(test)]
mod tests {
    use super::super::devices::{allowed, tests::any_rules, tests::requests};
    use super::*;
    use crate::cgroup::{Access, DeviceKind};
    use proptest::prelude::*;

    /// Runs an encoded program; panics on anything the kernel's verifier would refuse.
    fn run(program: &[u64], context: [u32; 3]) -> u32 {
        let mut r = [None::<u32>; 11];
        let mut at = 0usize;
        loop {
            let b = program[at].to_le_bytes();
            let (code, to, from) = (b[0], usize::from(b[1] & 15), usize::from(b[1] >> 4));
            let offset = i16::from_le_bytes([b[2], b[3]]);
            let value = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
            at += 1;
            let mut jump = false;
            match code {
                0x61 => {
                    assert_eq!(from, 1);
                    r[to] = Some(context[usize::try_from(offset).unwrap() / 4]);
                }
                0xbc => r[to] = Some(r[from].unwrap()),
                0xb4 => r[to] = Some(value),
                0x54 => r[to] = Some(r[to].unwrap() & value),
                0x74 => r[to] = Some(r[to].unwrap() >> value),
                0x05 => jump = true,
                0x56 => jump = r[to].unwrap() != value,
                0x46 => jump = r[to].unwrap() & value != 0,
                0x95 => return r[0].unwrap(),
                _ => panic!("opcode {code:#x}"),
            }
            if jump {
                assert!(offset > 0, "only forward jumps");
                at += usize::try_from(offset).unwrap();
            }
        }
    }

    fn ask(program: &[u64], kind: DeviceKind, major: u32, minor: u32, bits: u8) -> bool {
        let kind = if kind == DeviceKind::Block { BLOCK } else { CHAR };
        run(program, [u32::from(bits) << 16 | kind, major, minor]) == 1
    }

    #[test]
    fn large_numbers_are_compared_whole() {
        let rule = DeviceRule::allow_char(u32::MAX, Some(0x8000_0000), Access::ALL);
        let p = program(&[rule]);
        assert!(ask(&p, DeviceKind::Char, u32::MAX, 0x8000_0000, 2));
        assert!(!ask(&p, DeviceKind::Char, u32::MAX, 0, 2));
    }

    #[test]
    fn is_short() {
        assert_eq!(program(&[DeviceRule::everything(true)]).len(), 8);
        assert_eq!(program(&[DeviceRule::allow_char(1, Some(3), Access::ALL), DeviceRule::everything(false)]).len(), 8);
    }

    #[test]
    fn a_request_may_be_granted_by_several_rules() {
        let r = |bits| DeviceRule::allow_char(1, Some(3), Access::from_bits(bits));
        let p = program(&[DeviceRule::everything(false), r(2), r(4)]);
        assert!(ask(&p, DeviceKind::Char, 1, 3, 6));
        assert!(!ask(&p, DeviceKind::Char, 1, 3, 7));
    }

    proptest! {
        #[test]
        fn means_what_the_rules_say(rules in any_rules()) {
            let p = program(&rules);
            for (kind, major, minor, bits) in requests() {
                prop_assert_eq!(ask(&p, kind, major, minor, bits), allowed(&rules, kind, major, minor, bits));
            }
        }

        /// The verifier refuses instructions that cannot be reached.
        #[test]
        fn everything_is_reachable(rules in any_rules()) {
            let p = program(&rules);
            let mut reached = vec![false; p.len()];
            let mut next = vec![0usize];
            while let Some(at) = next.pop() {
                if std::mem::replace(&mut reached[at], true) {
                    continue;
                }
                let b = p[at].to_le_bytes();
                let to = at + 1 + usize::from(u16::from_le_bytes([b[2], b[3]]));
                match b[0] {
                    0x95 => {}
                    0x05 => next.push(to),
                    0x56 | 0x46 => next.extend([at + 1, to]),
                    _ => next.push(at + 1),
                }
            }
            prop_assert!(reached.iter().all(|r| *r));
        }
    }

    /// The verifier takes whatever rules make.
    #[test]
    fn every_shape_of_program_loads() {
        let name = "every_shape_of_program_loads";
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("SKIP {name}: not root");
        }
        let numbers = [None, Some(0), Some(u32::MAX)];
        for kind in [DeviceKind::All, DeviceKind::Block, DeviceKind::Char] {
            for (allow, bits) in [(true, 7), (true, 1), (false, 7), (false, 6)] {
                for (major, minor) in numbers.iter().flat_map(|a| numbers.iter().map(move |b| (*a, *b))) {
                    let rule = DeviceRule { allow, kind, major, minor, access: Access::from_bits(bits) };
                    for rules in [vec![rule], vec![DeviceRule::everything(!allow), rule], vec![rule; 40]] {
                        let code = program(&rules);
                        if let Err(e) = crate::sys::bpf::load_cgroup_device(&code) {
                            panic!("{rules:?}: {e}");
                        }
                    }
                }
            }
        }
    }
}
