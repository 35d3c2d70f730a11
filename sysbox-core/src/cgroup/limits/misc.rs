//! The small ones: processes, huge pages, network, RDMA, and the map of raw v2 settings.

use super::{missing, v2_limit, Sink, Write};
use crate::cgroup::layout::Version;
use crate::error::{Error, Result};
use oci_spec::runtime::{LinuxHugepageLimit, LinuxNetwork, LinuxPids, LinuxRdma};
use std::collections::{BTreeMap, HashMap};

/// `linux.resources.pids`: tasks. Any negative number is "no limit", as engines send various ones.
pub(super) fn add_pids(sink: &mut Sink<'_>, pids: &LinuxPids) -> Result<()> {
    let field = "linux.resources.pids.limit";
    let value = match pids.limit() {
        0 => return Ok(()),
        n if n < 0 => "max".to_owned(),
        n => n.to_string(),
    };
    let owner = sink.need("pids", field)?;
    sink.set(owner.node, "pids.max", value, field);
    Ok(())
}

/// `linux.resources.hugepageLimits`, in bytes; zero is a limit here.
pub(super) fn add_hugepages(sink: &mut Sink<'_>, limits: &[LinuxHugepageLimit]) -> Result<()> {
    for (i, l) in limits.iter().enumerate() {
        let field = format!("linux.resources.hugepageLimits[{i}]");
        let (size, n) = (l.page_size(), l.limit());
        let number = size.strip_suffix("KB").or(size.strip_suffix("MB")).or(size.strip_suffix("GB"));
        if !number.is_some_and(|d| !d.is_empty() && !d.starts_with('0') && d.bytes().all(|b| b.is_ascii_digit())) {
            return Err(Error::invalid(format!("{field}.pageSize {size:?} is not of the form 2MB")));
        }
        if n < -1 {
            return Err(Error::invalid(format!("{field}.limit {n} is neither a limit nor -1")));
        }
        let owner = sink.need("hugetlb", &field)?;
        let (file, reserved, value) = match owner.version {
            Version::V1 => ("limit_in_bytes", "rsvd.limit_in_bytes", n.to_string()),
            Version::V2 => ("max", "rsvd.max", v2_limit(n).unwrap_or_else(|| "0".into())),
        };
        sink.set(owner.node, format!("hugetlb.{size}.{file}"), &value, field.clone());
        // Without it, reserved but untouched pages would escape the limit; kernels before 5.7 lack it.
        let reserved = Write::new(owner.node, format!("hugetlb.{size}.{reserved}"), value, field);
        sink.push(Write { optional: true, ..reserved });
    }
    Ok(())
}

/// `linux.resources.network`: only v1 has it.
pub(super) fn add_network(sink: &mut Sink<'_>, network: &LinuxNetwork) -> Result<()> {
    if let Some(id) = network.class_id().filter(|id| *id != 0) {
        let field = "linux.resources.network.classID";
        let owner = sink.find(Some("net_cls"), None).ok_or_else(|| missing("net_cls", field))?;
        sink.set(owner.node, "net_cls.classid", id, field);
    }
    for (i, p) in network.priorities().iter().flatten().enumerate() {
        let field = format!("linux.resources.network.priorities[{i}]");
        if p.name().is_empty() || p.name().contains([' ', '\n', '/']) {
            return Err(Error::invalid(format!("{field}.name {:?} is not an interface", p.name())));
        }
        let owner = sink.find(Some("net_prio"), None).ok_or_else(|| missing("net_prio", &field))?;
        sink.set(owner.node, "net_prio.ifpriomap", format_args!("{} {}", p.name(), p.priority()), field);
    }
    Ok(())
}

/// `linux.resources.rdma`: handles and objects per device.
pub(super) fn add_rdma(sink: &mut Sink<'_>, rdma: &HashMap<String, LinuxRdma>) -> Result<()> {
    for (device, limits) in rdma.iter().collect::<BTreeMap<_, _>>() {
        let field = format!("linux.resources.rdma[{device:?}]");
        if device.is_empty() || device.contains([' ', '\n']) {
            return Err(Error::invalid(format!("{field} is not a device")));
        }
        let mut value = device.clone();
        for (key, n) in [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())] {
            if let Some(n) = n {
                value += &format!(" {key}={n}");
            }
        }
        if value.len() > device.len() {
            let owner = sink.need("rdma", &field)?;
            sink.set(owner.node, "rdma.max", value, field);
        }
    }
    Ok(())
}

/// The only core settings that limit something; the others move processes or take the node away from us.
const CORE: [&str; 2] = ["cgroup.max.depth", "cgroup.max.descendants"];

/// `linux.resources.unified`: v2 files by name. A value of several lines is several writes, since the kernel takes one
/// line at a time.
pub(super) fn add_unified(sink: &mut Sink<'_>, unified: &HashMap<String, String>) -> Result<()> {
    for (file, value) in unified.iter().collect::<BTreeMap<_, _>>() {
        let field = format!("linux.resources.unified[{file:?}]");
        let bad = |why: &str| Error::invalid(format!("{field} {why}"));
        if file.contains(['/', '\0', '\n']) {
            return Err(bad("is not a file name"));
        }
        let Some((controller, _)) = file.split_once('.') else {
            return Err(bad("names no controller"));
        };
        let node = if controller == "cgroup" {
            if !CORE.contains(&file.as_str()) {
                return Err(bad("is not a limit"));
            }
            sink.nodes.iter().position(|n| n.version == Version::V2)
        } else {
            sink.find(None, Some(controller)).map(|o| o.node)
        };
        let node =
            node.ok_or_else(|| missing(controller, &field).hint("only controllers on cgroup v2 can be set this way"))?;
        for line in value.lines().filter(|l| !l.trim().is_empty()) {
            sink.set(node, file, line, field.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fails, get, v1, v2, writes};
    use crate::error::Kind;

    #[test]
    fn pids() {
        for n in [v1(), v2()] {
            assert_eq!(writes(&n, r#"{"pids":{"limit":100}}"#), ["pids.max=100"]);
            assert_eq!(writes(&n, r#"{"pids":{"limit":-1}}"#), ["pids.max=max"]);
        }
    }

    #[test]
    fn hugepages() {
        let json = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0},{"pageSize":"1GB","limit":-1}]}"#;
        assert_eq!(
            writes(&v1(), json),
            [
                "hugetlb.2MB.limit_in_bytes=0",
                "hugetlb.2MB.rsvd.limit_in_bytes=0",
                "hugetlb.1GB.limit_in_bytes=-1",
                "hugetlb.1GB.rsvd.limit_in_bytes=-1"
            ]
        );
        assert_eq!(writes(&v2(), json)[2], "hugetlb.1GB.max=max");
        assert!(get(&v2(), json).unwrap().writes[1].optional);
        for size in ["", "2mb", "02MB", "../MB", "MB"] {
            let json = format!(r#"{{"hugepageLimits":[{{"pageSize":"{size}","limit":1}}]}}"#);
            fails(&v1(), &json, Kind::InvalidConfig, "hugepageLimits[0].pageSize");
        }
    }

    #[test]
    fn network_and_rdma() {
        let json = r#"{"network":{"classID":65537,"priorities":[{"name":"eth0","priority":5}]},"rdma":{"b":{"hcaHandles":3},"a":{"hcaObjects":4}}}"#;
        assert_eq!(
            writes(&v1(), json),
            [
                "net_cls.classid=65537",
                "net_prio.ifpriomap=eth0 5",
                "rdma.max=a hca_object=4",
                "rdma.max=b hca_handle=3"
            ]
        );
        fails(&v2(), json, Kind::Unsupported, "net_cls");
    }

    #[test]
    fn unified() {
        let json = r#"{"memory":{"limit":5},"unified":{"memory.max":"7","io.max":"8:0 rbps=1\n8:16 wbps=2\n"}}"#;
        assert_eq!(writes(&v2(), json), ["memory.max=5", "io.max=8:0 rbps=1", "io.max=8:16 wbps=2", "memory.max=7"]);
        fails(&v1(), r#"{"unified":{"memory.max":"7"}}"#, Kind::Unsupported, "memory");
        for key in ["cgroup.procs", "cgroup.subtree_control", "memory", "../memory.max"] {
            fails(&v2(), &format!(r#"{{"unified":{{"{key}":"1"}}}}"#), Kind::InvalidConfig, "unified");
        }
    }
}
