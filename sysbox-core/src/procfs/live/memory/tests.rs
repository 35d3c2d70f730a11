use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const HOST: &str = "\
MemTotal:       24684096 kB
MemFree:        11000576 kB
MemAvailable:   24137860 kB
Buffers:           52704 kB
Cached:         12948084 kB
SwapCached:          100 kB
Active:          2783320 kB
Inactive:       10216016 kB
Active(anon):       1532 kB
Inactive(anon):     5676 kB
Active(file):    2781788 kB
Inactive(file): 10210340 kB
Unevictable:       14872 kB
Mlocked:           13992 kB
SwapTotal:       1048576 kB
SwapFree:         900000 kB
Zswap:                 8 kB
Zswapped:             16 kB
Dirty:              7532 kB
Writeback:             1 kB
AnonPages:         13460 kB
Mapped:            10860 kB
Shmem:              8788 kB
KReclaimable:     498096 kB
Slab:             560556 kB
SReclaimable:     498096 kB
SUnreclaim:        62460 kB
KernelStack:        1480 kB
PageTables:         2124 kB
SecPageTables:        12 kB
Bounce:                4 kB
CommitLimit:    12342048 kB
Committed_AS:      61124 kB
VmallocTotal:   34359738367 kB
VmallocUsed:       14268 kB
VmallocChunk:          0 kB
Percpu:              712 kB
AnonHugePages:      2048 kB
FileHugePages:    194560 kB
HugePages_Total:       3
Hugepagesize:       2048 kB
Hugetlb:            6144 kB
DirectMap4k:       26624 kB
SomethingNew:    9999999 kB
";

const V1: &str = "\
cache 1
rss 1
hierarchical_memory_limit 268435456
total_cache 83886080
total_rss 10485760
total_rss_huge 2097152
total_shmem 4194304
total_mapped_file 1048576
total_dirty 4096
total_writeback 8192
total_swap 1048576
total_swapcached 2097152
total_inactive_anon 8388608
total_active_anon 4194304
total_inactive_file 33554432
total_active_file 41943040
total_unevictable 12288
";

const V2: &str = "\
anon 10485760
file 83886080
kernel 9437184
kernel_stack 16384
pagetables 20480
sec_pagetables 4096
percpu 1024
sock 0
vmalloc 8192
shmem 4194304
zswap 4096
zswapped 12288
file_mapped 1048576
file_dirty 4096
file_writeback 8192
swapcached 2097152
anon_thp 2097152
file_thp 0
shmem_thp 0
inactive_anon 8388608
active_anon 4194304
inactive_file 33554432
active_file 41943040
unevictable 12288
slab_reclaimable 5242880
slab_unreclaimable 3145728
slab 8388608
pgfault 12
";

const MIB: u64 = 1 << 20;

fn render(host: &str, memory: Option<Memory>, swap: Option<Swap>) -> String {
    let mut out = Vec::new();
    meminfo(host, &Host::parse(host), memory.as_ref(), swap, &mut out);
    String::from_utf8(out).unwrap()
}

fn values(text: &str) -> BTreeMap<String, u64> {
    text.lines().filter_map(split).map(|(name, value)| (name.to_owned(), value)).collect()
}

fn limited(stat: Stat) -> Option<Memory> {
    Some(Memory { limit: 256 * MIB, usage: 100 * MIB, stat })
}

fn swap_file(swap: Option<Swap>) -> String {
    let text = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/vdb                                partition\t1048576\t\t148576\t\t-2\n";
    let mut out = Vec::new();
    swaps(text, &Host::parse(HOST), swap, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn without_limits_all_is_the_hosts() {
    let above = |limit| Some(Memory { limit, usage: MIB, stat: Stat::v2(V2) });
    for memory in [None, above(u64::MAX), above(24_684_096 * 1024)] {
        for swap in [None, Some(Swap { limit: u64::MAX, usage: 0 })] {
            assert_eq!(render(HOST, memory, swap), HOST);
        }
    }
}

#[test]
fn figures_of_v2() {
    let text = render(HOST, limited(Stat::v2(V2)), Some(Swap { limit: 64 * MIB, usage: 16 * MIB }));
    let v = values(&text);
    let kib = |name: &str| v[name];
    assert_eq!((kib("MemTotal"), kib("MemFree")), (262_144, 159_744));
    // Free, 72 MiB of files and 5 of slab.
    assert_eq!(kib("MemAvailable"), 159_744 + (72 + 5) * 1024);
    assert_eq!((kib("Cached"), kib("SwapCached"), kib("Buffers")), (78 * 1024, 2048, 0));
    assert_eq!((kib("Active"), kib("Active(anon)"), kib("Active(file)")), (44 * 1024, 4096, 40 * 1024));
    assert_eq!((kib("Inactive"), kib("Inactive(anon)"), kib("Inactive(file)")), (40 * 1024, 8192, 32 * 1024));
    assert_eq!((kib("Slab"), kib("SReclaimable"), kib("KReclaimable"), kib("SUnreclaim")), (8192, 5120, 5120, 3072));
    assert_eq!((kib("KernelStack"), kib("PageTables"), kib("SecPageTables"), kib("Percpu")), (16, 20, 4, 1));
    assert_eq!((kib("AnonPages"), kib("Mapped"), kib("Shmem"), kib("AnonHugePages")), (10_240, 1024, 4096, 2048));
    assert_eq!((kib("Dirty"), kib("Writeback"), kib("Unevictable"), kib("VmallocUsed")), (4, 8, 12, 8));
    assert_eq!((kib("SwapTotal"), kib("SwapFree"), kib("Zswap"), kib("Zswapped")), (65_536, 49_152, 4, 12));
    assert_eq!((kib("Mlocked"), kib("Bounce"), kib("DirectMap4k"), kib("SomethingNew")), (0, 0, 0, 0));
    for hosts in ["CommitLimit", "Committed_AS", "VmallocTotal", "HugePages_Total", "Hugepagesize", "Hugetlb"] {
        assert_eq!(v[hosts], values(HOST)[hosts], "{hosts}");
    }
}

#[test]
fn figures_of_v1() {
    let stat = Stat { slab_unreclaimable: 3 * MIB, ..Stat::v1(V1) };
    let v = values(&render(HOST, limited(stat), Some(Swap { limit: v1_swap_limit(512 * MIB, 256 * MIB), usage: MIB })));
    assert_eq!((v["MemTotal"], v["MemFree"], v["MemAvailable"]), (262_144, 159_744, 159_744 + 72 * 1024));
    assert_eq!((v["Cached"], v["AnonPages"], v["Shmem"], v["SwapCached"]), (78 * 1024, 10_240, 4096, 2048));
    assert_eq!((v["Slab"], v["SUnreclaim"], v["SReclaimable"], v["KernelStack"]), (3072, 3072, 0, 0));
    assert_eq!((v["SwapTotal"], v["SwapFree"]), (262_144, 261_120));
    assert_eq!(stat.swap, MIB);
}

#[test]
fn lines_look_as_the_kernels() {
    let text = render(HOST, limited(Stat::v2(V2)), None);
    assert!(text.starts_with("MemTotal:         262144 kB\nMemFree:          159744 kB\n"), "{text}");
    assert!(text.contains("\nHugePages_Total:       3\n"));
    assert!(text.contains("\nSwapTotal:       1048576 kB\n"));
    let names = |t: &str| t.lines().map(|l| l.split(':').next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&text), names(HOST));
    // Longer numbers push, and stay a column: as the kernel's own.
    let host = HOST.replace("MemTotal:       24684096", "MemTotal:       9924684096");
    let big = Some(Memory { limit: 999_999_999 * 1024, usage: 0, stat: Stat::default() });
    assert!(render(&host, big, None).starts_with("MemTotal:       999999999 kB\n"));
}

#[test]
fn no_more_than_the_host_has() {
    let host = HOST.replace("24137860", "    1024").replace("SwapFree:         900000", "SwapFree:            512");
    let v = values(&render(&host, limited(Stat::v2(V2)), Some(Swap { limit: 64 * MIB, usage: 0 })));
    assert_eq!((v["MemAvailable"], v["SwapTotal"], v["SwapFree"]), (1024, 65_536, 512));
    // Swap that is limited, with memory that is not.
    let v = values(&render(HOST, None, Some(Swap { limit: 0, usage: 0 })));
    assert_eq!((v["MemTotal"], v["SwapTotal"], v["SwapFree"]), (24_684_096, 0, 0));
}

#[test]
fn swap_devices() {
    assert!(swap_file(None).contains("/dev/vdb"));
    assert!(swap_file(Some(Swap { limit: u64::MAX, usage: 0 })).contains("/dev/vdb"));
    assert_eq!(swap_file(Some(Swap { limit: 0, usage: 0 })), "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
    let text = swap_file(Some(Swap { limit: 64 * MIB, usage: 16 * MIB }));
    let line: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(line, ["none", "virtual", "65536", "16384", "0"]);
}

proptest! {
    #[test]
    fn always_fits(limit in any::<u64>(), usage in any::<u64>(), shift in 0u32..64, figures in any::<[u64; 8]>(), swap in any::<[u64; 2]>()) {
        let [cache, swapped, anon, file, more, reclaimable, unreclaimable, zswapped] = figures.map(|n| n >> shift);
        let text = format!("file {cache}\nswapcached {swapped}\nanon {anon}\nactive_file {file}\ninactive_file {more}\n\
            slab_reclaimable {reclaimable}\nslab_unreclaimable {unreclaimable}\nzswapped {zswapped}\n");
        let (limit, usage) = (limit >> shift, usage >> shift);
        let swap = Swap { limit: swap[0] >> shift, usage: swap[1] >> shift };
        let v = values(&render(HOST, Some(Memory { limit, usage, stat: Stat::v2(&text) }), Some(swap)));
        prop_assert!(v["MemTotal"] <= 24_684_096);
        prop_assert!(v["MemFree"] + v["Buffers"] + v["Cached"] + v["Slab"] <= v["MemTotal"]);
        prop_assert!(v["MemAvailable"] <= v["MemTotal"] && v["MemAvailable"] <= 24_137_860);
        prop_assert_eq!(v["Slab"], v["SReclaimable"] + v["SUnreclaim"]);
        prop_assert!(v["SwapFree"] <= v["SwapTotal"] && v["SwapTotal"] <= 1_048_576);
        if limit / 1024 < 24_684_096 {
            prop_assert_eq!(v["MemTotal"], limit / 1024);
            prop_assert!(["Active", "Inactive", "AnonPages", "Active(file)"].iter().all(|n| v[*n] <= v["MemTotal"]));
        }
    }

    #[test]
    fn anything_is_read(text in "\\PC{0,20}(MemTotal:|SwapTotal:|x:)? {0,3}[0-9]{0,24}( kB)?\n?\\PC{0,9}", stat in "[a-z_]{0,8} ?-?[0-9]{0,30}\n?") {
        let host = Host::parse(&text);
        let stat = [Stat::v1(&stat), Stat::v2(&stat)];
        for stat in stat {
            let memory = Memory { limit: 0, usage: u64::MAX, stat };
            let mut out = Vec::new();
            meminfo(&text, &host, Some(&memory), Some(Swap { limit: 5, usage: 9 }), &mut out);
            swaps(&text, &host, Some(Swap { limit: 5, usage: 9 }), &mut out);
        }
    }
}
