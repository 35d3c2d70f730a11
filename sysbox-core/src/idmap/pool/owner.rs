//! Who has a range, and whether they still exist.

use crate::error::{Result, SysResult};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Who has a range: a container's state directory.
///
/// The path alone would not tell a container from a later one of the same name, the numbers alone not from a later directory
/// that reuses them. A later one that has path and both numbers, as a file system that reuses inode numbers at once may
/// give it, takes the range over, which no one else can have then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// Absolute path, without symbolic links if it comes from [`Owner::of`].
    pub state_dir: PathBuf,
    /// Device number, `st_dev` of stat(2).
    pub dev: u64,
    /// Inode number, `st_ino` of stat(2).
    pub ino: u64,
}

impl Owner {
    /// The state directory as it is now, its path made canonical.
    ///
    /// # Errors
    /// [`Kind::System`](crate::error::Kind::System) if it does not exist or cannot be looked up.
    pub fn of(state_dir: &Path) -> Result<Owner> {
        let path = fs::canonicalize(state_dir).op_at("look up the state directory", state_dir)?;
        let meta = fs::metadata(&path).op_at("look up the state directory", &path)?;
        Ok(Owner { dev: meta.dev(), ino: meta.ino(), state_dir: path })
    }

    /// Whether the directory exists no more, or is another one by now. If the system cannot say, it is not gone: any doubt
    /// keeps the range where it is.
    pub(crate) fn is_gone(&self) -> bool {
        match fs::metadata(&self.state_dir) {
            Ok(meta) => (meta.dev(), meta.ino()) != (self.dev, self.ino),
            Err(e) => matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        }
    }
}

/// Which of `owners` are not gone; as [`Owner::is_gone`], at less cost.
///
/// Containers usually have neighbouring state directories, and listing their parent shows the inode numbers of all at the price
/// of a few lookups. Who is not found so (gone, or on a file system where lists and lookups give different numbers) is looked up.
pub(super) fn alive(owners: &[&Owner]) -> Vec<bool> {
    let mut alive = vec![false; owners.len()];
    // By text: hashing and comparing a `Path` takes it apart each time.
    let mut neighbours: HashMap<&OsStr, Vec<usize>> = HashMap::new();
    for (i, owner) in owners.iter().enumerate() {
        if let Some(parent) = owner.state_dir.parent() {
            neighbours.entry(parent.as_os_str()).or_default().push(i);
        }
    }
    for (parent, members) in neighbours {
        let (Ok(meta), Ok(list)) = (fs::metadata(parent), fs::read_dir(parent)) else { continue };
        let known: HashMap<u64, usize> = members.iter().map(|&i| (owners[i].ino, i)).collect();
        // Not worth it in a directory that is full of other things, such as /tmp.
        for entry in list.take(4 * members.len() + 64).flatten() {
            if let Some(&i) = known.get(&entry.ino()) {
                let same_name = owners[i].state_dir.file_name() == Some(&entry.file_name());
                alive[i] |= same_name && owners[i].dev == meta.dev();
            }
        }
    }
    for (alive, owner) in alive.iter_mut().zip(owners) {
        *alive = *alive || !owner.is_gone();
    }
    alive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing_and_looking_up_agree() {
        let dir = tempfile::Builder::new().prefix("sysbox-owner-").tempdir().unwrap();
        let make = |name: &str| {
            fs::create_dir_all(dir.path().join(name)).unwrap();
            Owner::of(&dir.path().join(name)).unwrap()
        };
        let (kept, gone, moved, far) = (make("kept"), make("gone"), make("moved"), make("deep/far"));
        fs::remove_dir(&gone.state_dir).unwrap();
        fs::rename(&moved.state_dir, dir.path().join("elsewhere")).unwrap();
        let new = make("moved");
        let linked = Owner { state_dir: dir.path().join("link"), ..kept.clone() };
        std::os::unix::fs::symlink(&kept.state_dir, &linked.state_dir).unwrap();
        let below_file = Owner { state_dir: dir.path().join("file/x"), ..kept.clone() };
        fs::write(dir.path().join("file"), "").unwrap();
        let root = Owner::of(Path::new("/")).unwrap();
        let other_device = Owner { dev: kept.dev + 1, ..kept.clone() };
        let owners = [&kept, &gone, &moved, &far, &new, &linked, &below_file, &root, &other_device];
        let expected: Vec<bool> = owners.iter().map(|o| !o.is_gone()).collect();
        assert_eq!(expected, [true, false, false, true, true, true, false, true, false]);
        assert_eq!(alive(&owners), expected);
    }
}
