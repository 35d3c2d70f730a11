//! What the tests with real containers share. Everything made here goes away with the [`Lab`], and nothing waits for ever.
// Every test program uses a part; unwrap is allowed in #[test] functions, not in what they share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use serde_json::{json, Value};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};
use sysbox_core::cgroup::Layout;
use sysbox_core::container::MonitorStatus;
use sysbox_core::runtime::StageProgram;
use sysbox_core::{Container, CreateOptions, ExecOptions, Exit, Result, Runtime, Spec, Stdio, SystemContainer};
use tempfile::TempDir;

/// How long a program in a container may take.
pub const PROGRAM: Duration = Duration::from_secs(60);
/// How long a whole test may take before its containers are killed.
const TEST: Duration = Duration::from_secs(240);
/// How long it may take to fail after that.
const GRACE: Duration = Duration::from_secs(30);

/// A state directory, a copy of the busybox tree and a cgroup of this test's own.
pub struct Lab {
    pub dir: TempDir,
    pub runtime: Runtime,
    cgroup: PathBuf,
    next: AtomicU32,
    late: Arc<AtomicBool>,
    _alive: Sender<()>,
}

impl Lab {
    /// `None`, with the reason said, where the test cannot run.
    pub fn new(name: &str) -> Option<Lab> {
        let tree = shared_tree(name, "busybox")?;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let cgroup = format!("/sysbox-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let cgroup = PathBuf::from(cgroup);
        let dir = tempfile::Builder::new().prefix("sysbox-test-").tempdir_in("/var/tmp").unwrap();
        copy_tree(&tree, &dir.path().join("tree"));
        let stage = StageProgram::Path(env!("CARGO_BIN_EXE_sysbox-stage").into());
        let late = Arc::new(AtomicBool::new(false));
        let (alive, end) = channel();
        let (watched, flag, who) = (cgroup.clone(), late.clone(), name.to_owned());
        std::thread::spawn(move || watch(&end, &watched, &flag, &who));
        let runtime = Runtime::new(dir.path().join("state")).stage(stage);
        Some(Lab { runtime, dir, cgroup, next: AtomicU32::new(0), late, _alive: alive })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The root file system that [`Lab::system`] uses: a copy of this test's own.
    pub fn tree(&self) -> PathBuf {
        self.path("tree")
    }

    /// A name that no other container of this host has.
    pub fn id(&self) -> String {
        format!("c{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// A container on busybox that does nothing for a long time.
    pub fn system(&self) -> SystemContainer {
        SystemContainer::new(self.tree()).args(["sleep", "1000"])
    }

    /// The configuration of a container on busybox that runs a script.
    pub fn doc(&self, script: &str) -> Value {
        self.system().args(["sh", "-c", script]).to_json()
    }

    /// Makes a container and does not start it. Its output is kept.
    pub fn create(&self, doc: &Value) -> Guard<'_> {
        self.try_create(doc, Stdio::default()).unwrap()
    }

    /// As [`Lab::create`], with streams other than the output.
    pub fn try_create(&self, doc: &Value, stdio: Stdio) -> Result<Guard<'_>> {
        let mut doc = doc.clone();
        let id = self.id();
        // It may be absent, so that a test can ask for its own.
        if doc["linux"]["cgroupsPath"].is_null() {
            doc["linux"]["cgroupsPath"] = json!(self.cgroup.join(&id));
        }
        let out = scratch();
        let stdio = with_output(stdio, &out);
        let spec = Spec::from_json(doc.to_string().as_bytes())?;
        let container = self.runtime.create(&id, &spec, self.dir.path(), CreateOptions { stdio })?;
        Ok(Guard { container, out, lab: self })
    }

    /// Makes and starts a container.
    pub fn start(&self, doc: &Value) -> Guard<'_> {
        let mut c = self.create(doc);
        c.container.start().unwrap();
        c
    }

    /// Makes, starts and waits for a container.
    pub fn run(&self, doc: &Value) -> Output {
        let c = self.start(doc);
        c.finish()
    }

    /// Monitors of this lab's containers.
    pub fn monitors(&self) -> Vec<i32> {
        monitors(&self.cgroup.to_string_lossy())
    }

    /// Directories of this lab's cgroup, and of all below it, in all hierarchies.
    pub fn cgroup_dirs(&self) -> Vec<PathBuf> {
        cgroup_dirs(&self.cgroup)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for id in self.runtime.list().unwrap_or_default() {
            if let Ok(c) = self.runtime.open(&id) {
                let _ = c.delete(true);
            }
        }
        let end = Instant::now() + PROGRAM;
        let mut left = self.cgroup_dirs();
        while !left.is_empty() && Instant::now() < end {
            for dir in left.iter().rev() {
                let _ = std::fs::remove_dir(dir);
            }
            left = self.cgroup_dirs();
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "cannot be removed: {left:?}");
            assert!(!self.late.load(Ordering::Relaxed), "took more than {TEST:?}");
        }
    }
}

/// Ends a test that hangs: killing what it waits for mostly does.
fn watch(end: &Receiver<()>, cgroup: &Path, late: &AtomicBool, name: &str) {
    if end.recv_timeout(TEST) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    late.store(true, Ordering::Relaxed);
    eprintln!("{name}: not done after {TEST:?}, its containers are killed");
    for pid in cgroup_dirs(cgroup).iter().flat_map(|d| pids_in(d)) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    if end.recv_timeout(GRACE) == Err(RecvTimeoutError::Timeout) {
        eprintln!("{name}: does not end");
        std::process::exit(101);
    }
}

fn cgroup_dirs(cgroup: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for h in Layout::detect().unwrap().hierarchies {
        let mut todo = vec![h.mount.join(cgroup.strip_prefix("/").unwrap())];
        while let Some(dir) = todo.pop() {
            let Ok(entries) = std::fs::read_dir(&dir) else { continue };
            todo.extend(entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
            out.push(dir);
        }
    }
    out
}

fn pids_in(dir: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|l| l.parse().ok()).collect()
}

/// A container that is deleted at the end.
pub struct Guard<'a> {
    pub container: Container,
    out: File,
    pub lab: &'a Lab,
}

impl std::ops::Deref for Guard<'_> {
    type Target = Container;
    fn deref(&self) -> &Container {
        &self.container
    }
}

impl Guard<'_> {
    /// What it has printed so far.
    pub fn printed(&self) -> String {
        text(&self.out)
    }

    /// Waits for its end.
    pub fn finish(&self) -> Output {
        let fd = self.container.pidfd().expect("alive when it was opened");
        await_end(fd, &self.out);
        Output { exit: self.container.wait().unwrap(), text: self.printed() }
    }

    /// Waits for a word of its output.
    pub fn await_word(&self, word: &str) {
        poll_until(&format!("{word:?} in the output"), || self.printed().contains(word));
    }

    /// Runs a script in it.
    pub fn sh(&self, script: &str) -> Output {
        self.exec(&json!({ "args": ["sh", "-c", script] })).unwrap()
    }

    /// Runs a program in it; `process` is of config.json, with what is absent as usual.
    pub fn exec(&self, process: &Value) -> Result<Output> {
        self.exec_with(process, Stdio::default())
    }

    pub fn exec_with(&self, process: &Value, stdio: Stdio) -> Result<Output> {
        let out = scratch();
        let child = self.container.exec(&oci_process(process), ExecOptions { stdio: with_output(stdio, &out) })?;
        await_end(child.pidfd(), &out);
        Ok(Output { exit: child.wait()?, text: text(&out) })
    }
}

/// `process` of config.json, with what is absent as usual.
pub fn oci_process(process: &Value) -> oci_spec::runtime::Process {
    let mut p = json!({
        "cwd": "/", "user": { "uid": 0, "gid": 0 },
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    });
    for (k, v) in process.as_object().unwrap() {
        p[k] = v.clone();
    }
    serde_json::from_value(p).unwrap()
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let deleted = self.container.delete(true);
        if !std::thread::panicking() {
            match deleted {
                // The test may have deleted it.
                Err(e) if e.kind() == sysbox_core::Kind::NotFound => {}
                Err(e) if e.errno() == Some(libc::ENOENT) => {}
                r => r.unwrap(),
            }
        }
    }
}

/// How a program ended, and what it said on both streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub exit: Exit,
    pub text: String,
}

impl Output {
    /// It succeeded; what it said.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.exit, Exit::Code(0), "{}", self.text);
        self.text.trim().to_owned()
    }

    /// It failed, and said why in these words, in whatever case.
    #[track_caller]
    pub fn fails(self, why: &str) {
        assert!(self.exit != Exit::Code(0), "succeeded, and said: {}", self.text);
        assert!(self.text.to_lowercase().contains(&why.to_lowercase()), "no {why:?} in: {}", self.text);
    }
}

/// A file without a name. Not a pipe: a process left behind would hold it open, and a reader would wait for ever.
fn scratch() -> File {
    tempfile::tempfile().unwrap()
}

fn with_output(mut stdio: Stdio, out: &File) -> Stdio {
    let append = || -> OwnedFd { out.try_clone().unwrap().into() };
    stdio.stdin = stdio.stdin.or_else(|| Some(File::open("/dev/null").unwrap().into()));
    stdio.stdout = stdio.stdout.or_else(|| Some(append()));
    stdio.stderr = stdio.stderr.or_else(|| Some(append()));
    stdio
}

fn text(file: &File) -> String {
    // A clone would share its position with the writers.
    let mut own = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file))).unwrap();
    own.rewind().unwrap();
    let mut bytes = Vec::new();
    own.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn await_end(pidfd: BorrowedFd<'_>, out: &File) {
    assert!(readable(pidfd, PROGRAM), "not done after {PROGRAM:?}, said: {}", text(out));
}

/// Waits until a descriptor can be read.
pub fn readable(fd: BorrowedFd<'_>, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now()).as_millis().min(60_000) as u16;
        match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::from(left)) {
            Err(nix::errno::Errno::EINTR) => {}
            r => return r.unwrap() > 0,
        }
    }
}

/// The container's monitor, once it serves.
pub fn monitor_pid(c: &Guard<'_>) -> i32 {
    let mut found = 0;
    // On a slow host its answer may take longer than is waited for.
    poll_until("a monitor that serves", || {
        if let MonitorStatus::Serves(pid) = c.monitor() {
            found = pid;
        }
        found > 0
    });
    found
}

/// Waits until something is so.
#[track_caller]
pub fn poll_until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PROGRAM;
    while !so() {
        assert!(Instant::now() < end, "not after {PROGRAM:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The script of this project that makes trees, and its path of one of a kind, which must not be written to.
pub fn shared_tree(test: &str, kind: &str) -> Option<PathBuf> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIP {test}: not root");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hack/rootfs.sh");
    let out = Command::new(script).arg(kind).stdin(std::process::Stdio::null()).output().unwrap();
    if out.status.success() {
        return Some(PathBuf::from(String::from_utf8(out.stdout).unwrap().trim()));
    }
    let said = String::from_utf8_lossy(&out.stderr);
    eprintln!("SKIP {test}: no tree {kind}: {}", said.lines().last().unwrap_or_default());
    None
}

/// A Debian tree, copied once for all tests of this program that run at the same time: do not write outside of /tmp.
pub fn debian(test: &str) -> Option<Arc<TempDir>> {
    static COPY: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
    let tree = shared_tree(test, "docker-bookworm")?;
    let mut copy = COPY.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(dir) = copy.upgrade() {
        return Some(dir);
    }
    let dir = Arc::new(tempfile::Builder::new().prefix("sysbox-test-debian-").tempdir_in("/var/tmp").unwrap());
    copy_tree(&tree, &dir.path().join("tree"));
    *copy = Arc::downgrade(&dir);
    Some(dir)
}

fn copy_tree(from: &Path, to: &Path) {
    let ok = Command::new("cp").args(["-a", "--reflink=auto"]).args([from, to]).status().unwrap();
    assert!(ok.success(), "cp {from:?} {to:?}");
}

/// Pids on the host of all processes, zombies included, that have a user ID in a range.
pub fn pids_with_uid(first: u32, count: u32) -> BTreeSet<i32> {
    let ids = first..first.saturating_add(count);
    let has = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("Uid:")).unwrap_or_default().to_owned();
        line.split_whitespace().any(|u| u.parse().is_ok_and(|u| ids.contains(&u)))
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(has).collect()
}

/// Pids on the host of monitors that have a cgroup open whose path has this in it.
pub fn monitors(cgroup: &str) -> Vec<i32> {
    let holds = |pid: &i32| {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        comm.trim() == "sysbox-monitor"
            && fds.filter_map(|e| std::fs::read_link(e.path()).ok()).any(|l| l.to_string_lossy().contains(cgroup))
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(holds).collect()
}

/// A writable directory below `dir`, owned by real root.
pub fn make_dir(dir: &Path) -> PathBuf {
    std::fs::create_dir_all(dir).unwrap();
    dir.to_owned()
}

/// So that tests need not name the trait.
pub fn as_fd(file: &impl AsFd) -> OwnedFd {
    file.as_fd().try_clone_to_owned().unwrap()
}

/// Perl's `syscall` and its complaint, so that a failed call ends the program with the reason said.
pub fn perl(call: &str) -> String {
    format!("perl -e 'my $r = syscall({call}); if ($r == -1) {{ print \"$!\\n\"; exit 1 }} print \"$r\\n\"'")
}
