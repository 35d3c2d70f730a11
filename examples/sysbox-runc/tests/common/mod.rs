//! What the tests of the runtime share: a place for one test's bundles, state, control groups and output, which takes
//! everything away at the end, whatever happened.
#![allow(dead_code)] // each test program uses a part of it
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

pub(crate) mod archive;
pub(crate) mod containerd;
pub(crate) mod engine;
pub(crate) mod etc;
pub(crate) mod inner;
pub(crate) mod podman;

use serde_json::Value;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// For everything that is not known to take longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// One test's place. Names made from it are unique on this machine.
pub(crate) struct Lab {
    pub(crate) dir: PathBuf,
    kind: &'static str,
    tag: String,
    ids: Mutex<Vec<String>>,
    outputs: AtomicU32,
}

/// What a command said, and how it ended: a signal is 128 plus its number.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) command: String,
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    /// Fails the test unless the exit status is 0; says what the command printed.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.expect_code(0)
    }

    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\nstdout: {}\nstderr: {}", self.command, self.out, self.err);
        self
    }

    /// A failure of the runtime's own, whose message holds all of these.
    #[track_caller]
    pub(crate) fn refused(self, words: &[&str]) -> Self {
        let done = self.expect_code(1);
        for w in words {
            assert!(done.err.contains(w), "{}: no {w:?} in {:?}", done.command, done.err);
        }
        assert!(!done.err.contains("panicked"), "{}", done.err);
        done
    }

    /// Standard output without the white space around it.
    pub(crate) fn text(&self) -> &str {
        self.out.trim()
    }
}

/// A program that runs; killed when it goes out of scope.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    command: String,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id() as i32)
    }

    pub(crate) fn out(&self) -> String {
        read_lossy(&self.out)
    }

    fn err(&self) -> String {
        read_lossy(&self.err)
    }

    /// Waits until its standard output holds `words`.
    #[track_caller]
    pub(crate) fn says(&mut self, words: &str, limit: Duration) {
        let said = wait_for(limit, || self.out().contains(words) || self.child.try_wait().unwrap().is_some());
        let found = self.out().contains(words);
        assert!(found, "{}: no {words:?} ({said})\nstdout: {}\nstderr: {}", self.command, self.out(), self.err());
    }

    /// Waits for its end; when it takes longer than that, the test has failed.
    #[track_caller]
    pub(crate) fn finish(self, limit: Duration) -> Done {
        self.try_finish(limit).unwrap_or_else(|e| panic!("{e}"))
    }

    pub(crate) fn try_finish(mut self, limit: Duration) -> Result<Done, String> {
        let mut status: Option<ExitStatus> = None;
        let ended = wait_for(limit, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        if !ended {
            return Err(format!(
                "{}: not done in {limit:?}\nstdout: {}\nstderr: {}",
                self.command,
                self.out(),
                self.err()
            ));
        }
        let status = status.unwrap();
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ok(Done { command: self.command.clone(), code, out: self.out(), err: self.err() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lab {
    /// For tests on trees of that kind (see hack/rootfs.sh). `None`: the test cannot run here, and stderr says why.
    pub(crate) fn new(name: &'static str, kind: &'static str) -> Option<Lab> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIP {name}: not root");
            return None;
        }
        let tree = match tree(kind) {
            Ok(t) => t,
            Err(why) => {
                eprintln!("SKIP {name}: {why}");
                return None;
            }
        };
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // On the trees' file system: copies may share their blocks.
        let dir = tree.parent().unwrap().join(format!("sysbox-runc-{tag}"));
        std::fs::create_dir(&dir).unwrap();
        Some(Lab { dir, kind, tag, ids: Mutex::default(), outputs: AtomicU32::new(0) })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn state_root(&self) -> PathBuf {
        self.path("state")
    }

    /// A container id of this test's own, taken away at its end.
    pub(crate) fn id(&self, name: &str) -> String {
        let id = format!("{}-{name}", self.tag);
        self.ids.lock().unwrap().push(id.clone());
        id
    }

    /// The node above those of this test's containers, in every hierarchy.
    pub(crate) fn cgroup_parent(&self) -> String {
        format!("/sysbox-{}", self.tag)
    }

    /// This test's nodes that exist, in all hierarchies.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let name = format!("sysbox-{}", self.tag);
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path());
        let candidates = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|h| h.join(&name));
        let mut found: Vec<PathBuf> = candidates.filter(|d| d.is_dir()).filter_map(|d| d.canonicalize().ok()).collect();
        // cpuacct may be a link to cpu,cpuacct.
        found.sort();
        found.dedup();
        found
    }

    /// A bundle with a root file system of its own: what `spec` writes, without the terminal, running `args`.
    pub(crate) fn bundle(&self, name: &str, args: &[&str]) -> Bundle {
        let dir = self.path(name);
        std::fs::create_dir(&dir).unwrap();
        let rootfs = dir.join("rootfs");
        let copied =
            Command::new("cp").args(["-a", "--reflink=auto"]).arg(tree(self.kind).unwrap()).arg(&rootfs).status();
        assert!(copied.unwrap().success(), "no copy of the tree {}", self.kind);
        self.bundle_on(&dir, args)
    }

    /// A bundle whose root file system is there already.
    fn bundle_on(&self, dir: &Path, args: &[&str]) -> Bundle {
        self.run(&["spec", "--bundle", dir.to_str().unwrap()]).ok();
        let bundle = Bundle { dir: dir.to_owned() };
        bundle.edit(|c| {
            c["process"]["terminal"] = false.into();
            c["process"]["args"] = args.into();
            let name = dir.file_name().unwrap().to_str().unwrap();
            c["linux"]["cgroupsPath"] = format!("{}/{name}", self.cgroup_parent()).into();
        });
        bundle
    }

    /// The runtime, on this test's state directory.
    pub(crate) fn runtime(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_sysbox-runc"));
        c.arg("--root").arg(self.state_root()).args(args).stdin(Stdio::null());
        c
    }

    /// Runs the runtime to its end.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        self.spawn(self.runtime(args)).finish(LIMIT)
    }

    /// Starts a program. Its output goes to files: a container that outlives it would hold a pipe open.
    #[track_caller]
    pub(crate) fn spawn(&self, mut c: Command) -> Running {
        let n = self.outputs.fetch_add(1, Ordering::Relaxed);
        let (out, err) = (self.path(&format!("{n}.out")), self.path(&format!("{n}.err")));
        c.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let words = [c.get_program()].into_iter().chain(c.get_args()).map(|a| a.to_string_lossy().into_owned());
        let command = words.collect::<Vec<_>>().join(" ");
        let child = c.spawn().unwrap();
        Running { child, command, out, err }
    }

    /// `create` and `start` of a container on that bundle.
    #[track_caller]
    pub(crate) fn started(&self, name: &str, bundle: &Bundle) -> String {
        let id = self.id(name);
        self.run(&["create", "--bundle", bundle.path(), &id]).ok();
        self.run(&["start", &id]).ok();
        id
    }

    /// A shell script in a running container, with its own time limit.
    #[track_caller]
    pub(crate) fn sh(&self, id: &str, script: &str, limit: Duration) -> Done {
        self.spawn(self.runtime(&["exec", id, "sh", "-c", script])).finish(limit)
    }

    /// The container's status as `state` has it, `gone` if there is none.
    #[track_caller]
    pub(crate) fn status(&self, id: &str) -> String {
        let done = self.run(&["state", id]);
        if done.code != 0 {
            assert!(done.err.contains("does not exist"), "{}", done.err);
            return "gone".into();
        }
        json(&done.out)["status"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn wait_status(&self, id: &str, wanted: &str) {
        let reached = wait_for(LIMIT, || self.status(id) == wanted);
        assert!(reached, "{id} is {} instead of {wanted}", self.status(id));
    }

    /// Fails if the host still has anything of this test's containers.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(subdirectories(&self.state_root()), Vec::<PathBuf>::new(), "state directories");
        // The parent of the containers' nodes may stay: it is not theirs.
        let nodes: Vec<PathBuf> = self.cgroups().iter().flat_map(|d| subdirectories(d)).collect();
        assert_eq!(nodes, Vec::<PathBuf>::new(), "control groups");
        let dir = self.dir.to_str().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(dir), "mounts below {dir}");
        let ids = std::fs::read_to_string("/run/sysbox-subid/ranges").unwrap_or_default();
        assert!(!ids.contains(dir), "ID ranges of {dir}");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for id in self.ids.lock().unwrap().iter() {
            let _ = self.runtime(&["delete", "--force", id]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
        for d in self.cgroups() {
            let _ = Command::new("find").arg(d).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]).output();
        }
        // Should a mount have survived, what is mounted must not be deleted.
        let _ = Command::new("rm").args(["-rf", "--one-file-system"]).arg(&self.dir).output();
    }
}

/// A directory with a config.json.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) dir: PathBuf,
}

impl Bundle {
    pub(crate) fn path(&self) -> &str {
        self.dir.to_str().unwrap()
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    pub(crate) fn config(&self) -> Value {
        json(&std::fs::read_to_string(self.dir.join("config.json")).unwrap())
    }

    pub(crate) fn write(&self, config: &Value) {
        std::fs::write(self.dir.join("config.json"), config.to_string()).unwrap();
    }

    pub(crate) fn edit(&self, change: impl FnOnce(&mut Value)) {
        let mut config = self.config();
        change(&mut config);
        self.write(&config);
    }
}

#[track_caller]
pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text:?}"))
}

/// The shared tree of that kind, built if need be; or why there is none.
pub(crate) fn tree(kind: &str) -> Result<PathBuf, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../hack/rootfs.sh");
    let out = Command::new(script).arg(kind).stdin(Stdio::null()).output().unwrap();
    let said = |b: &[u8]| String::from_utf8_lossy(b).trim().to_owned();
    if out.status.success() {
        return Ok(said(&out.stdout).into());
    }
    Err(format!("no tree {kind}: {}", said(&out.stderr).lines().last().unwrap_or_default()))
}

/// The first of these programs that this host has not.
pub(crate) fn lacks<'a>(programs: &[&'a str]) -> Option<&'a str> {
    let absent = |p: &&&str| {
        let script = format!("PATH=$PATH:/usr/sbin:/sbin command -v {p}");
        !Command::new("sh").args(["-c", &script]).output().unwrap().status.success()
    };
    programs.iter().find(absent).copied()
}

/// A version 1 hierarchy that the kernel has and this host has not mounted: containerd finds no metrics of any container then.
pub(crate) fn unmounted_hierarchy() -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let options = |l: &str| l.split_once(" - cgroup ").map(|(_, rest)| rest.rsplit(' ').next().unwrap().to_owned());
    let mounted: Vec<String> = mounts.lines().filter_map(options).collect();
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let named = own.lines().filter_map(|l| l.split(':').nth(1)).filter(|controllers| !controllers.is_empty());
    let lacking = |c: &&str| !mounted.iter().any(|m| c.split(',').all(|one| m.split(',').any(|o| o == one)));
    named.map(str::to_owned).find(|c| lacking(&c.as_str()))
}

/// Says why, if there are no metrics.
pub(crate) fn has_metrics(test: &str) -> bool {
    let Some(hierarchy) = unmounted_hierarchy() else { return true };
    eprintln!("SKIP {test}: no metrics: the control groups of {hierarchy} are not mounted");
    false
}

pub(crate) fn wait_for(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
