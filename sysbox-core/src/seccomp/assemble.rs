//! Instructions of the kernel's classic BPF, and the assembler that lays them out.

use super::profile::Action;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The longest program the kernel takes: `BPF_MAXINSNS` in `linux/bpf_common.h`.
pub const MAX_INSNS: usize = 4096;

/// One instruction, laid out as the kernel's `struct sock_filter`; serialized as `[code, jt, jf, k]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "(u16, u8, u8, u32)", into = "(u16, u8, u8, u32)")]
pub struct Insn {
    /// Operation: see `linux/bpf_common.h`.
    pub code: u16,
    /// How many instructions to skip if the test holds.
    pub jt: u8,
    /// How many instructions to skip if it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

impl From<(u16, u8, u8, u32)> for Insn {
    fn from((code, jt, jf, k): (u16, u8, u8, u32)) -> Self {
        Insn { code, jt, jf, k }
    }
}

impl From<Insn> for (u16, u8, u8, u32) {
    fn from(i: Insn) -> Self {
        (i.code, i.jt, i.jf, i.k)
    }
}

impl From<Insn> for libc::sock_filter {
    fn from(i: Insn) -> Self {
        libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }
    }
}

// The few operations that a filter needs: linux/bpf_common.h and linux/filter.h.
pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// A test of the accumulator against a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Jump {
    Equal = 0x15,        // BPF_JMP | BPF_JEQ | BPF_K
    Greater = 0x25,      // BPF_JMP | BPF_JGT | BPF_K
    GreaterEqual = 0x35, // BPF_JMP | BPF_JGE | BPF_K
}

/// A place in the program: its distance from the end, which stays the same while instructions are put in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Label(usize);

/// Writes a program from its last instruction to its first.
///
/// Jumps of this machine go forward only, so in this order every target exists, at a known distance, when the jump
/// to it is written. Whatever is written takes its successors as labels; nothing depends on the order of calls.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<Insn>,
    returns: HashMap<Action, Label>,
}

/// What `jt` and `jf` can hold.
const REACH: usize = u8::MAX as usize;

impl Assembler {
    fn put(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(Insn { code, jt, jf, k });
        Label(self.reversed.len())
    }

    /// How many instructions lie between the next one written and `to`.
    fn distance(&self, to: Label) -> usize {
        self.reversed.len() - to.0
    }

    /// Loads the word of `seccomp_data` at `offset`.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.run_on(next);
        self.put(LOAD, 0, 0, offset)
    }

    /// Masks the accumulator.
    pub(super) fn and(&mut self, mask: u32, next: Label) -> Label {
        self.run_on(next);
        self.put(AND, 0, 0, mask)
    }

    /// Makes the next instruction written be followed by `next`.
    fn run_on(&mut self, next: Label) {
        if self.distance(next) > 0 {
            self.leap(next);
        }
    }

    fn leap(&mut self, to: Label) -> Label {
        // Longer programs than `k` can span are refused by `finish` anyway.
        let k = u32::try_from(self.distance(to)).unwrap_or(u32::MAX);
        self.put(JUMP, 0, 0, k)
    }

    /// Ends the program with an action. A nearby instruction that does so is used again.
    pub(super) fn give(&mut self, action: Action) -> Label {
        // Half the reach, so that the jump which asked for it still gets there with a few instructions in between.
        if let Some(&label) = self.returns.get(&action).filter(|l| self.distance(**l) < REACH / 2) {
            return label;
        }
        let label = self.put(RETURN, 0, 0, action.code());
        self.returns.insert(action, label);
        label
    }

    /// Branches.
    pub(super) fn branch(&mut self, jump: Jump, k: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        // The trampoline for `no` would move `yes` away by one.
        let yes = if self.distance(yes) < REACH { yes } else { self.leap(yes) };
        let no = if self.distance(no) <= REACH { no } else { self.leap(no) };
        let [jt, jf] = [yes, no].map(|to| self.distance(to));
        debug_assert!(jt <= REACH && jf <= REACH, "both were brought within reach");
        self.put(jump as u16, jt as u8, jf as u8, k)
    }

    /// The program, which starts with what was written last.
    pub(super) fn finish(mut self) -> Result<Vec<Insn>> {
        if self.reversed.len() > MAX_INSNS {
            return Err(Error::invalid(format!(
                "compile linux.seccomp: {} instructions, and the kernel takes {MAX_INSNS}",
                self.reversed.len()
            ))
            .hint("the profile has too many rules with arguments"));
        }
        self.reversed.reverse();
        Ok(self.reversed)
    }
}
