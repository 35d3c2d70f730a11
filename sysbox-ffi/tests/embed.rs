//! The library in programs of all sorts: with threads, with another stage program, on hosts that forbid things, killed in the middle.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::abi::status::{SYSBOX_ERR_NOT_FOUND, SYSBOX_ERR_OTHER_BUILD, SYSBOX_ERR_PROTOCOL};
use common::abi::{ms, Abi};
use common::{compile, has, library, ok, panicking_library, repository, Lab};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(name)
}

#[test]
fn threads_and_no_fork() {
    let Some(lab) = Lab::new("threads_and_no_fork", "busybox") else { return };
    let program = lab.path("spawn");
    compile(&source("spawn.c"), &program, library(), &[]);
    // Or the program's own would not be in its way.
    let wanted = ok(Command::new("nm").args(["-D", "--undefined-only"]).arg(library().join("libsysbox.so")));
    assert!(wanted.lines().any(|l| l.contains(" fork@") || l.ends_with(" fork")), "{wanted}");
    let own = ok(Command::new("nm").args(["-D", "--defined-only"]).arg(&program));
    assert!(own.lines().any(|l| l.ends_with(" T fork")), "{own}");
    assert!(ok(Command::new(program).arg(lab.state()).arg(lab.path("tree"))).contains("0 failures"));
    lab.assert_nothing_left("at the end");
}

#[test]
fn standard_streams_that_are_closed() {
    let Some(lab) = Lab::new("standard_streams_that_are_closed", "busybox") else { return };
    let program = lab.path("closed");
    compile(&source("closed.c"), &program, library(), &[]);
    assert!(ok(Command::new(program).arg(lab.state()).arg(lab.path("tree"))).contains("all well"));
    lab.assert_nothing_left("at the end");
}

#[test]
fn dlopen_from_python() {
    let name = "dlopen_from_python";
    let Some(lab) = Lab::new(name, "busybox") else { return };
    if !has(name, "python3") {
        return;
    }
    let mut python = Command::new("python3");
    python.arg(source("threads.py")).arg(library().join("libsysbox.so")).arg(lab.state()).arg(lab.path("tree"));
    assert!(ok(&mut python).contains("all well"));
    lab.assert_nothing_left("at the end");
}

#[test]
fn a_panic_is_a_status() {
    let Some(lab) = Lab::new("a_panic_is_a_status", "busybox") else { return };
    let program = lab.path("panic");
    compile(&source("panic.c"), &program, panicking_library(), &[]);
    let said = ok(Command::new(program).arg(lab.state()).arg(lab.path("tree")));
    for words in ["panic: forced by a test", "container: a call with this handle hit a bug", "alive\n"] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    lab.assert_nothing_left("at the end");
}

#[test]
fn another_build_is_refused() {
    let Some(lab) = Lab::new("another_build_is_refused", "busybox") else { return };
    let null = File::open("/dev/null").unwrap();
    let config = lab.config("c", "true").to_string();
    let program = std::fs::read(common::stage()).unwrap();
    // The same program, but for the name of its build.
    let (version, digest) = sysbox_core::BUILD.rsplit_once('-').unwrap();
    let other = format!("{version}-{}", "0".repeat(digest.len()));
    let (old, new) = (sysbox_core::BUILD.as_bytes(), other.as_bytes());
    let mut changed = program.clone();
    let mut places = 0;
    for at in 0..changed.len() - old.len() {
        if changed[at..].starts_with(old) {
            changed[at..at + new.len()].copy_from_slice(new);
            places += 1;
        }
    }
    assert!(places > 0, "the program does not name its build");
    let stage = |name: &str, content: &[u8]| {
        use std::os::unix::fs::PermissionsExt;
        let path = lab.path(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    };
    let create = |stage: &Path| {
        let abi = Abi::with_stage(library(), &lab, Some(stage));
        let made = abi.create("c", &config, &null, ms(0)).map(|c| c.delete(true, ms(0)).unwrap());
        lab.assert_nothing_left("after a try");
        made
    };
    create(&stage("same", &program)).unwrap();
    let e = create(&stage("changed", &changed)).unwrap_err();
    assert_eq!(e.status, SYSBOX_ERR_OTHER_BUILD, "{}", e.message);
    assert!(e.message.contains(sysbox_core::BUILD) && e.message.contains(&other), "{}", e.message);
    assert_eq!(create(Path::new("/bin/true")).unwrap_err().status, SYSBOX_ERR_PROTOCOL);
}

#[test]
fn a_host_without_executable_memory_files() {
    let name = "a_host_without_executable_memory_files";
    let Some(lab) = Lab::new(name, "busybox") else { return };
    if !Path::new("/proc/sys/vm/memfd_noexec").exists() {
        return eprintln!("SKIP {name}: no vm.memfd_noexec (Linux 6.3)");
    }
    if !has(name, "python3") {
        return;
    }
    let program = lab.path("job");
    compile(&repository().join("examples/c/job.c"), &program, library(), &[]);
    std::fs::write(lab.path("script"), "echo inside; exit 6").unwrap();
    // The setting is of a pid namespace. 0x10 is MFD_EXEC.
    let script = "echo 2 >/proc/sys/vm/memfd_noexec || exit 3
        python3 -c 'import ctypes; exit(ctypes.CDLL(None).memfd_create(b\"x\", 0x10) >= 0)' || exit 4
        # Containers are named after the pid of their creator, and control groups after them.
        echo \"$OUTER\" >/proc/sys/kernel/ns_last_pid
        \"$@\"";
    let mut run = Command::new("unshare");
    run.args(["--pid", "--fork", "--mount", "--mount-proc", "sh", "-c", script, "sh"]).arg(program);
    run.arg(lab.path("tree")).arg(lab.path("script")).env("JOB_STATE", lab.state());
    run.env("OUTER", std::process::id().to_string());
    let out = common::output(&mut run, Duration::from_secs(60));
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert_eq!((out.status.code(), said.as_str()), (Some(6), "inside\n"));
    lab.assert_nothing_left("at the end");
}

const LEAVER: &str = "SYSBOX_TEST_LEAVE_IN";

/// A program that leaves a container behind: this test program again, told by its environment what to do.
#[test]
fn leaver() {
    let Some(dir) = std::env::var_os(LEAVER) else { return };
    let abi = Abi::in_directory(library(), &Path::new(&dir).join("state"));
    let config = std::fs::read_to_string(Path::new(&dir).join("config.json")).unwrap();
    let null = File::options().write(true).open("/dev/null").unwrap();
    abi.create("c", &config, &null, ms(0)).unwrap().start(ms(0)).unwrap();
}

#[test]
fn a_container_outlives_its_creator() {
    let name = "a_container_outlives_its_creator";
    let Some(lab) = Lab::new(name, "busybox") else { return };
    let mut config = lab.config("c", "exec sleep 1000");
    config["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 64 << 20 });
    std::fs::write(lab.path("config.json"), config.to_string()).unwrap();
    let leaver = std::env::current_exe().unwrap();
    ok(Command::new(leaver).args(["--exact", "leaver"]).env(LEAVER, lab.dir.path()));
    let abi = Abi::new(library(), &lab);
    let c = abi.open("c").unwrap();
    assert_eq!(c.state().unwrap()["status"], "running");
    let mut nodes = c.nodes().unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(60);
    // On a slow host the monitor's answer may take longer than is waited for.
    while nodes["monitor"]["status"] == "stuck" && std::time::Instant::now() < end {
        nodes = c.nodes().unwrap();
    }
    let meminfo = nodes["nodes"].as_array().unwrap().iter().find(|n| n["path"] == "/proc/meminfo").unwrap();
    if meminfo["now"] == "monitor" {
        // Its monitor runs on, from the memory of a program that is gone.
        assert_eq!(nodes["monitor"]["status"], "serves");
        assert!(meminfo["value"].as_str().unwrap().starts_with("MemTotal:          65536 kB\n"), "{meminfo}");
        let exe = format!("/proc/{}/exe", nodes["monitor"]["pid"]);
        assert!(std::fs::read_link(exe).unwrap().to_string_lossy().contains("memfd:sysbox-stage"));
    } else {
        eprintln!("SKIP {name}: no live nodes: {meminfo}");
    }
    c.delete(true, ms(0)).unwrap();
    lab.assert_nothing_left("at the end");
}

const EMBEDDER: &str = "SYSBOX_TEST_EMBED_IN";

/// A program that embeds the library and is killed: this test program again, told by its environment what to do.
#[test]
fn embedder() {
    let Some(dir) = std::env::var_os(EMBEDDER) else { return };
    let dir = Path::new(&dir);
    let abi = Abi::in_directory(library(), &dir.join("state"));
    let config = std::fs::read_to_string(dir.join("config.json")).unwrap();
    let null = File::options().write(true).open("/dev/null").unwrap();
    File::create(dir.join("ready")).unwrap();
    loop {
        let c = abi.create("c", &config, &null, ms(0)).unwrap();
        c.start(ms(0)).unwrap();
        let process = r#"{"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["/bin/sleep", "1000"]}"#;
        let child = c.exec(process, &null, ms(0)).unwrap();
        child.kill_child(9).unwrap();
        child.wait_child(ms(0)).unwrap();
        c.delete(true, ms(0)).unwrap();
    }
}

#[test]
fn killed_in_the_middle() {
    let Some(lab) = Lab::new("killed_in_the_middle", "busybox") else { return };
    let config = lab.config("c", "while :; do sleep 1000; done");
    std::fs::write(lab.path("config.json"), config.to_string()).unwrap();
    let abi = Abi::new(library(), &lab);
    let mut reached = BTreeMap::<String, usize>::new();
    let mut step = 0;
    // How far it comes in that time depends on how fast this host is.
    while step < 30 || (step < 150 && reached.len() < 2) {
        let mut embedder = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "embedder"])
            .env(EMBEDDER, lab.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while std::fs::remove_file(lab.path("ready")).is_err() {
            assert!(std::time::Instant::now() < end, "the embedder does not begin");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(step * 2900));
        embedder.kill().unwrap();
        embedder.wait().unwrap();
        let status = match abi.open("c") {
            Err(e) => {
                assert_eq!(e.status, SYSBOX_ERR_NOT_FOUND, "{}", e.message);
                "nothing".to_owned()
            }
            Ok(c) => {
                let status = c.state().unwrap()["status"].as_str().unwrap().to_owned();
                // A stage that was at work may have finished a delete meanwhile.
                match c.delete(true, ms(0)) {
                    Err(e) => assert_eq!(e.status, SYSBOX_ERR_NOT_FOUND, "step {step}, {status}: {}", e.message),
                    Ok(()) => {
                        // A stage that was at work sees that its caller is gone, and leaves.
                        let end = std::time::Instant::now() + Duration::from_secs(60);
                        while !lab.cgroups().is_empty() && std::time::Instant::now() < end {
                            std::thread::sleep(Duration::from_millis(5));
                        }
                        lab.assert_nothing_left(&format!("step {step}, {status}"));
                    }
                }
                status
            }
        };
        *reached.entry(status).or_default() += 1;
        step += 1;
    }
    assert!(reached.len() > 1, "always killed at the same point: {reached:?}");
    // The next one works.
    let null = File::open("/dev/null").unwrap();
    abi.create("c", &config.to_string(), &null, ms(0)).unwrap().delete(true, ms(0)).unwrap();
    lab.assert_nothing_left("at the end");
}
