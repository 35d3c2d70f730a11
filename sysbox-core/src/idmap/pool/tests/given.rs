//! Maps that a configuration brings.

use super::*;

fn maps(uid: u32, gid: u32) -> Maps {
    let map = |from| IdMap::new(vec![Range { inside: 0, outside: from, count: 65536 }]).unwrap();
    Maps { uid: map(uid), gid: map(gid) }
}

#[test]
fn several_containers_may_have_one_given_map() {
    let host = Host::both("sysbox:100000:655360\n");
    let pool = host.pool(65536);
    for name in ["a", "b"] {
        pool.enter(&host.owner(name), &maps(5_000_000, 5_000_000)).unwrap();
        pool.enter(&host.owner(name), &maps(5_000_000, 5_000_000)).unwrap();
    }
    pool.enter(&host.owner("c"), &maps(5_000_100, 6_000_000)).unwrap();
    assert_eq!(pool.enter(&host.owner("c"), &maps(1, 1)).unwrap_err().kind(), Kind::Exists);
    let all = pool.list().unwrap();
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|a| !a.exclusive));
    assert_eq!(pool.lookup(&host.owner("c")).unwrap(), Some(maps(5_000_100, 6_000_000)));
}

#[test]
fn the_pool_avoids_given_ids() {
    let host = Host::both("sysbox:100000:196608\n");
    let pool = host.pool(65536);
    // The second of three ranges, of groups only.
    pool.enter(&host.owner("engine"), &maps(5_000_000, 165_536)).unwrap();
    let got: Vec<_> = ["a", "b"].map(|n| pool.allocate(&host.owner(n)).unwrap()).into();
    assert_eq!(got.iter().map(|m| start(&m.gid)).collect::<Vec<_>>(), [100_000, 231_072]);
    assert_eq!(got.iter().map(|m| start(&m.uid)).collect::<Vec<_>>(), [100_000, 165_536]);
    assert_eq!(pool.allocate(&host.owner("c")).unwrap_err().kind(), Kind::Exhausted);
    pool.release(&host.owner("engine")).unwrap();
    pool.allocate(&host.owner("c")).unwrap();
}

#[test]
fn ids_of_a_living_container_are_refused_by_its_name() {
    let host = Host::both("sysbox:100000:131072\n");
    let pool = host.pool(65536);
    let a = host.owner("the-first");
    pool.allocate(&a).unwrap();
    for wanted in [maps(100_000, 5_000_000), maps(5_000_000, 165_535), maps(34_465, 5_000_000)] {
        let e = pool.enter(&host.owner("b"), &wanted).unwrap_err();
        assert_eq!(e.kind(), Kind::Busy);
        assert!(e.to_string().contains("container the-first,") && e.path() == Some(&a.state_dir), "{e}");
        assert_eq!(pool.lookup(&host.owner("b")).unwrap(), None);
    }
    pool.enter(&host.owner("b"), &maps(34_464, 165_536)).unwrap();
    // And those of one that is gone are free.
    fs::remove_dir(&a.state_dir).unwrap();
    pool.enter(&host.owner("c"), &maps(100_000, 100_000)).unwrap();
}

#[test]
fn shared_ids_are_kept_until_the_last_one_is_gone() {
    let host = Host::both("sysbox:100000:131072\n");
    let pool = host.pool(65536);
    let (first, joined) = (host.owner("first"), host.owner("joined"));
    let maps = pool.allocate(&first).unwrap();
    pool.share(&joined, &maps).unwrap();
    fs::remove_dir(&first.state_dir).unwrap();
    let other = pool.allocate(&host.owner("a")).unwrap();
    assert!(!other.uid.overlaps_outside(&maps.uid));
    assert_eq!(pool.allocate(&host.owner("b")).unwrap_err().kind(), Kind::Exhausted);
    pool.release(&joined).unwrap();
    assert_eq!(pool.allocate(&host.owner("b")).unwrap(), maps);
}

#[test]
fn damaged_given_maps_are_an_error_that_says_what_to_do() {
    let host = Host::both("");
    let pool = host.pool(65536);
    pool.enter(&host.owner("a"), &maps(5_000_000, 5_000_000)).unwrap();
    fs::write(host.file("given"), "sysbox-subid-given 1\nend").unwrap();
    for e in [pool.allocate(&host.owner("b")).unwrap_err(), pool.list().unwrap_err()] {
        assert_eq!(e.kind(), Kind::InvalidConfig);
        assert!(e.path().unwrap().ends_with("given") && e.advice().unwrap().contains("remove the file"), "{e}");
    }
}
