//! ID maps of the configuration.

use super::*;

#[test]
fn maps_that_are_given_are_honoured_or_refused() {
    let ask = |uid: Value, gid: Value, ns| requested_maps(&spec(&with_maps(uid, gid, ns)));
    assert_eq!(requested_maps(&spec(&docker())).unwrap(), None);
    let good = || oci_map(0, 100_000, 65536);
    let maps = ask(good(), oci_map(0, 300_000, 65536), true).unwrap().unwrap();
    assert_eq!(maps.root(), (100_000, 300_000));
    // Up to the last valid ID, and not one further.
    let last = u32::MAX - 65536;
    assert_eq!(ask(oci_map(0, last, 65536), good(), true).unwrap().unwrap().root().0, last);
    let kind = |uid, gid, ns| ask(uid, gid, ns).unwrap_err().kind();
    assert_eq!(kind(oci_map(0, last + 1, 65536), good(), true), Kind::InvalidConfig);
    assert_eq!(kind(good(), json!([]), true), Kind::InvalidConfig);
    assert_eq!(kind(json!([]), good(), true), Kind::InvalidConfig);
    assert_eq!(kind(good(), good(), false), Kind::InvalidConfig);
    assert_eq!(kind(oci_map(0, 0, 65536), good(), true), Kind::Refused);
    assert_eq!(kind(good(), oci_map(0, 100_000, 65535), true), Kind::Refused);
    assert_eq!(kind(oci_map(1, 100_000, 65536), good(), true), Kind::Refused);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_maps_are_honoured_exactly_or_refused(
        inside in prop_oneof![Just(0u32), 0u32..3, any::<u32>()],
        outside in prop_oneof![0u32..3, any::<u32>(), u32::MAX - 65540..=u32::MAX],
        count in prop_oneof![65530u32..65540, any::<u32>()],
    ) {
        let map = oci_map(inside, outside, count);
        let end = u64::from(outside) + u64::from(count);
        let usable = inside == 0 && outside > 0 && count >= 65536 && end <= u64::from(u32::MAX);
        match requested_maps(&spec(&with_maps(map.clone(), map, true))) {
            Ok(maps) => {
                prop_assert!(usable);
                let maps = maps.unwrap();
                prop_assert_eq!(maps.root(), (outside, outside));
                prop_assert_eq!(maps.uid.to_outside(count - 1), Some(outside + (count - 1)));
                prop_assert_eq!(maps.gid.to_outside(count), None);
            }
            Err(_) => prop_assert!(!usable),
        }
    }
}
