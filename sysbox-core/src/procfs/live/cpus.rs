//! Sets of CPUs, how many of them a container may use, and the nodes that say only that.

use std::fmt::Write;

/// As many as any kernel is built for (`CONFIG_NR_CPUS`).
const MOST: usize = 8192;

/// CPUs by their numbers.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct CpuSet([u64; MOST / 64]);

impl std::fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.list())
    }
}

impl CpuSet {
    const EMPTY: CpuSet = CpuSet([0; MOST / 64]);

    /// The kernel's list format, such as `0-3,8` (cpuset(7), "List format"). What makes no sense is left out.
    pub(super) fn parse(text: &str) -> CpuSet {
        let mut set = CpuSet::EMPTY;
        for part in text.trim().split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else { continue };
            for cpu in first..=last.min(MOST - 1) {
                set.insert(cpu);
            }
        }
        set
    }

    fn insert(&mut self, cpu: usize) {
        if let Some(word) = self.0.get_mut(cpu / 64) {
            *word |= 1 << (cpu % 64);
        }
    }

    pub(super) fn contains(&self, cpu: usize) -> bool {
        self.0.get(cpu / 64).is_some_and(|word| word >> (cpu % 64) & 1 == 1)
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let words = self.0.iter().enumerate().filter(|(_, word)| **word != 0);
        words.flat_map(|(i, word)| (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| i * 64 + bit))
    }

    /// The lowest `n` of them.
    pub(super) fn first(&self, n: usize) -> CpuSet {
        let mut set = CpuSet::EMPTY;
        self.iter().take(n).for_each(|cpu| set.insert(cpu));
        set
    }

    pub(super) fn and(&self, other: &CpuSet) -> CpuSet {
        let mut set = self.clone();
        set.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a &= b);
        set
    }

    /// In the kernel's list format, without a newline.
    pub(super) fn list(&self) -> String {
        let mut text = String::new();
        let mut cpus = self.iter().peekable();
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if_eq(&(last + 1)) {
                last = next;
            }
            let comma = if text.is_empty() { "" } else { "," };
            let _ = match last == first {
                true => write!(text, "{comma}{first}"),
                false => write!(text, "{comma}{first}-{last}"),
            };
        }
        text
    }
}

/// One CPU, in the unit of shares.
pub(super) const WHOLE: u64 = 1_000_000;

/// How much of a CPU's time a quota is worth, in millionths; `None` is no limit. Both in microseconds.
pub(super) fn quota_share(quota: u64, period: u64) -> Option<u64> {
    (period > 0).then_some(())?;
    Some(quota.checked_mul(WHOLE)?.div_ceil(period).max(1))
}

/// `cpu.max` of v2: `max 100000` or `150000 100000`.
pub(super) fn v2_quota(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    quota_share(quota.parse().ok()?, period.parse().ok()?)
}

/// What one cgroup allows.
#[derive(Debug, Clone)]
pub(super) struct Level {
    /// The CPUs that it may run on; `None` if it does not say.
    pub(super) set: Option<CpuSet>,
    /// See [`quota_share`].
    pub(super) quota: Option<u64>,
}

/// The CPUs that a container has, as its nodes show them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cpus {
    /// What is shown.
    pub(super) shown: CpuSet,
    /// A quota is worth less than all CPUs that the threads may run on: the last one shown is worth as many millionths.
    pub(super) last: Option<u64>,
    /// Which level allows the least, and therefore has the figures; the outermost of equal ones.
    pub(super) binding: usize,
}

/// The levels, the outermost first, are those of the container's own cgroup and of what is inside, down to the reader's.
pub(super) fn allowed(online: &CpuSet, levels: &[Level]) -> Cpus {
    let (mut set, mut quota) = (online.clone(), u64::MAX);
    let (mut least, mut binding) = (u64::MAX, 0);
    for (i, level) in levels.iter().enumerate() {
        // A set may name CPUs that have gone offline; one with no CPU left means nothing.
        if let Some(narrower) = level.set.as_ref().map(|s| s.and(&set)).filter(|s| !s.is_empty()) {
            set = narrower;
        }
        quota = quota.min(level.quota.unwrap_or(u64::MAX)).max(1);
        let width = quota.min(set.len() as u64 * WHOLE);
        if width < least {
            (least, binding) = (width, i);
        }
    }
    if quota >= set.len() as u64 * WHOLE {
        return Cpus { shown: set, last: None, binding };
    }
    let shown = quota.div_ceil(WHOLE);
    Cpus { shown: set.first(shown as usize), last: Some(quota - (shown - 1) * WHOLE), binding }
}

/// Copies those paragraphs of `/proc/cpuinfo` that are about the CPUs shown, and those about none. Fed line by line.
#[derive(Debug)]
pub(super) struct CpuInfo<'a> {
    shown: &'a CpuSet,
    keep: bool,
}

impl<'a> CpuInfo<'a> {
    pub(super) fn new(shown: &'a CpuSet) -> CpuInfo<'a> {
        CpuInfo { shown, keep: true }
    }

    pub(super) fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        if let Some(cpu) = processor(line) {
            self.keep = self.shown.contains(cpu);
        }
        if self.keep {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        // An empty line ends the paragraph.
        self.keep |= line.is_empty();
    }
}

/// The number in a line like `processor : 3`.
fn processor(line: &[u8]) -> Option<usize> {
    let rest = std::str::from_utf8(line.strip_prefix(b"processor")?).ok()?;
    rest.trim_start().strip_prefix(':')?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(text: &str) -> CpuSet {
        CpuSet::parse(text)
    }

    fn level(cpus: &str, tenths: Option<u64>) -> Level {
        Level { set: (!cpus.is_empty()).then(|| set(cpus)), quota: tenths.map(|n| n * WHOLE / 10) }
    }

    fn cpuinfo(text: &str, shown: &str) -> String {
        let (shown, mut out) = (set(shown), Vec::new());
        let mut filter = CpuInfo::new(&shown);
        text.lines().for_each(|l| filter.line(l.as_bytes(), &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lists() {
        assert_eq!(set("0-3,8,10-11\n").list(), "0-3,8,10-11");
        assert_eq!(set("").list(), "");
        assert_eq!(set("x,3-1,5-,-2,7,99999999999").list(), "7");
        assert_eq!(set("8190-99999").list(), "8190-8191");
        assert_eq!(set("2-5,9").first(3).list(), "2-4");
        assert_eq!(set("1,3,5").len(), 3);
    }

    #[test]
    fn quotas() {
        assert_eq!(v2_quota("max 100000\n"), None);
        assert_eq!(v2_quota("150000 100000\n"), Some(1_500_000));
        assert_eq!(v2_quota("1000 1000000"), Some(1000));
        assert_eq!(v2_quota("0 100000"), Some(1));
        // However little there is of another one, it counts.
        assert_eq!(v2_quota("100001 100000"), Some(1_000_010));
        for bad in ["", "100000", "1 0", "-1 100000", "1 x", "18446744073709551615 18446744073709551615"] {
            assert_eq!(v2_quota(bad), None, "{bad:?}");
        }
        assert_eq!(quota_share(1, 0), None);
    }

    #[test]
    fn the_narrowest_level_binds() {
        let online = set("0-7");
        let at = |levels: &[Level]| {
            let c = allowed(&online, levels);
            (c.shown.list(), c.last.map(|n| n * 10 / WHOLE), c.binding)
        };
        assert_eq!(at(&[level("", None)]), ("0-7".into(), None, 0));
        assert_eq!(at(&[level("2-5", None)]), ("2-5".into(), None, 0));
        assert_eq!(at(&[level("2-5", Some(20))]), ("2-3".into(), Some(10), 0));
        assert_eq!(at(&[level("2-5", Some(15))]), ("2-3".into(), Some(5), 0));
        assert_eq!(at(&[level("2-5", Some(39))]), ("2-5".into(), Some(9), 0));
        assert_eq!(at(&[level("2-5", Some(40))]), ("2-5".into(), None, 0));
        // Inside without limits of its own: the container's.
        assert_eq!(at(&[level("2-5", None), level("2-5", None)]), ("2-5".into(), None, 0));
        assert_eq!(at(&[level("2-5", None), level("2-5", Some(1))]), ("2".into(), Some(1), 1));
        assert_eq!(at(&[level("2-5", Some(15)), level("2-5", Some(12))]), ("2-3".into(), Some(2), 1));
        assert_eq!(at(&[level("2-5", Some(10)), level("4", None)]), ("4".into(), None, 0));
        // A looser inner limit is none; nor is a set that has nothing left.
        assert_eq!(at(&[level("2-5", Some(20)), level("", Some(640))]), ("2-3".into(), Some(10), 0));
        assert_eq!(at(&[level("64", None)]), ("0-7".into(), None, 0));
        assert_eq!(at(&[]), ("0-7".into(), None, 0));
    }

    #[test]
    fn cpuinfo_of_two_architectures() {
        let x86 = "processor\t: 0\nflags\t\t: fpu\n\nprocessor\t: 1\nflags\t\t: fpu vme\n\n";
        assert_eq!(cpuinfo(x86, "1"), "processor\t: 1\nflags\t\t: fpu vme\n\n");
        assert_eq!(cpuinfo(x86, "0-1"), x86);
        let power = "processor\t: 0\nclock\t: 1\n\nprocessor\t: 8\nclock\t: 1\n\ntimebase\t: 512\n";
        assert_eq!(cpuinfo(power, "8"), "processor\t: 8\nclock\t: 1\n\ntimebase\t: 512\n");
        assert_eq!(cpuinfo("processor: x\n", "8"), "processor: x\n");
    }

    proptest! {
        #[test]
        fn lists_survive(cpus in proptest::collection::btree_set(0usize..MOST, 0..40)) {
            let text = cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            let set = set(&text);
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), cpus.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(&CpuSet::parse(&set.list()), &set);
        }

        #[test]
        fn anything_is_read(text in "[0-9,\\-x \n]{0,40}", quota in "\\PC{0,12}") {
            let _ = (set(&text), v2_quota(&quota), processor(quota.as_bytes()));
        }

        #[test]
        fn never_none_and_never_more(online in 1usize..20, levels in proptest::collection::vec((0usize..20, 0usize..20, any::<Option<u16>>()), 0..4)) {
            let online = set(&format!("0-{online}"));
            let levels: Vec<Level> =
                levels.iter().map(|(a, b, q)| level(&format!("{a}-{b}"), q.map(u64::from))).collect();
            let c = allowed(&online, &levels);
            prop_assert!(!c.shown.is_empty());
            prop_assert_eq!(c.shown.and(&online), c.shown.clone());
            prop_assert!(c.last.is_none_or(|n| (1..=WHOLE).contains(&n)));
            prop_assert!(c.binding < levels.len().max(1));
        }
    }
}
