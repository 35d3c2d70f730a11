//! `/proc/meminfo` and `/proc/swaps`.
//!
//! | lines | a container with a memory limit sees |
//! |---|---|
//! | `MemTotal` `MemFree` | the limit, and what is left of it |
//! | `MemAvailable` | `MemFree`, the file pages that are not tmpfs and reclaimable slab; at most the host's |
//! | `Cached` `SwapCached` `Active*` `Inactive*` `Unevictable` `Dirty` `Writeback` `AnonPages` `Mapped` `Shmem` `AnonHugePages` | the cgroup's `memory.stat` |
//! | `Slab` `SReclaimable` `SUnreclaim` `KReclaimable` `KernelStack` `PageTables` `SecPageTables` `Percpu` `VmallocUsed` `ShmemHugePages` `FileHugePages` `Zswap` `Zswapped` | the same on v2; v1 counts all of the kernel's memory as one, shown as `Slab` and `SUnreclaim` |
//! | `Buffers` | 0: a cgroup's pages of block devices are among its `Cached` |
//! | `SwapTotal` `SwapFree` | v2: `memory.swap.max`; v1: the limit of memory and swap less that of memory; at most the host's |
//! | `CommitLimit` `Committed_AS` `VmallocTotal` `VmallocChunk` `HugePages_*` `Hugepagesize` `Hugetlb` | the host's: one account or one pool for all, which containers share |
//! | all others, also those that are yet to come | 0: amounts that are not counted by cgroup, and may be greater than `MemTotal` |
//!
//! Without a limit below the host's memory, the host's lines are right and stay.

use crate::cgroup::stats::parse::pair_lines;
use std::io::Write;

/// Lines that say something of the whole machine that is true inside as well.
fn is_hosts(name: &str) -> bool {
    matches!(
        name,
        "CommitLimit"
            | "Committed_AS"
            | "VmallocTotal"
            | "VmallocChunk"
            | "HugePages_Total"
            | "HugePages_Free"
            | "HugePages_Rsvd"
            | "HugePages_Surp"
            | "Hugepagesize"
            | "Hugetlb"
    )
}

/// `memory.stat` of one cgroup and all below it, in bytes. What the kernel does not count is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stat {
    /// Pages of files, tmpfs and the swap cache.
    cache: u64,
    swap_cached: u64,
    pub(super) swap: u64,
    anon: u64,
    anon_huge: u64,
    shmem: u64,
    shmem_huge: u64,
    file_huge: u64,
    mapped: u64,
    dirty: u64,
    writeback: u64,
    active_anon: u64,
    inactive_anon: u64,
    active_file: u64,
    inactive_file: u64,
    unevictable: u64,
    slab_reclaimable: u64,
    pub(super) slab_unreclaimable: u64,
    kernel_stack: u64,
    page_tables: u64,
    sec_page_tables: u64,
    percpu: u64,
    vmalloc: u64,
    zswap: u64,
    zswapped: u64,
}

impl Stat {
    pub(super) fn v2(text: &str) -> Stat {
        let mut s = Stat::default();
        for (key, value) in pair_lines(text) {
            let field = match key {
                "anon" => &mut s.anon,
                "file" => &mut s.cache,
                "kernel_stack" => &mut s.kernel_stack,
                "pagetables" => &mut s.page_tables,
                "sec_pagetables" => &mut s.sec_page_tables,
                "percpu" => &mut s.percpu,
                "vmalloc" => &mut s.vmalloc,
                "shmem" => &mut s.shmem,
                "zswap" => &mut s.zswap,
                "zswapped" => &mut s.zswapped,
                "file_mapped" => &mut s.mapped,
                "file_dirty" => &mut s.dirty,
                "file_writeback" => &mut s.writeback,
                "swapcached" => &mut s.swap_cached,
                "anon_thp" => &mut s.anon_huge,
                "file_thp" => &mut s.file_huge,
                "shmem_thp" => &mut s.shmem_huge,
                "inactive_anon" => &mut s.inactive_anon,
                "active_anon" => &mut s.active_anon,
                "inactive_file" => &mut s.inactive_file,
                "active_file" => &mut s.active_file,
                "unevictable" => &mut s.unevictable,
                "slab_reclaimable" => &mut s.slab_reclaimable,
                "slab_unreclaimable" => &mut s.slab_unreclaimable,
                _ => continue,
            };
            *field = value;
        }
        s
    }

    /// The sums with inner cgroups are those that begin with `total_`.
    pub(super) fn v1(text: &str) -> Stat {
        let mut s = Stat::default();
        for (key, value) in pair_lines(text) {
            let field = match key.strip_prefix("total_").unwrap_or_default() {
                "cache" => &mut s.cache,
                "rss" => &mut s.anon,
                "rss_huge" => &mut s.anon_huge,
                "shmem" => &mut s.shmem,
                "mapped_file" => &mut s.mapped,
                "dirty" => &mut s.dirty,
                "writeback" => &mut s.writeback,
                "swap" => &mut s.swap,
                "swapcached" => &mut s.swap_cached,
                "inactive_anon" => &mut s.inactive_anon,
                "active_anon" => &mut s.active_anon,
                "inactive_file" => &mut s.inactive_file,
                "active_file" => &mut s.active_file,
                "unevictable" => &mut s.unevictable,
                _ => continue,
            };
            *field = value;
        }
        s
    }
}

/// The figures of the cgroup whose memory limit binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) limit: u64,
    pub(super) usage: u64,
    pub(super) stat: Stat,
}

/// How much swap there may be, and is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Swap {
    pub(super) limit: u64,
    pub(super) usage: u64,
}

/// What is needed of the host's `/proc/meminfo`, in kB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) total: u64,
    available: u64,
    pub(super) swap_total: u64,
    swap_free: u64,
}

impl Host {
    pub(super) fn parse(text: &str) -> Host {
        let mut h = Host { available: u64::MAX, ..Host::default() };
        for (name, value) in text.lines().filter_map(split) {
            match name {
                "MemTotal" => h.total = value,
                "MemAvailable" => h.available = value,
                "SwapTotal" => h.swap_total = value,
                "SwapFree" => h.swap_free = value,
                _ => {}
            }
        }
        h
    }

    /// What the container may use of the host's swap: total and free, in kB.
    fn swap(&self, swap: Swap) -> (u64, u64) {
        let total = self.swap_total.min(swap.limit / 1024);
        (total, total.saturating_sub(swap.usage.div_ceil(1024)).min(self.swap_free))
    }
}

/// Name and number of a line like `MemTotal:  1024 kB`.
fn split(line: &str) -> Option<(&str, u64)> {
    let (name, rest) = line.split_once(':')?;
    Some((name, rest.split_ascii_whitespace().next()?.parse().ok()?))
}

/// The most that v1 lets swap be, from its limit of memory and swap together.
pub(super) fn v1_swap_limit(with_swap: u64, memory: u64) -> u64 {
    with_swap.saturating_sub(memory)
}

/// `None` is no limit below the host's. Lines and their order are the host's.
pub(super) fn meminfo(text: &str, host: &Host, memory: Option<&Memory>, swap: Option<Swap>, out: &mut Vec<u8>) {
    let shown = memory.filter(|m| m.limit / 1024 < host.total).map(|m| Shown::new(m, host));
    let swap = swap.filter(|s| s.limit / 1024 < host.swap_total).map(|s| host.swap(s));
    for line in text.lines() {
        let value = split(line).and_then(|(name, _)| {
            let value = match (name, swap, &shown) {
                ("SwapTotal", Some((total, _)), _) => Some(total),
                ("SwapFree", Some((_, free)), _) => Some(free),
                ("SwapTotal" | "SwapFree", None, _) => None,
                (_, _, Some(_)) if is_hosts(name) => None,
                (_, _, Some(shown)) => Some(shown.line(name)),
                _ => None,
            };
            Some((name, value?))
        });
        let Some((name, value)) = value else {
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
            continue;
        };
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        out.extend(std::iter::repeat_n(b' ', 15usize.saturating_sub(name.len())));
        // Writing to memory cannot fail.
        let _ = writeln!(out, "{value:>8} kB");
    }
}

/// Figures in kB that fit each other, whatever was read when.
#[derive(Debug)]
struct Shown {
    total: u64,
    free: u64,
    available: u64,
    cached: u64,
    reclaimable: u64,
    used: u64,
    stat: Stat,
}

impl Shown {
    fn new(m: &Memory, host: &Host) -> Shown {
        let total = m.limit / 1024;
        let used = m.usage.div_ceil(1024).min(total);
        let free = total - used;
        let s = &m.stat;
        let cached = (s.cache.saturating_sub(s.swap_cached) / 1024).min(used);
        let reclaimable = (s.slab_reclaimable / 1024).min(used - cached);
        let file = (s.active_file.saturating_add(s.inactive_file) / 1024).min(cached);
        let available = (free + file + reclaimable).min(host.available);
        Shown { total, free, available, cached, reclaimable, used, stat: *s }
    }

    fn line(&self, name: &str) -> u64 {
        let s = &self.stat;
        let bytes = match name {
            "MemTotal" => return self.total,
            "MemFree" => return self.free,
            "MemAvailable" => return self.available,
            "Cached" => return self.cached,
            "SReclaimable" | "KReclaimable" => return self.reclaimable,
            "Slab" => return self.slab_unreclaimable() + self.reclaimable,
            "SUnreclaim" => return self.slab_unreclaimable(),
            "SwapCached" => s.swap_cached,
            "Active" => s.active_anon.saturating_add(s.active_file),
            "Inactive" => s.inactive_anon.saturating_add(s.inactive_file),
            "Active(anon)" => s.active_anon,
            "Inactive(anon)" => s.inactive_anon,
            "Active(file)" => s.active_file,
            "Inactive(file)" => s.inactive_file,
            "Unevictable" => s.unevictable,
            "Dirty" => s.dirty,
            "Writeback" => s.writeback,
            "AnonPages" => s.anon,
            "Mapped" => s.mapped,
            "Shmem" => s.shmem,
            "KernelStack" => s.kernel_stack,
            "PageTables" => s.page_tables,
            "SecPageTables" => s.sec_page_tables,
            "Percpu" => s.percpu,
            "VmallocUsed" => s.vmalloc,
            "AnonHugePages" => s.anon_huge,
            "ShmemHugePages" => s.shmem_huge,
            "FileHugePages" => s.file_huge,
            "Zswap" => s.zswap,
            // What it holds may well be more than fits into memory.
            "Zswapped" => return s.zswapped / 1024,
            _ => 0,
        };
        (bytes / 1024).min(self.used)
    }

    fn slab_unreclaimable(&self) -> u64 {
        (self.stat.slab_unreclaimable / 1024).min(self.used - self.cached - self.reclaimable)
    }
}

/// `/proc/swaps`: the kernel's header, and one line if the container may swap. Without a limit of its own it sees the host's.
pub(super) fn swaps(text: &str, host: &Host, swap: Option<Swap>, out: &mut Vec<u8>) {
    let Some(swap) = swap.filter(|s| s.limit / 1024 < host.swap_total) else {
        return out.extend_from_slice(text.as_bytes());
    };
    let header = text.lines().next().unwrap_or("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority");
    let _ = writeln!(out, "{header}");
    let (total, free) = host.swap(swap);
    if total > 0 {
        let _ = writeln!(out, "{:<40}virtual\t\t{total}\t\t{}\t\t0", "none", total - free);
    }
}

#[cfg(test)]
mod tests;
