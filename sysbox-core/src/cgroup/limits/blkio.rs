//! `linux.resources.blockIO`: weights, bytes per second, operations per second.

use super::{missing, Sink, Write};
use crate::cgroup::layout::Version;
use crate::error::{Error, Kind, Result};
use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};
use std::ops::RangeInclusive;

/// What OCI config-linux.md allows.
const WEIGHT: RangeInclusive<u16> = 10..=1000;

/// A v1 weight (10 to 1000) as `io.weight` (1 to 10000), on a straight line, as runc and crun do.
pub fn weight_to_io_weight(weight: u16) -> u64 {
    let w = u64::from(weight.clamp(*WEIGHT.start(), *WEIGHT.end()));
    1 + (w - 10) * 9999 / 990
}

pub(super) fn add(sink: &mut Sink<'_>, io: &LinuxBlockIo) -> Result<()> {
    let weights = weights(io)?;
    let throttles = throttles(io)?;
    let first = weights.first().map(|w| &w.field).or(throttles.first().map(|t| &t.field));
    let Some(first) = first else { return Ok(()) };
    let owner =
        sink.find(Some("blkio"), Some("io")).ok_or_else(|| missing("io", first).hint("\"blkio\" on cgroup v1"))?;

    for w in weights {
        let (file, otherwise) = match (owner.version, w.leaf, &w.device) {
            // Which of the two a kernel has depends on its IO scheduler.
            (Version::V1, false, None) => ("blkio.weight", Some(("blkio.bfq.weight".to_owned(), w.weight.to_string()))),
            (Version::V1, false, Some(d)) => {
                ("blkio.weight_device", Some(("blkio.bfq.weight_device".to_owned(), format!("{d} {}", w.weight))))
            }
            (Version::V1, true, None) => ("blkio.leaf_weight", None),
            (Version::V1, true, Some(_)) => ("blkio.leaf_weight_device", None),
            (Version::V2, false, device) => {
                let weight = weight_to_io_weight(w.weight);
                let value = device.as_ref().map_or_else(|| weight.to_string(), |d| format!("{d} {weight}"));
                ("io.bfq.weight", Some(("io.weight".to_owned(), value)))
            }
            (Version::V2, true, _) => {
                return Err(Error::new(Kind::Unsupported, format!("{}: cgroup v2 has no leaf weights", w.field)));
            }
        };
        let value = w.device.as_ref().map_or_else(|| w.weight.to_string(), |d| format!("{d} {}", w.weight));
        sink.push(Write { otherwise, ..Write::new(owner.node, file, value, w.field) });
    }
    for t in throttles {
        let LinuxThrottle { field, v1, v2, device, rate } = t;
        match owner.version {
            Version::V1 => sink.set(owner.node, v1, format_args!("{device} {rate}"), field),
            // v1 takes zero for "no limit"; v2 refuses it.
            Version::V2 if rate == 0 => sink.set(owner.node, "io.max", format_args!("{device} {v2}=max"), field),
            Version::V2 => sink.set(owner.node, "io.max", format_args!("{device} {v2}={rate}"), field),
        }
    }
    Ok(())
}

struct Weight {
    field: String,
    leaf: bool,
    device: Option<String>,
    weight: u16,
}

fn weights(io: &LinuxBlockIo) -> Result<Vec<Weight>> {
    let mut out = Vec::new();
    let mut add = |field: String, leaf, device: Option<&String>, weight: Option<u16>| match weight {
        None | Some(0) => Ok(()),
        Some(w) if !WEIGHT.contains(&w) => {
            Err(Error::invalid(format!("{field} {w} is not within {} and {}", WEIGHT.start(), WEIGHT.end())))
        }
        Some(weight) => {
            out.push(Weight { field, leaf, device: device.cloned(), weight });
            Ok(())
        }
    };
    let field = "linux.resources.blockIO";
    add(format!("{field}.weight"), false, None, io.weight())?;
    add(format!("{field}.leafWeight"), true, None, io.leaf_weight())?;
    for (i, d) in io.weight_device().iter().flatten().enumerate() {
        let field = format!("{field}.weightDevice[{i}]");
        let device = device(d.major(), d.minor(), &field)?;
        add(format!("{field}.weight"), false, Some(&device), d.weight())?;
        add(format!("{field}.leafWeight"), true, Some(&device), d.leaf_weight())?;
    }
    Ok(out)
}

struct LinuxThrottle {
    field: String,
    v1: &'static str,
    v2: &'static str,
    device: String,
    rate: u64,
}

type Throttles<'a> = &'a Option<Vec<LinuxThrottleDevice>>;

fn throttles(io: &LinuxBlockIo) -> Result<Vec<LinuxThrottle>> {
    let lists: [(&str, &str, &str, Throttles<'_>); 4] = [
        ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps", io.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps", io.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops", io.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops", io.throttle_write_iops_device()),
    ];
    let mut out = Vec::new();
    for (name, v1, v2, list) in lists {
        for (i, t) in list.iter().flatten().enumerate() {
            let field = format!("linux.resources.blockIO.{name}[{i}]");
            let device = device(t.major(), t.minor(), &field)?;
            out.push(LinuxThrottle { field, v1, v2, device, rate: t.rate() });
        }
    }
    Ok(out)
}

fn device(major: i64, minor: i64, field: &str) -> Result<String> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(format!("{major}:{minor}")),
        _ => Err(Error::invalid(format!("{field}: {major}:{minor} is not a device number"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fails, get, v1, v2, writes};
    use super::*;

    const JSON: &str = r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":1000}],
        "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1024}],"throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":0}]}}"#;

    #[test]
    fn v1_files() {
        assert_eq!(
            writes(&v1(), JSON),
            [
                "blkio.weight=500",
                "blkio.weight_device=8:0 1000",
                "blkio.throttle.read_bps_device=8:0 1024",
                "blkio.throttle.write_iops_device=8:16 0"
            ]
        );
        let l = get(&v1(), JSON).unwrap();
        assert_eq!(l.writes[0].otherwise, Some(("blkio.bfq.weight".into(), "500".into())));
        assert_eq!(writes(&v1(), r#"{"blockIO":{"leafWeight":10}}"#), ["blkio.leaf_weight=10"]);
    }

    #[test]
    fn v2_files() {
        assert_eq!(
            writes(&v2(), JSON),
            ["io.bfq.weight=500", "io.bfq.weight=8:0 1000", "io.max=8:0 rbps=1024", "io.max=8:16 wiops=max"]
        );
        let l = get(&v2(), JSON).unwrap();
        assert_eq!(l.writes[0].otherwise, Some(("io.weight".into(), "4950".into())));
        assert_eq!(l.writes[1].otherwise, Some(("io.weight".into(), "8:0 10000".into())));
        fails(&v2(), r#"{"blockIO":{"leafWeight":10}}"#, Kind::Unsupported, "leafWeight");
    }

    #[test]
    fn ranges() {
        assert_eq!((weight_to_io_weight(10), weight_to_io_weight(1000)), (1, 10_000));
        fails(&v1(), r#"{"blockIO":{"weight":9}}"#, Kind::InvalidConfig, "blockIO.weight");
        fails(
            &v1(),
            r#"{"blockIO":{"weightDevice":[{"major":-1,"minor":0}]}}"#,
            Kind::InvalidConfig,
            "weightDevice[0]",
        );
    }
}
