//! An engine's overlay root file system: what it is stacked from, so that it can be stacked again with ID-mapped layers.
//!
//! overlayfs cannot be ID-mapped itself, its layers can (Linux 5.19). The engine's mount stays as it is, for the engine.
//! Options: Documentation/filesystems/overlayfs.rst.

use crate::error::{Error, Kind, Result, SysResult};
use crate::mountinfo::{self, unescape};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// The layers of an overlay mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// Read-only layers, topmost first.
    pub lower: Vec<PathBuf>,
    /// The layer that takes what is written, and its work directory; `None`: nothing can be written.
    pub upper: Option<Upper>,
    /// The layers' attributes are `user.overlay.*` instead of `trusted.overlay.*` (`userxattr`).
    pub userxattr: bool,
    /// Nothing is synced (`volatile`).
    pub volatile: bool,
    /// Further options to mount it with again.
    pub options: Vec<String>,
}

/// What takes the writes of an overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upper {
    /// The layer.
    pub dir: PathBuf,
    /// `workdir` of the engine's mount.
    pub work: PathBuf,
}

impl Upper {
    /// The directory that holds both: they must be on one mount.
    pub(crate) fn parent(&self) -> PathBuf {
        let same = |(a, b): &(std::path::Component<'_>, std::path::Component<'_>)| a == b;
        self.dir.components().zip(self.work.components()).take_while(same).map(|(a, _)| a).collect()
    }

    /// Work directory of the second overlay. Two mounts must not share one; this one goes away with the engine's.
    pub(crate) fn second_work(&self) -> PathBuf {
        self.work.join("sysbox")
    }
}

/// Options that decide how layers are read and written. The others are the kernel's defaults, or forbidden to a second overlay
/// on the same upper layer (`index`, and `nfs_export`, which needs it).
const KEPT: &[&str] = &["redirect_dir", "metacopy", "xino", "verity", "fsync"];

impl Overlay {
    /// The overlay that is mounted at `root`, or `None` if no overlay is.
    ///
    /// # Errors
    /// mountinfo cannot be read; [`Kind::Unsupported`] if the layers cannot be told from it.
    pub(crate) fn at(root: &Path) -> Result<Option<Overlay>> {
        const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;
        let magic = rustix::fs::statfs(root).op_at("statfs", root)?.f_type as u64;
        if magic != OVERLAYFS_SUPER_MAGIC {
            return Ok(None);
        }
        // The last of several on one point is what a path leads to.
        let all = mountinfo::own()?;
        let Some(mount) =
            all.iter().rev().find(|m| m.point == root && m.fstype == "overlay" && m.root == Path::new("/"))
        else {
            let what = "the root file system is part of an overlay, but not the mount point of one:";
            return Err(Error::new(Kind::Unsupported, what).at(root).hint("use the mount point itself as root.path"));
        };
        let overlay = Overlay::parse(&mount.options).map_err(|e| e.at(root))?;
        overlay.absolute(root).map(Some)
    }

    /// From the options in mountinfo. Paths may be relative still.
    fn parse(options: &str) -> Result<Overlay> {
        let (mut lower, mut upper, mut work) = (Vec::new(), None, None);
        let mut out =
            Overlay { lower: Vec::new(), upper: None, userxattr: false, volatile: false, options: Vec::new() };
        for option in options.split(',') {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            match key {
                "lowerdir" => lower.extend(split_layers(&unescape(value))?),
                // One layer each, as newer kernels show what was given so (Linux 6.5).
                "lowerdir+" => lower.push(unescape(value)),
                "datadir+" => return Err(data_only()),
                "upperdir" => upper = Some(unescape(value)),
                "workdir" => work = Some(unescape(value)),
                "userxattr" => out.userxattr = true,
                "volatile" => out.volatile = true,
                _ if KEPT.contains(&key) => out.options.push(option.to_owned()),
                _ => {}
            }
        }
        out.lower = lower;
        out.upper = upper.zip(work).map(|(dir, work)| Upper { dir, work });
        if out.lower.is_empty() {
            return Err(Error::new(Kind::Unsupported, "the overlay does not say what its layers are:"));
        }
        Ok(out)
    }

    /// Engines shorten a long list by making it relative to a directory of theirs, which the kernel does not tell: one above
    /// the mount point or the upper layer, where all of them exist.
    fn absolute(self, root: &Path) -> Result<Overlay> {
        let all = || self.lower.iter().chain(self.upper.iter().flat_map(|u| [&u.dir, &u.work]));
        if all().all(|p| p.is_absolute()) {
            return Ok(self);
        }
        let upper = self.upper.as_ref().map(|u| u.dir.as_path()).filter(|p| p.is_absolute());
        let candidates = root.ancestors().chain(upper.into_iter().flat_map(Path::ancestors));
        let base = candidates.into_iter().find(|base| all().all(|p| base.join(p).is_dir())).ok_or_else(|| {
            Error::new(Kind::Unsupported, "the layers of the overlay are relative to an unknown directory:").at(root)
        })?;
        Ok(Overlay {
            lower: self.lower.iter().map(|p| base.join(p)).collect(),
            upper: self.upper.as_ref().map(|u| Upper { dir: base.join(&u.dir), work: base.join(&u.work) }),
            ..self
        })
    }

    /// Prefix of the attributes in which its layers say what hides what.
    pub(crate) fn xattr(&self, name: &str) -> String {
        format!("{}.overlay.{name}", if self.userxattr { "user" } else { "trusted" })
    }
}

/// Makes an overlay forget what it has looked up and nobody uses, absences included, so that it sees what has changed in its layers
/// since. `mount` must be the root of one; nothing else changes (reconfiguring a file system drops its unused dentries).
pub(crate) fn refresh(mount: BorrowedFd<'_>) -> Result<()> {
    use rustix::mount::{fsconfig_reconfigure, fspick, FsPickFlags};
    let fs = fspick(mount, "", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH).op("fspick")?;
    fsconfig_reconfigure(fs.as_fd()).op("reconfigure an overlay")
}

/// Refreshes the engine's overlay at `root` and the container's, which is the root of the process `init`.
///
/// Neither is opened in a way that asks a file system, since a container can put one of its own in the place of its root.
pub(crate) fn refresh_both(root: &Path, init: Option<i32>) {
    let tops = [Some(root.to_owned()), init.map(|pid| format!("/proc/{pid}/root").into())];
    for top in tops.into_iter().flatten() {
        if let Err(e) = refresh_at(&top) {
            tracing::debug!("{e}");
        }
    }
}

fn refresh_at(top: &Path) -> Result<()> {
    use std::os::fd::AsRawFd;
    let fd = rustix::fs::open(top, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).op_at("open", top)?;
    let info = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    let text = std::fs::read_to_string(&info).op_at("read", &info)?;
    let id = text.lines().find_map(|l| l.strip_prefix("mnt_id:")?.trim().parse::<u64>().ok());
    let table = top.parent().filter(|p| p.starts_with("/proc")).unwrap_or(Path::new("/proc/self")).join("mountinfo");
    match mountinfo::select(&table, |m| Some(m.id) == id)?.first() {
        Some(m) if m.fstype == "overlay" => refresh(fd.as_fd()),
        _ => Ok(()),
    }
}

/// `a:b\:c` is `a` and `b:c`. After `::` come layers that hold data only.
fn split_layers(value: &Path) -> Result<Vec<PathBuf>> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut out = vec![Vec::new()];
    let mut bytes = value.as_os_str().as_bytes().iter();
    while let Some(&b) = bytes.next() {
        match b {
            b'\\' => out.last_mut().into_iter().for_each(|l| l.extend(bytes.next())),
            b':' => out.push(Vec::new()),
            b => out.last_mut().into_iter().for_each(|l| l.push(b)),
        }
    }
    if out.iter().any(Vec::is_empty) {
        return Err(data_only());
    }
    Ok(out.into_iter().map(|l| std::ffi::OsString::from_vec(l).into()).collect())
}

fn data_only() -> Error {
    Error::new(Kind::Unsupported, "the overlay has layers that hold data only, which cannot be ID-mapped here:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_options_are_read() {
        let o =
            Overlay::parse("rw,lowerdir=/d/l/A:/d/l/B,upperdir=/d/x/diff,workdir=/d/x/work,index=off,redirect_dir=on")
                .unwrap();
        assert_eq!(o.lower, [Path::new("/d/l/A"), Path::new("/d/l/B")]);
        let upper = o.upper.clone().unwrap();
        assert_eq!(
            (upper.parent().as_path(), upper.second_work().as_path()),
            (Path::new("/d/x"), Path::new("/d/x/work/sysbox"))
        );
        assert_eq!(
            (o.options.as_slice(), o.volatile, o.userxattr),
            (&["redirect_dir=on".to_owned()][..], false, false)
        );
    }

    #[test]
    fn separators_in_names_are_told_from_separators() {
        // A colon is written \: by whoever mounts, and the kernel writes the backslash as \134 and a comma as \054.
        let o = Overlay::parse(r"rw,lowerdir=/a\134:b\054c:/d\040e").unwrap();
        assert_eq!(o.lower, [Path::new("/a:b,c"), Path::new("/d e")]);
        let o = Overlay::parse("ro,lowerdir+=/a:b,lowerdir+=/c,volatile,userxattr").unwrap();
        assert_eq!(o.lower, [Path::new("/a:b"), Path::new("/c")]);
        assert!(o.volatile && o.userxattr && o.upper.is_none());
        // What newer kernels show for `volatile`.
        assert_eq!(Overlay::parse("rw,lowerdir=/a,fsync=volatile,uuid=on").unwrap().options, ["fsync=volatile"]);
        assert!(Overlay::parse("rw,lowerdir=/a::/data").is_err());
        assert!(Overlay::parse("rw").is_err());
    }

    #[test]
    fn relative_layers_are_found_from_the_mount_point() {
        let home = tempfile::tempdir().unwrap();
        for d in ["l/A", "l/B", "id/diff", "id/work", "id/merged"] {
            std::fs::create_dir_all(home.path().join(d)).unwrap();
        }
        let o = Overlay::parse("rw,lowerdir=l/A:l/B,upperdir=id/diff,workdir=id/work").unwrap();
        let o = o.absolute(&home.path().join("id/merged")).unwrap();
        assert_eq!(o.lower[1], home.path().join("l/B"));
        assert_eq!(o.upper.unwrap().work, home.path().join("id/work"));
        let o = Overlay::parse("rw,lowerdir=l/C").unwrap();
        assert!(o.absolute(&home.path().join("id/merged")).is_err());
    }
}
