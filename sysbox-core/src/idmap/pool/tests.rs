mod given;
mod histories;

use super::*;
use crate::idmap::{IdMap, Range};
use proptest::prelude::*;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A host of its own: pool, files of subordinate IDs, state directories.
struct Host(TempDir);

impl Host {
    fn new(subuid: &str, subgid: &str) -> Host {
        let dir = tempfile::Builder::new().prefix("sysbox-pool-").tempdir().unwrap();
        fs::write(dir.path().join("subuid"), subuid).unwrap();
        fs::write(dir.path().join("subgid"), subgid).unwrap();
        Host(dir)
    }

    fn both(text: &str) -> Host {
        Host::new(text, text)
    }

    fn config(&self, size: u32) -> SubidConfig {
        let path = |name| self.0.path().join(name);
        SubidConfig { subuid: path("subuid"), subgid: path("subgid"), size, ..SubidConfig::default() }
    }

    fn pool(&self, size: u32) -> Pool {
        Pool::open(&self.file(""), self.config(size)).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join("pool").join(name)
    }

    fn owner(&self, name: &str) -> Owner {
        let dir = self.0.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        Owner::of(&dir).unwrap()
    }
}

fn start(map: &IdMap) -> u32 {
    map.to_outside(0).unwrap()
}

fn assert_disjoint(maps: &[Maps]) {
    for (i, a) in maps.iter().enumerate() {
        for b in &maps[i + 1..] {
            assert!(!a.uid.overlaps_outside(&b.uid) && !a.gid.overlaps_outside(&b.gid), "{a:?} {b:?}");
        }
    }
}

#[test]
fn entries_are_used_in_full_and_no_further() {
    let host = Host::new(
        "# ours\n\nalice:100000:65536\nsysbox:200000:131071\n  sysbox:400000:131072\nbroken\n:::\nbob:x:y\n",
        "sysbox:1000000:65536\nsysbox:1065536:65536\nsysbox:3000000:65536\nsysbox:3000000:65536\n",
    );
    let pool = host.pool(65536);
    let maps: Vec<_> = ["a", "b", "c"].map(|n| pool.allocate(&host.owner(n)).unwrap()).into();
    assert_eq!(maps.iter().map(|m| start(&m.uid)).collect::<Vec<_>>(), [200000, 400000, 465536]);
    assert_eq!(maps.iter().map(|m| start(&m.gid)).collect::<Vec<_>>(), [1000000, 1065536, 3000000]);
    maps.iter().for_each(|m| m.check_usable().unwrap());
    let e = pool.allocate(&host.owner("d")).unwrap_err();
    assert_eq!(e.kind(), Kind::Exhausted);
    assert!(e.to_string().contains("room for 3 such ranges"), "{e}");
    let advice = e.advice().unwrap();
    assert!(advice.contains("sysbox:START:COUNT") && advice.contains("subuid"), "{advice}");
    assert_eq!(pool.list().unwrap().len(), 3);
}

#[test]
fn exhaustion_of_groups_alone_takes_nothing() {
    let host = Host::new("sysbox:100000:200000\n", "sysbox:100000:65536\n");
    let pool = host.pool(65536);
    pool.allocate(&host.owner("a")).unwrap();
    let e = pool.allocate(&host.owner("b")).unwrap_err();
    assert!(e.kind() == Kind::Exhausted && e.path().unwrap().ends_with("subgid"), "{e}");
    assert_eq!(pool.lookup(&host.owner("b")).unwrap(), None);
}

#[test]
fn a_bad_line_of_ours_is_named_and_one_of_others_is_passed_over() {
    for bad in [
        "sysbox",
        "sysbox:",
        "sysbox:100000",
        "sysbox:100000:",
        "sysbox::65536",
        "sysbox:100000:65536:1",
        "sysbox:100000:0",
        "sysbox:0:65536",
        "sysbox:-1:65536",
        "sysbox:0x100000:65536",
        "sysbox:0100000:65536",
        "sysbox:100000: 65536",
        "sysbox:100000:65536 # more",
        "sysbox:4294967295:1",
        "sysbox:4294901760:65536",
        "sysbox:600000:4294967296",
        "sysbox:99999999999999999999999:1",
    ] {
        let ok = "sysbox:500000:65536";
        let host = Host::new(&format!("{ok}\n\n{bad}\n"), "");
        let e = host.pool(65536).allocate(&host.owner("a")).unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidConfig, "{bad}");
        assert!(e.to_string().contains("line 3") && e.path().unwrap().ends_with("subuid"), "{e}");

        let other = bad.replace("sysbox", "mallory");
        let host = Host::new(&format!("{other}\n{ok}"), "");
        let maps = host.pool(65536).allocate(&host.owner("a"));
        assert_eq!(start(&maps.unwrap().uid), 500000, "{other}");
    }
}

#[test]
fn bytes_that_are_not_text_are_passed_over() {
    let host = Host::both("");
    fs::write(host.config(1).subuid, b"\xff\xfe:1:2\n\xff\nsysbox:100000:65536\r\n").unwrap();
    assert_eq!(start(&host.pool(65536).allocate(&host.owner("a")).unwrap().uid), 100000);
}

#[test]
fn what_others_have_too_is_not_used() {
    // Of 100000..296608 others have everything below 165536 and ID 231071, which leaves one ID too few between the two.
    let host = Host::both("sysbox:100000:196608\ndocker:90000:75536\nroot:231071:1\n");
    let pool = host.pool(65536);
    assert_eq!(start(&pool.allocate(&host.owner("a")).unwrap().uid), 231072);
    let e = pool.allocate(&host.owner("b")).unwrap_err();
    assert_eq!(e.kind(), Kind::Exhausted);
    assert!(e.to_string().contains("65537 of their IDs being other users' too"), "{e}");
}

#[test]
fn an_entry_by_number_is_ours_too() {
    let host = Host::both("0:700000:65536\n");
    let config = SubidConfig { user: "root".into(), ..host.config(65536) };
    let pool = Pool::open(&host.file(""), config).unwrap();
    assert_eq!(start(&pool.allocate(&host.owner("a")).unwrap().uid), 700000);
    let host = Host::both("root:700000:65536\n");
    let config = SubidConfig { user: "0".into(), ..host.config(65536) };
    let pool = Pool::open(&host.file(""), config).unwrap();
    assert_eq!(start(&pool.allocate(&host.owner("a")).unwrap().uid), 700000);
}

#[test]
fn without_entries_the_default_area_holds_4096_containers() {
    for (text, size) in [("", 65536), ("x:1:2000200000\n", 32768), ("x:2000300000:100\n", 65536), ("", 100_000)] {
        let names = ["sysbox".to_owned()];
        let windows = subid::windows(text, Path::new("f"), &names, size).unwrap();
        assert!(!windows.assigned && windows.capacity(size) >= 4096, "{text:?} {size}: {}", windows.capacity(size));
        assert!(windows.spans.iter().all(|s| s.start >= 524288 && s.end <= 0x7FFE_0000));
    }
    let host = Host::both("");
    fs::remove_file(host.config(1).subgid).unwrap();
    let maps = host.pool(65536).allocate(&host.owner("a")).unwrap();
    assert_eq!((start(&maps.uid), start(&maps.gid)), (0x7739_0000, 0x7739_0000));
    maps.check_usable().unwrap();
}

#[test]
fn without_entries_other_users_ids_are_avoided() {
    // All of the default area and all above; what is left is in systemd's container area.
    let host = Host::both("lxd:1879048192:4294967295\nroot:1000000:800000000\n");
    let maps = host.pool(65536).allocate(&host.owner("a")).unwrap();
    let others = IdMap::new(vec![Range { inside: 0, outside: 1000000, count: 800000000 }]).unwrap();
    assert!(!maps.uid.overlaps_outside(&others));
    assert!(start(&maps.uid) + 65536 <= 1879048192);

    let host = Host::both("root:1:4294967294\n");
    let e = host.pool(65536).allocate(&host.owner("a")).unwrap_err();
    assert_eq!(e.kind(), Kind::Exhausted);
    assert!(e.advice().unwrap().contains("sysbox:START:COUNT"));
}

#[test]
fn an_owner_keeps_what_it_has() {
    let host = Host::both("sysbox:100000:655360\n");
    let (a, b) = (host.owner("a"), host.owner("b"));
    let maps = host.pool(65536).allocate(&a).unwrap();
    assert_eq!(host.pool(65536).allocate(&a).unwrap(), maps);
    assert_eq!(host.pool(1000).allocate(&a).unwrap(), maps);
    assert_eq!(host.pool(65536).lookup(&a).unwrap(), Some(maps.clone()));
    assert_eq!(host.pool(65536).lookup(&b).unwrap(), None);
    assert_eq!(host.pool(65536).list().unwrap(), [Allocation { owner: a.clone(), maps, exclusive: true }]);
    // The entries may be withdrawn while the container lives.
    fs::write(host.config(1).subuid, "sysbox:rubbish\n").unwrap();
    host.pool(65536).allocate(&a).unwrap();
}

#[test]
fn ranges_come_back_by_release_and_when_the_owner_is_gone() {
    let host = Host::both("sysbox:100000:131072\n");
    let pool = host.pool(65536);
    let (a, b) = (host.owner("a"), host.owner("b"));
    let (first, second) = (pool.allocate(&a).unwrap(), pool.allocate(&b).unwrap());
    pool.release(&a).unwrap();
    pool.release(&a).unwrap();
    assert_eq!(pool.allocate(&host.owner("c")).unwrap(), first);
    fs::remove_dir(&b.state_dir).unwrap();
    assert_eq!(pool.allocate(&host.owner("d")).unwrap(), second);
    // Another directory of the same name: moved there, so that the inode number is another for sure.
    let c = host.0.path().join("c");
    fs::rename(&c, host.0.path().join("c.old")).unwrap();
    let new = host.owner("c");
    assert_eq!(pool.allocate(&new).unwrap(), first);
    assert_eq!(pool.lookup(&new).unwrap(), Some(first));
    assert_eq!(pool.list().unwrap().len(), 2);
}

#[test]
fn what_was_given_back_rests_for_as_long_as_possible() {
    for (entries, ranges) in [("sysbox:100000:196608\nsysbox:900000:65536\n", 4), ("", 2245)] {
        let host = Host::both(entries);
        let mut seen = HashMap::new();
        for n in 0..ranges.min(40) {
            // Another handle each time, as another process would have it.
            let owner = host.owner("a");
            let maps = host.pool(65536).allocate(&owner).unwrap();
            assert_eq!(seen.insert(maps.clone(), n), None, "{maps:?}");
            host.pool(65536).release(&owner).unwrap();
        }
        if ranges == 4 {
            let again = host.pool(65536).allocate(&host.owner("a")).unwrap();
            assert_eq!(seen.get(&again), Some(&0), "{again:?}");
        }
    }
    // The default areas are not alike: the second is for when the first is full.
    let host = Host::both("");
    let last = 0x7FFE_0000 - 65536;
    fs::create_dir_all(host.file("")).unwrap();
    fs::set_permissions(host.file(""), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(host.file("next"), format!("{last} {last}\n")).unwrap();
    let starts = ["a", "b"].map(|n| start(&host.pool(65536).allocate(&host.owner(n)).unwrap().uid));
    assert_eq!(starts, [last, 0x7739_0000]);
    for junk in ["", "rubbish", "4294967295 -1", "1"] {
        fs::write(host.file("next"), junk).unwrap();
        let maps = host.pool(65536).allocate(&host.owner(&format!("c{}", junk.len()))).unwrap();
        assert!(start(&maps.uid) >= 0x7739_0000, "{junk}");
    }
}

#[test]
fn only_the_living_get_ids() {
    let host = Host::both("");
    let pool = host.pool(65536);
    let gone = host.owner("a");
    fs::remove_dir(&gone.state_dir).unwrap();
    assert_eq!(pool.allocate(&gone).unwrap_err().kind(), Kind::NotFound);
    let relative = Owner { state_dir: "a".into(), ..host.owner("b") };
    assert_eq!(pool.allocate(&relative).unwrap_err().kind(), Kind::InvalidConfig);
    assert_eq!(pool.allocate_sized(&host.owner("b"), 0).unwrap_err().kind(), Kind::InvalidConfig);
    assert!(Owner::of(&gone.state_dir).is_err());
}

#[test]
fn a_crash_between_any_two_steps_loses_nothing() {
    let host = Host::both("");
    let pool = host.pool(65536);
    let maps = pool.allocate(&host.owner("a")).unwrap();
    for junk in [
        "",
        "sysbox-subid 1\n",
        "garbage that is longer than any content of the file could ever be, really".repeat(9).as_str(),
    ] {
        fs::write(host.file("ranges.new"), junk).unwrap();
        assert_eq!(pool.lookup(&host.owner("a")).unwrap().as_ref(), Some(&maps));
        let other = pool.allocate(&host.owner("b")).unwrap();
        assert_disjoint(&[maps.clone(), other]);
        pool.release(&host.owner("b")).unwrap();
    }
    // Died holding the lock, before the first change.
    let host = Host::both("");
    let pool = host.pool(65536);
    fs::write(host.file("lock"), "").unwrap();
    pool.allocate(&host.owner("a")).unwrap();
}

#[test]
fn a_damaged_pool_is_an_error_that_says_what_to_do() {
    let host = Host::both("");
    let pool = host.pool(65536);
    let owner = host.owner("a");
    pool.allocate(&owner).unwrap();
    let good = fs::read(host.file("ranges")).unwrap();
    for bad in [&b""[..], &good[..good.len() - 3], b"\0\0\0\0", b"sysbox-subid 99\nend 0\n"] {
        fs::write(host.file("ranges"), bad).unwrap();
        let b = host.owner("b");
        for e in [
            pool.allocate(&owner).unwrap_err(),
            pool.allocate(&b).unwrap_err(),
            pool.release(&b).unwrap_err(),
            pool.lookup(&b).unwrap_err(),
            pool.list().unwrap_err(),
        ] {
            assert_eq!(e.kind(), Kind::InvalidConfig);
            assert!(e.path().unwrap().ends_with("ranges") && e.advice().unwrap().contains("remove the file"), "{e}");
        }
        assert_eq!(fs::read(host.file("ranges")).unwrap(), bad);
    }
}

#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let host = Host::both("");
    host.pool(1);
    fs::set_permissions(host.file(""), fs::Permissions::from_mode(0o770)).unwrap();
    let e = Pool::open(&host.file(""), host.config(1)).unwrap_err();
    assert!(e.kind() == Kind::Refused && e.advice().is_some(), "{e}");
    assert!(Pool::open(&host.config(1).subuid, host.config(1)).is_err());
    assert_eq!(Pool::open(&host.file(""), host.config(0)).unwrap_err().kind(), Kind::InvalidConfig);
    for user in ["", "a:b", "#a", "a b"] {
        let config = SubidConfig { user: user.into(), ..host.config(1) };
        assert_eq!(Pool::open(&host.file(""), config).unwrap_err().kind(), Kind::InvalidConfig);
    }
}
