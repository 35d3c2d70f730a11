//! A Podman with storage and state of its own, that uses the runtime.

use super::etc::Etc;
use super::{archive, lacks, subdirectories, wait_for, Done, Lab, LIMIT};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// For what may load an image.
pub(crate) const STEP: Duration = Duration::from_secs(120);

/// Its containers and pods end when it goes out of scope.
pub(crate) struct Podman {
    pub(crate) etc: Option<Etc>,
    pub(crate) lab: Lab,
}

impl Podman {
    /// `None`: the test cannot run here, and stderr says why. On a tree of that kind, as an image of that name.
    pub(crate) fn start(name: &'static str, kind: &'static str) -> Option<Podman> {
        Podman::on(name, kind, |_| Some(None))
    }

    /// One that has IDs to give away, and a network called [`super::etc::NETWORK`].
    pub(crate) fn with_ids(name: &'static str, kind: &'static str) -> Option<Podman> {
        Podman::on(name, kind, |lab| Etc::new(name, lab).map(Some))
    }

    fn on(name: &'static str, kind: &'static str, etc: impl FnOnce(&Lab) -> Option<Option<Etc>>) -> Option<Podman> {
        let lab = Lab::new(name, kind)?;
        if let Some(missing) = lacks(&["podman", "conmon", "ip", "script", "nsenter", "unshare"]) {
            eprintln!("SKIP {name}: no {missing}");
            return None;
        }
        // Podman's own limits may be above the caller's, which only some roots may raise.
        let conf = "[containers]\ndefault_ulimits = [\"nofile=4096:4096\", \"nproc=8192:8192\"]\n\
                    [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
        std::fs::write(lab.path("containers.conf"), conf).unwrap();
        let podman = Podman { etc: etc(&lab)?, lab };
        let image = archive::image(&podman.lab, kind);
        podman.podman(&["load", "-q", "-i", image.to_str().unwrap()]).ok();
        std::fs::remove_file(image).unwrap();
        Some(podman)
    }

    pub(crate) fn client(&self, args: &[&str]) -> Command {
        let mut c = self.etc.as_ref().map_or_else(|| Command::new("podman"), |etc| etc.command("podman"));
        for (option, dir) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            c.arg(option).arg(self.lab.path(dir));
        }
        c.args(["--storage-driver", "overlay", "--runtime", env!("CARGO_BIN_EXE_sysbox-runc")]);
        c.args(args).stdin(Stdio::null());
        c.env("CONTAINERS_CONF", self.lab.path("containers.conf"));
        c
    }

    #[track_caller]
    pub(crate) fn podman(&self, args: &[&str]) -> Done {
        self.lab.spawn(self.client(args)).finish(STEP)
    }

    /// `podman run`, without a network unless one is named.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        let parent = self.lab.cgroup_parent();
        let mut all = vec!["run", "--cgroup-parent", &parent];
        if !args.iter().any(|a| matches!(*a, "--network" | "--pod")) {
            all.extend(["--network", "none"]);
        }
        all.extend(args);
        self.podman(&all)
    }

    /// `podman rm` or `podman pod rm`. Podman 4.3 races with what conmon calls at a container's end, whatever the runtime, and
    /// finds its own /dev/shm busy; the next try removes what is left.
    #[track_caller]
    pub(crate) fn remove(&self, args: &[&str]) {
        let done = self.podman(args);
        if done.code != 0 {
            assert!(done.err.contains("device or resource busy"), "{done:?}");
            let again = self.podman(args);
            assert!(again.code == 0 || again.err.contains("no such"), "{again:?}");
        }
    }

    /// On a terminal.
    #[track_caller]
    pub(crate) fn on_terminal(&self, args: &[&str]) -> Done {
        let inner = self.client(args);
        let words: Vec<_> = [inner.get_program()].into_iter().chain(inner.get_args()).collect();
        let line = words.iter().map(|w| w.to_str().unwrap()).collect::<Vec<_>>().join(" ");
        let mut c = Command::new("script");
        c.args(["-qec", &line, "/dev/null"])
            .env("CONTAINERS_CONF", self.lab.path("containers.conf"))
            .stdin(Stdio::null());
        self.lab.spawn(c).finish(LIMIT)
    }

    #[track_caller]
    pub(crate) fn inspect(&self, container: &str, format: &str) -> String {
        self.podman(&["inspect", "--format", format, container]).ok().text().to_owned()
    }

    /// Fails if anything of containers is left, here or in the kernel. All must have been removed.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.podman(&["ps", "-aq"]).ok().text(), "");
        let dir = self.lab.dir.to_str().unwrap();
        let states = || {
            let all = std::fs::read_dir("/run/sysbox-runc").into_iter().flatten().flatten();
            let config = |p: &Path| std::fs::read_to_string(p.join("config.json")).unwrap_or_default();
            all.map(|e| e.path()).filter(|p| config(p).contains(dir)).collect::<Vec<_>>()
        };
        // What conmon calls at a container's end may still be at work.
        wait_for(LIMIT, || states().is_empty());
        assert_eq!(states(), Vec::<PathBuf>::new(), "state directories");
        let table = self.etc.as_ref().map_or_else(|| "/proc/self/mountinfo".into(), Etc::mountinfo);
        let storage = self.lab.path("root/overlay");
        let mounts = || {
            let text = std::fs::read_to_string(&table).unwrap();
            let points = text.lines().filter_map(|l| l.split(' ').nth(4)).map(PathBuf::from);
            points.filter(|p| p.starts_with(&self.lab.dir) && *p != storage).collect::<Vec<_>>()
        };
        wait_for(LIMIT, || mounts().is_empty());
        assert_eq!(mounts(), Vec::<PathBuf>::new(), "mounts");
        // conmon's nodes and pods' are Podman's own. It does not remove those of hierarchies that it does not know.
        let own = |d: &PathBuf| d.file_name().is_some_and(|n| !n.to_string_lossy().starts_with("libpod-"));
        let nodes: Vec<PathBuf> = self.lab.cgroups().iter().flat_map(|d| subdirectories(d)).collect();
        let (pods, mut left): (Vec<_>, Vec<_>) = nodes.into_iter().partition(own);
        left.extend(pods.iter().flat_map(|d| subdirectories(d)).filter(|d| !d.ends_with("conmon")));
        assert_eq!(left, Vec::<PathBuf>::new(), "control groups");
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        for args in [&["pod", "rm", "-fa", "-t0"][..], &["rm", "-fa", "-t0"]] {
            let _ = self.client(args).output();
        }
        let storage = self.lab.path("root/overlay");
        let mut umount = self.etc.as_ref().map_or_else(|| Command::new("umount"), |etc| etc.command("umount"));
        let _ = umount.arg(storage).output();
    }
}
