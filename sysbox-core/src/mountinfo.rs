//! /proc/PID/mountinfo (proc_pid_mountinfo(5)).

use crate::error::{Result, SysResult};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount of a mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Unique in the namespace while the mount exists.
    pub(crate) id: u64,
    /// What of its file system is mounted.
    pub(crate) root: PathBuf,
    /// Where.
    pub(crate) point: PathBuf,
    pub(crate) fstype: String,
    /// What is mounted, as its mounter has named it.
    pub(crate) source: String,
    /// Options of the superblock, escaped as they are in the file: a comma in a value is `\054`.
    pub(crate) options: String,
}

/// The mounts of this process's namespace, oldest first on each point.
pub(crate) fn own() -> Result<Vec<Entry>> {
    read(Path::new("/proc/self/mountinfo"))
}

pub(crate) fn read(path: &Path) -> Result<Vec<Entry>> {
    // Bytes: a path in it need not be UTF-8, and such a line must not hide the others.
    let bytes = std::fs::read(path).op_at("read", path)?;
    Ok(String::from_utf8_lossy(&bytes).lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<Entry> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    Some(Entry {
        id: left.first()?.parse().ok()?,
        root: unescape(left.get(3)?),
        point: unescape(left.get(4)?),
        fstype: (*right.first()?).to_owned(),
        source: (*right.get(1)?).to_owned(),
        options: (*right.last()?).to_owned(),
    })
}

/// Undoes the kernel's way to write space, tab, newline, backslash and commas of option values: octal.
pub(crate) fn unescape(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let octal = bytes.get(i + 1..i + 4).and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(b) if bytes[i] == b'\\' => {
                out.push(b);
                i += 4;
            }
            _ => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    OsString::from_vec(out).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_whatever_optional_fields_they_have() {
        let e =
            parse("46 42 0:39 / /a/b rw,relatime shared:2 master:1 - overlay overlay rw,lowerdir=/l\\0541").unwrap();
        assert_eq!((e.id, e.point.as_path(), e.fstype.as_str()), (46, Path::new("/a/b"), "overlay"));
        assert_eq!(e.options, "rw,lowerdir=/l\\0541");
        assert!(parse("46 42 0:39 / /a rw - proc proc rw").is_some());
        assert!(parse("46 42 0:39").is_none());
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(r"/a\040b\134c"), Path::new("/a b\\c"));
        assert_eq!(unescape(r"/a\04"), Path::new(r"/a\04"));
    }
}
