//! The kernel's figures of the container's cgroups, and which of them count for a reader.
//!
//! Limits are looked for from the container's own cgroup down to the reader's: the smallest counts, and what is in use is that of
//! the cgroup which has it; of equal limits it is the outermost, which has all that is in use. So software in a limited inner container
//! sees that container's memory, and in an unlimited one the whole container's.

use super::cpus::{allowed, quota_share, v2_quota, CpuSet, Cpus, Level};
use super::file::Dir;
use super::memory::{v1_swap_limit, Host, Memory, Stat, Swap};
use super::place::{Levels, Own};
use super::stat::Used;
use crate::cgroup::stats::parse::{self, Devices};
use crate::cgroup::stats::v1_io_from;
use crate::cgroup::Version;
use rustix::io::Errno;
use std::collections::BTreeMap;

/// The container's cgroups, and where the reader is.
#[derive(Debug)]
pub(super) struct Figures<'a> {
    pub(super) nodes: &'a [Own],
    /// `/proc/PID/cgroup`.
    pub(super) reader: Option<&'a [u8]>,
    pub(super) buffer: &'a mut Vec<u8>,
}

impl<'a> Figures<'a> {
    pub(super) fn node(&self, controller: &str) -> Option<&'a Own> {
        self.nodes.iter().find(|n| n.has(controller))
    }

    fn unified(&self) -> Option<&'a Own> {
        self.nodes.iter().find(|n| n.version == Version::V2)
    }

    fn number(&mut self, dir: &Dir, file: &str) -> Option<u64> {
        parse::number(dir.text(file, self.buffer).ok()?)
    }

    /// The smallest limit, and at which level.
    fn least(&mut self, levels: &Levels<'_>, file: &str) -> Option<(u64, usize)> {
        let mut least: Option<(u64, usize)> = None;
        for (depth, dir) in levels.iter().enumerate() {
            let limit = dir.text(file, self.buffer).ok().and_then(parse::limit);
            if let Some(limit) = limit.filter(|n| least.is_none_or(|(least, _)| *n < least)) {
                least = Some((limit, depth));
            }
        }
        least
    }

    /// Memory and swap, of which `None` is no limit below the host's.
    pub(super) fn memory(&mut self, host: &Host) -> (Option<Memory>, Option<Swap>) {
        let Some(own) = self.node("memory") else { return (None, None) };
        let levels = own.levels(self.reader);
        let v1 = own.version == Version::V1;
        let all = host.total.saturating_mul(1024);
        let limit = self.least(&levels, if v1 { "memory.limit_in_bytes" } else { "memory.max" });
        let limit = limit.filter(|(limit, _)| *limit < all);
        let memory = limit.map(|(limit, depth)| {
            let dir = levels.at(depth);
            let usage = self.number(dir, if v1 { "memory.usage_in_bytes" } else { "memory.current" }).unwrap_or(0);
            Memory { limit, usage, stat: self.memory_stat(dir, own.version) }
        });
        if host.swap_total == 0 {
            return (memory, None);
        }
        let swap = match own.version {
            Version::V1 => self.least(&levels, "memory.memsw.limit_in_bytes").map(|(with_swap, depth)| Swap {
                limit: v1_swap_limit(with_swap, limit.map_or(all, |(limit, _)| limit)),
                usage: memory.map_or_else(|| self.memory_stat(levels.at(depth), own.version), |m| m.stat).swap,
            }),
            Version::V2 => self.least(&levels, "memory.swap.max").map(|(limit, depth)| Swap {
                limit,
                usage: self.number(levels.at(depth), "memory.swap.current").unwrap_or(0),
            }),
        };
        (memory, swap)
    }

    fn memory_stat(&mut self, dir: &Dir, version: Version) -> Stat {
        if version == Version::V2 {
            return dir.text("memory.stat", self.buffer).map(Stat::v2).unwrap_or_default();
        }
        let mut stat = dir.text("memory.stat", self.buffer).map(Stat::v1).unwrap_or_default();
        // v1 does not say what of it could be given back.
        stat.slab_unreclaimable = self.number(dir, "memory.kmem.usage_in_bytes").unwrap_or(0);
        stat
    }

    /// The CPUs, of those that the host has.
    pub(super) fn cpus(&mut self, online: &CpuSet) -> Cpus {
        let (quota, set) = (self.node("cpu"), self.node("cpuset"));
        let quota = quota.map(|n| (n.levels(self.reader), n.version));
        let set = set.map(|n| (n.levels(self.reader), n.version));
        let depth = quota.iter().chain(&set).map(|(levels, _)| levels.len()).max().unwrap_or(0);
        let levels: Vec<Level> = (0..depth)
            .map(|i| Level {
                quota: quota.as_ref().and_then(|(l, version)| self.quota(l.at(i), *version)),
                set: set.as_ref().and_then(|(l, version)| self.cpuset(l.at(i), *version)),
            })
            .collect();
        allowed(online, &levels)
    }

    fn quota(&mut self, dir: &Dir, version: Version) -> Option<u64> {
        if version == Version::V2 {
            return v2_quota(dir.text("cpu.max", self.buffer).ok()?);
        }
        // -1, which is no number here, is no limit.
        let quota = self.number(dir, "cpu.cfs_quota_us")?;
        quota_share(quota, self.number(dir, "cpu.cfs_period_us")?)
    }

    /// What is in force, whatever was asked for.
    fn cpuset(&mut self, dir: &Dir, version: Version) -> Option<CpuSet> {
        let file = if version == Version::V1 { "cpuset.effective_cpus" } else { "cpuset.cpus.effective" };
        dir.text(file, self.buffer).ok().map(CpuSet::parse)
    }

    /// The time used by the cgroup at this level.
    pub(super) fn used(&mut self, depth: usize) -> Used {
        if let Some(own) = self.nodes.iter().find(|n| n.has("cpuacct")) {
            let levels = own.levels(self.reader);
            let mut list = |file| levels.at(depth).text(file, self.buffer).map(parse::list).unwrap_or_default();
            return Used::PerCpu { busy: list("cpuacct.usage_percpu"), system: list("cpuacct.usage_percpu_sys") };
        }
        // v2 counts time whether the controller is switched on or not.
        let (mut user, mut system) = (0, 0);
        if let Some(levels) = self.unified().map(|n| n.levels(self.reader)) {
            let stat = levels.at(depth).text("cpu.stat", self.buffer).unwrap_or_default();
            for (key, value) in parse::pair_lines(stat) {
                match key {
                    "user_usec" => user = parse::micros(value),
                    "system_usec" => system = parse::micros(value),
                    _ => {}
                }
            }
        }
        Used::Total { user, system }
    }

    /// What the reader's cgroup has read and written.
    pub(super) fn devices(&mut self) -> Devices {
        if let Some(own) = self.node("blkio") {
            let levels = own.levels(self.reader);
            let read = |file: &str| Ok::<_, Errno>(levels.reader().text(file, self.buffer).ok().map(str::to_owned));
            return v1_io_from(read).ok().flatten().unwrap_or_default();
        }
        // The controller may not be switched on as far down as the reader is.
        let Some(levels) = self.node("io").map(|n| n.levels(self.reader)) else { return Devices::new() };
        let found = levels.iter().rev().find_map(|dir| dir.text("io.stat", self.buffer).ok().map(parse::v2_io));
        found.unwrap_or_default()
    }

    /// What has happened to the memory of the reader's cgroup, by the names that `/proc/vmstat` has for it.
    pub(super) fn events(&mut self) -> BTreeMap<String, u64> {
        let Some(own) = self.node("memory") else { return BTreeMap::new() };
        let levels = own.levels(self.reader);
        let v1 = own.version == Version::V1;
        // The controller may not be switched on as far down as the reader is.
        let mut counted = levels.iter().rev().filter(|dir| dir.text("memory.stat", self.buffer).is_ok());
        let Some(dir) = counted.next() else { return BTreeMap::new() };
        drop(counted);
        let mut pairs = |file| dir.text(file, self.buffer).map(parse::pairs).unwrap_or_default();
        let mut events = pairs("memory.stat");
        if v1 {
            // With inner cgroups. Pages "in" and "out" are those charged and given back.
            let total = |(name, n): (String, u64)| Some((name.strip_prefix("total_")?.to_owned(), n));
            events = events.into_iter().filter_map(total).filter(|(name, _)| !name.starts_with("pgpg")).collect();
        }
        let kills = pairs(if v1 { "memory.oom_control" } else { "memory.events" }).remove("oom_kill");
        events.insert("oom_kill".into(), kills.unwrap_or(0));
        events
    }

    /// How many tasks the container has, if they are counted.
    pub(super) fn tasks(&mut self) -> Option<u64> {
        let own = self.node("pids")?;
        self.number(own.levels(None).reader(), "pids.current")
    }
}

#[cfg(test)]
mod tests;
