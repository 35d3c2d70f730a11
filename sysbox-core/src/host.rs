//! What the host offers: facts for the planner, and probes for people.
//!
//! Facts are cheap to gather and are passed to the planner as data. [`probe`] finds out by trying.

pub mod probe;

use crate::cgroup::Layout;
use crate::error::{Error, Kind, Result, SysResult};
use crate::inner_data;
use crate::mount::{normalize, Root};
use crate::namespace::{self, Join};
use crate::overlay::Overlay;
use crate::spec::Spec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What the planner needs to know of the host. Plain data: tests write it by hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Cgroup hierarchies.
    pub cgroups: Layout,
    /// Set if systemd is to make the control groups ([`crate::cgroup::Manager`]).
    #[serde(default)]
    pub systemd: Option<Systemd>,
    /// Kernel release (`uname -r`).
    pub release: String,
    /// Directories that software inside looks for by kernel release: modules and headers.
    pub kernel_dirs: Vec<PathBuf>,
    /// The kernel has time namespaces.
    pub time_namespace: bool,
    /// This process may lower `oom_score_adj` (CAP_SYS_RESOURCE).
    pub can_lower_oom: bool,
    /// Memory of the host, in bytes.
    #[serde(default)]
    pub memory: u64,
    /// Number of CPUs that are online.
    #[serde(default)]
    pub cpus: u64,
    /// FUSE can be used: there is /dev/fuse.
    #[serde(default)]
    pub fuse: bool,
    /// The root file system's directory.
    pub root: PathFact,
    /// Its layers, if it is the mount point of an overlay.
    #[serde(default)]
    pub overlay: Option<Overlay>,
    /// Where engines inside would keep their data, with links resolved inside the root file system.
    #[serde(default)]
    pub inner_dirs: Vec<PathBuf>,
    /// Whose the namespaces are that the configuration gives by path; those that do not exist are absent.
    #[serde(default)]
    pub namespaces: BTreeMap<PathBuf, namespace::Owner>,
    /// What the program's name leads to in the root file system, with links resolved.
    pub program: Option<PathBuf>,
    /// Sources of the binds in the configuration; those that do not exist are absent.
    pub sources: BTreeMap<PathBuf, PathFact>,
    /// Mount targets of the configuration, and `kernel_dirs`, with links resolved inside the root file system.
    pub targets: BTreeMap<PathBuf, PathBuf>,
}

/// What is to be known where systemd makes the control groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Systemd {
    /// The text of `/proc/devices`: systemd knows some devices by the names of their drivers.
    pub devices: String,
}

impl Systemd {
    /// Reads the facts.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] where systemd is not the init system (sd_booted(3)), or there is no system bus to ask it by.
    pub fn detect() -> Result<Self> {
        let lacks = |what: &str| {
            Error::new(Kind::Unsupported, format!("have systemd make the control groups: {what}"))
                .hint(
                "use the cgroupfs driver: native.cgroupdriver=cgroupfs in Docker's exec-opts, cgroup_manager = \"cgroupfs\" in \
                 Podman's containers.conf, SystemdCgroup = false in containerd's options",
            )
        };
        if !Path::new("/run/systemd/system").is_dir() {
            return Err(lacks("this host is not run by systemd"));
        }
        if !Path::new("/run/dbus/system_bus_socket").exists() {
            return Err(lacks("there is no D-Bus system bus (the package dbus)"));
        }
        let path = "/proc/devices";
        Ok(Systemd { devices: std::fs::read_to_string(path).op_at("read", path)? })
    }
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathFact {
    /// Type of file.
    pub kind: FileKind,
    /// Owner on the host.
    pub uid: u32,
    /// Group on the host.
    pub gid: u32,
}

/// Type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// Directory.
    Dir,
    /// Regular file.
    File,
    /// Socket.
    Socket,
    /// Device node.
    Device,
    /// Named pipe and the rest.
    Other,
}

impl PathFact {
    /// Reads it, links followed.
    ///
    /// # Errors
    /// stat(2) fails.
    pub fn of(path: &Path) -> Result<Self> {
        let m = std::fs::metadata(path).op_at("stat", path)?;
        let t = m.file_type();
        let kind = if t.is_dir() {
            FileKind::Dir
        } else if t.is_file() {
            FileKind::File
        } else if t.is_socket() {
            FileKind::Socket
        } else if t.is_char_device() || t.is_block_device() {
            FileKind::Device
        } else {
            FileKind::Other
        };
        Ok(PathFact { kind, uid: m.uid(), gid: m.gid() })
    }
}

impl Facts {
    /// Reads the facts that bear on this configuration: stat(2), uname(2), /proc/self, and the links in the root file system.
    /// Changes nothing. Needs Linux 5.6 (openat2(2)).
    ///
    /// # Errors
    /// The root file system cannot be opened, or /proc or the cgroup mounts cannot be read. That a bind's source does not exist is
    /// none here.
    pub fn gather(spec: &Spec, bundle: &Path) -> Result<Self> {
        let root_path = spec.root_path(bundle)?;
        let root = Root::open(&root_path)?;
        let release = nix::sys::utsname::uname().op("uname")?.release().to_string_lossy().into_owned();
        let mut sources = BTreeMap::new();
        for source in spec.bind_sources(bundle) {
            if let Ok(fact) = PathFact::of(&source) {
                sources.insert(source, fact);
            }
        }
        let mut targets = BTreeMap::new();
        for m in spec.oci().mounts().as_deref().unwrap_or_default() {
            let target = Path::new("/").join(m.destination());
            if let Ok(t) = normalize(&target) {
                targets.insert(target, root.intended(&t));
            }
        }
        let overlay = Overlay::at(&root_path)?;
        let kernel_dirs = kernel_dirs(&release);
        targets.extend(kernel_dirs.iter().map(|d| (d.clone(), root.intended(d))));
        Ok(Facts {
            targets,
            cgroups: Layout::detect()?,
            systemd: None,
            kernel_dirs,
            release,
            time_namespace: Path::new("/proc/self/ns/time").exists(),
            can_lower_oom: crate::sys::cred::has_cap(CAP_SYS_RESOURCE),
            memory: memory(),
            cpus: cpus(),
            fuse: Path::new("/dev/fuse").exists(),
            root: PathFact::of(&root_path)?,
            overlay,
            inner_dirs: inner_data::directories(&root),
            namespaces: namespaces(spec),
            program: find_program(&root, spec),
            sources,
        })
    }
}

const CAP_SYS_RESOURCE: u32 = 24;

fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

fn cpus() -> u64 {
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN);
    online.ok().flatten().and_then(|n| u64::try_from(n).ok()).unwrap_or(1)
}

fn namespaces(spec: &Spec) -> BTreeMap<PathBuf, namespace::Owner> {
    let Some(join) = spec.oci().linux().as_ref().and_then(Join::of) else { return BTreeMap::new() };
    let owner = |p: &PathBuf| Some((p.clone(), namespace::owner(p, join.user.as_ref() == Some(p)).ok()?));
    join.paths().filter_map(owner).collect()
}

fn kernel_dirs(release: &str) -> Vec<PathBuf> {
    [
        format!("/lib/modules/{release}"),
        // Debian and Ubuntu; Red Hat and Amazon.
        format!("/usr/src/linux-headers-{release}"),
        format!("/usr/src/kernels/{release}"),
    ]
    .into_iter()
    .map(PathBuf::from)
    .filter(|p| p.is_dir())
    .collect()
}

fn find_program(root: &Root, spec: &Spec) -> Option<PathBuf> {
    let process = spec.oci().process().as_ref()?;
    let name = process.args().as_ref()?.first()?;
    if name.contains('/') {
        return root.resolve(Path::new(name)).ok();
    }
    let env = process.env().as_deref().unwrap_or_default();
    let path = env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(crate::process::DEFAULT_PATH);
    path.split(':').filter(|d| !d.is_empty()).find_map(|d| root.resolve(&Path::new(d).join(name)).ok())
}
