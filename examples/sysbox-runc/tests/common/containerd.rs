//! A containerd with data, state, socket and a namespace of its own, and ctr, which uses the runtime.

use super::etc::Etc;
use super::{archive, lacks, subdirectories, wait_for, Done, Lab, Running, LIMIT};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// For what may load an image.
pub(crate) const STEP: Duration = Duration::from_secs(120);

/// It and its containers end when it goes out of scope.
pub(crate) struct Containerd {
    pub(crate) etc: Option<Etc>,
    daemon: Mutex<Option<Running>>,
    image: String,
    pub(crate) lab: Lab,
}

impl Containerd {
    /// `None`: the test cannot run here, and stderr says why. With a tree of that kind as its image.
    pub(crate) fn start(name: &'static str, kind: &'static str) -> Option<Containerd> {
        let lab = Lab::new(name, kind)?;
        if let Some(missing) = lacks(&["containerd", "containerd-shim-runc-v2", "ctr", "script"]) {
            eprintln!("SKIP {name}: no {missing}");
            return None;
        }
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            lab.path("root"),
            lab.path("run"),
            lab.path("sock"),
            lab.path("ttrpc")
        );
        std::fs::write(lab.path("containerd.toml"), config).unwrap();
        let containerd = Containerd { etc: None, daemon: Mutex::default(), image: archive::name(kind), lab };
        containerd.launch();
        let image = archive::image(&containerd.lab, kind);
        containerd.ctr(&["image", "import", image.to_str().unwrap()]).ok();
        std::fs::remove_file(image).unwrap();
        Some(containerd)
    }

    /// One whose clients have a network by the plugins' standard.
    pub(crate) fn with_network(name: &'static str, kind: &'static str) -> Option<Containerd> {
        let mut containerd = Containerd::start(name, kind)?;
        containerd.etc = Some(Etc::new(name, &containerd.lab)?);
        Some(containerd)
    }

    /// Starts the daemon, also after [`Containerd::kill`].
    #[track_caller]
    pub(crate) fn launch(&self) {
        let mut daemon = Command::new("containerd");
        daemon.arg("--config").arg(self.lab.path("containerd.toml")).stdin(Stdio::null());
        *self.daemon.lock().unwrap() = Some(self.lab.spawn(daemon));
        let up = wait_for(LIMIT, || self.ctr(&["version"]).code == 0);
        let said = self.daemon.lock().unwrap().as_ref().map(Running::err).unwrap_or_default();
        assert!(up, "containerd does not come up:\n{said}");
    }

    /// kill -9.
    pub(crate) fn kill(&self) {
        drop(self.daemon.lock().unwrap().take());
    }

    /// The namespace of its containers, which is their parent in control groups as well.
    fn namespace(&self) -> String {
        self.lab.cgroup_parent().trim_start_matches('/').to_owned()
    }

    /// Where the shim has the runtime keep its state: the same for every containerd of the host.
    fn state_root(&self) -> PathBuf {
        PathBuf::from("/run/containerd/runc").join(self.namespace())
    }

    pub(crate) fn client(&self, args: &[&str]) -> Command {
        let mut c = self.etc.as_ref().map_or_else(|| Command::new("ctr"), |etc| etc.command("ctr"));
        c.arg("-a").arg(self.lab.path("sock")).args(["-n", &self.namespace()]).args(args).stdin(Stdio::null());
        c
    }

    #[track_caller]
    pub(crate) fn ctr(&self, args: &[&str]) -> Done {
        self.lab.spawn(self.client(args)).finish(STEP)
    }

    /// `ctr run --runc-binary sysbox-runc OPTIONS IMAGE NAME PROGRAM`.
    #[track_caller]
    pub(crate) fn run(&self, options: &[&str], name: &str, program: &[&str]) -> Done {
        self.ctr(&self.run_args(options, name, program))
    }

    fn run_args<'a>(&'a self, options: &[&'a str], name: &'a str, program: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["run", "--runc-binary", env!("CARGO_BIN_EXE_sysbox-runc")];
        all.extend(options);
        all.extend([self.image.as_str(), name]);
        all.extend(program);
        all
    }

    /// On a terminal.
    #[track_caller]
    pub(crate) fn on_terminal(&self, args: &[&str]) -> Done {
        let inner = self.client(args);
        let words: Vec<_> = [inner.get_program()].into_iter().chain(inner.get_args()).collect();
        let line = words.iter().map(|w| w.to_str().unwrap()).collect::<Vec<_>>().join(" ");
        let mut c = Command::new("script");
        c.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null());
        self.lab.spawn(c).finish(LIMIT)
    }

    /// RUNNING, PAUSED and so on; `None` if there is no such task.
    pub(crate) fn status(&self, name: &str) -> Option<String> {
        let table = self.ctr(&["task", "ls"]).out;
        let row = table.lines().map(|l| l.split_whitespace().collect::<Vec<_>>()).find(|r| r.first() == Some(&name))?;
        row.last().map(ToString::to_string)
    }

    #[track_caller]
    pub(crate) fn wait_status(&self, name: &str, wanted: &str) {
        let reached = wait_for(LIMIT, || self.status(name).as_deref() == Some(wanted));
        assert!(reached, "{name} is {:?} instead of {wanted}", self.status(name));
    }

    /// The layer that takes what a container writes.
    #[track_caller]
    pub(crate) fn upper(&self, name: &str) -> PathBuf {
        let mounts = self.ctr(&["snapshot", "mounts", "/anywhere", name]).ok().out;
        let option = mounts.split([',', ' ']).find_map(|o| o.strip_prefix("upperdir=")).unwrap();
        option.into()
    }

    /// Fails if anything of containers is left, here or in the kernel. All must have been removed.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.ctr(&["container", "ls", "-q"]).ok().text(), "");
        assert_eq!(subdirectories(&self.state_root()), Vec::<PathBuf>::new(), "state directories");
        let dir = self.lab.dir.to_str().unwrap();
        let mounts = || {
            let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            all.lines().filter(|l| l.contains(dir)).map(String::from).collect::<Vec<_>>()
        };
        wait_for(LIMIT, || mounts().is_empty());
        assert_eq!(mounts(), Vec::<String>::new(), "mounts");
        let left = self.lab.cgroups().iter().flat_map(|d| subdirectories(d)).collect::<Vec<_>>();
        assert_eq!(left, Vec::<PathBuf>::new(), "control groups");
        let ranges = std::fs::read_to_string("/run/sysbox-subid/ranges").unwrap_or_default();
        assert!(!ranges.contains(&self.namespace()), "ID ranges");
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let running = self.daemon.lock().is_ok_and(|d| d.is_some());
        if !running {
            self.launch();
        }
        for kind in ["task", "container"] {
            let list = self.client(&[kind, "ls", "-q"]).output().map(|o| o.stdout).unwrap_or_default();
            for name in String::from_utf8_lossy(&list).split_whitespace() {
                let force: &[&str] = if kind == "task" { &["-f"] } else { &[] };
                let _ = self.client(&[&[kind, "rm"], force, &[name]].concat()).output();
            }
        }
        if let Ok(Some(running)) = self.daemon.lock().map(|mut d| d.take()) {
            let _ = nix::sys::signal::kill(running.pid(), nix::sys::signal::Signal::SIGTERM);
            let _ = running.try_finish(Duration::from_secs(30));
        }
        let _ = std::fs::remove_dir(self.state_root());
    }
}
