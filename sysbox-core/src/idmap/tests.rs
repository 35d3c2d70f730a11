use super::subid::windows;
use super::*;
use proptest::prelude::*;
use std::path::Path;

fn range(inside: u32, outside: u32, count: u32) -> Range {
    Range { inside, outside, count }
}

fn map(ranges: &[(u32, u32, u32)]) -> IdMap {
    IdMap::new(ranges.iter().map(|&(i, o, c)| range(i, o, c)).collect()).unwrap()
}

/// Valid maps: ranges cut from both axes with gaps, paired in random order, sometimes pushed to the end of the ID space.
fn maps() -> impl Strategy<Value = IdMap> {
    let cuts = prop::collection::vec((0u32..50, 1u32..50, 0u32..50, any::<u64>()), 1..20);
    (cuts, any::<bool>(), any::<bool>()).prop_map(|(cuts, high_inside, high_outside)| {
        let (mut inside, mut outside) = (0, 0);
        let mut order: Vec<usize> = (0..cuts.len()).collect();
        order.sort_by_key(|&i| cuts[i].3);
        let mut ranges: Vec<Range> = Vec::new();
        for &(gap, count, _, _) in &cuts {
            ranges.push(range(inside + gap, 0, count));
            inside += gap + count;
        }
        for i in order {
            ranges[i].outside = outside + cuts[i].2;
            outside = ranges[i].outside + cuts[i].1;
        }
        for r in &mut ranges {
            r.inside += if high_inside { u32::MAX - inside } else { 0 };
            r.outside += if high_outside { u32::MAX - outside } else { 0 };
        }
        IdMap::new(ranges).unwrap()
    })
}

/// IDs at and around the ends of all ranges, on either side.
fn interesting(maps: &[&IdMap]) -> Vec<u32> {
    let ranges = maps.iter().flat_map(|m| m.ranges());
    let ends = ranges.flat_map(|r| [r.inside, r.outside, r.inside + r.count, r.outside + r.count]);
    let near = ends.flat_map(|e| [e.wrapping_sub(1), e, e.wrapping_add(1)]);
    near.chain([0, 1, u32::MAX - 1, u32::MAX]).collect()
}

proptest! {
    #[test]
    fn text_json_and_oci_round_trip(m in maps()) {
        prop_assert_eq!(&IdMap::parse(&m.to_string()).unwrap(), &m);
        let json = serde_json::to_string(&m).unwrap();
        prop_assert_eq!(&serde_json::from_str::<IdMap>(&json).unwrap(), &m);
        prop_assert_eq!(&IdMap::from_oci(&m.to_oci().unwrap()).unwrap(), &m);
        prop_assert_eq!(&IdMap::new(m.ranges().iter().rev().copied().collect()).unwrap(), &m);
    }

    #[test]
    fn both_directions_agree(m in maps()) {
        let mut mapped = 0;
        for r in m.ranges() {
            for i in 0..r.count {
                prop_assert_eq!(m.to_outside(r.inside + i), Some(r.outside + i));
                prop_assert_eq!(m.to_inside(r.outside + i), Some(r.inside + i));
                mapped += 1;
            }
        }
        prop_assert_eq!(m.size(), mapped);
        for id in interesting(&[&m]) {
            if let Some(outside) = m.to_outside(id) {
                prop_assert_eq!(m.to_inside(outside), Some(id));
            }
            if let Some(inside) = m.to_inside(id) {
                prop_assert_eq!(m.to_outside(inside), Some(id));
            }
        }
        let prefix = m.prefix();
        prop_assert!((0..prefix).all(|id| m.to_outside(id).is_some()) && m.to_outside(prefix).is_none());
    }

    #[test]
    fn composing_is_translating_twice(a in maps(), b in maps()) {
        let composed = a.compose(&b);
        for id in interesting(&[&a, &b]) {
            let twice = a.to_outside(id).and_then(|id| b.to_outside(id));
            let once = composed.as_ref().ok().and_then(|m| m.to_outside(id));
            prop_assert_eq!(once, twice);
        }
    }

    #[test]
    fn overlap_is_an_id_in_common(a in maps(), b in maps()) {
        let common = a.ranges().iter().any(|r| (0..r.count).any(|i| b.to_inside(r.outside + i).is_some()));
        prop_assert_eq!(a.overlaps_outside(&b), common);
        prop_assert_eq!(b.overlaps_outside(&a), common);
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in "[0-9a-z:# \\n+-]{0,80}", any in any::<String>()) {
        for text in [text, any] {
            if let Ok(m) = IdMap::parse(&text) {
                prop_assert_eq!(IdMap::parse(&m.to_string()).unwrap(), m);
            }
            let _ = windows(&text, Path::new("f"), &["a".into()], 1);
        }
    }

    #[test]
    fn any_ranges_are_refused_or_sound(ranges in prop::collection::vec((any::<u32>(), any::<u32>(), any::<u32>()), 0..4)) {
        if let Ok(m) = IdMap::new(ranges.iter().map(|&(i, o, c)| range(i, o, c >> 3)).collect()) {
            prop_assert_eq!(m.to_outside(u32::MAX), None);
            prop_assert_eq!(m.to_inside(u32::MAX), None);
            prop_assert_eq!(m.size(), ranges.iter().map(|r| u64::from(r.2 >> 3)).sum::<u64>());
        }
    }
}

#[test]
fn the_end_of_the_id_space_is_where_the_kernel_has_it() {
    // Each of these was tried on a kernel.
    assert!(IdMap::single(0, u32::MAX).is_ok());
    assert!(IdMap::single(u32::MAX - 1, 1).is_ok());
    assert!(IdMap::single(u32::MAX - 1, 2).is_err());
    assert!(IdMap::single(u32::MAX, 1).is_err());
    assert!(IdMap::single(2, u32::MAX - 1).is_err());
    assert!(IdMap::new(vec![range(u32::MAX - 1, 0, 1)]).is_ok());
    assert!(IdMap::new(vec![range(u32::MAX, 0, 1)]).is_err());
    let whole = IdMap::single(0, u32::MAX).unwrap();
    assert_eq!(whole.to_outside(u32::MAX - 1), Some(u32::MAX - 1));
    assert_eq!(whole.to_outside(u32::MAX), None);
    assert_eq!(whole.size(), 4294967295);
    assert_eq!(whole.compose(&whole).unwrap(), whole);
}

#[test]
fn a_map_has_as_many_ranges_as_the_kernel_takes() {
    let ranges = |n: u32, base: u32| (0..n).map(|i| range(base + 2 * i, base + 2 * i, 1)).collect::<Vec<_>>();
    assert!(IdMap::new(ranges(340, 0)).is_ok());
    assert!(IdMap::new(ranges(341, 0)).unwrap_err().to_string().contains("341 ranges"));
    assert!(IdMap::new(ranges(340, 100_000)).unwrap_err().to_string().contains("bytes of text"));
    assert!(IdMap::new(Vec::new()).is_err());
    let adjoining = (0..1000).map(|i| range(i, 5000 + i, 1)).collect();
    assert_eq!(IdMap::new(adjoining).unwrap(), map(&[(0, 5000, 1000)]));
}

#[test]
fn overlapping_ranges_are_refused() {
    let inside = IdMap::new(vec![range(0, 100, 10), range(5, 200, 10)]).unwrap_err();
    assert_eq!(inside.to_string(), "ID ranges \"0 100 10\" and \"5 200 10\" overlap inside");
    let outside = IdMap::new(vec![range(0, 100, 10), range(20, 105, 10)]).unwrap_err();
    assert!(outside.to_string().ends_with("overlap outside"));
    assert_eq!(outside.kind(), Kind::InvalidConfig);
    assert!(IdMap::new(vec![range(0, 100, 0)]).is_err());
}

#[test]
fn text_is_read_as_the_kernel_writes_it() {
    let m = IdMap::parse("         0     100000       1000\n      1000     500000      64536\n").unwrap();
    assert_eq!(m, map(&[(0, 100000, 1000), (1000, 500000, 64536)]));
    assert_eq!(m.to_string(), "0 100000 1000\n1000 500000 64536\n");
    for bad in ["", "\n", "0 0", "0 0 1 1", "0 0 -1", "0 +0 1", "0 0 0x10", "a 0 1", "0 0 4294967296", "0 0 1\n\n1 1 1"]
    {
        assert_eq!(IdMap::parse(bad).unwrap_err().kind(), Kind::InvalidConfig, "{bad:?}");
    }
}

#[test]
fn json_cannot_smuggle_in_a_bad_map() {
    assert!(serde_json::from_str::<IdMap>(r#"[{"inside":0,"outside":0,"count":0}]"#).is_err());
    assert!(serde_json::from_str::<IdMap>("[]").is_err());
}

#[test]
fn composing_disjoint_maps_is_an_error() {
    let e = map(&[(0, 100, 10)]).compose(&map(&[(0, 0, 100)])).unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidConfig);
}

#[test]
fn usable_maps_have_root_and_64k_ids_and_not_the_hosts_root() {
    let good = map(&[(0, 100000, 1000), (1000, 500000, 64536)]);
    let check = |uid: &IdMap, gid: &IdMap| Maps { uid: uid.clone(), gid: gid.clone() }.check_usable();
    check(&good, &good).unwrap();
    for (bad, why) in [
        (map(&[(0, 0, 65536)]), "would be root on the host"),
        (map(&[(0, 100000, 65536), (70000, 0, 1)]), "ID 70000 of the container would be root"),
        (map(&[(1, 100000, 65536)]), "ID 0 (root) is not mapped"),
        (map(&[(0, 100000, 65535)]), "only 65535 IDs"),
        (map(&[(0, 100000, 1000), (1001, 500000, 70000)]), "only 1000 IDs"),
    ] {
        for e in [check(&bad, &good).unwrap_err(), check(&good, &bad).unwrap_err()] {
            assert_eq!(e.kind(), Kind::Refused);
            assert!(e.to_string().contains(why), "{e}");
            assert!(e.advice().is_some());
        }
    }
    let maps = Maps { uid: good.clone(), gid: map(&[(0, 7, 1)]) };
    assert_eq!(maps.root(), (100000, 7));
    assert_eq!(Maps { uid: map(&[(1, 7, 1)]), ..maps }.root(), (OVERFLOW_ID, 7));
}
