//! `linux.resources.cpu`: times in microseconds.

use super::{limit, Sink, Write};
use crate::cgroup::layout::Version;
use crate::error::{Error, Kind, Result};
use oci_spec::runtime::LinuxCpu;
use std::ops::RangeInclusive;

/// What the kernel takes for `cpu.shares` (kernel/sched/sched.h).
const SHARES: RangeInclusive<u64> = 2..=262_144;
/// What the kernel takes for the period (kernel/sched/core.c), in microseconds.
const PERIOD: RangeInclusive<u64> = 1_000..=1_000_000;

const SHARES_FIELD: &str = "linux.resources.cpu.shares";
const QUOTA: &str = "linux.resources.cpu.quota";
const PERIOD_FIELD: &str = "linux.resources.cpu.period";
const BURST: &str = "linux.resources.cpu.burst";
const IDLE: &str = "linux.resources.cpu.idle";
const RT_RUNTIME: &str = "linux.resources.cpu.realtimeRuntime";
const RT_PERIOD: &str = "linux.resources.cpu.realtimePeriod";

/// `cpu.shares` (2 to 262144, default 1024) as `cpu.weight` (1 to 10000, default 100).
///
/// This is the curve that runc 1.3.2 and crun 1.23 have moved to: quadratic in the binary logarithm, and through all three
/// of the pairs (2, 1), (1024, 100), (262144, 10000), where the older straight line gave a default container a weight of 39.
/// Values outside the range count as its nearest end.
pub fn shares_to_weight(shares: u64) -> u64 {
    let shares = shares.clamp(*SHARES.start(), *SHARES.end());
    let l = (shares as f64).log2();
    let exponent = (l * l + 125.0 * l - 126.0) / 612.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

pub(super) fn add(sink: &mut Sink<'_>, cpu: &LinuxCpu) -> Result<()> {
    let shares = cpu.shares().filter(|n| *n != 0);
    let quota = limit(cpu.quota(), QUOTA)?;
    let period = cpu.period().filter(|n| *n != 0);
    let rt_runtime = limit(cpu.realtime_runtime(), RT_RUNTIME)?;
    let rt_period = cpu.realtime_period().filter(|n| *n != 0);
    check(cpu, quota, period)?;

    let first = [
        (shares.is_some(), SHARES_FIELD),
        (quota.is_some(), QUOTA),
        (period.is_some(), PERIOD_FIELD),
        (cpu.burst().is_some(), BURST),
        (cpu.idle().is_some(), IDLE),
        (rt_runtime.is_some(), RT_RUNTIME),
        (rt_period.is_some(), RT_PERIOD),
    ];
    if let Some((_, first)) = first.into_iter().find(|(set, _)| *set) {
        let owner = sink.need("cpu", first)?;
        let node = owner.node;
        // An idle group refuses a weight: leave idle first, enter it last.
        if cpu.idle() == Some(0) {
            sink.push(Write { optional: true, ..Write::new(node, "cpu.idle", 0, IDLE) });
        }
        match owner.version {
            Version::V1 => {
                if let Some(n) = shares {
                    if !SHARES.contains(&n) {
                        let (min, max) = (SHARES.start(), SHARES.end());
                        return Err(Error::invalid(format!("{SHARES_FIELD} {n} is not within {min} and {max}")));
                    }
                    sink.set(node, "cpu.shares", n, SHARES_FIELD);
                }
                if let Some(n) = rt_period {
                    sink.push(Write {
                        after_next: rt_runtime.is_some(),
                        ..Write::new(node, "cpu.rt_period_us", n, RT_PERIOD)
                    });
                }
                if let Some(n) = rt_runtime {
                    sink.set(node, "cpu.rt_runtime_us", n, RT_RUNTIME);
                }
                if let Some(n) = period {
                    sink.push(Write {
                        after_next: quota.is_some(),
                        ..Write::new(node, "cpu.cfs_period_us", n, PERIOD_FIELD)
                    });
                }
                if let Some(n) = quota {
                    sink.set(node, "cpu.cfs_quota_us", n, QUOTA);
                }
                if let Some(n) = cpu.burst() {
                    sink.push(Write { optional: n == 0, ..Write::new(node, "cpu.cfs_burst_us", n, BURST) });
                }
            }
            Version::V2 => {
                if rt_runtime.is_some() || rt_period.is_some() {
                    let field = if rt_runtime.is_some() { RT_RUNTIME } else { RT_PERIOD };
                    return Err(Error::new(Kind::Unsupported, format!("{field}: cgroup v2 has no realtime limits")));
                }
                if let Some(n) = shares {
                    sink.set(node, "cpu.weight", shares_to_weight(n), SHARES_FIELD);
                }
                match (quota, period) {
                    (None, None) => {}
                    (None, Some(p)) => sink.set(node, "cpu.max", format_args!("max {p}"), PERIOD_FIELD),
                    // Without a period, the one in force stays.
                    (Some(-1), None) => sink.set(node, "cpu.max", "max", QUOTA),
                    (Some(q), None) => sink.set(node, "cpu.max", q, QUOTA),
                    (Some(-1), Some(p)) => sink.set(node, "cpu.max", format_args!("max {p}"), QUOTA),
                    (Some(q), Some(p)) => sink.set(node, "cpu.max", format_args!("{q} {p}"), QUOTA),
                }
                if let Some(n) = cpu.burst() {
                    sink.push(Write { optional: n == 0, ..Write::new(node, "cpu.max.burst", n, BURST) });
                }
            }
        }
        if cpu.idle() == Some(1) {
            sink.set(node, "cpu.idle", 1, IDLE);
        }
    }

    for (file, value) in [("cpus", cpu.cpus()), ("mems", cpu.mems())] {
        if let Some(value) = value.as_ref().filter(|v| !v.is_empty()) {
            let what = format!("linux.resources.cpu.{file}");
            let owner = sink.need("cpuset", &what)?;
            sink.set(owner.node, format!("cpuset.{file}"), value, what);
        }
    }
    Ok(())
}

fn check(cpu: &LinuxCpu, quota: Option<i64>, period: Option<u64>) -> Result<()> {
    if let Some(n) = period.filter(|n| !PERIOD.contains(n)) {
        let (min, max) = (PERIOD.start(), PERIOD.end());
        return Err(Error::invalid(format!("{PERIOD_FIELD} {n} is not within {min} and {max} microseconds")));
    }
    if let Some(n @ 1..1_000) = quota {
        return Err(Error::invalid(format!("{QUOTA} {n} is below 1000 microseconds")));
    }
    if let (Some(burst), Some(quota @ 1..)) = (cpu.burst(), quota) {
        if burst > quota.unsigned_abs() {
            return Err(Error::invalid(format!("{BURST} {burst} is above {QUOTA} {quota}")));
        }
    }
    if let Some(n) = cpu.idle().filter(|n| !(0..=1).contains(n)) {
        return Err(Error::invalid(format!("{IDLE} {n} is neither 0 nor 1")));
    }
    if let (Some(runtime), period) = (cpu.realtime_runtime(), cpu.realtime_period().filter(|n| *n != 0)) {
        if period.is_some_and(|p| runtime > 0 && runtime.unsigned_abs() > p) {
            return Err(Error::invalid(format!("{RT_RUNTIME} {runtime} is above {RT_PERIOD}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fails, v1, v2, writes};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn weights_of_note() {
        for (shares, weight) in [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000), (512, 59)] {
            assert_eq!(shares_to_weight(shares), weight, "{shares}");
        }
    }

    #[test]
    fn v1_files() {
        let json =
            r#"{"cpu":{"shares":512,"quota":50000,"period":100000,"burst":10,"idle":1,"cpus":"0-1","mems":"0"}}"#;
        assert_eq!(
            writes(&v1(), json),
            [
                "cpu.shares=512",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "cpu.cfs_burst_us=10",
                "cpu.idle=1",
                "cpuset.cpus=0-1",
                "cpuset.mems=0"
            ]
        );
        assert_eq!(
            writes(&v1(), r#"{"cpu":{"realtimeRuntime":950,"realtimePeriod":1000,"quota":-1}}"#),
            ["cpu.rt_period_us=1000", "cpu.rt_runtime_us=950", "cpu.cfs_quota_us=-1"]
        );
    }

    #[test]
    fn v2_files() {
        let json = r#"{"cpu":{"shares":1024,"quota":50000,"period":100000,"burst":10,"idle":0,"cpus":"0","mems":""}}"#;
        assert_eq!(
            writes(&v2(), json),
            ["cpu.idle=0", "cpu.weight=100", "cpu.max=50000 100000", "cpu.max.burst=10", "cpuset.cpus=0"]
        );
        assert_eq!(writes(&v2(), r#"{"cpu":{"quota":-1,"period":5000}}"#), ["cpu.max=max 5000"]);
        assert_eq!(writes(&v2(), r#"{"cpu":{"quota":5000}}"#), ["cpu.max=5000"]);
        assert_eq!(writes(&v2(), r#"{"cpu":{"quota":0,"period":5000}}"#), ["cpu.max=max 5000"]);
        fails(&v2(), r#"{"cpu":{"realtimeRuntime":950}}"#, Kind::Unsupported, "realtimeRuntime");
    }

    #[test]
    fn out_of_range() {
        fails(&v1(), r#"{"cpu":{"shares":1}}"#, Kind::InvalidConfig, "cpu.shares");
        for n in [v1(), v2()] {
            for (json, field) in [
                (r#"{"cpu":{"period":999}}"#, "cpu.period"),
                (r#"{"cpu":{"period":1000001}}"#, "cpu.period"),
                (r#"{"cpu":{"quota":999}}"#, "cpu.quota"),
                (r#"{"cpu":{"quota":-2}}"#, "cpu.quota"),
                (r#"{"cpu":{"quota":5000,"burst":5001}}"#, "cpu.burst"),
                (r#"{"cpu":{"idle":2}}"#, "cpu.idle"),
                (r#"{"cpu":{"realtimeRuntime":2000,"realtimePeriod":1000}}"#, "cpu.realtimeRuntime"),
            ] {
                fails(&n, json, Kind::InvalidConfig, field);
            }
        }
    }

    proptest! {
        #[test]
        fn more_shares_never_weigh_less(a in 0u64..300_000, b in 0u64..300_000) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(shares_to_weight(low) <= shares_to_weight(high));
            prop_assert!((1..=10_000).contains(&shares_to_weight(a)));
        }
    }
}
