//! Any bytes as config.json: a plan or an error, never a panic; and a plan survives its way to the stage.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;
use sysbox_core::cgroup::Layout;
use sysbox_core::host::{Facts, FileKind, PathFact};
use sysbox_core::idmap::{IdMap, Maps};
use sysbox_core::plan::{self, Plan, What};
use sysbox_core::procfs::Nodes;
use sysbox_core::Spec;

const BUNDLE: &str = "/bundle";

const HYBRID: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 31 0:31 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
35 31 0:32 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
36 31 0:33 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio
37 31 0:34 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
const PURE: &str = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

static LAYOUTS: LazyLock<[Layout; 2]> = LazyLock::new(|| {
    [(HYBRID, "hugetlb misc"), (PURE, "cpuset cpu io memory hugetlb pids rdma misc")].map(|(text, controllers)| {
        let mut layout = Layout::parse(text);
        layout.set_unified_controllers(controllers);
        layout
    })
});

fn facts(spec: &Spec, cgroups: &Layout) -> Facts {
    let of = |kind, uid| PathFact { kind, uid, gid: uid };
    // What a source is follows from its name, so that the fuzzer chooses.
    let kind = |p: &Path| match p.as_os_str().len() % 4 {
        0 => of(FileKind::Dir, 0),
        1 => of(FileKind::File, 0),
        2 => of(FileKind::Socket, 0),
        _ => of(FileKind::Dir, 100_000),
    };
    Facts {
        cgroups: cgroups.clone(),
        systemd: None,
        release: "6.12.0".into(),
        kernel_dirs: vec!["/lib/modules/6.12.0".into()],
        time_namespace: true,
        can_lower_oom: true,
        memory: 8 << 30,
        cpus: 4,
        fuse: true,
        root: of(FileKind::Dir, 0),
        overlay: None,
        inner_dirs: vec!["/var/lib/docker".into()],
        namespaces: BTreeMap::new(),
        program: spec.oci().process().as_ref().and_then(|p| p.args().as_ref()?.first().map(Into::into)),
        sources: spec.bind_sources(Path::new(BUNDLE)).into_iter().map(|p| (p.clone(), kind(&p))).collect(),
        targets: BTreeMap::new(),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(spec) = Spec::from_json(bytes) else { return };
    let map = IdMap::single(100_000, 65536).expect("a valid range");
    let maps = match plan::requested_maps(&spec) {
        Ok(Some(maps)) => maps,
        Ok(None) => Maps { uid: map.clone(), gid: map },
        Err(e) => return assert!(!e.to_string().is_empty()),
    };
    for layout in LAYOUTS.iter() {
        let facts = facts(&spec, layout);
        match plan::build::plan("fuzz", &spec, Path::new(BUNDLE), &facts, maps.clone(), &Nodes::default()) {
            Ok(p) => check(&p),
            Err(e) => assert!(!e.to_string().is_empty()),
        }
    }
});

fn check(p: &Plan) {
    let json = serde_json::to_string(p).expect("a plan is data");
    assert_eq!(&serde_json::from_str::<Plan>(&json).expect("a plan can be read back"), p);
    assert!(!p.to_string().is_empty());
    for m in p.locked.iter().chain(&p.attached) {
        assert!(m.target.is_absolute() && !m.target.components().any(|c| c.as_os_str() == ".."), "{m:?}");
    }
    for a in &p.attached {
        assert!(!p.locked.iter().any(|l| l.target.starts_with(&a.target)), "{a:?} hides something locked");
        assert!(matches!(a.what, What::Fs { .. } | What::Cgroup { .. }), "init cannot mount {a:?}");
    }
}
