//! A file as a lock between processes.

use crate::error::{Error, Kind, Result, SysResult};
use crate::limit::Limit;
use rustix::fs::{flock, futimens, FlockOperation, Timespec, Timestamps, UTIME_NOW};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long one holder may take. Whoever holds such a lock holds it for milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes the lock of `what`, a file that is made if need be. It goes with the descriptor, whatever becomes of this process.
///
/// Waits in steps instead of in flock(2), so that a holder that is stopped makes an error and not a hang. Behind others that are
/// served it waits for as long as that takes: hundreds may want it at the same time, on a machine that has much else to do.
///
/// # Errors
/// [`Kind::Busy`] if the same holder keeps it for ten seconds; those of `limit`.
pub(crate) fn exclusive(path: &Path, what: &str, limit: &Limit) -> Result<File> {
    exclusive_from(path, what, limit, PATIENCE)
}

fn exclusive_from(path: &Path, what: &str, limit: &Limit, patience: Duration) -> Result<File> {
    let mut open = OpenOptions::new();
    open.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = open.open(path).op_at(format!("open the lock of {what}"), path)?;
    let taken = || file.metadata().map(|m| (m.mtime(), m.mtime_nsec())).op_at("stat", path);
    let mut holder = taken()?;
    let mut deadline = Instant::now() + patience;
    let mut pause = Duration::from_micros(100);
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // Tells those who wait that it has changed hands.
                let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
                let _ = futimens(&file, &Timestamps { last_access: now, last_modification: now });
                return Ok(file);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                limit.check()?;
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(5));
                let now = taken()?;
                if now != holder {
                    (holder, deadline) = (now, Instant::now() + patience);
                }
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let what = format!("wait {} s for the lock of {what}", patience.as_secs());
                let hint = "another process holds it; see who with fuser or lslocks";
                return Err(Error::new(Kind::Busy, what).at(path).hint(hint));
            }
            Err(e) => return Err(e).op_at(format!("lock {what}"), path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(300);

    fn take(path: &Path) -> Result<File> {
        exclusive_from(path, "it", &Limit::none(), SHORT)
    }

    #[test]
    fn one_holder_who_keeps_it_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = take(&path).unwrap();
        let e = take(&path).unwrap_err();
        assert_eq!(e.kind(), Kind::Busy);
        let ended = exclusive_from(&path, "it", &Limit::after(Duration::from_millis(20)), Duration::from_secs(100));
        assert_eq!(ended.unwrap_err().kind(), Kind::TimedOut);
        drop(held);
        take(&path).unwrap();
    }

    /// Waiting behind many takes longer than any of them may.
    #[test]
    fn many_holders_are_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let turn = || {
            let held = exclusive_from(&path, "it", &Limit::none(), Duration::from_secs(2)).unwrap();
            std::thread::sleep(Duration::from_millis(300));
            drop(held);
        };
        std::thread::scope(|s| (0..12).for_each(|_| drop(s.spawn(turn))));
    }
}
