//! A Docker Engine of the host's, with sockets, data and a bridge of its own, that uses the runtime.

use super::{tree, wait_for, Done, Lab, Running};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

pub(crate) const STEP: Duration = Duration::from_secs(120);

/// An engine that ends, with everything in it, when it goes out of scope.
pub(crate) struct Engine {
    pub(crate) lab: Lab,
    name: &'static str,
    bridge: String,
    net: u32,
    /// What is done before dockerd starts, in a mount namespace of its own.
    prelude: String,
    dockerd: Mutex<Option<Running>>,
    images: Mutex<Vec<String>>,
}

impl Engine {
    /// `None`: the test cannot run here, and stderr says why. `extra` is added to daemon.json.
    pub(crate) fn start(name: &'static str, extra: &[(&str, serde_json::Value)]) -> Option<Engine> {
        Engine::start_with(name, extra, &[])
    }

    /// As [`Engine::start`], for an engine that sees other files in /etc: name and content.
    pub(crate) fn start_with(
        name: &'static str,
        extra: &[(&str, serde_json::Value)],
        etc: &[(&str, &str)],
    ) -> Option<Engine> {
        Engine::start_after(name, extra, |lab| {
            let mount = |(file, content): &(&str, &str)| {
                std::fs::write(lab.path(file), content).unwrap();
                format!("mount --bind {} /etc/{file}\n", lab.path(file).display())
            };
            etc.iter().map(mount).collect()
        })
    }

    /// The engine of that tree instead of the host's.
    pub(crate) fn start_of(name: &'static str, kind: &str) -> Option<Engine> {
        let engine = match tree(kind) {
            Ok(t) => t,
            Err(why) => {
                eprintln!("SKIP {name}: {why}");
                return None;
            }
        };
        Engine::start_after(name, &[], |lab| {
            let runtime = std::path::Path::new(env!("CARGO_BIN_EXE_sysbox-runc")).parent().unwrap().display();
            let (dir, parent) = (lab.dir.display(), lab.dir.parent().unwrap().display());
            format!(
                "mkdir {dir}/root {dir}/up {dir}/work
                mount -t overlay -o lowerdir={},upperdir={dir}/up,workdir={dir}/work overlay {dir}/root
                cd {dir}/root
                mkdir -p ./{parent} ./{runtime} old
                for d in proc sys dev tmp run {parent} {runtime}; do mount --rbind /${{d#/}} ./$d; done
                pivot_root . old
                cd /
                umount -l /old\n",
                engine.display()
            )
        })
    }

    fn start_after(
        name: &'static str,
        extra: &[(&str, serde_json::Value)],
        prelude: impl FnOnce(&Lab) -> String,
    ) -> Option<Engine> {
        let lab = Lab::new(name, "busybox")?;
        for program in ["dockerd", "docker", "ip", "iptables"] {
            let found =
                Command::new("sh").args(["-c", &format!("PATH=$PATH:/usr/sbin:/sbin command -v {program}")]).output();
            if !found.unwrap().status.success() {
                eprintln!("SKIP {name}: no {program}");
                return None;
            }
        }
        let pid = std::process::id();
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // Private addresses that no other test of this moment is likely to have.
        let net = 96 + (pid * 4 + n) % 128;
        let bridge = format!("sbx{pid}-{n}");
        let mut config = serde_json::json!({
            "runtimes": {"sysbox-runc": {"path": env!("CARGO_BIN_EXE_sysbox-runc")}},
            "data-root": lab.path("data"),
            "exec-root": lab.path("exec"),
            "pidfile": lab.path("dockerd.pid"),
            "hosts": [format!("unix://{}", lab.path("sock").display())],
            "bridge": bridge,
            // The host's rules are not a test's to change; containers of one network reach each other without.
            "iptables": false,
            "ip6tables": false,
            "storage-driver": "overlay2",
            "default-address-pools": [{"base": format!("10.{net}.128.0/17"), "size": 24}],
        });
        for (key, value) in extra {
            config[*key] = value.clone();
        }
        std::fs::write(lab.path("daemon.json"), config.to_string()).unwrap();
        ip(&["link", "add", &bridge, "type", "bridge"]);
        ip(&["addr", "add", &format!("10.{net}.0.1/24"), "dev", &bridge]);
        ip(&["link", "set", &bridge, "up"]);
        let prelude = prelude(&lab);
        let (dockerd, images) = (Mutex::default(), Mutex::default());
        let engine = Engine { lab, name, bridge, net, prelude, dockerd, images };
        engine.launch();
        Some(engine)
    }

    /// One for all tests of a program that run at a time.
    pub(crate) fn shared(name: &'static str) -> Option<Arc<Engine>> {
        static SHARED: Mutex<Weak<Engine>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(engine) = shared.upgrade() {
            return Some(engine);
        }
        let engine = Arc::new(Engine::start(name, &[])?);
        *shared = Arc::downgrade(&engine);
        Some(engine)
    }

    /// Starts dockerd, also after [`Engine::kill`].
    #[track_caller]
    pub(crate) fn launch(&self) {
        let dir = self.lab.dir.display();
        let script = format!("set -e\n{}exec dockerd --config-file {dir}/daemon.json", self.prelude);
        let mut dockerd = Command::new("sh");
        if !self.prelude.is_empty() {
            dockerd = Command::new("unshare");
            dockerd.args(["-m", "sh"]);
        }
        dockerd.args(["-c", &script]).stdin(Stdio::null());
        let path = std::env::var("PATH").unwrap_or_default();
        dockerd.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        *self.dockerd.lock().unwrap() = Some(self.lab.spawn(dockerd));
        let up = wait_for(STEP, || self.docker(&["info"]).code == 0);
        let said = self.dockerd.lock().unwrap().as_ref().map(Running::err).unwrap_or_default();
        assert!(up, "{}: dockerd does not come up:\n{said}", self.name);
    }

    /// kill -9.
    pub(crate) fn kill(&self) {
        drop(self.dockerd.lock().unwrap().take());
        // Its containerd dies with it, a moment later: a new dockerd would take it for alive.
        let pid = std::fs::read_to_string(self.path("exec/containerd/containerd.pid")).unwrap_or_default();
        let comm = format!("/proc/{}/comm", pid.trim());
        let gone = || !std::fs::read_to_string(&comm).is_ok_and(|c| c.starts_with("containerd"));
        wait_for(Duration::from_secs(20), gone);
    }

    /// The client, with this engine.
    pub(crate) fn client(&self, args: &[&str]) -> Command {
        let mut c = Command::new("docker");
        c.arg("-H").arg(format!("unix://{}", self.lab.path("sock").display())).args(args).stdin(Stdio::null());
        c.env_remove("DOCKER_HOST").env("DOCKER_CONFIG", self.lab.path("client"));
        c
    }

    #[track_caller]
    pub(crate) fn docker(&self, args: &[&str]) -> Done {
        self.lab.spawn(self.client(args)).finish(STEP)
    }

    /// `docker run --runtime=sysbox-runc`.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        let mut all = vec!["run", "--runtime=sysbox-runc"];
        all.extend(args);
        self.docker(&all)
    }

    /// What a container's status is, by `docker inspect`.
    #[track_caller]
    pub(crate) fn inspect(&self, container: &str, format: &str) -> String {
        self.docker(&["inspect", "--format", format, container]).ok().text().to_owned()
    }

    /// The tree of that kind as an image of that name.
    #[track_caller]
    pub(crate) fn image(&self, kind: &str) {
        let mut images = self.images.lock().unwrap_or_else(|e| e.into_inner());
        if images.iter().any(|i| i == kind) {
            return;
        }
        let tree = tree(kind).unwrap();
        let socket = self.lab.path("sock");
        let script = format!(
            "tar --numeric-owner -C {} -c . | docker -H unix://{} import - {kind}",
            tree.display(),
            socket.display()
        );
        let mut c = Command::new("sh");
        c.args(["-c", &script]).stdin(Stdio::null()).env_remove("DOCKER_HOST");
        self.lab.spawn(c).finish(3 * STEP).ok();
        images.push(kind.to_owned());
    }

    /// First three numbers of the addresses on the bridge.
    pub(crate) fn subnet(&self) -> String {
        format!("10.{}.0", self.net)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.lab.path(name)
    }

    /// What is left of containers, here and in the kernel, as text; empty when there is nothing.
    pub(crate) fn leavings(&self) -> String {
        let dir = self.lab.dir.to_str().unwrap_or_default();
        let lines = |path: &str| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.lines().filter(|l| l.contains(dir)).map(|l| format!("{path}: {l}\n")).collect::<String>()
        };
        let state = self.path("exec/runtime-sysbox-runc/moby");
        let entries = std::fs::read_dir(&state).into_iter().flatten().flatten();
        let states: String = entries.map(|e| format!("{}\n", e.path().display())).collect();
        let layers = |e: &std::fs::DirEntry| e.path().join("merged").is_dir();
        let overlay = std::fs::read_dir(self.path("data/overlay2")).into_iter().flatten().flatten().filter(layers);
        let overlay: String = overlay.map(|e| format!("{}\n", e.path().display())).collect();
        // dockerd itself binds its directory.
        let own = format!(" {0} {0} ", self.path("data").display());
        let mounts: String =
            lines("/proc/self/mountinfo").lines().filter(|l| !l.contains(&own)).map(|l| format!("{l}\n")).collect();
        mounts + &lines("/run/sysbox-subid/ranges") + &states + &overlay
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Ok(mut dockerd) = self.dockerd.lock() {
            if let Some(running) = dockerd.take() {
                let all = self.client(&["ps", "-aq"]).output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
                let all = all.unwrap_or_default();
                if !all.trim().is_empty() {
                    let mut args = vec!["rm", "-fv"];
                    args.extend(all.split_whitespace());
                    let _ = self.client(&args).output();
                }
                // Their bridges would outlive the engine.
                let _ = self.client(&["network", "prune", "-f"]).output();
                let _ = nix::sys::signal::kill(running.pid(), nix::sys::signal::Signal::SIGTERM);
                let _ = running.try_finish(Duration::from_secs(30));
            }
        }
        let _ = Command::new("ip").args(["link", "del", &self.bridge]).output();
        // The second is what it keeps of the host's network for containers that ask for that.
        for mounted in ["data", "exec/netns/default"] {
            let _ = Command::new("umount").arg(self.lab.path(mounted)).output();
        }
    }
}

#[track_caller]
fn ip(args: &[&str]) {
    let out = Command::new("ip").args(args).output().unwrap();
    assert!(out.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}
