//! `events`: numbers that agree with the kernel's, inner control groups included, and news of want of memory.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::{json, Lab, LIMIT};
use serde_json::{json, Value};
use std::path::PathBuf;

const IDLE: &[&str] = &["sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done"];
const MIB: u64 = 1 << 20;

/// Makes a control group inside and goes there, in every hierarchy; on pure v2 the controllers are switched on first.
const ENTER_INNER: &str = "cd /sys/fs/cgroup && if [ -e cgroup.controllers ]; then \
     for c in $(cat cgroup.controllers); do echo +$c >cgroup.subtree_control 2>/dev/null; done; all=.; \
     else all=$(ls); fi; \
     for h in $all; do [ -e $h/cgroup.procs ] && mkdir -p $h/inner && \
     for f in cpus mems; do [ ! -e $h/cpuset.$f ] || cat $h/cpuset.$f >$h/inner/cpuset.$f 2>/dev/null; done; \
     echo 0 >$h/inner/cgroup.procs; done; cd /;";

/// The container's own file in the first hierarchy that has one of these.
fn file(lab: &Lab, names: [&str; 2]) -> PathBuf {
    let nodes: Vec<_> = lab.cgroups().iter().map(|d| d.join("b")).collect();
    nodes.iter().flat_map(|d| names.map(|n| d.join(n))).find(|f| f.exists()).unwrap()
}

fn kernel_says(lab: &Lab, names: [&str; 2]) -> u64 {
    std::fs::read_to_string(file(lab, names)).unwrap().trim().parse().unwrap()
}

const MEMORY: [&str; 2] = ["memory.usage_in_bytes", "memory.current"];

#[track_caller]
fn number(data: &Value, path: &str) -> u64 {
    data.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path} in {data}"))
}

fn stats(lab: &Lab, id: &str) -> Value {
    let said = lab.run(&["events", "--stats", id]).ok().out;
    assert_eq!(said.lines().count(), 1, "{said}");
    let mut event = json(&said);
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(id)));
    event["data"].take()
}

#[test]
fn stats_agree_with_the_kernel() {
    let Some(lab) = Lab::new("stats_agree_with_the_kernel", "busybox") else { return };
    let bundle = lab.bundle("b", IDLE);
    bundle.edit(|c| {
        c["linux"]["resources"]["memory"] = json!({ "limit": 128 * MIB });
        c["linux"]["resources"]["pids"] = json!({ "limit": 60 });
        c["linux"]["resources"]["cpu"] = json!({ "quota": 50_000, "period": 100_000 });
    });
    let id = lab.id("c");
    lab.run(&["create", "--bundle", bundle.path(), &id]).ok();
    assert_eq!(number(&stats(&lab, &id), "/pids/limit"), 60);
    lab.run(&["start", &id]).ok();
    // 16 MiB that stay, and more than its share of CPU for three periods. A host with much to do may not give it even
    // that share for a while.
    lab.sh(&id, "dd if=/dev/zero of=/dev/shm/own bs=1M count=16 2>/dev/null", LIMIT).ok();
    common::wait_for(LIMIT, || {
        lab.sh(&id, "timeout 0.4 sh -c 'while :; do :; done'; true", LIMIT).ok();
        let cpu = stats(&lab, &id)["cpu"].take();
        number(&cpu, "/usage/total") > 100_000_000 && number(&cpu, "/throttling/throttledTime") > 1_000_000
    });
    let before = kernel_says(&lab, MEMORY);
    let first = stats(&lab, &id);
    let after = kernel_says(&lab, MEMORY);
    let used = number(&first, "/memory/usage/usage");
    // What comes and goes with init's sleep.
    let slack = 4 * MIB;
    assert!(used >= 16 * MIB && used + slack >= before.min(after) && used <= before.max(after) + slack, "{first}");
    assert_eq!(number(&first, "/memory/usage/limit"), 128 * MIB);
    assert!(number(&first, "/memory/usage/max") >= used, "{first}");
    assert!(number(&first, "/memory/cache") >= 16 * MIB, "{first}");
    assert!(number(&first, "/memory/raw/shmem") >= 16 * MIB, "{first}");
    let processes = number(&first, "/pids/current");
    assert!((1..=4).contains(&processes), "{first}");
    let total = number(&first, "/cpu/usage/total");
    assert!(total > 100_000_000, "{first}");
    let parts = number(&first, "/cpu/usage/user") + number(&first, "/cpu/usage/kernel");
    // v1 rounds each to hundredths of a second.
    assert!(parts > 0 && parts <= total + 100_000_000, "{first}");
    assert!(number(&first, "/cpu/throttling/periods") > 0, "{first}");
    assert!(number(&first, "/cpu/throttling/throttledPeriods") > 0, "{first}");
    assert!(number(&first, "/cpu/throttling/throttledTime") > 1_000_000, "{first}");

    // What runs in a control group made inside counts.
    let inner = format!(
        "{ENTER_INNER} dd if=/dev/zero of=/dev/shm/inner bs=1M count=24 2>/dev/null; \
         for i in 1 2 3 4 5 6 7; do sleep 1000 & done; until false; do sleep 0.05; done"
    );
    lab.run(&["exec", "--detach", &id, "sh", "-c", &inner]).ok();
    let mut second = Value::Null;
    let grown = common::wait_for(LIMIT, || {
        second = stats(&lab, &id);
        number(&second, "/pids/current") >= processes + 7
    });
    assert!(grown, "{second}");
    assert!(number(&second, "/memory/usage/usage") >= 40 * MIB, "{second}");
    assert!(number(&second, "/memory/cache") >= 40 * MIB, "{second}");
    assert!(number(&second, "/cpu/usage/total") > total, "{second}");
    // It is the inner one that holds them.
    assert!(kernel_says(&lab, ["inner/memory.usage_in_bytes", "inner/memory.current"]) >= 24 * MIB);
    assert!(common::wait_for(LIMIT, || kernel_says(&lab, ["inner/pids.current"; 2]) >= 8));

    lab.run(&["pause", &id]).ok();
    assert!(number(&stats(&lab, &id), "/memory/usage/usage") >= 40 * MIB);
    lab.run(&["resume", &id]).ok();
    lab.run(&["kill", &id, "KILL"]).ok();
    lab.wait_status(&id, "stopped");
    for options in [&["--stats"][..], &[]] {
        lab.run(&[&["events", &id], options].concat()).refused(&["stopped"]);
    }
    lab.run(&["delete", &id]).ok();
    lab.run(&["events", "--stats", &id]).refused(&["does not exist"]);
    lab.run(&["events", "--interval", "0s", &id]).refused(&["--interval", "5s"]);
}

#[test]
fn events_tell_of_want_of_memory() {
    let Some(lab) = Lab::new("events_tell_of_want_of_memory", "busybox") else { return };
    let bundle = lab.bundle("b", IDLE);
    bundle.edit(|c| c["linux"]["resources"]["memory"] = json!({ "limit": 48 * MIB, "swap": 48 * MIB }));
    let id = lab.started("c", &bundle);
    let mut events = lab.spawn(lab.runtime(&["events", "--interval", "200ms", &id]));
    events.says("\"stats\"", LIMIT);
    let kinds = |text: &str, kind: &str| text.lines().filter(|l| l.ends_with('}') && json(l)["type"] == kind).count();
    assert_eq!(kinds(&events.out(), "oom"), 0);
    const GREEDY: &str = "dd if=/dev/zero of=/dev/null bs=200M count=1";
    lab.sh(&id, &format!("{GREEDY}; exit $?"), LIMIT).expect_code(137);
    assert!(common::wait_for(LIMIT, || kinds(&events.out(), "oom") == 1), "{}", events.out());
    // The container's limit, hit by an inner process whose control group is gone at once.
    let inner =
        format!("({ENTER_INNER} {GREEDY}); for d in /sys/fs/cgroup/*/inner /sys/fs/cgroup/inner; do rmdir $d; done");
    lab.sh(&id, &inner, LIMIT);
    assert!(common::wait_for(LIMIT, || kinds(&events.out(), "oom") == 2), "{}", events.out());
    let oom = events.out().lines().map(json).find(|e| e["type"] == "oom").unwrap();
    assert_eq!(oom, json!({ "type": "oom", "id": id }));
    // The end of the container is the end of the events, and no want of memory; nor is its going.
    lab.run(&["delete", "--force", &id]).ok();
    let said = events.finish(LIMIT).ok();
    assert_eq!(kinds(&said.out, "oom"), 2, "{}", said.out);
    assert!(kinds(&said.out, "stats") > 1 && said.err.is_empty(), "{}", said.err);
}
