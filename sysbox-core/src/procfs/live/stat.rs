//! `/proc/stat`.
//!
//! | line | a container sees |
//! |---|---|
//! | `cpu` `cpuN` | the CPUs it has, with the time that its processes used, as `user` and `system`; all other time is `idle` |
//! | `btime` | when it was started, as its time namespace says |
//! | `procs_running` `procs_blocked` | its own tasks |
//! | `processes` | the greatest process number that was seen in it, which is about how many there have been |
//! | `intr` `ctxt` `softirq` | 0: nobody counts them by cgroup |
//!
//! Busy and idle time of a CPU together advance as time does, so that 100 percent is what the container may use. Of a quota that is no
//! whole number the last CPU shown has what remains: with one of 1.5, two CPUs have time, the second half as much. A
//! quota that is used up therefore leaves no idle time; one that is changed is shown as if it had always been so. Interrupts, stolen time and waiting for disks are not counted by cgroup, and are
//! idle time.

use super::cpus::{Cpus, WHOLE};
use super::scan::Tasks;
use std::io::Write;

/// Nanoseconds in a tick of `USER_HZ`, which is 100 on every architecture we run on.
const TICK: u64 = 1_000_000_000 / 100;

/// Time that a cgroup has used, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Used {
    /// v1, by number of CPU: all time, and that in the kernel, which is counted in ticks.
    PerCpu { busy: Vec<u64>, system: Vec<u64> },
    /// v2.
    Total { user: u64, system: u64 },
}

/// What a CPU that is shown has.
#[derive(Debug, Clone, Copy)]
struct Share {
    cpu: usize,
    /// Of a CPU, in millionths.
    width: u64,
    /// Nanoseconds.
    user: u64,
    /// Nanoseconds.
    system: u64,
}

/// `n` times `part`, of `whole`.
fn scale(n: u64, part: u64, whole: u64) -> u64 {
    let scaled = u128::from(n) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

fn shares(used: &Used, cpus: &Cpus) -> Vec<Share> {
    let count = cpus.shown.len();
    let width = |i: usize| cpus.last.filter(|_| i + 1 == count).unwrap_or(WHOLE);
    let shown = cpus.shown.iter().enumerate().map(|(i, cpu)| Share { cpu, width: width(i), user: 0, system: 0 });
    let split = |busy: u64, system: u64| (busy - system.min(busy), system.min(busy));
    let sum = |all: &[u64]| all.iter().fold(0u64, |a, b| a.saturating_add(*b));
    let all = (count as u64).saturating_sub(1) * WHOLE + width(count.saturating_sub(1));
    let even = |s: Share, user: u64, system: u64| Share {
        user: scale(user, s.width, all),
        system: scale(system, s.width, all),
        ..s
    };
    match used {
        Used::Total { user, system } => shown.map(|s| even(s, *user, *system)).collect(),
        // The threads run where they like, and not only on the CPUs shown.
        Used::PerCpu { busy, system } if cpus.last.is_some() => {
            let (user, system) = split(sum(busy), sum(system));
            shown.map(|s| even(s, user, system)).collect()
        }
        Used::PerCpu { busy, system } => shown
            .map(|s| {
                let at = |all: &[u64]| all.get(s.cpu).copied().unwrap_or(0);
                let (user, system) = split(at(busy), at(system));
                Share { user, system, ..s }
            })
            .collect(),
    }
}

/// The `cpu` lines. `uptime` in nanoseconds.
///
/// A container that has had more CPUs than now may have used more time than has passed on those it is shown. `debt` is kept
/// from call to call and says by how much: as if they had been there for longer.
pub(super) fn cpu_lines(used: &Used, cpus: &Cpus, uptime: u64, debt: &mut u64, out: &mut Vec<u8>) {
    let shares = shares(used, cpus);
    let busiest = shares.iter().map(|s| scale(s.user.saturating_add(s.system), WHOLE, s.width)).max().unwrap_or(0);
    *debt = (*debt).max(busiest.saturating_sub(uptime));
    let passed = uptime.saturating_add(*debt);
    let ticks = |s: &Share| {
        let (user, system) = (s.user / TICK, s.system / TICK);
        let all = scale(passed, s.width, WHOLE) / TICK;
        (user, system, all.saturating_sub(user).saturating_sub(system))
    };
    let add = |a: (u64, u64, u64), b: (u64, u64, u64)| {
        (a.0.saturating_add(b.0), a.1.saturating_add(b.1), a.2.saturating_add(b.2))
    };
    let (user, system, idle) = shares.iter().map(ticks).fold((0, 0, 0), add);
    // Writing to memory cannot fail.
    let _ = writeln!(out, "cpu  {user} 0 {system} {idle} 0 0 0 0 0 0");
    for s in &shares {
        let (user, system, idle) = ticks(s);
        let _ = writeln!(out, "cpu{} {user} 0 {system} {idle} 0 0 0 0 0 0", s.cpu);
    }
}

/// What replaces one of the host's other lines; nothing for the `cpu` lines and for what is unknown. `offset` is that of the
/// container's time namespace, in seconds.
pub(super) fn other_line(line: &[u8], tasks: &Tasks, offset: i64, out: &mut Vec<u8>) {
    let line = std::str::from_utf8(line).unwrap_or_default();
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    let _ = match name {
        "btime" => {
            let host = rest.trim().parse().unwrap_or(0i64);
            writeln!(out, "btime {}", host.saturating_sub(offset).max(0))
        }
        "processes" => writeln!(out, "processes {}", tasks.newest),
        "procs_running" => writeln!(out, "procs_running {}", tasks.running),
        "procs_blocked" => writeln!(out, "procs_blocked {}", tasks.blocked),
        // The sum alone: the numbers of single interrupts are the host's hardware.
        "intr" | "ctxt" => writeln!(out, "{name} 0"),
        "softirq" => writeln!(out, "softirq 0 0 0 0 0 0 0 0 0 0 0"),
        _ => Ok(()),
    };
}

#[cfg(test)]
mod tests {
    use super::super::cpus::CpuSet;
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn cpus(shown: &str, last: Option<u64>) -> Cpus {
        Cpus { shown: CpuSet::parse(shown), last, binding: 0 }
    }

    fn lines(used: &Used, cpus: &Cpus, uptime: u64, debt: &mut u64) -> Vec<Vec<u64>> {
        let mut out = Vec::new();
        cpu_lines(used, cpus, uptime, debt, &mut out);
        let text = String::from_utf8(out).unwrap();
        text.lines().map(|l| l.split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect()).collect()
    }

    #[test]
    fn v1_has_numbers_of_each_cpu() {
        let used = Used::PerCpu { busy: vec![SECOND, 2 * SECOND, 4 * SECOND], system: vec![SECOND / 2, 3 * SECOND, 0] };
        let mut out = Vec::new();
        cpu_lines(&used, &cpus("1-2", None), 10 * SECOND, &mut 0, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "cpu  400 0 200 1400 0 0 0 0 0 0\ncpu1 0 0 200 800 0 0 0 0 0 0\ncpu2 400 0 0 600 0 0 0 0 0 0\n"
        );
        let cut = lines(&used, &cpus("1-2", Some(WHOLE)), 10 * SECOND, &mut 0);
        assert_eq!(cut[1][..4], [175, 0, 175, 650]);
        assert_eq!(cut[1], cut[2]);
    }

    #[test]
    fn v2_is_divided() {
        let used = Used::Total { user: 3 * SECOND, system: SECOND };
        let l = lines(&used, &cpus("0-1", None), 5 * SECOND, &mut 0);
        assert_eq!(l[0][..4], [300, 0, 100, 600]);
        assert_eq!(l[2][..4], [150, 0, 50, 300]);
    }

    #[test]
    fn a_quota_used_up_is_no_idle_time() {
        // A quota of one CPU, used up during ten seconds, after four CPUs were busy for 100.
        let mut debt = 0;
        let before =
            lines(&Used::Total { user: 400 * SECOND, system: 0 }, &cpus("0", Some(WHOLE)), 100 * SECOND, &mut debt);
        let after =
            lines(&Used::Total { user: 410 * SECOND, system: 0 }, &cpus("0", Some(WHOLE)), 110 * SECOND, &mut debt);
        let idle =
            lines(&Used::Total { user: 410 * SECOND, system: 0 }, &cpus("0", Some(WHOLE)), 120 * SECOND, &mut debt);
        assert_eq!((after[1][0] - before[1][0], after[1][3] - before[1][3]), (1000, 0));
        assert_eq!((idle[1][0] - after[1][0], idle[1][3] - after[1][3]), (0, 1000));
        // One of 1.5 CPUs, used up during ten seconds.
        let at = |used: u64, uptime: u64| {
            let used = Used::PerCpu { busy: vec![used * SECOND], system: vec![] };
            lines(&used, &cpus("0-1", Some(WHOLE / 2)), uptime * SECOND, &mut 0)
        };
        let (before, after) = (at(30, 100), at(45, 110));
        let delta = |i: usize| (after[i][0] - before[i][0], after[i][3] - before[i][3]);
        assert_eq!([delta(0), delta(1), delta(2)], [(1500, 0), (1000, 0), (500, 0)]);
    }

    #[test]
    fn other_lines() {
        let tasks = Tasks { running: 2, blocked: 1, tasks: 9, newest: 77 };
        let text = "cpu  1 2 3\ncpu0 1 2\nintr 655838 0 0 7\nctxt 1367632\nbtime 1795665324\nprocesses 47274\n\
                    procs_running 3\nprocs_blocked 0\nsoftirq 498944 0 38677 4 16595 221149 0 78 67664 0 154777\nnew 1\n\n";
        let mut out = Vec::new();
        text.lines().for_each(|l| other_line(l.as_bytes(), &tasks, -100, &mut out));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "intr 0\nctxt 0\nbtime 1795665424\nprocesses 77\nprocs_running 2\nprocs_blocked 1\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n"
        );
    }

    proptest! {
        #[test]
        fn always_adds_up(
            busy in proptest::collection::vec(any::<u64>(), 0..5), system in proptest::collection::vec(any::<u64>(), 0..5),
            uptime in any::<u64>(), last in proptest::option::of(1..=WHOLE), first in 0usize..4, n in 1usize..4, mut debt in any::<u64>(),
        ) {
            let cpus = cpus(&format!("{first}-{}", first + n - 1), last);
            let total = Used::Total { user: busy.first().copied().unwrap_or(0), system: system.first().copied().unwrap_or(0) };
            for used in [Used::PerCpu { busy: busy.clone(), system: system.clone() }, total] {
                let l = lines(&used, &cpus, uptime, &mut debt);
                prop_assert_eq!(l.len(), n + 1);
                let passed = uptime.saturating_add(debt);
                for (i, cpu) in l[1..].iter().enumerate() {
                    let width = last.filter(|_| i + 1 == n).unwrap_or(WHOLE);
                    let sum = u128::from(cpu[0]) + u128::from(cpu[2]) + u128::from(cpu[3]);
                    // What is busy is rounded before it is shared, by less than a tick.
                    prop_assert!(sum.abs_diff(u128::from(scale(passed, width, WHOLE) / TICK)) <= 1 || passed == u64::MAX);
                }
            }
        }

        #[test]
        fn anything_is_read(line in proptest::collection::vec(any::<u8>(), 0..40), offset in any::<i64>(), n in any::<i64>()) {
            let mut out = Vec::new();
            other_line(&line, &Tasks::default(), offset, &mut out);
            other_line(format!("btime {n}").as_bytes(), &Tasks::default(), offset, &mut out);
        }
    }
}
