//! The command line: every command and global flag, exit statuses and error texts as runc's callers expect them.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::{json, Lab, LIMIT};
use serde_json::{json, Value};
use std::process::{Command, Stdio};

/// pid 1 that lives until it is told to go, by a signal it takes.
const IDLE: &[&str] = &["sh", "-c", "trap 'exit 3' TERM; trap 'echo usr1' USR1; echo up; while :; do sleep 0.05; done"];

/// Waits until it does: before that, as pid 1, it would not notice the signal.
const TAKES_TERM: &str = "until grep -q '^SigCgt:.*4...$' /proc/1/status; do sleep 0.02; done";

fn words(v: &Value) -> Vec<&str> {
    v.as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect()
}

#[test]
fn life_cycle_step_by_step() {
    let Some(lab) = Lab::new("life_cycle_step_by_step", "busybox") else { return };
    let (bundle, id) = (lab.bundle("b", IDLE), lab.id("c"));
    let pid_file = lab.path("pid");
    lab.run(&["create", "--bundle", bundle.path(), "--pid-file", pid_file.to_str().unwrap(), &id]).ok();
    let pid: i64 = std::fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    let state = json(&lab.run(&["state", &id]).ok().out);
    assert_eq!((&state["status"], &state["id"], &state["pid"]), (&json!("created"), &json!(id), &json!(pid)));
    assert_eq!((&state["bundle"], &state["rootfs"]), (&json!(bundle.dir), &json!(bundle.rootfs())));
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{state}");
    // A process of its own user namespace, under the pid of the file.
    assert_ne!(
        std::fs::read_link(format!("/proc/{pid}/ns/user")).unwrap(),
        std::fs::read_link("/proc/self/ns/user").unwrap()
    );
    lab.run(&["create", "--bundle", bundle.path(), &id]).refused(&[&id, "exist"]);
    lab.run(&["resume", &id]).refused(&["created"]);
    lab.run(&["start", &id]).ok();
    assert_eq!(lab.status(&id), "running");
    lab.run(&["start", &id]).refused(&["running"]);
    lab.run(&["delete", &id]).refused(&["running"]);
    lab.run(&["pause", &id]).ok();
    assert_eq!(lab.status(&id), "paused");
    lab.run(&["exec", &id, "true"]).refused(&["paused"]);
    lab.run(&["resume", &id]).ok();
    assert_eq!(lab.status(&id), "running");
    lab.sh(&id, TAKES_TERM, LIMIT).ok();
    lab.run(&["kill", &id]).ok();
    lab.wait_status(&id, "stopped");
    assert_eq!(json(&lab.run(&["state", &id]).ok().out)["pid"], 0);
    lab.run(&["kill", &id, "9"]).refused(&["not running"]);
    lab.run(&["exec", &id, "true"]).refused(&["stopped"]);
    lab.run(&["delete", &id]).ok();
    lab.run(&["delete", &id]).refused(&["does not exist"]);
    // Docker always sends both.
    lab.run(&["delete", "--force", &id]).ok();
    assert_eq!(lab.status(&id), "gone");
    lab.assert_nothing_left();
}

#[test]
fn delete_force_takes_what_lives() {
    let Some(lab) = Lab::new("delete_force_takes_what_lives", "busybox") else { return };
    let bundle = lab.bundle("b", IDLE);
    let created = lab.id("created");
    lab.run(&["create", "--bundle", bundle.path(), &created]).ok();
    lab.run(&["delete", &created, "--force"]).ok();
    let id = lab.started("frozen", &bundle);
    let pid = json(&lab.run(&["state", &id]).ok().out)["pid"].as_i64().unwrap();
    lab.run(&["pause", &id]).ok();
    lab.run(&["delete", "-f", &id]).ok();
    // A zombie is its parent's affair.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_else(|_| ") Z".into());
    assert!(stat.contains(") Z"), "init lives: {stat}");
    lab.assert_nothing_left();
}

#[test]
fn run_in_the_foreground() {
    let Some(lab) = Lab::new("run_in_the_foreground", "busybox") else { return };
    let bundle = lab.bundle("b", &["sh", "-c", "cat; echo err >&2; exit 42"]);
    let input = lab.path("input");
    std::fs::write(&input, "given\n").unwrap();
    let mut c = lab.runtime(&["run", "--bundle", bundle.path(), &lab.id("c")]);
    c.stdin(std::fs::File::open(&input).unwrap());
    let done = lab.spawn(c).finish(LIMIT).expect_code(42);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("given\n", "err\n"));
    lab.assert_nothing_left();
    // A signal is 128 and its number.
    bundle.edit(|c| c["process"]["args"] = json!(["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]));
    lab.run(&["run", "-b", bundle.path(), &lab.id("inner")]).expect_code(137);
    bundle.edit(|c| c["process"]["args"] = json!(["sh", "-c", "echo up; sleep 1000"]));
    let id = lab.id("killed");
    let mut running = lab.spawn(lab.runtime(&["run", "-b", bundle.path(), &id]));
    running.says("up", LIMIT);
    lab.run(&["kill", &id, "KILL"]).ok();
    running.finish(LIMIT).expect_code(137);
    lab.assert_nothing_left();
    let kept = lab.id("kept");
    bundle.edit(|c| c["process"]["args"] = json!(["true"]));
    lab.run(&["run", "--keep", "-b", bundle.path(), &kept]).ok();
    assert_eq!(lab.status(&kept), "stopped");
}

#[test]
fn signals_reach_the_program() {
    let Some(lab) = Lab::new("signals_reach_the_program", "busybox") else { return };
    let bundle = lab.bundle("b", IDLE);
    let id = lab.id("c");
    let mut running = lab.spawn(lab.runtime(&["run", "--bundle", bundle.path(), &id]));
    running.says("up", LIMIT);
    nix::sys::signal::kill(running.pid(), nix::sys::signal::SIGUSR1).unwrap();
    running.says("usr1", LIMIT);
    let mut exec = lab.spawn(lab.runtime(&[
        "exec",
        &id,
        "sh",
        "-c",
        "trap 'exit 5' HUP; echo here; while :; do sleep 0.05; done",
    ]));
    exec.says("here", LIMIT);
    nix::sys::signal::kill(exec.pid(), nix::sys::signal::SIGHUP).unwrap();
    exec.finish(LIMIT).expect_code(5);
    nix::sys::signal::kill(running.pid(), nix::sys::signal::SIGTERM).unwrap();
    running.finish(LIMIT).expect_code(3);
    lab.assert_nothing_left();
    // By number and by names, as callers write them.
    for signal in ["15", "TERM", "SIGTERM", "sigterm"] {
        let id = lab.started(signal, &bundle);
        lab.sh(&id, TAKES_TERM, LIMIT).ok();
        lab.run(&["kill", &id, signal]).ok();
        lab.wait_status(&id, "stopped");
        lab.run(&["delete", &id]).ok();
    }
    let id = lab.started("all", &bundle);
    lab.run(&["exec", "--detach", &id, "sleep", "1000"]).ok();
    lab.run(&["kill", &id, "NOSUCH"]).refused(&["NOSUCH"]);
    lab.run(&["kill", "--all", &id, "KILL"]).ok();
    lab.wait_status(&id, "stopped");
}

/// The words that Docker makes 127 and 126 of, in both formats of the log.
#[test]
fn errors_in_runcs_words() {
    let Some(lab) = Lab::new("errors_in_runcs_words", "busybox") else { return };
    let bundle = lab.bundle("b", IDLE);
    let id = lab.started("c", &bundle);
    std::fs::write(bundle.rootfs().join("data"), "no program").unwrap();
    let cases = [
        ("nosuch", 127, "exec: \"nosuch\": executable file not found in $PATH"),
        ("/nosuch", 127, "exec: \"/nosuch\": stat /nosuch: no such file or directory"),
        ("/data", 126, "exec: \"/data\": permission denied"),
        ("/etc", 126, "exec: \"/etc\": permission denied"),
    ];
    for (i, (program, code, text)) in cases.iter().enumerate() {
        let log = lab.path(&format!("log{i}"));
        let log_path = log.to_str().unwrap();
        let exec = lab.run(&["--log", log_path, "--log-format", "json", "exec", &id, program]).expect_code(*code);
        assert!(exec.err.contains(text), "{}", exec.err);
        let line = json(&std::fs::read_to_string(&log).unwrap());
        assert_eq!(line["level"], "error");
        assert!(line["msg"].as_str().unwrap().contains(text), "{line}");
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
        // The program of a container, in the other format; a second message goes after the first.
        let other = lab.bundle(&format!("other{i}"), &[program]);
        std::fs::write(other.rootfs().join("data"), "no program").unwrap();
        std::fs::remove_file(&log).unwrap();
        for command in ["create", "run"] {
            let id = lab.id(&format!("{command}{i}"));
            lab.run(&["--log", log_path, command, "--bundle", other.path(), &id]).expect_code(*code);
            assert_eq!(lab.status(&id), "gone");
        }
        let lines = std::fs::read_to_string(&log).unwrap();
        let logged = lines.lines().filter(|l| l.contains("level=error") && l.contains(&text.replace('"', "\\\"")));
        assert_eq!(logged.count(), 2, "{lines}");
    }
    lab.run(&["--log", "/nosuch/log", "state", "nosuch"]).refused(&["does not exist"]);
    // Where it works it is tested on a virtual machine.
    if !std::path::Path::new("/run/systemd/system").exists() {
        lab.run(&["--systemd-cgroup", "run", "--bundle", bundle.path(), &lab.id("systemd")])
            .refused(&["not run by systemd", "cgroupfs"]);
    }
    lab.run(&["bogus"]).refused(&["bogus"]);
    lab.run(&["state"]).expect_code(1);
    lab.run(&["state", "../c"]).refused(&["../c"]);
    lab.run(&["create", "--bundle", bundle.path(), "a/b"]).refused(&["a/b"]);
}

#[test]
fn exec_and_its_options() {
    let Some(lab) = Lab::new("exec_and_its_options", "busybox") else { return };
    let bundle = lab.bundle("b", IDLE);
    let id = lab.started("c", &bundle);
    let prints = |args: &[&str], wanted: &str| assert_eq!(lab.run(args).ok().text(), wanted, "{args:?}");
    prints(&["exec", &id, "sh", "-c", "id -u; pwd; tr '\\0' ' ' </proc/1/cmdline | cut -c1-5"], "0\n/\nsh -c");
    prints(&["exec", "--user", "1000:5", "-g", "7", "-g", "8", &id, "id"], "uid=1000(user) gid=5(tty) groups=7,8");
    prints(
        &["exec", "--env", "A=b", "-e", "C=d e", "--cwd", "/tmp", &id, "sh", "-c", "echo $A $C; pwd"],
        "b d e\n/tmp",
    );
    prints(&["exec", "--no-new-privs", &id, "grep", "NoNewPrivs", "/proc/self/status"], "NoNewPrivs:\t1");
    // After the id, what looks like an option is the program's.
    prints(&["exec", &id, "echo", "--env", "-t", "--root=x"], "--env -t --root=x");
    // All capabilities for root and none for others, with the bounding set whole.
    let caps = "sed -n 's/^Cap[EB][a-z]*:\t//p' /proc/self/status";
    let root = lab.run(&["exec", &id, "sh", "-c", caps]).ok();
    let (effective, bounding) = root.text().split_once('\n').unwrap();
    assert_eq!(effective, bounding);
    prints(&["exec", "--user", "1000", &id, "sh", "-c", caps], &format!("{:016x}\n{bounding}", 0));
    lab.run(&["exec", &id, "sh", "-c", "exit 9"]).expect_code(9);
    lab.run(&["exec", &id, "sh", "-c", "kill -TERM $$"]).expect_code(143);
    lab.run(&["exec", &id]).refused(&["--process"]);
    lab.run(&["exec", "--user", "x", &id, "true"]).refused(&["--user"]);
    lab.run(&["exec", "--user", "4000000", &id, "true"]).refused(&["outside the ID maps"]);
    lab.run(&["exec", &format!("{id}-not"), "true"]).refused(&["does not exist"]);
}

/// As containerd's shim calls it for `docker exec -d`.
#[test]
fn exec_as_docker_does() {
    let Some(lab) = Lab::new("exec_as_docker_does", "busybox") else { return };
    let bundle = lab.bundle("b", IDLE);
    let id = lab.started("c", &bundle);
    let (process, pid_file) = (lab.path("process.json"), lab.path("exec.pid"));
    let mut p = bundle.config()["process"].clone();
    p["args"] = json!(["sh", "-c", "echo $X >/tmp/out; sleep 1000"]);
    p["env"] = json!(["PATH=/bin", "X=from the file"]);
    std::fs::write(&process, p.to_string()).unwrap();
    let (file, pids) = (process.to_str().unwrap(), pid_file.to_str().unwrap());
    lab.run(&["exec", "--process", file, "--detach", "--pid-file", pids, &id]).ok();
    let pid: i64 = std::fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    lab.sh(&id, "until grep -q 'from the file' /tmp/out; do sleep 0.02; done", LIMIT).ok();
    let init = json(&lab.run(&["state", &id]).ok().out)["pid"].as_i64().unwrap();
    let listed = json(&lab.run(&["ps", "--format", "json", &id]).ok().out);
    let listed: Vec<i64> = listed.as_array().unwrap().iter().map(|p| p.as_i64().unwrap()).collect();
    assert!(listed.contains(&pid) && listed.contains(&init), "{listed:?} has not {pid} and {init}");
    let table = lab.run(&["ps", &id]).ok();
    assert!(table.out.lines().next().unwrap().contains("PID"), "{}", table.out);
    assert!(table.out.lines().any(|l| l.split_whitespace().nth(1) == Some(&pid.to_string())), "{}", table.out);
    let chosen = lab.run(&["ps", &id, "-eo", "comm,pid"]).ok();
    let pids = chosen.out.lines().skip(1).map(|l| l.split_whitespace().last().unwrap().parse::<i64>().unwrap());
    let pids: Vec<i64> = pids.collect();
    // Init's own sleep comes and goes; the host's processes are not there.
    assert!(pids.contains(&pid) && pids.contains(&init) && pids.len() <= 5 && !pids.contains(&1), "{}", chosen.out);
    // A pid file that cannot be written: nothing runs on behind the caller's back.
    lab.run(&["exec", "--detach", "--pid-file", "/nosuch/pid", &id, "sleep", "4321"]).refused(&["/nosuch"]);
    let all = lab.run(&["ps", &id, "-eo", "pid,args"]).ok().out;
    assert!(all.contains("sleep 1000") && !all.contains("sleep 4321"), "{all}");
    for text in ["{", "{}", "[]", ""] {
        std::fs::write(&process, text).unwrap();
        lab.run(&["exec", "--process", file, &id]).refused(&["process"]);
    }
    p["args"] = json!([]);
    std::fs::write(&process, p.to_string()).unwrap();
    lab.run(&["exec", "--process", file, &id]).refused(&["process.args"]);
}

#[test]
fn list_shows_every_container() {
    let Some(lab) = Lab::new("list_shows_every_container", "busybox") else { return };
    assert_eq!(lab.run(&["list", "--quiet"]).ok().out, "");
    assert_eq!(json(&lab.run(&["list", "--format", "json"]).ok().out), json!([]));
    let bundle = lab.bundle("b", IDLE);
    let id = lab.started("one", &bundle);
    bundle.edit(|c| c["linux"]["cgroupsPath"] = format!("{}/other", lab.cgroup_parent()).into());
    let created = lab.id("two");
    lab.run(&["create", "--bundle", bundle.path(), &created]).ok();
    assert_eq!(lab.run(&["list", "-q"]).ok().out, format!("{id}\n{created}\n"));
    let all = json(&lab.run(&["list", "-f", "json"]).ok().out);
    let brief: Vec<_> = all.as_array().unwrap().iter().map(|c| (c["id"].as_str(), c["status"].as_str())).collect();
    assert_eq!(brief, [(Some(id.as_str()), Some("running")), (Some(created.as_str()), Some("created"))]);
    let table = lab.run(&["list"]).ok().out;
    let head: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert_eq!(table.lines().count(), 3);
}

#[test]
fn global_flags_and_documents() {
    let Some(lab) = Lab::new("global_flags_and_documents", "busybox") else { return };
    let version = lab.run(&["--version"]).ok();
    assert!(version.out.starts_with("sysbox-runc ") && version.out.contains("\nspec: 1."), "{}", version.out);
    let features = json(&lab.run(&["features"]).ok().out);
    assert!(words(&features["linux"]["namespaces"]).contains(&"user"));
    assert!(words(&features["hooks"]).contains(&"createRuntime"));
    assert_eq!(features["ociVersionMin"], "1.0.0");
    let bundle = lab.bundle("b", &["true"]);
    lab.run(&["spec", "--bundle", bundle.path()]).refused(&["config.json", "file exists"]);
    let plan = lab.run(&["plan", "--bundle", bundle.path()]).ok().out;
    assert!(plan.contains("/dev/pts") && plan.contains(bundle.rootfs().to_str().unwrap()), "{plan}");
    let plan = json(&lab.run(&["plan", "--json", "-b", bundle.path(), "name"]).ok().out);
    assert_eq!(plan["id"], "name");
    assert!(!plan["locked"].as_array().unwrap().is_empty() && !plan["attached"].as_array().unwrap().is_empty());
    // A plan is no deed.
    lab.assert_nothing_left();
    let check = lab.run(&["check"]);
    assert!(check.code <= 1 && check.out.lines().count() > 3, "{check:?}");
    assert_eq!(check.code == 0, !check.out.contains("MISSING"), "{}", check.out);
    // Options after the id, global ones among them; the directory of the caller is the default bundle.
    let id = lab.id("c");
    let mut c = Command::new(env!("CARGO_BIN_EXE_sysbox-runc"));
    c.args(["run", &id, "--root", lab.state_root().to_str().unwrap(), "--debug", "--no-pivot", "--no-new-keyring"]);
    c.current_dir(&bundle.dir).stdin(Stdio::null());
    lab.spawn(c).finish(LIMIT).ok();
    lab.assert_nothing_left();
}

/// What engines go by: Docker's read-only volumes are read-only with what lies below if `rro` is known.
#[test]
fn features_are_what_plans_know() {
    let Some(lab) = Lab::new("features_are_what_plans_know", "busybox") else { return };
    let features = json(&lab.run(&["features"]).ok().out);
    let bundle = lab.bundle("b", &["true"]);
    let plain = bundle.config();
    let mount = |fstype: &str, options: &[&str]| {
        bundle.write(&plain);
        bundle.edit(|c| {
            let m = json!({ "destination": "/m", "type": fstype, "source": "/var", "options": options });
            c["mounts"].as_array_mut().unwrap().push(m);
        });
        let plan = json(&lab.run(&["plan", "--json", "--bundle", bundle.path()]).ok().out);
        let all = ["locked", "attached"].map(|set| plan[set].as_array().unwrap().clone()).concat();
        all.into_iter().find(|m| m["target"] == "/m").unwrap()
    };
    let options = words(&features["mountOptions"]);
    for known in ["bind", "rbind", "ro", "rro", "rw", "rslave", "tmpcopyup"] {
        assert!(options.contains(&known), "{known}");
    }
    for option in options {
        match option {
            "bind" | "rbind" => assert_eq!(mount("none", &[option])["what"]["Bind"]["recursive"], option == "rbind"),
            // About superblocks, or the default: taken, and of no effect.
            "async" | "defaults" | "dirsync" | "idmap" | "iversion" | "lazytime" | "loud" | "mand" | "noiversion"
            | "nolazytime" | "nomand" | "norelatime" | "relatime" | "ridmap" | "rrelatime" | "silent" | "sync" => {
                assert_eq!(mount("tmpfs", &[option]), mount("tmpfs", &[]), "{option}");
            }
            // Data of the file system is what nobody knows.
            _ => {
                let with = mount("tmpfs", &[option]);
                assert_ne!(with, mount("tmpfs", &[]), "{option}");
                assert_eq!(with["what"]["Fs"]["options"], json!([]), "{option}");
            }
        }
    }
    let seccomp = &features["linux"]["seccomp"];
    let rule = |action: &str| json!({ "names": ["mkdir"], "action": action });
    bundle.write(&plain);
    bundle.edit(|c| {
        let compared = words(&seccomp["operators"]).into_iter().map(|op| {
            let args = json!([{ "index": 0, "value": 1, "valueTwo": 1, "op": op }]);
            json!({ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": args })
        });
        c["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": seccomp["archs"],
            "flags": seccomp["supportedFlags"],
            "listenerPath": "/run/agent.sock",
            "syscalls": words(&seccomp["actions"]).into_iter().map(rule).chain(compared).collect::<Vec<_>>(),
        });
    });
    let plan = lab.run(&["plan", "--bundle", bundle.path()]).ok().out;
    assert!(plan.contains("/run/agent.sock"), "{plan}");
    let mut given = words(&features["linux"]["namespaces"]);
    given.sort_unstable();
    assert_eq!(given, ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]);
}

#[test]
fn update_changes_limits() {
    let Some(lab) = Lab::new("update_changes_limits", "busybox") else { return };
    let bundle = lab.bundle("b", IDLE);
    bundle.edit(|c| c["linux"]["resources"]["memory"] = json!({ "limit": 134_217_728 }));
    let id = lab.started("c", &bundle);
    // As docker update has it, on standard input.
    let input = lab.path("resources");
    let docker = json!({
        "memory": { "limit": 67_108_864, "reservation": 0, "swap": 67_108_864, "kernel": 0 },
        "cpu": { "shares": 0, "quota": 0, "period": 0 }, "blockIO": { "weight": 0 },
    });
    std::fs::write(&input, docker.to_string()).unwrap();
    // v2's name, then v1's.
    let read = |names: [&str; 2]| {
        let nodes: Vec<_> = lab.cgroups().iter().map(|d| d.join("b")).collect();
        let file = nodes.iter().flat_map(|d| names.map(|n| d.join(n))).find(|f| f.exists());
        std::fs::read_to_string(file.unwrap()).unwrap().trim().to_owned()
    };
    assert_eq!(read(["memory.max", "memory.limit_in_bytes"]), "134217728");
    let mut c = lab.runtime(&["update", "--resources", "-", &id]);
    c.stdin(std::fs::File::open(&input).unwrap());
    lab.spawn(c).finish(LIMIT).ok();
    assert_eq!(read(["memory.max", "memory.limit_in_bytes"]), "67108864");
    std::fs::write(&input, json!({ "pids": { "limit": 77 } }).to_string()).unwrap();
    lab.run(&["update", "-r", input.to_str().unwrap(), &id]).ok();
    assert_eq!(read(["pids.max"; 2]), "77");
    assert_eq!(read(["memory.max", "memory.limit_in_bytes"]), "67108864");
    std::fs::write(&input, "{").unwrap();
    lab.run(&["update", "--resources", input.to_str().unwrap(), &id]).refused(&["--resources"]);
    lab.run(&["update", "--resources", "/nosuch", &id]).refused(&["/nosuch"]);
}
