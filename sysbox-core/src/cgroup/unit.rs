//! What systemd is told of a container: its scope unit, as the arguments of busctl(1).
//!
//! systemd writes the limits that it knows of again whenever it likes (`systemctl daemon-reload`), so it must know ours. The
//! values go the other way round than one may expect: they follow from what is written to the cgroup's files.

use super::layout::Version;
use super::limits::{limits, Purpose, Write};
use super::paths::{Node, Paths};
use super::scope::Scope;
use crate::error::Result;
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

/// The manager's object on the bus (org.freedesktop.systemd1(5)).
const MANAGER: [&str; 3] =
    ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"];
/// systemd keeps a quota as a whole percentage in its files, and would round it down.
const PERCENT_US: u64 = 10_000;
const DEFAULT_PERIOD_US: u64 = 100_000;
/// More CPUs or memory nodes than any kernel has.
const MAX_CPUS: usize = 1 << 14;

/// Who makes the cgroups of containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Manager {
    /// This library does. `linux.cgroupsPath` is a path.
    #[default]
    Direct,
    /// systemd does, as a scope unit for each container. `linux.cgroupsPath` is `slice:prefix:name` ([`Scope::parse`]).
    Systemd,
}

/// A property of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Property {
    /// Its name on the bus.
    pub name: String,
    /// Its type's signature, and its value, as busctl takes them.
    pub value: Vec<String>,
}

impl Property {
    fn new<const N: usize>(name: &str, value: [&str; N]) -> Self {
        Property { name: name.into(), value: value.map(str::to_owned).to_vec() }
    }

    fn number(name: &str, n: u64) -> Self {
        Property::new(name, ["t", &n.to_string()])
    }
}

/// A scope unit that is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// The slice that it is in.
    pub slice: String,
    /// What it is for, for people.
    pub description: String,
    /// Which devices systemd is to allow; on v1 only, where it would allow all others again.
    pub devices: Vec<Property>,
    /// Limits, of which an older systemd may not know some.
    pub limits: Vec<Property>,
}

impl Unit {
    /// Plans the unit for nodes that get these writes. `proc_devices` is the text of `/proc/devices`.
    pub fn plan(scope: &Scope, id: &str, nodes: &[Node], writes: &[Write], proc_devices: &str) -> Unit {
        Unit {
            name: scope.name.clone(),
            slice: scope.slice.clone(),
            description: format!("system container {id}"),
            devices: devices(writes, proc_devices),
            limits: properties(nodes, writes),
        }
    }

    /// The call that makes the unit with this process in it.
    pub fn start(&self, pid: u32, limits: bool) -> Vec<String> {
        let mut all = vec![
            Property::new("Description", ["s", &self.description]),
            Property::new("Slice", ["s", &self.slice]),
            Property::new("PIDs", ["au", "1", &pid.to_string()]),
            Property::new("Delegate", ["b", "true"]),
            // It is not to be stopped before what it was started from, at the latest at shutdown.
            Property::new("DefaultDependencies", ["b", "false"]),
            Property::new("CollectMode", ["s", "inactive-or-failed"]),
        ];
        all.extend(["Memory", "CPU", "Tasks", "IO"].map(|a| Property::new(&format!("{a}Accounting"), ["b", "true"])));
        all.extend(self.devices.iter().cloned());
        if limits {
            all.extend(self.limits.iter().cloned());
        }
        let mut args = call("StartTransientUnit", "ssa(sv)a(sa(sv))", &[&self.name, "fail"]);
        push(&mut args, &all);
        args.push("0".into());
        args
    }
}

/// The call that changes properties until the unit or the host goes down.
pub fn set(unit: &str, properties: &[Property]) -> Vec<String> {
    let mut args = call("SetUnitProperties", "sba(sv)", &[unit, "true"]);
    push(&mut args, properties);
    args
}

/// The call that stops the unit.
pub fn stop(unit: &str) -> Vec<String> {
    call("StopUnit", "ss", &[unit, "replace"])
}

/// The call that lets go of a unit that has failed.
pub fn reset(unit: &str) -> Vec<String> {
    call("ResetFailedUnit", "s", &[unit])
}

fn call(method: &str, signature: &str, args: &[&str]) -> Vec<String> {
    let head = ["call"].into_iter().chain(MANAGER).chain([method, signature]);
    head.chain(args.iter().copied()).map(str::to_owned).collect()
}

fn push(args: &mut Vec<String>, properties: &[Property]) {
    args.push(properties.len().to_string());
    for p in properties {
        args.push(p.name.clone());
        args.extend(p.value.iter().cloned());
    }
}

impl Paths {
    /// What the unit must be told if these limits change.
    ///
    /// # Errors
    /// Those of [`limits`].
    pub fn unit_properties(&self, resources: &LinuxResources) -> Result<Vec<Property>> {
        limits(&self.nodes, resources, Purpose::Update).map(|l| properties(&self.nodes, &l.writes))
    }
}

/// Values of cgroup files as properties, each once. What systemd does not manage has none, and is left alone by it.
pub fn properties(nodes: &[Node], writes: &[Write]) -> Vec<Property> {
    let mut out: Vec<Property> = Vec::new();
    let (mut quota, mut period) = (None, None);
    for w in writes {
        let Some(version) = nodes.get(w.node).map(|n| n.version) else { continue };
        let number = |name: &str| amount(&w.value).map(|n| Property::number(name, n));
        let set = |name: &str| bits(&w.value).map(|b| Property { name: name.into(), value: b });
        let one = match (version, w.file.as_str()) {
            (Version::V2, "memory.max") => number("MemoryMax"),
            (Version::V2, "memory.high") => number("MemoryHigh"),
            (Version::V2, "memory.low") => number("MemoryLow"),
            (Version::V2, "memory.min") => number("MemoryMin"),
            (Version::V2, "memory.swap.max") => number("MemorySwapMax"),
            (Version::V2, "cpu.weight") => number("CPUWeight"),
            (Version::V2, "cpuset.cpus") => set("AllowedCPUs"),
            (Version::V2, "cpuset.mems") => set("AllowedMemoryNodes"),
            (Version::V2, "io.weight") => number("IOWeight"),
            // Its value as the other file would have it, which is the property's scale.
            (Version::V2, "io.bfq.weight") => {
                w.otherwise.as_ref().and_then(|(_, v)| amount(v)).map(|n| Property::number("IOWeight", n))
            }
            (Version::V1, "memory.limit_in_bytes") => number("MemoryLimit"),
            (Version::V1, "cpu.shares") => number("CPUShares"),
            (Version::V1, "blkio.weight") => number("BlockIOWeight"),
            (_, "pids.max") => number("TasksMax"),
            (Version::V2, "cpu.max") => {
                let mut words = w.value.split_whitespace();
                quota = words.next().and_then(amount);
                period = words.next().and_then(amount);
                None
            }
            (Version::V1, "cpu.cfs_quota_us") => {
                quota = amount(&w.value);
                None
            }
            (Version::V1, "cpu.cfs_period_us") => {
                period = amount(&w.value);
                None
            }
            _ => None,
        };
        if let Some(p) = one {
            out.retain(|o| o.name != p.name);
            out.push(p);
        }
    }
    if let Some(q) = quota {
        let per_second = |q: u64| q.saturating_mul(1_000_000).div_ceil(period.unwrap_or(DEFAULT_PERIOD_US).max(1));
        let q = if q == u64::MAX { q } else { per_second(q).div_ceil(PERCENT_US) * PERCENT_US };
        out.push(Property::number("CPUQuotaPerSecUSec", q));
    }
    out.extend(period.map(|p| Property::number("CPUQuotaPeriodUSec", p)));
    out
}

/// A number of a cgroup file, as the kernel reads it; no limit is the largest.
fn amount(value: &str) -> Option<u64> {
    let value = value.trim();
    if value == "max" || value == "-1" {
        return Some(u64::MAX);
    }
    let (digits, shift) = match value.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G', 't', 'T']) {
        Some(digits) => (digits, 10 * (1 + "kmgt".find(value.chars().last()?.to_ascii_lowercase())?)),
        None => (value, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A list like `0-2,5` as an array of bytes, the lowest number in the lowest bit of the first.
fn bits(list: &str) -> Option<Vec<String>> {
    let mut bytes: Vec<u8> = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last >= MAX_CPUS {
            return None;
        }
        for n in first..=last {
            if bytes.len() <= n / 8 {
                bytes.resize(n / 8 + 1, 0);
            }
            bytes[n / 8] |= 1 << (n % 8);
        }
    }
    let head = ["ay".to_owned(), bytes.len().to_string()];
    Some(head.into_iter().chain(bytes.iter().map(u8::to_string)).collect())
}

/// The v1 device rules. On v2 a program guards, which systemd leaves alone; nothing is told there.
fn devices(writes: &[Write], proc_devices: &str) -> Vec<Property> {
    let rules: Vec<_> = writes.iter().filter(|w| w.file.starts_with("devices.")).collect();
    // Otherwise all is allowed, but for exceptions that systemd has no words for: it allows all by default.
    if !rules.first().is_some_and(|w| w.file == "devices.deny" && w.value == "a") {
        return Vec::new();
    }
    let allowed: Vec<(String, String)> =
        rules[1..].iter().filter_map(|w| device(&w.value, proc_devices)).flatten().collect();
    let mut value = vec!["a(ss)".to_owned(), allowed.len().to_string()];
    value.extend(allowed.into_iter().flat_map(|(a, b)| [a, b]));
    vec![Property::new("DevicePolicy", ["s", "strict"]), Property { name: "DeviceAllow".into(), value }]
}

/// `c 1:3 rwm` in systemd's words (systemd.resource-control(5)): it knows a whole major number by the names of its drivers only.
fn device(rule: &str, proc_devices: &str) -> Option<Vec<(String, String)>> {
    let mut words = rule.split(' ');
    let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
    let (short, section) = if kind == "b" { ("block", "Block devices:") } else { ("char", "Character devices:") };
    let node = match numbers.split_once(':')? {
        ("*", _) => format!("{short}-*"),
        (major, "*") => {
            let of = proc_devices.lines().skip_while(|l| *l != section).skip(1).take_while(|l| !l.is_empty());
            let names = of.filter_map(|l| l.trim().split_once(' ')).filter(|(m, _)| *m == major);
            return Some(names.map(|(_, n)| (format!("{short}-{}", n.trim()), access.to_owned())).collect());
        }
        _ => format!("/dev/{short}/{numbers}"),
    };
    Some(vec![(node, access.to_owned())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::limits::tests::{get, v1, v2};
    use std::path::Path;

    fn told(nodes: &[Node], json: &str) -> Vec<String> {
        let all = properties(nodes, &get(nodes, json).unwrap().writes);
        all.iter().map(|p| format!("{}={}", p.name, p.value[1..].join(" "))).collect()
    }

    #[test]
    fn limits_on_v2() {
        let json = r#"{"memory":{"limit":67108864,"swap":100663296,"reservation":33554432},"pids":{"limit":40},
            "cpu":{"shares":1024,"quota":33333,"period":100000,"cpus":"0-2,9"},"blockIO":{"weight":500}}"#;
        let mut all = told(&v2(), json);
        all.sort();
        assert_eq!(
            all,
            [
                "AllowedCPUs=2 7 2",
                "CPUQuotaPerSecUSec=340000",
                "CPUQuotaPeriodUSec=100000",
                "CPUWeight=100",
                "IOWeight=4950",
                "MemoryLow=33554432",
                "MemoryMax=67108864",
                "MemorySwapMax=33554432",
                "TasksMax=40"
            ]
        );
        assert_eq!(
            told(&v2(), r#"{"unified":{"memory.high":"64M"},"pids":{"limit":-1}}"#),
            [format!("TasksMax={}", u64::MAX), "MemoryHigh=67108864".into()]
        );
        assert_eq!(told(&v2(), r#"{"cpu":{"quota":-1}}"#), [format!("CPUQuotaPerSecUSec={}", u64::MAX)]);
        assert_eq!(told(&v2(), r#"{"unified":{"memory.max":"nonsense","cpuset.cpus":"0-99999999999"}}"#), [""; 0]);
        assert_eq!(told(&v2(), "{}"), [""; 0]);
    }

    #[test]
    fn limits_on_v1() {
        let json = r#"{"memory":{"limit":67108864,"swap":67108864},"cpu":{"shares":512,"quota":50000,"cpus":"0"}}"#;
        assert_eq!(told(&v1(), json), ["MemoryLimit=67108864", "CPUShares=512", "CPUQuotaPerSecUSec=500000"]);
    }

    #[test]
    fn devices_on_v1() {
        let w = |file: &str, value: &str| Write::device(0, file, value.into());
        let text =
            "Character devices:\n  1 mem\n  5 /dev/tty\n136 pts\n\nBlock devices:\n  1 ramdisk\n  8 sd\n 65 sd\n";
        let told = |rules: &[(&str, &str)]| {
            let all = devices(&rules.iter().map(|(f, v)| w(f, v)).collect::<Vec<_>>(), text);
            all.iter().map(|p| format!("{} {}", p.name, p.value.join(" "))).collect::<Vec<_>>()
        };
        let (deny, allow) = ("devices.deny", "devices.allow");
        assert_eq!(
            told(&[
                (deny, "a"),
                (allow, "c *:* m"),
                (allow, "c 1:3 rwm"),
                (allow, "c 136:* rw"),
                (allow, "b 8:* r"),
                (allow, "b 77:* r")
            ]),
            ["DevicePolicy s strict", "DeviceAllow a(ss) 4 char-* m /dev/char/1:3 rwm char-pts rw block-sd r"]
        );
        assert_eq!(told(&[(deny, "a")]), ["DevicePolicy s strict", "DeviceAllow a(ss) 0"]);
        assert!(told(&[(allow, "a")]).is_empty() && told(&[]).is_empty());
    }

    #[test]
    fn calls() {
        let scope = Scope::parse(Some(Path::new("-.slice:p:x")), "id").unwrap();
        let nodes = v2();
        let writes = get(&nodes, r#"{"pids":{"limit":9}}"#).unwrap().writes;
        let unit = Unit::plan(&scope, "id", &nodes, &writes, "");
        let args = unit.start(42, true).join(" ");
        assert!(args.starts_with(
            "call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager StartTransientUnit \
             ssa(sv)a(sa(sv)) p-x.scope fail 11 Description s system container id Slice s -.slice PIDs au 1 42 Delegate b true"
        ));
        assert!(args.ends_with("TasksMax t 9 0"), "{args}");
        assert!(unit.start(42, false).join(" ").contains("p-x.scope fail 10 "));
        assert!(set("u.scope", &unit.limits)
            .join(" ")
            .ends_with("SetUnitProperties sba(sv) u.scope true 1 TasksMax t 9"));
    }
}
