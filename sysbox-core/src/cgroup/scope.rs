//! Where systemd puts a container: the unit's name, its slice, and the path that follows from them.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// systemd takes no longer names (UNIT_NAME_MAX, with the terminator).
const NAME_MAX: usize = 255;

/// A scope unit below a slice (systemd.scope(5), systemd.slice(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The slice's unit name.
    pub slice: String,
    /// The scope's unit name.
    pub name: String,
}

impl Scope {
    /// Reads `linux.cgroupsPath` in the form that engines with the systemd driver use: `slice:prefix:name` is the unit
    /// `prefix-name.scope` in that slice, `system.slice` if it is empty. Without a path: `sysbox-<id>.scope`.
    ///
    /// # Errors
    /// [`crate::Kind::InvalidConfig`]: another form, or what is no name of a unit. Nothing is escaped: engines compute the path as well.
    pub fn parse(cgroups_path: Option<&Path>, id: &str) -> Result<Scope> {
        let bad = |path: &str, why: &str| Error::invalid(format!("linux.cgroupsPath {path:?} {why}"));
        let default = format!(":sysbox:{id}");
        let text = match cgroups_path {
            Some(p) => p.to_str().ok_or_else(|| bad(&p.to_string_lossy(), "is not UTF-8"))?,
            None => "",
        };
        let text = if text.is_empty() { default.as_str() } else { text };
        let mut parts = text.split(':');
        let (Some(slice), Some(prefix), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad(text, "is not of the form slice:prefix:name, which the systemd driver needs")
                .hint("engine and runtime must agree: without --systemd-cgroup it is a path"));
        };
        if name.ends_with(".slice") {
            return Err(bad(text, "names a slice: systemd takes processes into scopes only"));
        }
        let name = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        let scope = Scope { slice: slice.to_owned(), name };
        for unit in [&scope.slice, &scope.name] {
            if !is_unit_name(unit) {
                return Err(bad(text, &format!("makes {unit:?}, which is no name of a unit")));
            }
        }
        if scope.name.starts_with(['.', '-']) || slice_path(&scope.slice).is_none() {
            return Err(bad(text, "is not the name of a scope in a slice"));
        }
        Ok(scope)
    }

    /// The scope's cgroup, absolute, relative to the mount of every hierarchy.
    pub fn path(&self) -> PathBuf {
        slice_path(&self.slice).unwrap_or_else(|| "/".into()).join(&self.name)
    }
}

/// The characters of a unit's name (systemd.unit(5)); `@` would make it an instance of a template.
fn is_unit_name(name: &str) -> bool {
    name.len() <= NAME_MAX && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.\\".contains(c))
}

/// Dashes nest: `a-b.slice` is in `a.slice`. `-.slice` is the root.
fn slice_path(slice: &str) -> Option<PathBuf> {
    let mut path = PathBuf::from("/");
    let stem = slice.strip_suffix(".slice")?;
    if stem == "-" {
        return Some(path);
    }
    let mut name = String::new();
    for part in stem.split('-') {
        if part.is_empty() {
            return None;
        }
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(part);
        path.push(format!("{name}.slice"));
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use proptest::prelude::*;
    use std::path::Component;

    fn parse(p: &str) -> Result<Scope> {
        Scope::parse(Some(Path::new(p)), "id")
    }

    fn path(p: &str) -> String {
        parse(p).unwrap().path().display().to_string()
    }

    #[test]
    fn forms() {
        assert_eq!(path("system.slice:docker:abc"), "/system.slice/docker-abc.scope");
        assert_eq!(path(":docker:abc"), "/system.slice/docker-abc.scope");
        assert_eq!(path("machine.slice:libpod:abc"), "/machine.slice/libpod-abc.scope");
        assert_eq!(path("-.slice:docker:abc"), "/docker-abc.scope");
        assert_eq!(path("a.slice::abc"), "/a.slice/abc.scope");
        assert_eq!(
            path("kubepods-burstable-pod1_2.slice:cri-containerd:abc"),
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-abc.scope"
        );
        let default = Scope::parse(None, "c1").unwrap();
        assert_eq!((default.slice.as_str(), default.name.as_str()), ("system.slice", "sysbox-c1.scope"));
        assert_eq!(parse("").unwrap().name, "sysbox-id.scope");
    }

    #[test]
    fn refused() {
        let long = format!(":p:{}", "x".repeat(250));
        for p in [
            "/docker/abc",
            "abc",
            "a:b",
            "a:b:c:d",
            "system:docker:abc",
            "..:docker:abc",
            "../x.slice:docker:abc",
            "a/b.slice:docker:abc",
            "a--b.slice:docker:abc",
            "-a.slice:docker:abc",
            "a-.slice:docker:abc",
            ".slice:docker:abc",
            "--.slice:docker:abc",
            ":docker:../abc",
            ":docker:a/b",
            ":..:abc/",
            ":/:abc",
            ":docker:a b",
            ":docker:a\nb",
            ":docker:a@b",
            "::.x",
            "::-x",
            ":p:x.slice",
            "a@b.slice:p:x",
            &long,
        ] {
            assert_eq!(parse(p).map(|s| s.path()).unwrap_err().kind(), Kind::InvalidConfig, "{p:?}");
        }
    }

    proptest! {
        #[test]
        fn stays_below_the_root(p in "[a./-]{0,8}(\\.slice)?:[a./-]{0,4}:[a./-]{0,6}") {
            if let Ok(s) = parse(&p) {
                let path = s.path();
                prop_assert!(path.is_absolute() && path.file_name().unwrap() == s.name.as_str());
                prop_assert!(path.components().skip(1).all(|c| matches!(c, Component::Normal(_))));
            }
        }
    }
}
