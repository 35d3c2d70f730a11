//! Text of ID maps, of /etc/subuid and of the pool's own file. The first byte says which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;
use sysbox_core::idmap::pool::{Pool, SubidConfig};
use sysbox_core::idmap::IdMap;

static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    // hack/fuzz.sh removes it.
    let dir = std::env::temp_dir().join(format!("sysbox-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("pool")).expect("create a directory");
    dir
});

fuzz_target!(|bytes: &[u8]| {
    let Some((which, rest)) = bytes.split_first() else { return };
    match which % 3 {
        0 => map(&String::from_utf8_lossy(rest)),
        1 => subid(rest),
        _ => ledger(rest),
    }
});

fn map(text: &str) {
    // Two maps, to be composed and compared.
    let (a, b) = text.split_once('|').unwrap_or((text, text));
    let (Ok(a), Ok(b)) = (IdMap::parse(a), IdMap::parse(b)) else { return };
    assert_eq!(IdMap::parse(&a.to_string()).expect("what is printed can be read"), a);
    assert_eq!(IdMap::from_oci(&a.to_oci().expect("OCI mappings")).expect("OCI mappings"), a);
    assert_eq!(a.overlaps_outside(&b), b.overlaps_outside(&a));
    for r in a.ranges() {
        let (last_in, last_out) = (r.inside + (r.count - 1), r.outside + (r.count - 1));
        assert!(last_in < u32::MAX && last_out < u32::MAX);
        assert_eq!(a.to_outside(r.inside), Some(r.outside));
        assert_eq!(a.to_inside(last_out), Some(last_in));
    }
    if let Ok(c) = a.compose(&b) {
        for r in c.ranges() {
            assert_eq!(a.to_outside(r.inside).and_then(|id| b.to_outside(id)), Some(r.outside));
        }
    }
}

/// Both files, before and after the first `|`.
fn subid(text: &[u8]) {
    let cut = text.iter().position(|b| *b == b'|').unwrap_or(text.len());
    let (subuid, subgid) = (DIR.join("subuid"), DIR.join("subgid"));
    std::fs::write(&subuid, &text[..cut]).expect("write");
    std::fs::write(&subgid, text.get(cut + 1..).unwrap_or_default()).expect("write");
    let config = SubidConfig { subuid, subgid, ..SubidConfig::default() };
    let pool = Pool::open(&DIR.join("empty"), config).expect("open the pool");
    match pool.preview() {
        Ok(maps) => {
            maps.check_usable().expect("a usable range");
            assert_eq!((maps.uid.size(), maps.gid.size()), (65536, 65536));
        }
        Err(e) => assert!(!e.to_string().is_empty()),
    }
}

fn ledger(text: &[u8]) {
    let nothing = DIR.join("nothing");
    let config = SubidConfig { subuid: nothing.clone(), subgid: nothing, ..SubidConfig::default() };
    let dir = DIR.join("pool");
    let pool = Pool::open(&dir, config).expect("open the pool");
    std::fs::write(dir.join("ranges"), text).expect("write");
    let Ok(taken) = pool.list() else { return };
    // A damaged pool gives nothing; a sound one nothing that is taken.
    if let Ok(new) = pool.preview() {
        for t in taken {
            assert!(!t.maps.uid.overlaps_outside(&new.uid) && !t.maps.gid.overlaps_outside(&new.gid), "{t:?}");
        }
    }
}
