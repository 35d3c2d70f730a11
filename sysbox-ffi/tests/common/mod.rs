//! What the tests share: the library as it is built for users, a place for one test's containers, and what must not be left behind.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

pub mod abi;

use serde_json::{json, Value};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Where cargo builds.
fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

/// The directory with the library, built in the Makefile's two steps, but without optimization.
pub fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| make("ffi-test", "lib", &[]))
}

/// The stage program that is in the library.
pub fn stage() -> PathBuf {
    let triple = ok(Command::new("rustc").arg("-vV"));
    let triple = triple.lines().find_map(|l| l.strip_prefix("host: ")).unwrap().to_owned();
    library();
    target().join(triple).join("debug/sysbox-stage")
}

/// As [`library`], with an export that panics.
pub fn panicking_library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| make("ffi-test-panic", "lib", &["LIB_FEATURES=test-panic"]))
}

/// Makes a target of the Makefile with the library in `dir` below where cargo builds.
pub fn make(dir: &str, goal: &str, settings: &[&str]) -> PathBuf {
    // Two of them at a time would take each other's files from the directory that they build in.
    let lock = File::create(target().join("ffi-test.lock")).unwrap();
    let _lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let lib = target().join(dir);
    let mut make = Command::new("make");
    make.arg("--no-print-directory").arg("-C").arg(repository()).arg(goal).arg(format!("LIB={}", lib.display()));
    make.args(["LIB_PROFILE=dev", "STAGE_PROFILE=dev", "STAGE_ENV=CARGO_PROFILE_DEV_STRIP=true"]).args(settings);
    let said = make.stdin(Stdio::null()).output().unwrap();
    assert!(said.status.success(), "make {goal}: {}", String::from_utf8_lossy(&said.stderr));
    lib
}

/// False, with the reason said, where containers cannot be made.
pub fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIP {test}: not root");
    }
    root
}

/// A state directory, a copy of a tree and a cgroup of this test's own.
pub struct Lab {
    pub dir: TempDir,
    pub cgroup: String,
}

impl Lab {
    /// `None`, with the reason said, where the test cannot run.
    pub fn new(test: &str, kind: &str) -> Option<Lab> {
        if !is_root(test) {
            return None;
        }
        let tree = Command::new(repository().join("hack/rootfs.sh")).arg(kind).stdin(Stdio::null()).output().unwrap();
        if !tree.status.success() {
            let said = String::from_utf8_lossy(&tree.stderr).into_owned();
            eprintln!("SKIP {test}: no tree {kind}: {}", said.lines().last().unwrap_or_default());
            return None;
        }
        let tree = String::from_utf8(tree.stdout).unwrap();
        let dir = tempfile::Builder::new().prefix("sysbox-ffi-").tempdir_in("/var/tmp").unwrap();
        let copied =
            Command::new("cp").args(["-a", "--reflink=auto", tree.trim()]).arg(dir.path().join("tree")).status();
        assert!(copied.unwrap().success());
        std::fs::create_dir(dir.path().join("state")).unwrap();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let cgroup = format!("/sysbox-ffi-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Some(Lab { dir, cgroup })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The configuration of a container on the tree that runs a script.
    pub fn config(&self, id: &str, script: &str) -> Value {
        let container = sysbox_core::SystemContainer::new(self.path("tree")).args(["sh", "-c", script]);
        let mut doc = container.to_json();
        doc["linux"]["cgroupsPath"] = json!(format!("{}/{id}", self.cgroup));
        doc
    }

    /// Directories of containers' cgroups that are there.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let layout = sysbox_core::cgroup::Layout::detect().unwrap();
        let own = layout.hierarchies.iter().map(|h| h.mount.join(&self.cgroup[1..]));
        own.flat_map(|d| std::fs::read_dir(d).into_iter().flatten().flatten())
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .map(|e| e.path())
            .collect()
    }

    /// Nothing of any container of this lab is on the host.
    #[track_caller]
    pub fn assert_nothing_left(&self, when: &str) {
        let left = |dir: PathBuf| std::fs::read_dir(dir).map_or(0, Iterator::count);
        assert_eq!(left(self.state()), 0, "{when}: state is left");
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new(), "{when}: cgroups are left");
        let pool = std::fs::read_to_string("/run/sysbox-subid/ranges").unwrap_or_default();
        // Ranges of containers whose directory is gone come back with the next allocation; these had a release.
        assert!(!pool.contains(self.dir.path().to_str().unwrap()), "{when}: IDs are left");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "{when}: mounts are left");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let runtime = sysbox_core::Runtime::new(self.state());
        for id in runtime.list().unwrap_or_default() {
            if let Ok(c) = runtime.open(&id) {
                let _ = c.delete(true);
            }
        }
        for h in sysbox_core::cgroup::Layout::detect().unwrap().hierarchies {
            let _ = std::fs::remove_dir(h.mount.join(&self.cgroup[1..]));
        }
    }
}

/// Children of this process, zombies included.
pub fn children() -> BTreeSet<i32> {
    let me = std::process::id().to_string();
    let parent = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1).map(str::to_owned)
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(|p| parent(p).as_deref() == Some(&me)).collect()
}

/// Stages and monitors that come from this process: those that execute the copies of the stage program that it has in memory.
pub fn helpers() -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let inode = |path: PathBuf| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    let own = std::fs::read_dir("/proc/self/fd").unwrap().flatten().filter(|e| {
        std::fs::read_link(e.path()).is_ok_and(|link| link.to_string_lossy().contains("memfd:sysbox-stage"))
    });
    let own: BTreeSet<_> = own.filter_map(|e| inode(e.path())).collect();
    assert!(!own.is_empty(), "there is no stage program in memory");
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let ours = all.filter(|e| inode(e.path().join("exe")).is_some_and(|exe| own.contains(&exe)));
    ours.map(|e| std::fs::read_to_string(e.path().join("stat")).unwrap_or_default()).collect()
}

/// Open descriptors of this process.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Compiles C with all warnings as errors, against the header and the library in `lib`.
pub fn compile(source: &Path, program: &Path, lib: &Path, flags: &[&str]) {
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-D_GNU_SOURCE", "-g", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"]);
    cc.arg(repository().join("include")).args(flags).arg(source).arg("-o").arg(program);
    ok(cc.arg("-L").arg(lib).arg(format!("-Wl,-rpath,{}", lib.display())).args(["-lsysbox", "-pthread"]));
}

/// Runs a command, at most for so long, and says what it printed on both.
#[track_caller]
pub fn ok(command: &mut Command) -> String {
    let out = output(command, Duration::from_secs(300));
    let (said, complained) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {}\n{said}\n{complained}", out.status);
    format!("{said}{complained}")
}

/// Runs a command to its end, or kills it. Its output goes to files: a container that outlives it would hold a pipe open.
pub fn output(command: &mut Command, limit: Duration) -> Output {
    use std::io::{Read, Seek};
    let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(err.try_clone().unwrap())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let end = Instant::now() + limit;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > end => {
                child.kill().unwrap();
                break child.wait().unwrap();
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let text = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    };
    Output { status, stdout: text(&mut out), stderr: text(&mut err) }
}

pub fn on_path(command: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|d| d.join(command).is_file())
}

/// Whether a command is there; says that the test is skipped if not.
pub fn has(test: &str, command: &str) -> bool {
    let found = on_path(command);
    if !found {
        eprintln!("SKIP {test}: {command} is absent");
    }
    found
}
