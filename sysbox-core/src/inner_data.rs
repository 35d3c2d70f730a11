//! Where engines inside keep their data.
//!
//! They stack overlays of their own there, which overlayfs refuses to do on an overlay. So each of these directories of a
//! container with an overlay root is bound from the directory of the same name in the root's upper layer, which lies on a real
//! file system: the data needs no second place, stays as long as the layer does, and is in a commit of it.
//!
//! Such a directory is *opaque*: what lower layers hold there is copied once and hidden then. Hence a layer that has it has all
//! of it, and a whiteout in it is one of an engine inside.

use crate::error::Result;
use crate::mount::{normalize, Root};
use rustix::fs::{openat, openat2, Dir, FileType, Mode, OFlags, ResolveFlags, XattrFlags};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Of Docker, containerd, kubelet, BuildKit, Podman and Buildah, k3s, rke2, k0s.
const KNOWN: &[&str] = &[
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/lib/buildkit",
    "/var/lib/containers",
    "/var/lib/rancher/k3s",
    "/var/lib/rancher/rke2",
    "/var/lib/k0s",
];

/// The directories of a root file system, links resolved in it; Docker's where its configuration says.
pub(crate) fn directories(root: &Root) -> Vec<PathBuf> {
    let docker = docker_root(root).unwrap_or_else(|| KNOWN[0].into());
    let mut out = Vec::new();
    for dir in std::iter::once(docker.as_path()).chain(KNOWN[1..].iter().map(Path::new)) {
        let dir = root.intended(dir);
        let reserved = ["/proc", "/sys", "/dev", "/run"].iter().any(|r| dir.starts_with(r)) || dir == Path::new("/");
        // One inside another lies on a real file system already.
        let within = out.iter().any(|o: &PathBuf| dir.starts_with(o) || o.starts_with(&dir));
        if !reserved && !within {
            out.push(dir);
        }
    }
    out
}

/// `data-root` of /etc/docker/daemon.json, or its former name.
fn docker_root(root: &Root) -> Option<PathBuf> {
    let mut text = Vec::new();
    root.read(Path::new("/etc/docker/daemon.json")).ok()?.take(1 << 20).read_to_end(&mut text).ok()?;
    parse_daemon_json(&text)
}

fn parse_daemon_json(text: &[u8]) -> Option<PathBuf> {
    let json: serde_json::Value = serde_json::from_slice(text).ok()?;
    let dir = json.get("data-root").or_else(|| json.get("graph"))?.as_str()?;
    normalize(Path::new(dir)).ok()
}

/// The directories that a container has, and where: for whoever pauses or deletes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InnerData {
    /// The upper layer.
    pub(crate) upper: PathBuf,
    /// Relative to it.
    pub(crate) dirs: Vec<PathBuf>,
}

/// How an overlay in a user namespace marks a directory that hides what is below it, and how the host's does.
pub(crate) const INNER_OPAQUE: &str = "user.overlay.opaque";
pub(crate) const OUTER_OPAQUE: &str = "trusted.overlay.opaque";

impl InnerData {
    /// Makes the marks of opaque directories inside inner layers survive a commit: engines write an archive of a layer, with the
    /// host's marks in it but without those of overlays in user namespaces. They are put back when the copy is brought in.
    ///
    /// The container must not run: it is paused, or has ended. It can hide nothing behind links: none is followed.
    ///
    /// # Errors
    /// The upper layer cannot be read. What is below is marked as far as possible.
    pub(crate) fn keep_marks(&self) -> Result<()> {
        let upper = Root::open(&self.upper)?;
        for dir in &self.dirs {
            if let Ok(fd) = open_dir(&upper, dir) {
                keep_marks_below(fd);
            }
        }
        Ok(())
    }
}

/// A directory below `root` by way of directories only.
pub(crate) fn open_dir(root: &Root, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let path = path.strip_prefix("/").unwrap_or(path);
    loop {
        match openat2(root.as_fd(), path, flags, Mode::empty(), resolve) {
            Err(rustix::io::Errno::AGAIN) => {}
            r => return r,
        }
    }
}

/// Deeper than any path that a program can name: whoever nests deeper nests to harm.
const MAX_DEPTH: usize = 500;

fn keep_marks_below(top: OwnedFd) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(first) = Dir::new(top) else { return };
    let mut open = vec![first];
    while let Some(dir) = open.last_mut() {
        let Some(entry) = dir.read() else {
            open.pop();
            continue;
        };
        let Ok(entry) = entry else { continue };
        let name = entry.file_name();
        if entry.file_type() != FileType::Directory || matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(here) = dir.fd() else { continue };
        let Ok(below) = openat(here, name, flags, Mode::empty()) else { continue };
        let mut mark = [0u8; 4];
        if rustix::fs::fgetxattr(&below, INNER_OPAQUE, &mut mark[..]).is_ok_and(|n| &mark[..n] == b"y") {
            let _ = rustix::fs::fsetxattr(&below, OUTER_OPAQUE, b"y", XattrFlags::empty());
        }
        if open.len() < MAX_DEPTH {
            open.extend(Dir::new(below));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_root_is_the_configured_one() {
        let of = |t: &str| parse_daemon_json(t.as_bytes());
        assert_eq!(of(r#"{"data-root": "/srv/docker/"}"#), Some("/srv/docker".into()));
        assert_eq!(of(r#"{"graph": "/old"}"#), Some("/old".into()));
        assert_eq!(of(r#"{"data-root": "../x"}"#), None);
        assert_eq!(of("{"), None);
    }

    #[test]
    fn directories_follow_the_images_links() {
        let d = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(d.path().join("etc/docker")).unwrap();
        std::fs::create_dir_all(d.path().join("var/lib")).unwrap();
        std::fs::write(d.path().join("etc/docker/daemon.json"), r#"{"data-root": "/var/lib/containers/docker"}"#)
            .unwrap();
        std::os::unix::fs::symlink("/data", d.path().join("var/lib/buildkit")).unwrap();
        std::os::unix::fs::symlink("/run/kubelet", d.path().join("var/lib/kubelet")).unwrap();
        let dirs = directories(&Root::open(d.path()).unwrap());
        assert_eq!(dirs[0], Path::new("/var/lib/containers/docker"));
        assert!(dirs.contains(&"/data".into()) && dirs.contains(&"/var/lib/containerd".into()));
        assert!(!dirs.iter().any(|d| d == Path::new("/var/lib/containers") || d.starts_with("/run")), "{dirs:?}");
    }
}
