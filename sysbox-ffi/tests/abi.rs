//! One behaviour suite, run through the Rust library and through the C library, with equal results.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::abi::{ms, status, Abi, Failure, Handle, Res};
use common::{children, descriptors, library, Lab};
use serde_json::{json, Value};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::time::Instant;
use sysbox_core::runtime::StageProgram;
use sysbox_core::{CreateOptions, ExecOptions, Exit, Limit, Runtime, Spec, Stdio};

const SIGKILL: i32 = nix::libc::SIGKILL;
const SIGTERM: i32 = nix::libc::SIGTERM;

/// What both can do. Containers go by their names.
trait Api {
    fn create(&self, id: &str, config: &Value, out: &File) -> Res<()>;
    fn open(&self, id: &str) -> Res<()>;
    fn start(&self, id: &str) -> Res<()>;
    fn exec(&self, id: &str, process: &Value, out: &File) -> Res<(i32, i32)>;
    /// −1: only looks.
    fn wait(&self, id: &str, ms: i64) -> Res<(i32, i32)>;
    fn kill(&self, id: &str, signal: i32) -> Res<()>;
    fn kill_all(&self, id: &str, signal: i32) -> Res<()>;
    fn pause(&self, id: &str) -> Res<()>;
    fn resume(&self, id: &str) -> Res<()>;
    fn update(&self, id: &str, resources: &Value) -> Res<()>;
    fn state(&self, id: &str) -> Res<Value>;
    fn stats(&self, id: &str) -> Res<Value>;
    fn processes(&self, id: &str) -> Res<Value>;
    fn config(&self, id: &str) -> Res<Value>;
    fn delete(&self, id: &str, force: bool) -> Res<()>;
    fn list(&self) -> Res<Value>;
    fn plan(&self, id: &str, config: &Value) -> Res<(Value, String)>;
    fn check_host(&self) -> Res<Value>;
}

struct Rust {
    runtime: Runtime,
    open: RefCell<BTreeMap<String, sysbox_core::Container>>,
}

fn failure(e: sysbox_core::Error) -> Failure {
    let stage = match e.stage() {
        sysbox_core::error::Stage::Stage => 1,
        sysbox_core::error::Stage::Init => 2,
        _ => 0,
    };
    Failure { status: status::of(e.kind()), errno: e.errno().unwrap_or(0), stage, message: e.to_string() }
}

fn ended(exit: Exit) -> (i32, i32) {
    (exit.code(), if let Exit::Signal(s) = exit { s } else { 0 })
}

fn stdio(out: &File) -> Stdio {
    let copy = || Some(out.try_clone().unwrap().into());
    Stdio { stdin: Some(File::open("/dev/null").unwrap().into()), stdout: copy(), stderr: copy(), ..Stdio::default() }
}

fn limit(ms: i64) -> Limit {
    let after = std::time::Duration::from_millis(ms.max(0).unsigned_abs());
    if ms == 0 {
        Limit::none()
    } else {
        Limit::none().at(Instant::now() + after)
    }
}

impl Rust {
    fn on<T>(&self, id: &str, f: impl FnOnce(&sysbox_core::Container) -> sysbox_core::Result<T>) -> Res<T> {
        f(&self.open.borrow()[id]).map_err(failure)
    }

    fn keep(&self, id: &str, made: sysbox_core::Result<sysbox_core::Container>) -> Res<()> {
        self.open.borrow_mut().insert(id.into(), made.map_err(failure)?);
        Ok(())
    }
}

impl Api for Rust {
    fn create(&self, id: &str, config: &Value, out: &File) -> Res<()> {
        let spec = Spec::from_json(config.to_string().as_bytes()).map_err(failure)?;
        self.keep(id, self.runtime.create(id, &spec, "/".as_ref(), CreateOptions { stdio: stdio(out) }))
    }
    fn open(&self, id: &str) -> Res<()> {
        self.keep(id, self.runtime.open(id))
    }
    fn start(&self, id: &str) -> Res<()> {
        self.on(id, |c| c.start_within(&Limit::none()))
    }
    fn exec(&self, id: &str, process: &Value, out: &File) -> Res<(i32, i32)> {
        let read = serde_json::from_str(&process.to_string());
        let process = read.map_err(|e| failure(sysbox_core::Error::invalid(format!("process: {e}"))))?;
        self.on(id, |c| c.exec(&process, ExecOptions { stdio: stdio(out) })?.wait().map(ended))
    }
    fn wait(&self, id: &str, ms: i64) -> Res<(i32, i32)> {
        self.on(id, |c| c.wait_within(&limit(ms)).map(ended))
    }
    fn kill(&self, id: &str, signal: i32) -> Res<()> {
        self.on(id, |c| c.kill(signal))
    }
    fn kill_all(&self, id: &str, signal: i32) -> Res<()> {
        self.on(id, |c| c.kill_all(signal))
    }
    fn pause(&self, id: &str) -> Res<()> {
        self.on(id, sysbox_core::Container::pause)
    }
    fn resume(&self, id: &str) -> Res<()> {
        self.on(id, sysbox_core::Container::resume)
    }
    fn update(&self, id: &str, resources: &Value) -> Res<()> {
        let read = serde_json::from_str(&resources.to_string());
        let resources = read.map_err(|e| failure(sysbox_core::Error::invalid(format!("resources: {e}"))))?;
        self.on(id, |c| c.update(&resources))
    }
    fn state(&self, id: &str) -> Res<Value> {
        self.on(id, |c| Ok(c.describe()))
    }
    fn stats(&self, id: &str) -> Res<Value> {
        self.on(id, |c| Ok(json!(c.stats()?)))
    }
    fn processes(&self, id: &str) -> Res<Value> {
        self.on(id, |c| Ok(json!(c.processes()?)))
    }
    fn config(&self, id: &str) -> Res<Value> {
        self.on(id, |c| Ok(c.spec()?.to_json().clone()))
    }
    fn delete(&self, id: &str, force: bool) -> Res<()> {
        self.on(id, |c| c.delete(force))
    }
    fn list(&self) -> Res<Value> {
        let all = self.runtime.list().map_err(failure)?;
        Ok(all.iter().map(|id| self.runtime.open(id).unwrap().describe()).collect())
    }
    fn plan(&self, id: &str, config: &Value) -> Res<(Value, String)> {
        let plan = Spec::from_json(config.to_string().as_bytes()).and_then(|s| self.runtime.plan(id, &s, "/".as_ref()));
        plan.map(|p| (json!(p), p.to_string())).map_err(failure)
    }
    fn check_host(&self) -> Res<Value> {
        self.runtime.check_host().map(|p| json!(p)).map_err(failure)
    }
}

struct C<'a> {
    abi: &'a Abi,
    open: RefCell<BTreeMap<String, Handle<'a>>>,
}

impl C<'_> {
    fn on<T>(&self, id: &str, f: impl FnOnce(&Handle<'_>) -> Res<T>) -> Res<T> {
        f(&self.open.borrow()[id])
    }
}

impl Api for C<'_> {
    fn create(&self, id: &str, config: &Value, out: &File) -> Res<()> {
        let made = self.abi.create(id, &config.to_string(), out, ms(0))?;
        self.open.borrow_mut().insert(id.into(), made);
        Ok(())
    }
    fn open(&self, id: &str) -> Res<()> {
        let found = self.abi.open(id)?;
        self.open.borrow_mut().insert(id.into(), found);
        Ok(())
    }
    fn start(&self, id: &str) -> Res<()> {
        self.on(id, |c| c.start(ms(0)))
    }
    fn exec(&self, id: &str, process: &Value, out: &File) -> Res<(i32, i32)> {
        self.on(id, |c| c.exec(&process.to_string(), out, ms(0))?.wait_child(ms(0)))
    }
    fn wait(&self, id: &str, limit: i64) -> Res<(i32, i32)> {
        self.on(id, |c| c.wait(ms(limit)))
    }
    fn kill(&self, id: &str, signal: i32) -> Res<()> {
        self.on(id, |c| c.kill(signal))
    }
    fn kill_all(&self, id: &str, signal: i32) -> Res<()> {
        self.on(id, |c| c.kill_all(signal))
    }
    fn pause(&self, id: &str) -> Res<()> {
        self.on(id, |c| c.pause())
    }
    fn resume(&self, id: &str) -> Res<()> {
        self.on(id, |c| c.resume())
    }
    fn update(&self, id: &str, resources: &Value) -> Res<()> {
        self.on(id, |c| c.update(&resources.to_string()))
    }
    fn state(&self, id: &str) -> Res<Value> {
        self.on(id, |c| c.state())
    }
    fn stats(&self, id: &str) -> Res<Value> {
        self.on(id, |c| c.stats())
    }
    fn processes(&self, id: &str) -> Res<Value> {
        self.on(id, |c| c.processes())
    }
    fn config(&self, id: &str) -> Res<Value> {
        self.on(id, |c| c.config())
    }
    fn delete(&self, id: &str, force: bool) -> Res<()> {
        self.on(id, |c| c.delete(force, ms(0)))
    }
    fn list(&self) -> Res<Value> {
        self.abi.list()
    }
    fn plan(&self, id: &str, config: &Value) -> Res<(Value, String)> {
        Ok((self.abi.plan(id, &config.to_string())?, self.abi.plan_text(id, &config.to_string())?))
    }
    fn check_host(&self) -> Res<Value> {
        self.abi.check_host().map(|mut doc| doc["probes"].take())
    }
}

/// What was seen, in words that are the same each time.
#[derive(Default)]
struct Transcript(Vec<String>);

impl Transcript {
    fn note(&mut self, what: &str, seen: impl std::fmt::Debug) {
        self.0.push(format!("{what}: {seen:?}"));
    }
}

fn process(script: &str) -> Value {
    json!({ "cwd": "/", "user": { "uid": 0, "gid": 0 }, "env": ["PATH=/bin"], "args": ["sh", "-c", script] })
}

fn text(file: &File) -> String {
    std::fs::read_to_string(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file))).unwrap()
}

/// A state without what differs from one container to the next.
fn steady(mut state: Value) -> Value {
    for key in ["pid", "created"] {
        if !state[key].is_null() {
            assert!(state[key].as_u64().unwrap() > 1);
            state[key] = json!("some");
        }
    }
    state
}

fn suite(api: &dyn Api, lab: &Lab) -> Transcript {
    let mut t = Transcript::default();
    let out = tempfile::tempfile().unwrap();
    let mut config = lab.config("c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done");
    config["annotations"] = json!({ "who": "me" });

    t.note("open nothing", api.open("c"));
    t.note("list nothing", api.list());
    t.note("no config", api.create("c", &json!([]), &out));
    t.note("no id", api.create("a/b", &config, &out));
    let mut bad = config.clone();
    bad["root"]["path"] = json!("/no/such/tree");
    t.note("no tree", api.create("c", &bad, &out));
    bad = config.clone();
    bad["process"]["args"] = json!(["/no/such/program"]);
    t.note("no program", api.create("c", &bad, &out));
    bad["process"]["args"] = json!(["/etc"]);
    t.note("no executable", api.create("c", &bad, &out));
    bad = config.clone();
    bad["linux"]["sysctl"] = json!({ "kernel.panic": "1" });
    t.note("not allowed", api.create("c", &bad, &out));
    bad = config.clone();
    bad["hooks"] = json!({ "createRuntime": [{ "path": "/bin/false" }] });
    t.note("a hook that fails", api.create("c", &bad, &out));
    t.note("list nothing still", api.list());

    let map = json!([{ "containerID": 0, "hostID": 1_700_000_000, "size": 65536 }]);
    let mut planned = config.clone();
    planned["linux"]["uidMappings"] = map.clone();
    planned["linux"]["gidMappings"] = map;
    t.note("plan", api.plan("c", &planned));

    t.note("create", api.create("c", &config, &out));
    t.note("create again", api.create("c", &config, &out));
    t.note("created", api.state("c").map(steady));
    t.note("pause created", api.resume("c"));
    t.note("start", api.start("c"));
    t.note("start again", api.start("c"));
    t.note("open", api.open("c"));
    t.note("running", api.state("c").map(steady));
    t.note("list", api.list().map(|l| l.as_array().unwrap().iter().cloned().map(steady).collect::<Vec<_>>()));
    t.note("config", api.config("c"));
    t.note("look", api.wait("c", -1));
    t.note("wait a little", api.wait("c", 20));
    t.note("processes", api.processes("c").map(|p| !p.as_array().unwrap().is_empty()));
    let stats = api.stats("c").unwrap();
    t.note("stats", stats.as_object().unwrap().keys().collect::<Vec<_>>());
    t.note("pids", stats["pids"]["current"].as_u64().map(|n| n >= 1));
    t.note("update", api.update("c", &json!({ "pids": { "limit": 77 } })));
    t.note("limit", api.stats("c").map(|s| s["pids"]["limit"].clone()));
    t.note("update badly", api.update("c", &json!({ "pids": 3 })));
    let said = tempfile::tempfile().unwrap();
    t.note("exec", api.exec("c", &process("echo hi; exit 3"), &said));
    t.note("said", text(&said));
    t.note("exec killed", api.exec("c", &process("kill -9 $$"), &out));
    t.note("exec nothing", api.exec("c", &json!({ "cwd": "/", "user": { "uid": 0, "gid": 0 }, "args": ["/x"] }), &out));
    t.note("exec badly", api.exec("c", &json!({ "cwd": 3 }), &out));
    t.note("pause", api.pause("c"));
    t.note("paused", api.state("c").map(steady));
    t.note("exec paused", api.exec("c", &process("true"), &out));
    t.note("delete paused", api.delete("c", false));
    t.note("resume", api.resume("c"));
    t.note("kill badly", api.kill("c", 9999));
    while !text(&out).contains("up") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    t.note("kill", api.kill("c", SIGTERM));
    t.note("wait", api.wait("c", 0));
    t.note("stopped", api.state("c").map(steady));
    t.note("kill stopped", api.kill("c", SIGTERM));
    t.note("exec stopped", api.exec("c", &process("true"), &out));
    t.note("stats stopped", api.stats("c"));
    t.note("delete", api.delete("c", false));
    t.note("delete again", api.delete("c", false));
    t.note("list at the end", api.list());

    t.note("another", api.create("c", &config, &out).and_then(|()| api.start("c")));
    t.note("kill all", api.kill_all("c", SIGKILL));
    t.note("wait killed", api.wait("c", 0));
    t.note("another's delete", api.delete("c", true));
    // The IDs that come next are named in it, and others may take them meanwhile.
    let probes =
        |p: Value| p.as_array().unwrap().iter().map(|p| format!("{} {}", p["name"], p["verdict"])).collect::<Vec<_>>();
    t.note("host", api.check_host().map(probes));
    t
}

#[test]
fn both_libraries_do_the_same() {
    let name = "both_libraries_do_the_same";
    let Some(lab) = Lab::new(name, "busybox") else { return };
    let built = library();
    let abi = Abi::new(built, &lab);
    let (kids, open) = (children(), descriptors());
    // The same static program, so that both have the same build.
    let stage = StageProgram::sealed(&std::fs::read(common::stage()).unwrap()).unwrap();
    let rust = Rust { runtime: Runtime::new(lab.state()).stage(stage), open: RefCell::default() };
    let by_rust = suite(&rust, &lab).0;
    drop(rust);
    lab.assert_nothing_left("through Rust");
    let c = C { abi: &abi, open: RefCell::default() };
    let by_c = suite(&c, &lab).0;
    drop(c);
    lab.assert_nothing_left("through C");
    assert_eq!((children(), descriptors()), (kids, open), "children and descriptors");
    for (rust, c) in by_rust.iter().zip(&by_c) {
        assert_eq!(rust, c);
    }
    assert_eq!(by_rust.len(), by_c.len());
    // That they agree is not enough.
    let all = by_c.join("\n");
    for fact in [
        "open nothing: Err(Failure { status: 4,",
        "no program: Err(Failure { status: 11, errno: 0, stage: 2,",
        "not allowed: Err(Failure { status: 3,",
        "create: Ok(())",
        "create again: Err(Failure { status: 5,",
        "look: Err(Failure { status: 16,",
        "exec: Ok((3, 0))",
        "said: \"hi\\n\"",
        "exec killed: Ok((137, 9))",
        "limit: Ok(Number(77))",
        "wait: Ok((5, 0))",
        "wait killed: Ok((137, 9))",
        "delete: Ok(())",
        "delete again: Err(Failure { status: 4,",
        "list at the end: Ok(Array [])",
    ] {
        assert!(all.contains(fact), "no {fact:?} in:\n{all}");
    }
}
