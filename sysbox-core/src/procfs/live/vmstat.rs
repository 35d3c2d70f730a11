//! `/proc/vmstat`.
//!
//! | lines | the container sees |
//! |---|---|
//! | `nr_*` that are numbers of pages, with a memory limit | the same as in its `/proc/meminfo`, 0 if that has none |
//! | `nr_dirty_threshold` `nr_dirty_background_threshold`; without a memory limit all these `nr_*` | the host's |
//! | `pgpgin` `pgpgout` | KiB that its cgroup has read and written |
//! | `oom_kill`, and what has the same name in the cgroup's `memory.stat` | the cgroup's |
//! | all others, and the `nr_*` that count events | 0: they are not counted by cgroup |

use std::collections::BTreeMap;
use std::io::Write;

/// Called as amounts are, and counts what has happened.
fn is_event(name: &str) -> bool {
    let names = ["nr_dirtied", "nr_written", "nr_throttled_written"];
    names.contains(&name) || ["nr_vmscan_", "nr_foll_pin_", "nr_tlb_"].iter().any(|start| name.starts_with(start))
}

/// What a container's lines are made of.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    /// The container's `/proc/meminfo` if memory is limited.
    pub(super) meminfo: Option<&'a str>,
    /// In bytes.
    pub(super) page: u64,
    /// By name.
    pub(super) events: BTreeMap<String, u64>,
    /// Bytes.
    pub(super) read: u64,
    pub(super) written: u64,
}

impl Shown<'_> {
    /// Replaces the figure of one of the host's lines.
    pub(super) fn line(&self, line: &[u8], out: &mut Vec<u8>) {
        let Some((name, host)) = std::str::from_utf8(line).ok().and_then(|l| l.split_once(' ')) else { return };
        let value = match name {
            "pgpgin" => self.read / 1024,
            "pgpgout" => self.written / 1024,
            "nr_dirty_threshold" | "nr_dirty_background_threshold" => host.trim().parse().unwrap_or(0),
            _ if name.starts_with("nr_") && !is_event(name) => match self.meminfo {
                Some(meminfo) => self.amount(name, meminfo),
                None => host.trim().parse().unwrap_or(0),
            },
            _ => self.events.get(name).copied().unwrap_or(0),
        };
        // Writing to memory cannot fail.
        let _ = writeln!(out, "{name} {value}");
    }

    fn amount(&self, name: &str, meminfo: &str) -> u64 {
        let names: &[&str] = match name {
            "nr_free_pages" => &["MemFree"],
            "nr_inactive_anon" | "nr_zone_inactive_anon" => &["Inactive(anon)"],
            "nr_active_anon" | "nr_zone_active_anon" => &["Active(anon)"],
            "nr_inactive_file" | "nr_zone_inactive_file" => &["Inactive(file)"],
            "nr_active_file" | "nr_zone_active_file" => &["Active(file)"],
            "nr_unevictable" | "nr_zone_unevictable" => &["Unevictable"],
            "nr_zone_write_pending" => &["Dirty", "Writeback"],
            "nr_slab_reclaimable" => &["SReclaimable"],
            "nr_slab_unreclaimable" => &["SUnreclaim"],
            "nr_anon_pages" => &["AnonPages"],
            "nr_mapped" => &["Mapped"],
            "nr_file_pages" => &["Cached", "SwapCached", "Buffers"],
            "nr_swapcached" => &["SwapCached"],
            "nr_dirty" => &["Dirty"],
            "nr_writeback" => &["Writeback"],
            "nr_shmem" => &["Shmem"],
            "nr_page_table_pages" => &["PageTables"],
            "nr_sec_page_table_pages" => &["SecPageTables"],
            // The one that the kernel counts in KiB.
            "nr_kernel_stack" => return kib("KernelStack", meminfo),
            _ => &[],
        };
        names.iter().map(|n| kib(n, meminfo)).sum::<u64>().saturating_mul(1024) / self.page.max(1)
    }
}

fn kib(name: &str, meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|l| l.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MEMINFO: &str =
        "MemTotal: 262144 kB\nMemFree:  1000 kB\nCached: 400 kB\nSwapCached: 8 kB\nKernelStack: 48 kB\n\
                           Inactive(file):  96 kB\n";

    fn shown(meminfo: Option<&str>) -> Shown<'_> {
        let events = [("pgfault".to_owned(), 7), ("oom_kill".to_owned(), 2)].into();
        Shown { meminfo, page: 4096, events, read: 10 << 10, written: 3 << 20 }
    }

    fn show(meminfo: Option<&str>, host: &str) -> String {
        let mut out = Vec::new();
        host.lines().for_each(|l| shown(meminfo).line(l.as_bytes(), &mut out));
        String::from_utf8(out).unwrap()
    }

    const HOST: &str =
        "nr_free_pages 1724369\nnr_inactive_file 1994740\nnr_file_pages 5\nnr_kernel_stack 1848\nnr_hugetlb 3\n\
                        nr_dirty_threshold 99\npgpgin 17780489\npgpgout 49731500\npswpin 4\npgfault 8\noom_kill 20\nnr_written 6\n";

    #[test]
    fn with_and_without_a_limit() {
        let limited = "nr_free_pages 250\nnr_inactive_file 24\nnr_file_pages 102\nnr_kernel_stack 48\nnr_hugetlb 0\n\
                       nr_dirty_threshold 99\npgpgin 10\npgpgout 3072\npswpin 0\npgfault 7\noom_kill 2\nnr_written 0\n";
        assert_eq!(show(Some(MEMINFO), HOST), limited);
        let (amounts, counters) = (&HOST[..HOST.find("pgpgin").unwrap()], &limited[limited.find("pgpgin").unwrap()..]);
        assert_eq!(show(None, HOST), format!("{amounts}{counters}"));
    }

    proptest! {
        #[test]
        fn anything_is_read(line in "\\PC{0,20}( [0-9]{0,22})?") {
            shown(Some(MEMINFO)).line(line.as_bytes(), &mut Vec::new());
        }
    }
}
