//! Where in every hierarchy a container's own node is.

use crate::error::{Error, Kind, Result};
use std::path::{Component, Path, PathBuf};

/// What the nodes of containers are called whose configuration names no path, before the container's id. There is no parent
/// that they share: one that outlives them would keep v1 hierarchies from being given up.
pub const DEFAULT_PREFIX: &str = "/sysbox-";

/// The container's node, absolute, relative to the mount of every hierarchy.
///
/// `cgroups_path` is `linux.cgroupsPath` (OCI config-linux.md, "Cgroups Path"): an absolute one is taken as it is, a relative
/// one is put below `/`. Without one it is `/sysbox-<id>`.
///
/// # Errors
/// The path has a `..`, a NUL or a newline, or is the root itself, which is not ours to limit or to give away. systemd's
/// `slice:prefix:name` is [`crate::cgroup::Scope`]'s to read.
pub fn container_path(cgroups_path: Option<&Path>, id: &str) -> Result<PathBuf> {
    let given = cgroups_path.filter(|p| !p.as_os_str().is_empty());
    let Some(given) = given else {
        if id.is_empty() || id == "." || id == ".." || id.contains(['/', '\0', '\n']) {
            return Err(Error::invalid(format!("container id {id:?} cannot name a cgroup")));
        }
        return Ok(PathBuf::from(format!("{DEFAULT_PREFIX}{id}")));
    };
    let bad = |why: &str| Error::invalid(format!("linux.cgroupsPath {:?} {why}", given.display().to_string()));
    let text = given.to_str().ok_or_else(|| bad("is not UTF-8"))?;
    if text.contains(['\0', '\n']) {
        return Err(bad("has a NUL or newline"));
    }
    if !text.contains('/') && text.matches(':').count() == 2 {
        return Err(bad("is in the slice:prefix:name form of the systemd driver")
            .kinded(Kind::Unsupported)
            .hint("call the runtime with --systemd-cgroup, as engines with that driver do"));
    }
    let mut path = PathBuf::from("/");
    for c in given.components() {
        match c {
            Component::ParentDir => return Err(bad("contains \"..\"")),
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    if path == Path::new("/") {
        return Err(bad("is the root of the hierarchy"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(p: &str) -> Result<PathBuf> {
        container_path(Some(Path::new(p)), "id")
    }

    #[test]
    fn forms() {
        assert_eq!(container_path(None, "c1").unwrap(), Path::new("/sysbox-c1"));
        assert_eq!(path("").unwrap(), Path::new("/sysbox-id"));
        assert_eq!(path("/docker/abc").unwrap(), Path::new("/docker/abc"));
        assert_eq!(path("a//./b").unwrap(), Path::new("/a/b"));
        assert_eq!(path("/kubepods/burstable/a:b:c").unwrap(), Path::new("/kubepods/burstable/a:b:c"));
        assert_eq!(path("a:b").unwrap(), Path::new("/a:b"));
    }

    #[test]
    fn refused() {
        for p in ["..", "/a/../b", "/", "/.", "./", "a\nb"] {
            assert_eq!(path(p).unwrap_err().kind(), Kind::InvalidConfig, "{p:?}");
        }
        for id in ["", "..", "a/b"] {
            assert!(container_path(None, id).is_err());
        }
        for p in ["system.slice:docker:abc", ":docker:abc"] {
            let e = path(p).unwrap_err();
            assert_eq!(e.kind(), Kind::Unsupported);
            assert!(e.to_string().contains("systemd"), "{e}");
        }
    }

    proptest! {
        #[test]
        fn stays_below_the_root(p in "[a./:]{0,12}") {
            if let Ok(p) = path(&p) {
                prop_assert!(p.is_absolute() && p.components().count() > 1);
                prop_assert!(p.components().skip(1).all(|c| matches!(c, Component::Normal(_))));
            }
        }
    }
}
