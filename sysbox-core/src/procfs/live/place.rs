//! Where a reader is below the container's own cgroups.

use super::file::Dir;
use crate::cgroup::Version;

/// How far down limits are looked for; what is deeper counts as being there.
const DEEPEST: usize = 16;

/// The container's own cgroup in one hierarchy.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) dir: Dir,
    pub(super) version: Version,
    pub(super) controllers: Vec<String>,
    /// As `/proc/PID/cgroup` of the container's processes shows it.
    pub(super) path: Vec<u8>,
}

impl Own {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }

    /// The cgroups from the container's own to the reader's, whose `/proc/PID/cgroup` is given: only the container's own if the
    /// reader is not there, or not in the container.
    pub(super) fn levels(&self, reader: Option<&[u8]>) -> Levels<'_> {
        let mut levels = Levels { own: &self.dir, below: Vec::new() };
        for name in reader.and_then(|text| below(text, self)).into_iter().flatten().take(DEEPEST) {
            let Ok(dir) = levels.reader().directory(name) else {
                // It has just been removed, so that the reader has moved or ended.
                levels.below.clear();
                break;
            };
            levels.below.push(dir);
        }
        levels
    }
}

/// cgroups of one hierarchy, each within the one before it.
#[derive(Debug)]
pub(super) struct Levels<'a> {
    own: &'a Dir,
    below: Vec<Dir>,
}

impl Levels<'_> {
    pub(super) fn len(&self) -> usize {
        1 + self.below.len()
    }

    /// The container's own is 0; what is deeper than the reader's is the reader's.
    pub(super) fn at(&self, depth: usize) -> &Dir {
        match depth.min(self.below.len()).checked_sub(1).and_then(|i| self.below.get(i)) {
            Some(dir) => dir,
            None => self.own,
        }
    }

    pub(super) fn reader(&self) -> &Dir {
        self.at(usize::MAX)
    }

    /// The outermost first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Dir> {
        (0..self.len()).map(|depth| self.at(depth))
    }
}

/// The names of the cgroups from the container's own down to where `/proc/PID/cgroup` (cgroups(7)) says that the process is; `None`
/// if that is elsewhere.
fn below<'t>(text: &'t [u8], own: &Own) -> Option<impl Iterator<Item = &'t [u8]>> {
    let path = text.split(|b| *b == b'\n').find_map(|line| {
        // ID:CONTROLLERS:PATH
        let mut parts = line.splitn(3, |b| *b == b':');
        let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let found = match own.version {
            Version::V2 => id == b"0" && controllers.is_empty(),
            Version::V1 => controllers.split(|b| *b == b',').any(|c| own.controllers.iter().any(|o| o.as_bytes() == c)),
        };
        found.then_some(path)
    })?;
    let rest = match own.path.as_slice() {
        b"/" => path,
        own => path.strip_prefix(own)?,
    };
    let inside = rest.is_empty() || rest.first() == Some(&b'/');
    let names = || rest.split(|b| *b == b'/').filter(|name| !name.is_empty());
    (inside && names().all(|name| name != b"." && name != b"..")).then(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn own(version: Version, controllers: &[&str], path: &str) -> Own {
        Own {
            dir: Dir::new(std::fs::File::open("/").unwrap().into()),
            version,
            controllers: controllers.iter().map(ToString::to_string).collect(),
            path: path.into(),
        }
    }

    fn at(own: &Own, text: &str) -> Option<String> {
        let names: Vec<_> = below(text.as_bytes(), own)?.map(|n| String::from_utf8_lossy(n).into_owned()).collect();
        Some(names.join(" "))
    }

    #[test]
    fn hybrid() {
        let text = "9:name=systemd:/x\n4:memory:/c/in:ner/a\n2:cpu,cpuacct:/c\n0::/c/u\n";
        assert_eq!(at(&own(Version::V1, &["memory"], "/c"), text).unwrap(), "in:ner a");
        assert_eq!(at(&own(Version::V1, &["cpu", "cpuacct"], "/c"), text).unwrap(), "");
        assert_eq!(at(&own(Version::V1, &["cpuacct"], "/c"), text).unwrap(), "");
        assert_eq!(at(&own(Version::V1, &["name=systemd"], "/x"), text).unwrap(), "");
        assert_eq!(at(&own(Version::V2, &["hugetlb"], "/c"), text).unwrap(), "u");
        assert_eq!(at(&own(Version::V1, &["pids"], "/c"), text), None);
        assert_eq!(at(&own(Version::V1, &["memory"], "/"), text).unwrap(), "c in:ner a");
    }

    #[test]
    fn only_below_the_own() {
        let own = own(Version::V2, &[], "/c");
        for path in ["/", "/cc", "/d/c", "/c/../d", "/c/./d", "/../c", ""] {
            assert_eq!(at(&own, &format!("0::{path}\n")), None, "{path}");
        }
        for text in ["", "0:", "0::", "1::/c", "0:memory:/c"] {
            assert_eq!(at(&own, text), None, "{text}");
        }
        assert_eq!(at(&own, "0::/c/d (deleted)").unwrap(), "d (deleted)");
    }

    #[test]
    fn what_is_gone_or_too_deep() {
        let dir = tempfile::tempdir().unwrap();
        let path = (0..40).fold(String::from("/c"), |p, i| format!("{p}/{i}"));
        std::fs::create_dir_all(dir.path().join(&path[1..])).unwrap();
        let top = Dir::new(std::fs::File::open(dir.path().join("c")).unwrap().into());
        let own = Own { dir: top, ..own(Version::V2, &[], "/c") };
        let levels = |p: &str| own.levels(Some(format!("0::{p}\n").as_bytes())).len();
        assert_eq!(levels("/c/0/1"), 3);
        assert_eq!(levels(&path), DEEPEST + 1);
        assert_eq!(levels("/c/0/none"), 1);
        assert_eq!(levels("/elsewhere"), 1);
        assert_eq!(own.levels(None).len(), 1);
    }

    proptest! {
        #[test]
        fn anything_is_read(text in proptest::collection::vec(any::<u8>(), 0..80), path in "(/c)?[/.:a]{0,10}") {
            let _ = below(&text, &own(Version::V1, &["memory"], "/c")).map(Iterator::count);
            let text = format!("0::{path}");
            let own = own(Version::V2, &[], "/c");
            let names = below(text.as_bytes(), &own);
            prop_assert!(names.is_none() || path == "/c" || path.starts_with("/c/"));
            for name in names.into_iter().flatten() {
                prop_assert!(!name.is_empty() && name != b".." && name != b"." && !name.contains(&b'/'));
            }
        }
    }
}
