//! Directories of the host that one container at a time may have: data of engines inside, kept in a volume.
//!
//! Two engines on one data directory destroy it. Each directory that is taken has a file, named by device and inode, that says
//! by which container; a claim is void as soon as that container's state directory is gone. Nothing is synced to disk: after a
//! restart of the host no container lives, and `/run` is empty.

use crate::error::{Error, Kind, Result, SysResult};
use crate::idmap::pool::Owner;
use crate::limit::Limit;
use crate::lock;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Where the claims of a host are.
pub(crate) const DEFAULT_DIR: &str = "/run/sysbox-exclusive";

/// Takes all of `directories` for `owner`, or none. Claims that are void go away.
///
/// # Errors
/// [`Kind::Busy`] if another container that exists has one, naming both; those of `limit`.
pub(crate) fn claim(claims: &Path, owner: &Owner, directories: &[PathBuf], limit: &Limit) -> Result<()> {
    if directories.is_empty() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(claims).op_at("create", claims)?;
    let _lock = lock::exclusive(&claims.join("lock"), "the directories in use", limit)?;
    for entry in fs::read_dir(claims).op_at("read", claims)?.flatten() {
        if read(&entry.path()).is_some_and(|o| o.is_gone()) {
            let _ = fs::remove_file(entry.path());
        }
    }
    let mut files = Vec::new();
    for directory in directories {
        let meta = fs::metadata(directory).op_at("stat", directory)?;
        let file = claims.join(format!("{}-{}", meta.dev(), meta.ino()));
        if let Some(other) = read(&file).filter(|o| o != owner) {
            let name = other.state_dir.file_name().unwrap_or_default().to_string_lossy();
            return Err(Error::new(Kind::Busy, format!("container {name} keeps the data of its engine in"))
                .at(directory)
                .hint(
                    "two engines on one data directory destroy it: delete that container, or use another directory",
                ));
        }
        files.push(file);
    }
    let text = serde_json::to_vec(owner).unwrap_or_default();
    for file in files {
        let new = claims.join("new");
        fs::write(&new, &text).op_at("write", &new)?;
        fs::rename(&new, &file).op_at("rename to", &file)?;
    }
    Ok(())
}

/// Who has it. What cannot be read is nobody's: claims are replaced whole.
fn read(file: &Path) -> Option<Owner> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_container_at_a_time() {
        let top = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let dir = top.path().join(name);
            fs::create_dir(&dir).unwrap();
            dir
        };
        let (claims, cache, other) = (top.path().join("claims"), make("cache"), make("other"));
        let (one, two) = (Owner::of(&make("one")).unwrap(), Owner::of(&make("two")).unwrap());
        let both = [other.clone(), cache.clone()];
        let take = |owner: &Owner, directories: &[PathBuf]| claim(&claims, owner, directories, &Limit::none());
        take(&one, std::slice::from_ref(&cache)).unwrap();
        take(&one, std::slice::from_ref(&cache)).unwrap();
        let busy = take(&two, &both).unwrap_err();
        assert_eq!(busy.kind(), Kind::Busy);
        assert!(busy.to_string().contains("container one") && busy.to_string().contains("cache"), "{busy}");
        take(&one, &[other]).unwrap();
        fs::remove_dir(top.path().join("one")).unwrap();
        take(&two, &both).unwrap();
        // The lock and two claims.
        assert_eq!(fs::read_dir(&claims).unwrap().count(), 3);
        take(&two, &[]).unwrap();
    }
}
