//! A configuration from code instead of from a file.

use super::Spec;
use crate::error::Result;
use serde_json::{json, Value};
use std::path::{Path, PathBuf};

/// A system container to be: what differs from one to the next, with everything else as it should be.
///
/// Nothing is checked before [`Runtime::create`](crate::Runtime::create). There is no seccomp filter, and every device is denied
/// but those that every container has. Fields without a method here are set in the document of [`SystemContainer::to_json`],
/// which [`Spec::from_json`] reads back.
#[derive(Debug, Clone)]
pub struct SystemContainer {
    rootfs: PathBuf,
    args: Vec<String>,
    env: Vec<String>,
    cwd: PathBuf,
    user: (u32, u32),
    hostname: Option<String>,
    terminal: bool,
    readonly: bool,
    mounts: Vec<Value>,
    cgroup: Option<PathBuf>,
    memory: Option<i64>,
    pids: Option<i64>,
    cpus: Option<f64>,
    annotations: serde_json::Map<String, Value>,
}

impl SystemContainer {
    /// On the root file system in that directory of the host, which must be owned by root and support ID-mapped mounts.
    pub fn new(rootfs: impl Into<PathBuf>) -> Self {
        SystemContainer {
            rootfs: rootfs.into(),
            args: vec!["/sbin/init".into()],
            env: vec![format!("PATH={}", crate::process::DEFAULT_PATH), "TERM=xterm".into()],
            cwd: "/".into(),
            user: (0, 0),
            hostname: None,
            terminal: false,
            readonly: false,
            mounts: Vec::new(),
            cgroup: None,
            memory: None,
            pids: None,
            cpus: None,
            annotations: serde_json::Map::new(),
        }
    }

    /// Program and arguments; `/sbin/init` if not called.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// Sets a variable of the environment. `PATH` and `TERM` are there already; `HOME` comes from /etc/passwd inside.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|e| e.split('=').next() != Some(name));
        self.env.push(format!("{name}={value}"));
        self
    }

    /// Working directory inside, absolute, made if missing; `/` if not called.
    #[must_use]
    pub fn cwd(mut self, cwd: impl Into<PathBuf>) -> Self {
        self.cwd = cwd.into();
        self
    }

    /// User and group ID inside; 0 and 0 if not called. Only root has capabilities.
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = (uid, gid);
        self
    }

    /// Host name inside, of at most 64 bytes; the creator's if not called.
    #[must_use]
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.hostname = Some(name.into());
        self
    }

    /// On a terminal: a console socket must be given at creation.
    #[must_use]
    pub fn terminal(mut self, on: bool) -> Self {
        self.terminal = on;
        self
    }

    /// A root that nothing inside can write.
    #[must_use]
    pub fn readonly(mut self, on: bool) -> Self {
        self.readonly = on;
        self
    }

    /// Binds a file or directory of the host on an absolute path inside, ID-mapped, with the mounts below it. The target is made if
    /// missing. Read-only counts for the mounts below, too. A writable bind lets container root do in that tree what the host's root
    /// may.
    #[must_use]
    pub fn bind(mut self, source: impl AsRef<Path>, target: impl AsRef<Path>, readonly: bool) -> Self {
        self.mounts.push(json!({
            "destination": target.as_ref(), "source": source.as_ref(), "type": "bind",
            "options": ["rbind", "rprivate", if readonly { "rro" } else { "rw" }],
        }));
        self
    }

    /// A tmpfs on an absolute path inside, with options of mount(8) and tmpfs(5): `mode=1777`, `size=64m`, `nosuid`.
    #[must_use]
    pub fn tmpfs(mut self, target: impl AsRef<Path>, options: &[&str]) -> Self {
        self.mounts
            .push(json!({ "destination": target.as_ref(), "source": "tmpfs", "type": "tmpfs", "options": options }));
        self
    }

    /// Path of its control group below each hierarchy's mount; `/sysbox-<id>` if not called. Each container needs its own.
    #[must_use]
    pub fn cgroup(mut self, path: impl Into<PathBuf>) -> Self {
        self.cgroup = Some(path.into());
        self
    }

    /// Memory limit in bytes; −1 is none. With a limit, inner software may lower its OOM score down to −999; see
    /// [`crate::plan::OOM_FLOOR`] for without.
    #[must_use]
    pub fn memory(mut self, bytes: i64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Limit of processes and threads together, inner containers included; −1 is none.
    #[must_use]
    pub fn pids(mut self, count: i64) -> Self {
        self.pids = Some(count);
        self
    }

    /// Limit of CPU time, in CPUs: 1.5 is one and a half. Enforced in periods of 100 ms.
    #[must_use]
    pub fn cpus(mut self, cpus: f64) -> Self {
        self.cpus = Some(cpus);
        self
    }

    /// An OCI annotation.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.into(), value.into());
        self
    }

    /// The configuration.
    ///
    /// # Errors
    /// A string holds what JSON cannot.
    pub fn spec(&self) -> Result<Spec> {
        Spec::from_json(self.to_json().to_string().as_bytes())
    }

    /// The configuration as a document.
    pub fn to_json(&self) -> Value {
        let mut resources = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
        if let Some(m) = self.memory {
            resources["memory"] = json!({ "limit": m });
        }
        if let Some(p) = self.pids {
            resources["pids"] = json!({ "limit": p });
        }
        if let Some(c) = self.cpus {
            const PERIOD: f64 = 100_000.0;
            resources["cpu"] = json!({ "quota": (c * PERIOD).round() as i64, "period": PERIOD as u64 });
        }
        let namespaces = ["user", "pid", "network", "ipc", "uts", "mount", "cgroup", "time"];
        let mut doc = json!({
            "ociVersion": "1.2.0",
            "process": {
                "terminal": self.terminal,
                "user": { "uid": self.user.0, "gid": self.user.1 },
                "args": self.args,
                "env": self.env,
                "cwd": self.cwd,
            },
            "root": { "path": self.rootfs, "readonly": self.readonly },
            "mounts": default_mounts().into_iter().chain(self.mounts.iter().cloned()).collect::<Vec<_>>(),
            "linux": {
                "namespaces": namespaces.map(|n| json!({ "type": n })),
                "resources": resources,
            },
        });
        if let Some(h) = &self.hostname {
            doc["hostname"] = json!(h);
        }
        if let Some(c) = &self.cgroup {
            doc["linux"]["cgroupsPath"] = json!(c);
        }
        if !self.annotations.is_empty() {
            doc["annotations"] = Value::Object(self.annotations.clone());
        }
        doc
    }
}

/// What every container has anyway, written out for readers of the file.
fn default_mounts() -> Vec<Value> {
    let m = |d: &str, t: &str, o: &[&str]| json!({ "destination": d, "type": t, "source": t, "options": o });
    vec![
        m("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        m("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        m("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        m("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        m("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        m("/sys", "sysfs", &["nosuid", "noexec", "nodev"]),
        m("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime"]),
    ]
}
