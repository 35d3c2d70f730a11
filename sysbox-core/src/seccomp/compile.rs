//! A profile to the kernel's program.

use super::arch::Arch;
use super::assemble::{Assembler, Insn, Jump, Label};
use super::number;
use super::profile::{Action, Condition, Profile, Test};
use crate::{Error, Kind, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap};

// Offsets in `struct seccomp_data`, linux/seccomp.h.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// The program for the architecture this library was compiled for; see [`compile_for`].
///
/// # Errors
/// As [`compile_for`], and [`Kind::Unsupported`] on an architecture whose calls are not known here.
pub fn compile(profile: &Profile) -> Result<Vec<Insn>> {
    let native = Arch::native().ok_or_else(|| {
        Error::new(Kind::Unsupported, "compile linux.seccomp: the calls of this architecture are not known")
    })?;
    compile_for(profile, native)
}

/// The program for a kernel of this native architecture.
///
/// The native convention is always served, others if the profile lists them; a call by any other kills its thread, as
/// libseccomp has it. That includes x32 calls, which the kernel reports as calls of [`Arch::X86_64`].
///
/// Two things go beyond the profile. A call with a higher number than every call that the rules name is newer than
/// the profile: if its default refuses, it fails with `ENOSYS` in place of the default action, as in runc, because C
/// libraries take that for an old kernel and use the older call, and take anything else for the answer. And number -1
/// is let through: it is how a tracer has a call skipped, the kernel does nothing for it, and refusing it
/// would replace the result that the tracer set.
///
/// # Errors
/// If the program gets longer than the kernel takes.
pub fn compile_for(profile: &Profile, native: Arch) -> Result<Vec<Insn>> {
    let served = |arch: &Arch| *arch == native || profile.architectures.as_ref().is_some_and(|a| a.contains(arch));
    let mut tables: BTreeMap<u32, Table> = BTreeMap::new();
    for &arch in native.family().iter().filter(|a| served(a)) {
        tables.entry(arch.audit()).or_default().serve(profile, arch);
    }
    let mut code = Code::default();
    let mut entry = code.asm.give(BAD_ARCH);
    // What is written last is tested first.
    let (common, rest): (Vec<_>, Vec<_>) = tables.into_iter().partition(|(audit, _)| *audit == native.audit());
    for (audit, table) in rest.into_iter().chain(common) {
        let search = code.search(&table.spans());
        let load = code.asm.load(NR, search);
        entry = code.asm.branch(Jump::Equal, audit, load, entry);
    }
    code.asm.load(ARCH, entry);
    code.asm.finish()
}

const BAD_ARCH: Action = Action::KillThread;

/// What happens to a call of some number: the first chain link whose conditions hold, or the fallback.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Verdict {
    chain: Vec<(Vec<Condition>, Action)>,
    fallback: Action,
    /// Whether arguments have an upper half, as far as there are conditions.
    wide: bool,
}

impl Verdict {
    const fn flat(fallback: Action) -> Verdict {
        Verdict { chain: Vec::new(), fallback, wide: true }
    }

    /// Gives effect to the rule without conditions, and drops what changes nothing.
    fn settle(mut self) -> Verdict {
        if let Some((_, action)) = self.chain.iter().find(|(when, _)| when.is_empty()) {
            return Verdict::flat(*action);
        }
        while self.chain.last().is_some_and(|(_, action)| *action == self.fallback) {
            self.chain.pop();
        }
        if self.chain.is_empty() {
            return Verdict::flat(self.fallback);
        }
        self
    }
}

/// Every number's verdict, by the first number it is for; each is valid up to the next.
#[derive(Debug)]
struct Table(BTreeMap<u32, Verdict>);

impl Default for Table {
    fn default() -> Self {
        Table(BTreeMap::from([(0, Verdict::flat(BAD_ARCH)), (number::SKIPPED, Verdict::flat(Action::Allow))]))
    }
}

impl Table {
    /// Sets the verdict for the numbers from `first` up to and without `end`.
    fn cover(&mut self, first: u32, end: u32, verdict: Verdict) {
        if first >= end {
            return;
        }
        if let Some(after) = self.0.range(..=end).next_back().map(|(_, v)| v.clone()) {
            self.0.insert(end, after);
        }
        let within: Vec<u32> = self.0.range(first..end).map(|(nr, _)| *nr).collect();
        within.iter().for_each(|nr| drop(self.0.remove(nr)));
        self.0.insert(first, verdict);
    }

    /// Enters the calls of one convention.
    fn serve(&mut self, profile: &Profile, arch: Arch) {
        let (first, end) = (number::start(arch), number::end(arch));
        self.cover(first, end, Verdict::flat(profile.default));

        let opened: BTreeSet<u32> = profile.opened.iter().flat_map(|n| number::numbers(arch, n)).collect();
        let mut named = named(profile, arch, &opened);
        let horizon = named.keys().rev().find(|nr| !number::out_of_sequence(arch, **nr));
        if let Some(horizon) = horizon.filter(|_| profile.default.refuses()) {
            self.cover(horizon + 1, end, Verdict::flat(Action::Errno(libc::ENOSYS as u16)));
        }
        // Only now: the profile's author did not know of these calls, so they say nothing about its age.
        for nr in opened {
            named.entry(nr).or_insert_with(|| Verdict::flat(open(profile.default)));
        }
        for (nr, verdict) in named {
            self.cover(nr, nr + 1, verdict.settle());
        }
    }

    /// The table without seams between equals.
    fn spans(self) -> Vec<(u32, Verdict)> {
        let mut spans: Vec<(u32, Verdict)> = self.0.into_iter().collect();
        spans.dedup_by(|next, previous| next.1 == previous.1);
        spans
    }
}

/// The default action for a call that must not be refused.
fn open(default: Action) -> Action {
    if default.refuses() {
        Action::Allow
    } else {
        default
    }
}

/// The calls that rules name.
fn named(profile: &Profile, arch: Arch, opened: &BTreeSet<u32>) -> BTreeMap<u32, Verdict> {
    let mut named: BTreeMap<u32, Verdict> = BTreeMap::new();
    let mut enter = |nr: u32, when: Vec<Condition>, action: Action| {
        let is_open = opened.contains(&nr);
        let fallback = if is_open { open(profile.default) } else { profile.default };
        let verdict = named.entry(nr).or_insert_with(|| Verdict { wide: arch.wide(), ..Verdict::flat(fallback) });
        if action != profile.default && !(is_open && action.refuses()) {
            verdict.chain.push((when, action));
        }
    };
    for rule in &profile.rules {
        for name in &rule.names {
            for nr in number::numbers(arch, name) {
                enter(nr, rule.when.clone(), rule.action);
            }
            // The arguments of a multiplexed call are in memory, out of the filter's sight.
            if let Some(m) = number::multiplexed(arch, name).filter(|_| rule.when.is_empty()) {
                let which = Condition { arg: 0, test: Test::MaskedEq { mask: m.mask, value: m.call } };
                enter(m.nr, vec![which], rule.action);
            }
        }
    }
    named
}

/// The program so far.
#[derive(Debug, Default)]
struct Code {
    asm: Assembler,
    chains: HashMap<Verdict, Label>,
}

impl Code {
    /// Finds the span of the number in the accumulator: halves until one is left. There are few spans even in a
    /// profile of hundreds of names, as neighbours mostly share their verdict.
    fn search(&mut self, spans: &[(u32, Verdict)]) -> Label {
        match spans {
            [] => self.asm.give(BAD_ARCH),
            [(_, verdict)] => self.verdict(verdict),
            _ => {
                let (below, above) = spans.split_at(spans.len() / 2);
                let yes = self.search(above);
                let no = self.search(below);
                self.asm.branch(Jump::GreaterEqual, above[0].0, yes, no)
            }
        }
    }

    fn verdict(&mut self, verdict: &Verdict) -> Label {
        if let Some(label) = self.chains.get(verdict) {
            return *label;
        }
        let mut start = self.asm.give(verdict.fallback);
        if verdict.chain.is_empty() {
            return start;
        }
        for (when, action) in verdict.chain.iter().rev() {
            let otherwise = start;
            start = self.asm.give(*action);
            for condition in when.iter().rev() {
                start = self.condition(*condition, verdict.wide, start, otherwise);
            }
        }
        self.chains.insert(verdict.clone(), start);
        start
    }

    fn condition(&mut self, condition: Condition, wide: bool, yes: Label, no: Label) -> Label {
        let arg = Arg { offset: ARGS + 8 * u32::from(condition.arg), wide };
        match condition.test {
            Test::Eq(v) => self.equal(arg, u64::MAX, v, yes, no),
            Test::Ne(v) => self.equal(arg, u64::MAX, v, no, yes),
            Test::MaskedEq { mask, value } => self.equal(arg, mask, value, yes, no),
            Test::Gt(v) => self.order(arg, Jump::Greater, v, yes, no),
            Test::Ge(v) => self.order(arg, Jump::GreaterEqual, v, yes, no),
            Test::Lt(v) => self.order(arg, Jump::GreaterEqual, v, no, yes),
            Test::Le(v) => self.order(arg, Jump::Greater, v, no, yes),
        }
    }

    fn equal(&mut self, arg: Arg, mask: u64, value: u64, yes: Label, no: Label) -> Label {
        let low = self.equal_half(arg.offset, low(mask), low(value), yes, no);
        if arg.wide {
            self.equal_half(arg.offset + HIGH, high(mask), high(value), low, no)
        } else {
            low
        }
    }

    fn equal_half(&mut self, offset: u32, mask: u32, value: u32, yes: Label, no: Label) -> Label {
        let mut next = self.asm.branch(Jump::Equal, value, yes, no);
        if mask != u32::MAX {
            next = self.asm.and(mask, next);
        }
        self.asm.load(offset, next)
    }

    fn order(&mut self, arg: Arg, jump: Jump, value: u64, yes: Label, no: Label) -> Label {
        let compare = self.asm.branch(jump, low(value), yes, no);
        let compare = self.asm.load(arg.offset, compare);
        if !arg.wide {
            return compare;
        }
        let equal = self.asm.branch(Jump::Equal, high(value), compare, no);
        let greater = self.asm.branch(Jump::Greater, high(value), yes, equal);
        self.asm.load(arg.offset + HIGH, greater)
    }
}

/// Where an argument is in `struct seccomp_data`, and whether its upper half counts.
#[derive(Debug, Clone, Copy)]
struct Arg {
    offset: u32,
    wide: bool,
}

// All architectures here are little-endian.
const HIGH: u32 = 4;

const fn low(v: u64) -> u32 {
    v as u32
}

const fn high(v: u64) -> u32 {
    (v >> 32) as u32
}
