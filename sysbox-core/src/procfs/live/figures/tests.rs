//! With directories that look like cgroups.

use super::*;
use std::path::Path;

const MIB: u64 = 1 << 20;

struct Tree(tempfile::TempDir);

impl Tree {
    /// Each file with its path.
    fn new(files: &[(&str, &str)]) -> Tree {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let file = dir.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        Tree(dir)
    }

    fn own(&self, at: &str, version: Version, controllers: &[&str]) -> Own {
        let dir = Dir::keeping(std::fs::File::open(self.0.path().join(at)).unwrap().into());
        let path = format!("/{}", Path::new(at).file_name().unwrap().to_str().unwrap());
        Own { dir, version, controllers: controllers.iter().map(ToString::to_string).collect(), path: path.into() }
    }
}

fn with<T>(nodes: &[Own], reader: &str, f: impl FnOnce(&mut Figures<'_>) -> T) -> T {
    f(&mut Figures { nodes, reader: Some(reader.as_bytes()), buffer: &mut Vec::new() })
}

/// A host of 1 GiB of memory and 512 MiB of swap.
fn host() -> Host {
    Host::parse("MemTotal: 1048576 kB\nMemAvailable: 999999 kB\nSwapTotal: 524288 kB\nSwapFree: 524288 kB\n")
}

#[test]
fn memory_of_v2() {
    let tree = Tree::new(&[
        ("c/memory.max", "268435456\n"),
        ("c/memory.current", "104857600\n"),
        ("c/memory.swap.max", "max\n"),
        ("c/memory.swap.current", "0\n"),
        ("c/memory.stat", "anon 1\n"),
        ("c/free/memory.max", "max\n"),
        ("c/free/memory.swap.max", "1048576\n"),
        ("c/free/memory.swap.current", "4096\n"),
        ("c/small/memory.max", "67108864\n"),
        ("c/small/memory.current", "1048576\n"),
        ("c/small/memory.stat", "anon 2\n"),
        ("c/small/loose/memory.max", "999999999\n"),
        ("c/small/off/x", ""),
        ("c/same/memory.max", "268435456\n"),
    ]);
    let nodes = [tree.own("c", Version::V2, &["memory"])];
    let at = |path: &str| {
        let (memory, swap) = with(&nodes, &format!("0::{path}\n"), |f| f.memory(&host()));
        (memory.map(|m| (m.limit / MIB, m.usage / MIB, m.stat)), swap)
    };
    let outer = Some((256, 100, Stat::v2("anon 1\n")));
    let inner = Some((64, 1, Stat::v2("anon 2\n")));
    assert_eq!(at("/c"), (outer, None));
    assert_eq!(at("/c/free"), (outer, Some(Swap { limit: MIB, usage: 4096 })));
    assert_eq!(at("/c/same"), (outer, None));
    assert_eq!(at("/c/small"), (inner, None));
    assert_eq!(at("/c/small/loose"), (inner, None));
    assert_eq!(at("/c/small/off"), (inner, None));
    for elsewhere in ["/", "/d", "/c/gone", "/c/../c/small"] {
        assert_eq!(at(elsewhere), (outer, None), "{elsewhere}");
    }
}

#[test]
fn memory_of_v1() {
    const NONE: &str = "9223372036854771712\n";
    let tree = Tree::new(&[
        ("m/c/memory.limit_in_bytes", "268435456\n"),
        ("m/c/memory.memsw.limit_in_bytes", "335544320\n"),
        ("m/c/memory.usage_in_bytes", "104857600\n"),
        ("m/c/memory.kmem.usage_in_bytes", "4194304\n"),
        ("m/c/memory.stat", "rss 9\ntotal_rss 1\ntotal_swap 4096\n"),
        ("m/c/free/memory.limit_in_bytes", NONE),
        ("m/c/free/memory.memsw.limit_in_bytes", NONE),
        ("m/c/small/memory.limit_in_bytes", "67108864\n"),
        ("m/c/small/memory.memsw.limit_in_bytes", "67108864\n"),
        ("m/c/small/memory.usage_in_bytes", "1048576\n"),
        ("m/c/small/memory.stat", "total_rss 2\n"),
        ("u/c/x", ""),
    ]);
    let nodes = [tree.own("u/c", Version::V2, &["hugetlb"]), tree.own("m/c", Version::V1, &["memory"])];
    let at = |path: &str| {
        let text = format!("4:memory:{path}\n3:cpu:/elsewhere\n0::/c\n");
        with(&nodes, &text, |f| f.memory(&host()))
    };
    let mut stat = Stat::v1("total_rss 1\ntotal_swap 4096\n");
    stat.slab_unreclaimable = 4 * MIB;
    let outer = Some(Memory { limit: 256 * MIB, usage: 100 * MIB, stat });
    assert_eq!(at("/c"), (outer, Some(Swap { limit: 64 * MIB, usage: 4096 })));
    assert_eq!(at("/c/free"), at("/c"));
    let (memory, swap) = at("/c/small");
    assert_eq!(memory.map(|m| (m.limit, m.usage)), Some((64 * MIB, MIB)));
    assert_eq!(swap, Some(Swap { limit: 0, usage: 0 }));
    // A limit above what the host has is none, and swap is what is beyond the host's memory.
    let big = Tree::new(&[
        ("c/memory.limit_in_bytes", "2147483648\n"),
        ("c/memory.memsw.limit_in_bytes", "2147483648\n"),
        ("c/memory.stat", "total_swap 8192\n"),
    ]);
    let nodes = [big.own("c", Version::V1, &["memory"])];
    let (memory, swap) = with(&nodes, "4:memory:/c\n", |f| f.memory(&host()));
    assert_eq!((memory, swap), (None, Some(Swap { limit: 1024 * MIB, usage: 8192 })));
    assert_eq!(with(&[], "", |f| f.memory(&host())), (None, None));
}

#[test]
fn cpus_of_v1_in_separate_hierarchies() {
    let tree = Tree::new(&[
        ("cpu/c/cpu.cfs_quota_us", "150000\n"),
        ("cpu/c/cpu.cfs_period_us", "100000\n"),
        ("cpu/c/in/cpu.cfs_quota_us", "-1\n"),
        ("cpu/c/in/cpu.cfs_period_us", "100000\n"),
        ("set/c/cpuset.effective_cpus", "1-4\n"),
        ("set/c/in/cpuset.effective_cpus", "3\n"),
        ("acct/c/cpuacct.usage_percpu", "10 20 30 40 \n"),
        ("acct/c/cpuacct.usage_percpu_sys", "1 2 3 4 \n"),
        ("acct/c/in/cpuacct.usage_percpu", "0 0 0 5 \n"),
        ("acct/c/in/cpuacct.usage_percpu_sys", "0 0 0 1 \n"),
    ]);
    let nodes = [
        tree.own("cpu/c", Version::V1, &["cpu"]),
        tree.own("set/c", Version::V1, &["cpuset"]),
        tree.own("acct/c", Version::V1, &["cpuacct"]),
    ];
    let at = |path: &str| {
        let text = format!("1:cpu:{path}\n2:cpuset:{path}\n3:cpuacct:{path}\n");
        with(&nodes, &text, |f| {
            let cpus = f.cpus(&CpuSet::parse("0-7"));
            (cpus.shown.list(), cpus.last, f.used(cpus.binding))
        })
    };
    let used = |busy: &[u64], system: &[u64]| Used::PerCpu { busy: busy.into(), system: system.into() };
    assert_eq!(at("/c"), ("1-2".into(), Some(500_000), used(&[10, 20, 30, 40], &[1, 2, 3, 4])));
    assert_eq!(at("/c/in"), ("3".into(), None, used(&[0, 0, 0, 5], &[0, 0, 0, 1])));
}

#[test]
fn cpus_of_v2_and_of_hybrid_hosts() {
    let tree = Tree::new(&[
        ("c/cpu.max", "max 100000\n"),
        ("c/cpuset.cpus.effective", "0-3\n"),
        ("c/cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\n"),
        ("c/in/cpu.max", "200000 100000\n"),
        ("c/in/cpu.stat", "usage_usec 3\nuser_usec 2\nsystem_usec 1\n"),
        ("v1/c/cpu.cfs_quota_us", "100000\n"),
        ("v1/c/cpu.cfs_period_us", "100000\n"),
    ]);
    let at = |nodes: &[Own], text: &str| {
        with(nodes, text, |f| {
            let cpus = f.cpus(&CpuSet::parse("0-7"));
            (cpus.shown.list(), cpus.last, f.used(cpus.binding))
        })
    };
    let v2 = [tree.own("c", Version::V2, &["cpu", "cpuset", "memory"])];
    assert_eq!(at(&v2, "0::/c\n"), ("0-3".into(), None, Used::Total { user: 20_000, system: 10_000 }));
    assert_eq!(at(&v2, "0::/c/in\n"), ("0-1".into(), Some(1_000_000), Used::Total { user: 2000, system: 1000 }));
    // Quota on v1, and nobody counts time but v2, which owns no controller.
    let hybrid = [tree.own("v1/c", Version::V1, &["cpu"]), tree.own("c", Version::V2, &[])];
    let text = "1:cpu:/c\n0::/c/in\n";
    assert_eq!(at(&hybrid, text), ("0".into(), Some(1_000_000), Used::Total { user: 20_000, system: 10_000 }));
    assert_eq!(at(&[], ""), ("0-7".into(), None, Used::Total { user: 0, system: 0 }));
}

#[test]
fn devices_of_both() {
    let tree = Tree::new(&[
        ("b/c/blkio.throttle.io_service_bytes_recursive", "8:0 Read 4096\nTotal 4096\n"),
        ("b/c/blkio.throttle.io_serviced_recursive", "8:0 Read 1\nTotal 1\n"),
        ("b/c/in/blkio.throttle.io_service_bytes_recursive", "Total 0\n"),
        ("c/io.stat", "8:0 rbytes=512 wbytes=0 rios=7 wios=0 dbytes=0 dios=0\n"),
        ("c/in/x", ""),
    ]);
    let v1 = [tree.own("b/c", Version::V1, &["blkio"])];
    let reads =
        |nodes: &[Own], text: &str| with(nodes, text, |f| f.devices().get(&(8, 0)).map(|d| (d.reads, d.read_bytes)));
    assert_eq!(reads(&v1, "7:blkio:/c\n"), Some((1, 4096)));
    assert_eq!(reads(&v1, "7:blkio:/c/in\n"), None);
    let v2 = [tree.own("c", Version::V2, &["io"])];
    assert_eq!(reads(&v2, "0::/c\n"), Some((7, 512)));
    assert_eq!(reads(&v2, "0::/c/in\n"), Some((7, 512)));
    assert_eq!(reads(&[], ""), None);
}
