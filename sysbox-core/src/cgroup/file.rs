//! Reading and writing the files of a cgroup.

use super::limits::Write;
use super::paths::Node;
use crate::error::{Errno, Error, Kind, Result, SysResult};
use std::fs::{File, OpenOptions};
use std::io;
use std::io::{Read as _, Write as _};
use std::path::Path;

/// One open, one write(2). Never creates: a missing file is `ENOENT`, where creating one would be `EACCES`.
pub(super) fn write_raw(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

pub(super) fn write(path: &Path, value: &str) -> Result<()> {
    write_raw(path, value).op_at(format!("write {value:?} to"), path)
}

/// Kernel files say that they are empty, for which the standard library reads them in small steps: start with room enough.
pub(super) fn read(path: &Path) -> Result<String> {
    let mut text = Vec::with_capacity(if path.starts_with("/proc") { 16 << 10 } else { 1 << 10 });
    File::open(path).and_then(|mut f| f.read_to_end(&mut text)).op_at("read", path)?;
    // Mount points need not be UTF-8; none of them is ours then.
    Ok(String::from_utf8(text).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// Whether an error means that the file or its cgroup is not there.
pub(super) fn gone(e: &impl Errno) -> bool {
    matches!(e.errno(), libc::ENOENT | libc::ENODEV)
}

/// The number after `key` in a file of lines like `key 1`.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Applies limits in order.
pub(super) fn apply(nodes: &[Node], writes: &[Write]) -> Result<()> {
    let mut held: Option<&Write> = None;
    for w in writes {
        match try_write(nodes, w) {
            Ok(()) => {}
            Err(e) if w.after_next && held.is_none() && matches!(e.errno(), libc::EINVAL | libc::EBUSY) => {
                held = Some(w);
                continue;
            }
            Err(e) => return Err(explain(nodes, w, &e)),
        }
        if let Some(w) = held.take() {
            try_write(nodes, w).map_err(|e| explain(nodes, w, &e))?;
        }
    }
    match held {
        Some(w) => try_write(nodes, w).map_err(|e| explain(nodes, w, &e)),
        None => Ok(()),
    }
}

fn try_write(nodes: &[Node], w: &Write) -> io::Result<()> {
    let Some(node) = nodes.get(w.node) else { return Err(io::Error::from_raw_os_error(libc::ENOENT)) };
    let result = write_raw(&node.dir.join(&w.file), &w.value);
    match (&result, &w.otherwise) {
        (Err(e), Some((file, value))) if gone(e) => write_raw(&node.dir.join(file), value),
        (Err(e), None) if gone(e) && w.optional => Ok(()),
        _ => result,
    }
}

fn explain(nodes: &[Node], w: &Write, e: &io::Error) -> Error {
    let path = nodes.get(w.node).map(|n| n.dir.join(&w.file)).unwrap_or_default();
    let value = &w.value;
    let error = Error::sys(format!("set {} to {value:?} in", w.what), e.errno()).at(&path);
    match e.errno() {
        // A missing directory would be a missing node, not a missing feature.
        libc::ENOENT if path.parent().is_some_and(Path::exists) => {
            error.kinded(Kind::Unsupported).hint("this kernel has no such setting")
        }
        libc::EINVAL | libc::ERANGE => error.kinded(Kind::InvalidConfig),
        libc::EBUSY => error.kinded(Kind::Busy),
        _ => error,
    }
}
