//! What a container uses.
//!
//! Read from the container's own node in each hierarchy, whose numbers include all that happens in cgroups below it: inner
//! containers count. (cgroup-v1/, cgroup-v2.rst: "Core Interface Files" and those of each controller.)

pub(crate) mod parse;

use super::file::read;
use super::layout::Version;
use super::paths::{Node, Paths};
use crate::error::{Result, SysResult};
use parse::{Counted, Devices};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a container uses at one moment, as nearly as files that are read one after the other can tell.
///
/// A part is `None` if its controller is not there, not switched on for the container, or older than the number. Sizes
/// are in bytes, times in nanoseconds; counters begin when the container was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stats {
    /// v1 `cpuacct` and `cpu`; v2, always there.
    pub cpu: Option<Cpu>,
    /// Controller `memory`.
    pub memory: Option<Memory>,
    /// Controller `pids`.
    pub pids: Option<Pids>,
    /// v1 `blkio`, v2 `io`: every device that was used. A v1 kernel may count nothing unless some limit is set.
    pub io: Option<Vec<DeviceIo>>,
    /// Controller `hugetlb`, by page size as in `2MB`. Empty where it is not there.
    pub hugetlb: BTreeMap<String, Hugetlb>,
}

/// Time on CPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cpu {
    /// Nanoseconds on all CPUs together.
    pub total: u64,
    /// Of which in user mode; v1 rounds to hundredths of a second.
    pub user: u64,
    /// Of which in the kernel; v1 rounds to hundredths of a second.
    pub kernel: u64,
    /// Nanoseconds on each CPU; empty on v2, which does not tell.
    pub percpu: Vec<u64>,
    /// What the container's own limit (`cpu.quota`) has done. Limits that software inside has set do not count.
    pub throttling: Option<Throttling>,
}

/// How often and how long processes had to wait for their share of CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Throttling {
    /// Periods that have passed while something wanted to run.
    pub periods: u64,
    /// Of which the quota was used up before the end.
    pub throttled_periods: u64,
    /// Nanoseconds of waiting, summed over CPUs.
    pub throttled_time: u64,
}

/// Memory in use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Memory {
    /// Bytes of files in memory, which includes tmpfs.
    pub cache: Option<u64>,
    /// All memory.
    pub memory: Usage,
    /// Memory and swap together, in v2 too, which has them apart.
    pub with_swap: Usage,
    /// Of the kernel for this container. On v2 no more than its size is known.
    pub kernel: Usage,
    /// Network buffers. On v2 no more than their size is known.
    pub sockets: Usage,
    /// `memory.stat` as it is. On v1 the numbers with inner cgroups are those called `total_`.
    pub raw: BTreeMap<String, u64>,
}

/// One kind of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// Bytes in use.
    pub usage: Option<u64>,
    /// The most that ever were; on v2 since Linux 5.19.
    pub max: Option<u64>,
    /// Bytes that may be in use; `None` is no limit.
    pub limit: Option<u64>,
    /// How often the limit was hit.
    pub failures: Option<u64>,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pids {
    /// How many there are.
    pub current: u64,
    /// How many there may be; `None` is no limit.
    pub limit: Option<u64>,
}

/// What has been read from and written to a block device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeviceIo {
    /// Number of the device.
    pub major: u32,
    /// Number of the device.
    pub minor: u32,
    /// Bytes.
    pub read_bytes: u64,
    /// Bytes.
    pub written_bytes: u64,
    /// Bytes.
    pub discarded_bytes: u64,
    /// Requests.
    pub reads: u64,
    /// Requests.
    pub writes: u64,
    /// Requests.
    pub discards: u64,
}

/// Huge pages of one size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Hugetlb {
    /// Bytes in use.
    pub usage: u64,
    /// The most that ever were; v1 only.
    pub max: Option<u64>,
    /// How often the limit was hit.
    pub failures: u64,
}

impl Paths {
    /// What the container uses. One whose cgroups are gone uses nothing that could be told.
    ///
    /// # Errors
    /// A file that is there cannot be read. Text in it that makes no sense is no error, but reads as not there.
    pub fn stats(&self) -> Result<Stats> {
        Ok(Stats {
            cpu: self.cpu()?,
            memory: self.node("memory").map_or(Ok(None), memory)?,
            pids: self.node("pids").map_or(Ok(None), pids)?,
            io: self.io()?,
            hugetlb: self.node("hugetlb").map_or(Ok(BTreeMap::new()), hugetlb)?,
        })
    }

    fn cpu(&self) -> Result<Option<Cpu>> {
        // The v2 hierarchy counts time whether it owns the controller or not; of a v1 node software inside can move nothing away.
        let cpu = match (self.nodes.iter().find(|n| n.has("cpuacct")), self.unified()) {
            (Some(v1), _) => v1_time(v1)?,
            (None, Some(v2)) => v2_time(v2)?,
            (None, None) => None,
        };
        let Some(cpu) = cpu else { return Ok(None) };
        let throttling = self.node("cpu").map_or(Ok(None), throttling)?;
        Ok(Some(Cpu { throttling, ..cpu }))
    }

    fn io(&self) -> Result<Option<Vec<DeviceIo>>> {
        let devices = match (self.node("blkio"), self.node("io")) {
            (Some(v1), _) => v1_io(v1)?,
            (None, Some(v2)) => text(v2, "io.stat")?.map(|t| parse::v2_io(&t)),
            (None, None) => None,
        };
        Ok(devices.map(|all| all.into_values().collect()))
    }
}

/// `None` if there is no such file: the controller is not on, the kernel too old, or the container gone.
fn text(node: &Node, file: &str) -> Result<Option<String>> {
    match read(&node.dir.join(file)) {
        Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)) => Ok(None),
        r => r.map(Some),
    }
}

fn number(node: &Node, file: &str) -> Result<Option<u64>> {
    Ok(text(node, file)?.and_then(|t| parse::number(&t)))
}

fn limit(node: &Node, file: &str) -> Result<Option<u64>> {
    Ok(text(node, file)?.and_then(|t| parse::limit(&t)))
}

fn pairs(node: &Node, file: &str) -> Result<BTreeMap<String, u64>> {
    Ok(text(node, file)?.map(|t| parse::pairs(&t)).unwrap_or_default())
}

fn v1_time(node: &Node) -> Result<Option<Cpu>> {
    let Some(total) = number(node, "cpuacct.usage")? else { return Ok(None) };
    let stat = pairs(node, "cpuacct.stat")?;
    let time = |key: &str| stat.get(key).map_or(0, |n| parse::ticks(*n));
    let percpu = text(node, "cpuacct.usage_percpu")?.map(|t| parse::list(&t)).unwrap_or_default();
    Ok(Some(Cpu { total, user: time("user"), kernel: time("system"), percpu, throttling: None }))
}

fn v2_time(node: &Node) -> Result<Option<Cpu>> {
    let stat = pairs(node, "cpu.stat")?;
    let time = |key: &str| stat.get(key).map(|n| parse::micros(*n));
    let (user, kernel) = (time("user_usec").unwrap_or(0), time("system_usec").unwrap_or(0));
    Ok(time("usage_usec").map(|total| Cpu { total, user, kernel, ..Cpu::default() }))
}

fn throttling(node: &Node) -> Result<Option<Throttling>> {
    let stat = pairs(node, "cpu.stat")?;
    let get = |key: &str| stat.get(key).copied();
    let time = get("throttled_time").or_else(|| get("throttled_usec").map(parse::micros));
    Ok(get("nr_periods").map(|periods| Throttling {
        periods,
        throttled_periods: get("nr_throttled").unwrap_or(0),
        throttled_time: time.unwrap_or(0),
    }))
}

fn memory(node: &Node) -> Result<Option<Memory>> {
    let raw = pairs(node, "memory.stat")?;
    if raw.is_empty() {
        return Ok(None);
    }
    let get = |key: &str| raw.get(key).copied();
    Ok(Some(match node.version {
        Version::V1 => Memory {
            cache: get("total_cache").or_else(|| get("cache")),
            memory: v1_usage(node, "memory")?,
            with_swap: v1_usage(node, "memory.memsw")?,
            kernel: v1_usage(node, "memory.kmem")?,
            sockets: v1_usage(node, "memory.kmem.tcp")?,
            raw,
        },
        Version::V2 => {
            let (memory, swap) = (v2_usage(node, "memory")?, v2_usage(node, "memory.swap")?);
            Memory {
                cache: get("file"),
                memory,
                with_swap: together(memory, swap),
                kernel: Usage { usage: get("kernel"), ..Usage::default() },
                sockets: Usage { usage: get("sock"), ..Usage::default() },
                raw,
            }
        }
    }))
}

fn v1_usage(node: &Node, prefix: &str) -> Result<Usage> {
    Ok(Usage {
        usage: number(node, &format!("{prefix}.usage_in_bytes"))?,
        max: number(node, &format!("{prefix}.max_usage_in_bytes"))?,
        limit: limit(node, &format!("{prefix}.limit_in_bytes"))?,
        failures: number(node, &format!("{prefix}.failcnt"))?,
    })
}

fn v2_usage(node: &Node, prefix: &str) -> Result<Usage> {
    Ok(Usage {
        usage: number(node, &format!("{prefix}.current"))?,
        max: number(node, &format!("{prefix}.peak"))?,
        limit: limit(node, &format!("{prefix}.max"))?,
        failures: pairs(node, &format!("{prefix}.events"))?.get("max").copied(),
    })
}

/// Nothing if the kernel does not count swap. When both were at their most nobody knows.
fn together(memory: Usage, swap: Usage) -> Usage {
    let sum = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
    match swap.usage {
        None => Usage::default(),
        Some(_) => Usage {
            usage: sum(memory.usage, swap.usage),
            max: None,
            limit: sum(memory.limit, swap.limit),
            failures: swap.failures,
        },
    }
}

fn pids(node: &Node) -> Result<Option<Pids>> {
    let limit = limit(node, "pids.max")?;
    Ok(number(node, "pids.current")?.map(|current| Pids { current, limit }))
}

fn v1_io(node: &Node) -> Result<Option<Devices>> {
    v1_io_from(|file| text(node, file))
}

/// Which of these count depends on the kernel's age and the devices' schedulers; two of them would count twice. `read` gives `None`
/// for a file that is not there.
pub(crate) fn v1_io_from<E>(
    mut read: impl FnMut(&str) -> std::result::Result<Option<String>, E>,
) -> std::result::Result<Option<Devices>, E> {
    let mut found = None;
    for prefix in ["blkio.throttle", "blkio.bfq", "blkio"] {
        let Some(bytes) = read(&format!("{prefix}.io_service_bytes_recursive"))? else { continue };
        let devices = found.get_or_insert_with(Devices::new);
        parse::v1_io(devices, &bytes, Counted::Bytes);
        if !devices.is_empty() {
            let operations = read(&format!("{prefix}.io_serviced_recursive"))?.unwrap_or_default();
            parse::v1_io(devices, &operations, Counted::Operations);
            break;
        }
    }
    Ok(found)
}

fn hugetlb(node: &Node) -> Result<BTreeMap<String, Hugetlb>> {
    let (usage, suffix) = match node.version {
        Version::V1 => ("usage_in_bytes", ".usage_in_bytes"),
        Version::V2 => ("current", ".current"),
    };
    let entries = match std::fs::read_dir(&node.dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        r => r.op_at("list", &node.dir)?,
    };
    let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
    // `2MB`, but not `2MB.rsvd`.
    let sizes = names.filter_map(|n| Some(n.strip_prefix("hugetlb.")?.strip_suffix(suffix)?.to_owned()));
    let mut all = BTreeMap::new();
    for size in sizes.filter(|s| !s.contains('.')) {
        let file = |name: &str| format!("hugetlb.{size}.{name}");
        let Some(usage) = number(node, &file(usage))? else { continue };
        let (max, failures) = match node.version {
            Version::V1 => (number(node, &file("max_usage_in_bytes"))?, number(node, &file("failcnt"))?),
            Version::V2 => (None, pairs(node, &file("events"))?.get("max").copied()),
        };
        all.insert(size, Hugetlb { usage, max, failures: failures.unwrap_or(0) });
    }
    Ok(all)
}
