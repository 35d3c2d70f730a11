//! A file as a lock between processes.

use crate::error::{Error, Kind, Result, SysResult};
use rustix::fs::{flock, FlockOperation};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long to wait. Whoever holds such a lock holds it for milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes the lock of `what`, a file that is made if need be. It goes with the descriptor, whatever becomes of this process.
///
/// Waits in steps instead of in flock(2), so that a holder that is stopped makes an error and not a hang.
///
/// # Errors
/// [`Kind::Busy`] if it stays taken for ten seconds.
pub(crate) fn exclusive(path: &Path, what: &str) -> Result<File> {
    let mut open = OpenOptions::new();
    open.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = open.open(path).op_at(format!("open the lock of {what}"), path)?;
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(100);
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(5));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let what = format!("wait {} s for the lock of {what}", PATIENCE.as_secs());
                let hint = "another process holds it; see who with fuser or lslocks";
                return Err(Error::new(Kind::Busy, what).at(path).hint(hint));
            }
            Err(e) => return Err(e).op_at(format!("lock {what}"), path),
        }
    }
}
