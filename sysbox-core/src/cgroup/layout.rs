//! Which cgroup hierarchies the host has, and which controllers each of them owns.

use super::file::read;
use crate::error::Result;
use crate::mountinfo::unescape;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where every distribution mounts its cgroup hierarchies (cgroups(7)).
pub const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Options of a v1 super block that name no controller.
const V1_OPTIONS: [&str; 9] =
    ["rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "none", "all", "favordynmods"];

/// Which of the two interfaces a hierarchy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// `cgroup`: one hierarchy for each set of controllers.
    V1,
    /// `cgroup2`: the one unified hierarchy.
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Where it is mounted, such as `/sys/fs/cgroup/memory`.
    pub mount: PathBuf,
    /// Which cgroup of the hierarchy is seen there: `/`, unless only a subtree is mounted (a container inside a container).
    pub root: PathBuf,
    /// Its interface.
    pub version: Version,
    /// Its controllers. v1: from the mount's options, a named hierarchy as `name=systemd`. v2: the content of `cgroup.controllers`
    /// at the mount (see [`Layout::set_unified_controllers`]).
    pub controllers: Vec<String>,
    /// The last component of `mount`: what the same hierarchy is called under `/sys/fs/cgroup` in a container.
    pub directory: String,
}

impl Hierarchy {
    /// Whether this hierarchy owns the controller, by its name in this version.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

/// All hierarchies of a host, in the order they were mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The hierarchies, each once.
    pub hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// Reads the text of `/proc/<pid>/mountinfo` (proc_pid_mountinfo(5)).
    ///
    /// A hierarchy mounted more than once counts once: a whole mount goes before a subtree, and one below `/sys/fs/cgroup` before
    /// one elsewhere. A subtree mounted elsewhere is somebody's bind mount and is skipped; a subtree below `/sys/fs/cgroup` is
    /// what a container sees as its own root, and paths are then relative to it. Lines that make no sense are skipped.
    pub fn parse(mountinfo: &str) -> Layout {
        let mut found: Vec<Hierarchy> = Vec::new();
        for line in mountinfo.lines() {
            let Some(mount) = parse_line(line) else { continue };
            let Some(new) = mount.hierarchy else {
                // Something else has been mounted over it since.
                found.retain(|h| h.mount != mount.point);
                continue;
            };
            found.retain(|h| h.mount != new.mount);
            if rank(&new).is_none() {
                continue;
            }
            match found.iter_mut().find(|h| h.version == new.version && h.controllers == new.controllers) {
                Some(old) if rank(old) >= rank(&new) => {}
                Some(old) => *old = new,
                None => found.push(new),
            }
        }
        Layout { hierarchies: found }
    }

    /// Completes the v2 hierarchy with the content of its `cgroup.controllers`, which mountinfo does not tell.
    pub fn set_unified_controllers(&mut self, text: &str) {
        for h in self.hierarchies.iter_mut().filter(|h| h.version == Version::V2) {
            h.controllers = text.split_whitespace().map(str::to_owned).collect();
        }
    }

    /// The layout of this host, as seen by the calling process.
    ///
    /// # Errors
    /// `/proc/self/mountinfo` or `cgroup.controllers` cannot be read.
    pub fn detect() -> Result<Layout> {
        let mut layout = Layout::parse(&read(Path::new("/proc/self/mountinfo"))?);
        if let Some(h) = layout.unified() {
            let text = read(&h.mount.join("cgroup.controllers"))?;
            layout.set_unified_controllers(&text);
        }
        Ok(layout)
    }

    /// Whether the host is pure v2: nothing but `cgroup2`, mounted at `/sys/fs/cgroup` itself.
    pub fn is_unified(&self) -> bool {
        matches!(self.hierarchies.as_slice(), [h] if h.version == Version::V2 && h.mount == Path::new(CGROUP_ROOT))
    }

    /// The v2 hierarchy, on pure and hybrid hosts.
    pub fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.version == Version::V2)
    }

    /// The v1 hierarchy that owns the controller.
    pub fn v1(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.version == Version::V1 && h.has(controller))
    }
}

/// How good a mount of a hierarchy is for our purpose; `None` for one that must not be used.
fn rank(h: &Hierarchy) -> Option<u8> {
    let usual = h.mount.starts_with(CGROUP_ROOT);
    match (h.root == Path::new("/"), usual) {
        (true, true) => Some(2),
        (true, false) => Some(1),
        (false, true) => Some(0),
        (false, false) => None,
    }
}

struct Mount {
    point: PathBuf,
    hierarchy: Option<Hierarchy>,
}

fn parse_line(line: &str) -> Option<Mount> {
    // 31 23 0:28 /root /mount/point options [optional fields] - type source super-options
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let root = unescape(left.next()?);
    let point = unescape(left.next()?);
    let mut right = right.split(' ');
    let version = match right.next()? {
        "cgroup" => Version::V1,
        "cgroup2" => Version::V2,
        _ => return Some(Mount { point, hierarchy: None }),
    };
    let options = right.nth(1).unwrap_or_default();
    let controllers = match version {
        Version::V2 => Vec::new(),
        Version::V1 => options
            .split(',')
            .filter(|o| !o.is_empty() && !V1_OPTIONS.contains(o))
            .filter(|o| !o.contains('=') || o.starts_with("name="))
            .map(str::to_owned)
            .collect(),
    };
    let directory = point.file_name()?.to_str()?.to_owned();
    Some(Mount { hierarchy: Some(Hierarchy { mount: point.clone(), root, version, controllers, directory }), point })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V1: &str = "\
25 30 0:23 / /sys rw,nosuid shared:7 - sysfs sysfs rw
31 25 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/memory rw,relatime shared:10 master:2 - cgroup cgroup rw,memory
34 31 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/systemd/systemd-cgroups-agent,name=systemd
";

    fn names(l: &Layout) -> Vec<String> {
        l.hierarchies.iter().map(|h| format!("{}:{}", h.directory, h.controllers.join("+"))).collect()
    }

    #[test]
    fn v1() {
        let l = Layout::parse(V1);
        assert_eq!(names(&l), ["cpu,cpuacct:cpu+cpuacct", "memory:memory", "systemd:name=systemd"]);
        assert!(!l.is_unified());
        assert!(l.unified().is_none());
        assert_eq!(l.v1("cpuacct").unwrap().mount, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
    }

    #[test]
    fn hybrid_with_controllers_on_v2() {
        let mut l = Layout::parse(&format!(
            "{V1}41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
        ));
        l.set_unified_controllers("hugetlb misc\n");
        assert_eq!(names(&l).last().unwrap(), "unified:hugetlb+misc");
        assert!(!l.is_unified());
        assert!(l.unified().unwrap().has("hugetlb"));
        assert_eq!(serde_json::from_str::<Layout>(&serde_json::to_string(&l).unwrap()).unwrap(), l);
    }

    #[test]
    fn pure_v2() {
        let l = Layout::parse("30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
        assert!(l.is_unified());
        assert_eq!(l.hierarchies[0].directory, "cgroup");
    }

    #[test]
    fn whole_mounts_go_before_subtrees_and_foreign_binds_are_skipped() {
        let sub = "50 1 0:30 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let bind = "51 1 0:30 /docker/x /var/lib/c/cg rw - cgroup cgroup rw,memory\n";
        let whole = "52 1 0:30 / /mnt/with\\040blank rw - cgroup cgroup rw,memory\n";
        assert_eq!(Layout::parse(sub).hierarchies[0].root, Path::new("/docker/x"));
        assert_eq!(Layout::parse(bind), Layout::default());
        let l = Layout::parse(&format!("{sub}{bind}{whole}{sub}"));
        assert_eq!(l.hierarchies.len(), 1);
        assert_eq!(l.hierarchies[0].mount, Path::new("/mnt/with blank"));
    }

    #[test]
    fn a_covered_mount_is_gone() {
        let l = Layout::parse(&format!("{V1}60 31 0:99 / /sys/fs/cgroup/memory rw - tmpfs tmpfs rw\n"));
        assert!(l.v1("memory").is_none());
    }

    proptest! {
        #[test]
        fn never_panics(s in "\\PC*( / /sys/fs/cgroup\\\\[0-9]{0,4} rw - cgroup2? x rw,[a-z,=]*\n)?") {
            let _ = Layout::parse(&s);
        }
    }
}
