//! Calls that are canceled, or take too long, in every phase: nothing is left behind.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::abi::status::{SYSBOX_ERR_CANCELED, SYSBOX_ERR_TIMED_OUT};
use common::abi::{ms, Abi, Handle, Limit, Res};
use common::{children, descriptors, helpers, library, Lab};
use serde_json::{json, Value};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One test at a time: each counts the children and descriptors of this process.
struct Bench {
    abi: Abi,
    lab: Lab,
    before: (BTreeSet<i32>, usize),
    null: File,
    /// A cancellation of the test's own is open.
    own: Cell<usize>,
    /// When the time of a limit began.
    begun: Cell<Instant>,
    _alone: MutexGuard<'static, ()>,
}

impl Bench {
    fn new(test: &str) -> Option<Bench> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let lab = Lab::new(test, "busybox")?;
        let abi = Abi::new(library(), &lab);
        let null = File::options().write(true).open("/dev/null").unwrap();
        let (own, begun) = (Cell::new(0), Cell::new(Instant::now()));
        Some(Bench { before: (children(), descriptors()), abi, lab, null, own, begun, _alone: alone })
    }

    /// The configuration of a container that does nothing, with a hook that does not end.
    fn hooked(&self, point: &str) -> Value {
        let mut config = self.idle();
        config["hooks"] = json!({ point: [{ "path": "/bin/sleep", "args": ["sleep", self.nap()] }] });
        config
    }

    fn idle(&self) -> Value {
        self.lab.config("c", "exec sleep 1000")
    }

    /// Nobody else on this host sleeps for as long.
    fn nap(&self) -> String {
        format!("99{}", std::process::id())
    }

    fn create(&self, config: &Value, limit: Limit<'_>) -> Res<Handle<'_>> {
        self.abi.create("c", &config.to_string(), &self.null, limit)
    }

    #[track_caller]
    fn clean(&self, when: &str) {
        self.lab.assert_nothing_left(when);
        let asleep = std::fs::read_dir("/proc").unwrap().flatten().filter(|e| {
            let line = std::fs::read(e.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&self.nap())
        });
        assert_eq!(asleep.count(), 0, "{when}: a hook runs");
        assert_eq!(helpers(), Vec::<String>::new(), "{when}: stages or monitors run");
        assert_eq!((children(), descriptors() - self.own.get()), self.before, "{when}: children and descriptors");
    }

    /// Calls `f` with a cancellation that is triggered after `wait`, and with a deadline as far away.
    fn both(&self, wait: Duration, mut f: impl FnMut(Limit<'_>, i32)) {
        self.both_on(wait, || (), |(), limit, status| f(limit, status));
    }

    /// As [`Bench::both`], on what `make` makes before the time begins.
    fn both_on<T>(&self, wait: Duration, make: impl Fn() -> T, mut f: impl FnMut(T, Limit<'_>, i32)) {
        let made = make();
        let cancel = self.abi.cancel();
        self.own.set(1);
        self.begun.set(Instant::now());
        std::thread::scope(|s| {
            s.spawn(|| {
                std::thread::sleep(wait);
                cancel.trigger();
            });
            f(made, Limit { ms: 0, cancel: Some(&cancel) }, SYSBOX_ERR_CANCELED);
        });
        drop(cancel);
        self.own.set(0);
        let made = make();
        self.begun.set(Instant::now());
        f(made, ms(wait.as_millis().max(1) as i64), SYSBOX_ERR_TIMED_OUT);
    }
}

/// Long before what is given up would end.
const SOON: Duration = Duration::from_secs(30);
/// Long enough for a call to begin.
const WAIT: Duration = Duration::from_millis(500);

fn process() -> String {
    json!({ "cwd": "/", "user": { "uid": 0, "gid": 0 }, "args": ["/bin/sleep", "1000"] }).to_string()
}

#[test]
fn create_in_a_hook() {
    let Some(b) = Bench::new("create_in_a_hook") else { return };
    for point in ["createRuntime", "createContainer"] {
        b.both(WAIT, |limit, status| {
            assert_eq!(b.create(&b.hooked(point), limit).err().unwrap().status, status);
            let took = b.begun.get().elapsed();
            assert!(took >= WAIT && took < SOON, "{took:?}");
            b.clean(point);
        });
    }
}

#[test]
fn create_at_any_moment() {
    let Some(b) = Bench::new("create_at_any_moment") else { return };
    let mut ended = BTreeSet::new();
    for step in 0..40 {
        b.both(Duration::from_micros(step * 600), |limit, status| {
            match b.create(&b.idle(), limit) {
                Ok(c) => c.delete(true, ms(0)).unwrap(),
                Err(e) => assert_eq!(e.status, status, "{}", e.message),
            }
            b.clean(&format!("step {step}"));
            ended.insert(status);
        });
    }
    assert_eq!(ended.len(), 2);
}

#[test]
fn start_in_a_hook() {
    let Some(b) = Bench::new("start_in_a_hook") else { return };
    for point in ["startContainer", "poststart"] {
        let make = || b.create(&b.hooked(point), ms(0)).unwrap();
        b.both_on(WAIT, make, |c, limit, status| {
            let start = Instant::now();
            assert_eq!(c.start(limit).unwrap_err().status, status);
            assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
            assert_eq!(c.state().unwrap()["status"], "stopped", "{point}");
            assert_eq!(c.wait(ms(0)).unwrap(), (137, 9));
            c.delete(false, ms(0)).unwrap();
            drop(c);
            b.clean(point);
        });
    }
}

#[test]
fn start_at_any_moment() {
    let Some(b) = Bench::new("start_at_any_moment") else { return };
    for step in 0..30 {
        b.both(Duration::from_micros(step * 100), |limit, status| {
            let c = b.create(&b.idle(), ms(0)).unwrap();
            let now = |c: &Handle<'_>| c.state().unwrap()["status"].as_str().unwrap().to_owned();
            match c.start(limit) {
                Ok(()) => assert_eq!(now(&c), "running"),
                Err(e) => {
                    assert_eq!(e.status, status, "{}", e.message);
                    match now(&c).as_str() {
                        // It had not begun, and can be begun now.
                        "created" => c.start(ms(0)).unwrap(),
                        other => assert_eq!(other, "stopped"),
                    }
                }
            }
            c.delete(true, ms(0)).unwrap();
            drop(c);
            b.clean(&format!("step {step}"));
        });
    }
}

#[test]
fn exec_at_any_moment() {
    let Some(b) = Bench::new("exec_at_any_moment") else { return };
    let c = b.create(&b.idle(), ms(0)).unwrap();
    c.start(ms(0)).unwrap();
    let kids = children();
    for step in 0..40 {
        b.both(Duration::from_micros(step * 250), |limit, status| {
            match c.exec(&process(), &b.null, limit) {
                Ok(child) => {
                    child.kill_child(9).unwrap();
                    assert_eq!(child.wait_child(ms(0)).unwrap(), (137, 9));
                }
                Err(e) => assert_eq!(e.status, status, "{}", e.message),
            }
            assert_eq!(children(), kids, "step {step}");
            let end = Instant::now() + SOON;
            while c.processes().unwrap().as_array().unwrap().len() != 1 {
                assert!(Instant::now() < end, "step {step}: {}", c.processes().unwrap());
            }
        });
    }
    c.delete(true, ms(0)).unwrap();
    drop(c);
    b.clean("the end");
}

#[test]
fn exec_that_is_frozen() {
    let name = "exec_that_is_frozen";
    let Some(b) = Bench::new(name) else { return };
    let Some(v2) = sysbox_core::cgroup::Layout::detect().unwrap().unified().map(|h| h.mount.clone()) else {
        return eprintln!("SKIP {name}: no cgroup v2");
    };
    let c = b.create(&b.idle(), ms(0)).unwrap();
    c.start(ms(0)).unwrap();
    let node = b.lab.cgroups().into_iter().find(|d| d.starts_with(&v2)).unwrap();
    // As software inside may do with a cgroup of its own: the library does not see it beforehand.
    let leaf = std::fs::read_dir(&node).unwrap().flatten().find(|e| e.file_type().unwrap().is_dir());
    let freeze = leaf.map_or(node, |l| l.path()).join("cgroup.freeze");
    b.both(WAIT, |limit, status| {
        std::fs::write(&freeze, "1").unwrap();
        let start = Instant::now();
        let e = c.exec(&process(), &b.null, limit).err().unwrap();
        std::fs::write(&freeze, "0").unwrap();
        assert_eq!(e.status, status, "{}", e.message);
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    });
    c.delete(true, ms(0)).unwrap();
    drop(c);
    b.clean("the end");
}

#[test]
fn wait_changes_nothing() {
    let Some(b) = Bench::new("wait_changes_nothing") else { return };
    let c = b.create(&b.idle(), ms(0)).unwrap();
    c.start(ms(0)).unwrap();
    b.both(WAIT, |limit, status| {
        assert_eq!(c.wait(limit).unwrap_err().status, status);
        let took = b.begun.get().elapsed();
        assert!(took >= WAIT && took < SOON, "{took:?}");
        assert_eq!(c.state().unwrap()["status"], "running");
        let child = c.exec(&process(), &b.null, ms(0)).unwrap();
        // The cancellation stays triggered, and the deadline begins anew.
        assert_eq!(child.wait_child(limit).unwrap_err().status, status);
        child.kill_child(9).unwrap();
        assert_eq!(child.wait_child(ms(0)).unwrap(), (137, 9));
    });
    c.delete(true, ms(0)).unwrap();
    drop(c);
    b.clean("the end");
}

#[test]
fn delete_in_a_hook() {
    let Some(b) = Bench::new("delete_in_a_hook") else { return };
    let make = || b.create(&b.hooked("poststop"), ms(0)).unwrap();
    b.both_on(WAIT, make, |c, limit, _| {
        let start = Instant::now();
        c.delete(true, limit).unwrap();
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        drop(c);
        b.clean("after it");
    });
}

#[test]
fn delete_at_any_moment() {
    let Some(b) = Bench::new("delete_at_any_moment") else { return };
    for step in 0..30 {
        b.both(Duration::from_micros(step * 200), |limit, status| {
            let c = b.create(&b.idle(), ms(0)).unwrap();
            c.start(ms(0)).unwrap();
            if let Err(e) = c.delete(true, limit) {
                assert_eq!(e.status, status, "{}", e.message);
                c.delete(true, ms(0)).unwrap();
            }
            drop(c);
            b.clean(&format!("step {step}"));
        });
    }
}

#[test]
fn delete_that_waits_for_another() {
    let Some(b) = Bench::new("delete_that_waits_for_another") else { return };
    let c = b.create(&b.idle(), ms(0)).unwrap();
    // Whoever makes or deletes it holds this.
    let dir = File::open(b.lab.state().join("c")).unwrap();
    let lock = nix::fcntl::Flock::lock(dir, nix::fcntl::FlockArg::LockExclusive).unwrap();
    b.both(WAIT, |limit, status| {
        assert_eq!(c.delete(true, limit).unwrap_err().status, status);
        let took = b.begun.get().elapsed();
        assert!(took >= WAIT && took < SOON, "{took:?}");
        assert_eq!(c.state().unwrap()["status"], "created");
    });
    drop(lock);
    c.delete(true, ms(0)).unwrap();
    drop(c);
    b.clean("the end");
}

#[test]
fn what_is_over_does_not_begin() {
    let Some(b) = Bench::new("what_is_over_does_not_begin") else { return };
    let cancel = b.abi.cancel();
    cancel.trigger();
    let c = b.create(&b.idle(), ms(0)).unwrap();
    // Or that none is left means nothing.
    if std::path::Path::new("/dev/fuse").exists() {
        assert_eq!(helpers().len(), 1, "the container's monitor");
    }
    for (limit, status) in
        [(Limit { ms: 0, cancel: Some(&cancel) }, SYSBOX_ERR_CANCELED), (ms(-1), SYSBOX_ERR_TIMED_OUT)]
    {
        assert_eq!(b.abi.create("d", &b.idle().to_string(), &b.null, limit).err().unwrap().status, status);
        assert_eq!(c.start(limit).unwrap_err().status, status);
        assert_eq!(c.exec(&process(), &b.null, limit).err().unwrap().status, status);
        assert_eq!(c.delete(true, limit).unwrap_err().status, status);
        assert_eq!(c.wait(limit).unwrap_err().status, status);
        assert_eq!(c.state().unwrap()["status"], "created");
    }
    c.delete(true, ms(0)).unwrap();
    // What has ended can be waited for, whatever the limit.
    assert_eq!(c.wait(Limit { ms: -1, cancel: Some(&cancel) }).unwrap(), (137, 9));
    drop((c, cancel));
    b.clean("the end");
}
