//! `linux.resources.memory`, in bytes.

use super::{limit, v2_limit, Purpose, Sink, Write};
use crate::cgroup::layout::Version;
use crate::error::{Error, Result};
use oci_spec::runtime::LinuxMemory;

const LIMIT: &str = "linux.resources.memory.limit";
const SWAP: &str = "linux.resources.memory.swap";
const RESERVATION: &str = "linux.resources.memory.reservation";
const SWAPPINESS: &str = "linux.resources.memory.swappiness";
const DISABLE_OOM_KILLER: &str = "linux.resources.memory.disableOOMKiller";

pub(super) fn add(sink: &mut Sink<'_>, memory: &LinuxMemory, purpose: Purpose) -> Result<()> {
    let max = limit(memory.limit(), LIMIT)?;
    let reservation = limit(memory.reservation(), RESERVATION)?;
    // "No limit" without a word on swap means both, as it always did.
    let swap = limit(memory.swap(), SWAP)?.or((max == Some(-1)).then_some(-1));
    if let (Some(swap @ 1..), Some(max)) = (swap, max) {
        if max == -1 {
            return Err(Error::invalid(format!(
                "{SWAP} {swap} limits memory and swap together, but memory is unlimited"
            )));
        }
        if swap < max {
            return Err(Error::invalid(format!("{SWAP} {swap} includes memory, and is below {LIMIT} {max}")));
        }
    }
    if matches!((swap, max), (Some(1..), None)) && purpose == Purpose::Create {
        return Err(Error::invalid(format!("{SWAP} without {LIMIT}")));
    }
    if let Some(n @ 101..) = memory.swappiness() {
        return Err(Error::invalid(format!("{SWAPPINESS} {n} is not within 0 and 100")));
    }
    #[allow(deprecated)]
    let kernel = [memory.kernel(), memory.kernel_tcp()];
    if kernel.iter().flatten().any(|n| *n != 0) {
        sink.ignore("linux.resources.memory.kernel", "kernels have dropped this limit");
    }

    let first = [
        (max.is_some(), LIMIT),
        (swap.is_some(), SWAP),
        (reservation.is_some(), RESERVATION),
        (memory.swappiness().is_some(), SWAPPINESS),
        (memory.disable_oom_killer() == Some(true), DISABLE_OOM_KILLER),
    ];
    let Some((_, first)) = first.into_iter().find(|(set, _)| *set) else { return Ok(()) };
    let owner = sink.need("memory", first)?;
    let node = owner.node;

    if owner.version == Version::V1 {
        if let Some(n) = max {
            // Raised above the current sum with swap, the kernel refuses it until that is raised too.
            sink.push(Write { after_next: swap.is_some(), ..Write::new(node, "memory.limit_in_bytes", n, LIMIT) });
        }
        if let Some(n) = swap {
            // Kernels without swap accounting have nothing to lift.
            let optional = n == -1;
            sink.push(Write { optional, ..Write::new(node, "memory.memsw.limit_in_bytes", n, SWAP) });
        }
        if let Some(n) = reservation {
            sink.set(node, "memory.soft_limit_in_bytes", n, RESERVATION);
        }
        if let Some(n) = memory.swappiness() {
            sink.set(node, "memory.swappiness", n, SWAPPINESS);
        }
        if memory.disable_oom_killer() == Some(true) {
            sink.set(node, "memory.oom_control", 1, DISABLE_OOM_KILLER);
        }
        return Ok(());
    }

    // v2 limits swap alone, where the configuration limits the sum (cgroup-v2.rst, "memory.swap.max").
    let alone = match (swap, max) {
        (Some(sum @ 1..), Some(max)) => Some((sum - max).to_string()),
        (Some(1..), None) => return Err(Error::invalid(format!("{SWAP} without {LIMIT}"))),
        (sum, _) => sum.and_then(v2_limit),
    };
    if let Some(value) = alone {
        // Without swap there is none to forbid or to allow.
        let optional = value == "0" || value == "max";
        sink.push(Write { optional, ..Write::new(node, "memory.swap.max", value, SWAP) });
    }
    if let Some(value) = max.and_then(v2_limit) {
        sink.set(node, "memory.max", value, LIMIT);
    }
    if let Some(value) = reservation.and_then(v2_limit) {
        sink.set(node, "memory.low", value, RESERVATION);
    }
    if memory.swappiness().is_some() {
        sink.ignore(SWAPPINESS, "cgroup v2 has no such setting");
    }
    if memory.disable_oom_killer() == Some(true) {
        sink.ignore(DISABLE_OOM_KILLER, "cgroup v2 has no such setting");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fails, get, v1, v2, writes};
    use crate::error::Kind;
    use proptest::prelude::*;

    #[test]
    fn v1_files() {
        let json = r#"{"memory":{"limit":1000,"swap":3000,"reservation":500,"swappiness":0,"disableOOMKiller":true}}"#;
        assert_eq!(
            writes(&v1(), json),
            [
                "memory.limit_in_bytes=1000",
                "memory.memsw.limit_in_bytes=3000",
                "memory.soft_limit_in_bytes=500",
                "memory.swappiness=0",
                "memory.oom_control=1"
            ]
        );
        assert_eq!(
            writes(&v1(), r#"{"memory":{"limit":-1}}"#),
            ["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"]
        );
        let l = get(&v1(), json).unwrap();
        assert!(l.writes[0].after_next && !l.writes[1].optional);
    }

    #[test]
    fn v2_files() {
        let json = r#"{"memory":{"limit":1000,"swap":3000,"reservation":500,"swappiness":0,"kernel":7}}"#;
        assert_eq!(writes(&v2(), json), ["memory.swap.max=2000", "memory.max=1000", "memory.low=500"]);
        assert_eq!(get(&v2(), json).unwrap().ignored.len(), 2);
        assert_eq!(writes(&v2(), r#"{"memory":{"limit":1000,"swap":1000}}"#), ["memory.swap.max=0", "memory.max=1000"]);
        assert_eq!(writes(&v2(), r#"{"memory":{"limit":1000,"swap":-1}}"#), ["memory.swap.max=max", "memory.max=1000"]);
        assert_eq!(writes(&v2(), r#"{"memory":{"limit":-1}}"#), ["memory.swap.max=max", "memory.max=max"]);
        assert_eq!(writes(&v2(), r#"{"memory":{"limit":5}}"#), ["memory.max=5"]);
    }

    #[test]
    fn contradictions() {
        for n in [v1(), v2()] {
            fails(&n, r#"{"memory":{"limit":1000,"swap":999}}"#, Kind::InvalidConfig, "memory.swap");
            fails(&n, r#"{"memory":{"swap":999}}"#, Kind::InvalidConfig, "memory.swap");
            fails(&n, r#"{"memory":{"limit":-1,"swap":999}}"#, Kind::InvalidConfig, "memory.swap");
            fails(&n, r#"{"memory":{"limit":-2}}"#, Kind::InvalidConfig, "memory.limit");
            fails(&n, r#"{"memory":{"swappiness":101}}"#, Kind::InvalidConfig, "memory.swappiness");
        }
    }

    proptest! {
        #[test]
        fn v2_memory_and_swap_add_up(limit in 1i64..i64::MAX / 2, more in 0i64..i64::MAX / 2) {
            let w = writes(&v2(), &format!(r#"{{"memory":{{"limit":{limit},"swap":{}}}}}"#, limit + more));
            prop_assert_eq!(w, [format!("memory.swap.max={more}"), format!("memory.max={limit}")]);
        }

        #[test]
        fn any_numbers_do(limit: i64, swap: i64, low: i64) {
            let json = format!(r#"{{"memory":{{"limit":{limit},"swap":{swap},"reservation":{low}}}}}"#);
            let (a, b) = (get(&v1(), &json), get(&v2(), &json));
            prop_assert_eq!(a.is_ok(), b.is_ok());
        }
    }
}
