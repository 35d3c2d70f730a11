//! What goes wrong is told: on standard error, in the log, and by the exit status.
#![allow(clippy::unwrap_used)]

mod common;

use common::{json, Lab};
use serde_json::{json, Value};

const IDLE: &[&str] = &["sleep", "1000"];

#[test]
fn usage_errors_are_in_the_log() {
    let Some(lab) = Lab::new("usage_errors_are_in_the_log", "busybox") else { return };
    let (text, structured) = (lab.path("text"), lab.path("json"));
    let (at_text, at_json) = (text.to_str().unwrap(), structured.to_str().unwrap());
    lab.run(&["create", "--no-such-option", "--log", at_text, "x"]).refused(&["--no-such-option", "Usage"]);
    lab.run(&[&format!("--log={at_json}"), "--log-format", "json", "bogus"]).refused(&["bogus"]);
    lab.run(&["--log", at_text, "exec", "--cwd", "/", "--bad", "--", "--log", at_json]).refused(&["--bad"]);
    let text = std::fs::read_to_string(&text).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("level=error msg=") && text.contains("--no-such-option") && text.contains("--bad"), "{text}");
    let line = std::fs::read_to_string(&structured).unwrap();
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(json(&line)["level"] == "error" && json(&line)["msg"].as_str().unwrap().contains("bogus"), "{line}");
    // No errors, and not in it.
    lab.run(&["--log", at_json, "--help"]).ok();
    assert_eq!(std::fs::read_to_string(at_json).unwrap(), line);
}

#[test]
fn a_damaged_container_is_listed_named_and_deleted() {
    let Some(lab) = Lab::new("a_damaged_container_is_listed_named_and_deleted", "busybox") else { return };
    let bundle = lab.bundle("b", IDLE);
    let id = lab.started("one", &bundle);
    let file = lab.state_root().join(&id).join("state.json");
    std::fs::write(&file, "{\"oci_ver").unwrap();
    assert_eq!(lab.run(&["list", "-q"]).ok().out, format!("{id}\n"));
    assert_eq!(json(&lab.run(&["list", "-f", "json"]).ok().out)[0]["status"], "damaged");
    for command in [&["state"][..], &["exec", &id, "true"], &["pause"], &["delete"]] {
        let args = if command.len() == 1 { vec![command[0], &id] } else { command.to_vec() };
        lab.run(&args).refused(&["damaged", file.to_str().unwrap(), "delete it with --force"]);
    }
    lab.run(&["delete", "--force", &id]).ok();
    lab.assert_nothing_left();
}

/// Whatever is in a bundle: an error that says what is wrong, no panic, and nothing stays.
#[test]
fn broken_bundles() {
    let Some(lab) = Lab::new("broken_bundles", "busybox") else { return };
    let id = lab.id("c");
    lab.run(&["create", "--bundle", "/nosuch", &id]).refused(&["/nosuch"]);
    let bundle = lab.bundle("b", &["true"]);
    let config = bundle.dir.join("config.json");
    for text in ["", "{", "[]", "null", "{}", "\u{0}", r#"{"ociVersion":1}"#, r#"{"ociVersion":"2.0.0"}"#] {
        std::fs::write(&config, text).unwrap();
        lab.run(&["run", "--bundle", bundle.path(), &id]).refused(&["config.json"]);
        lab.run(&["plan", "--bundle", bundle.path()]).expect_code(1);
    }
    std::fs::write(&config, [0xff, 0xfe, b'{']).unwrap();
    lab.run(&["run", "--bundle", bundle.path(), &id]).refused(&["config.json"]);
    std::fs::remove_file(&config).unwrap();
    lab.run(&["spec", "--bundle", bundle.path()]).ok();
    let good = bundle.config();
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 13] = [
        ("console socket", |_| {}),
        ("process.args", |c| c["process"]["args"] = json!([])),
        ("process", |c| c["process"] = Value::Null),
        ("root", |c| c["root"] = Value::Null),
        ("nosuch", |c| c["root"]["path"] = "nosuch".into()),
        ("linux", |c| c["linux"] = Value::Null),
        ("mounts[", |c| {
            c["mounts"] = json!([{ "destination": "/x", "type": "bind", "source": "/nosuch", "options": ["bind"] }])
        }),
        ("nosuchfs", |c| c["mounts"] = json!([{ "destination": "/x", "type": "nosuchfs", "source": "x" }])),
        ("process.rlimits", |c| c["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 5, "hard": 4 }])),
        ("hook", |c| c["hooks"] = json!({ "prestart": [{ "path": "/bin/false" }] })),
        ("hook", |c| c["hooks"] = json!({ "createContainer": [{ "path": "/nosuch" }] })),
        ("hooks.poststop", |c| c["hooks"] = json!({ "poststop": [{ "path": "relative" }] })),
        ("process.user", |c| c["process"]["user"] = json!({ "uid": 99_999_999, "gid": 0 })),
    ];
    for (i, (words, change)) in cases.iter().enumerate() {
        let mut c = good.clone();
        // The first case is that it is a terminal and nobody takes it.
        c["process"]["terminal"] = (i == 0).into();
        change(&mut c);
        bundle.write(&c);
        lab.run(&["create", "--bundle", bundle.path(), &id]).refused(&[words]);
        assert_eq!(lab.status(&id), "gone", "{words}");
    }
    lab.assert_nothing_left();
    // An error after init lives: it goes away as well.
    bundle.write(&good);
    bundle.edit(|c| c["process"]["terminal"] = false.into());
    lab.run(&["create", "--bundle", bundle.path(), "--pid-file", "/nosuch/pid", &id]).refused(&["/nosuch"]);
    lab.assert_nothing_left();
}
