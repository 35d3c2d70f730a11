//! The plan as data.

use super::*;

#[test]
fn unknown_fields_survive() {
    let doc = docker_with(|d| {
        d["x-vendor"] = json!({ "a": [1, 2.5, null] });
        d["linux"]["resources"]["memory"]["futureKnob"] = json!(true);
        d["mounts"][0]["x"] = json!("y");
    });
    assert_eq!(spec(&doc).to_json(), &doc);
    assert_eq!(planned(&doc), planned(&docker()));
}

#[test]
fn plans_are_equal_readable_and_printable() {
    for layout in [hybrid(), pure()] {
        let make = || plan_on(&docker(), |f| f.cgroups = layout.clone()).unwrap();
        let p = make();
        assert_eq!(p, make());
        assert_eq!(serde_json::from_str::<Plan>(&serde_json::to_string(&p).unwrap()).unwrap(), p);
        let text = p.to_string();
        for part in
            ["0 inside is 2000000000 on the host, 65536", "/data", "ID-mapped", "locked mounts", "attached", "note"]
        {
            assert!(text.contains(part), "no {part:?} in:\n{text}");
        }
    }
}
