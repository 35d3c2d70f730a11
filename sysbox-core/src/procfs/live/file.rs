//! Reading kernel files by descriptor, as far as a process may that can open nothing but what lies below the directories it has.

use rustix::fs::{openat, Mode, OFlags};
use rustix::io::{read, retry_on_intr, Errno, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How much of a file is looked at, when it is wanted whole. The longest is `/proc/PID/cgroup`, with a path for each hierarchy.
const MOST: usize = 64 << 10;
/// How much is read at a time, and the longest line.
const STEP: usize = 4 << 10;

/// What is opened never is a symbolic link.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory in another; `name` is one component.
pub(super) fn directory(parent: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd> {
    retry_on_intr(|| openat(parent.as_fd(), name.as_cow_c_str()?.as_ref(), DIRECTORY, Mode::empty()))
}

/// A directory that can be listed.
pub(super) fn listable(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    openat(dir, c".", FILE.union(OFlags::DIRECTORY), Mode::empty())
}

/// The directory of a process or thread, in a procfs.
pub(super) fn process(proc: impl AsFd, pid: u32) -> Result<OwnedFd> {
    directory(proc, rustix::path::DecInt::new(pid))
}

/// The text of a file, as far as it is UTF-8, in a buffer that is used again and again. No more than 64 KiB.
pub(super) fn text<'b>(dir: impl AsFd, name: &str, buffer: &'b mut Vec<u8>) -> Result<&'b str> {
    bytes(dir, name, buffer)?;
    Ok(match std::str::from_utf8(buffer) {
        Ok(text) => text,
        Err(e) => std::str::from_utf8(buffer.get(..e.valid_up_to()).unwrap_or_default()).unwrap_or_default(),
    })
}

/// The same, whatever it is.
pub(super) fn bytes<'b>(dir: impl AsFd, name: &str, buffer: &'b mut Vec<u8>) -> Result<&'b [u8]> {
    let file = openat(dir, name, FILE, Mode::empty())?;
    buffer.clear();
    while buffer.len() < MOST {
        let before = buffer.len();
        buffer.resize(before + STEP, 0);
        let n = retry_on_intr(|| read(&file, &mut buffer[before..]));
        buffer.truncate(before + n.as_ref().copied().unwrap_or(0));
        if n? == 0 {
            break;
        }
    }
    Ok(buffer)
}

/// Feeds a file's lines, without their ends, to `line` until it says false. Of a line longer than 4 KiB only the beginning is
/// there: the whole file never is in memory.
pub(super) fn lines(
    dir: impl AsFd,
    name: &str,
    buffer: &mut Vec<u8>,
    mut line: impl FnMut(&[u8]) -> bool,
) -> Result<()> {
    let file = openat(dir, name, FILE, Mode::empty())?;
    buffer.clear();
    buffer.resize(2 * STEP, 0);
    let (mut kept, mut skipping) = (0, false);
    loop {
        let n = match retry_on_intr(|| read(&file, &mut buffer[kept..])) {
            // A cgroup or a process has gone meanwhile.
            Err(Errno::NODEV | Errno::SRCH) => 0,
            n => n?,
        };
        let end = kept + n;
        let mut start = 0;
        while let Some(length) = buffer[start..end].iter().position(|b| *b == b'\n') {
            if !std::mem::take(&mut skipping) && !line(&buffer[start..start + length]) {
                return Ok(());
            }
            start += length + 1;
        }
        if n == 0 {
            if start < end && !skipping {
                line(&buffer[start..end]);
            }
            return Ok(());
        }
        buffer.copy_within(start..end, 0);
        kept = end - start;
        if kept >= STEP {
            if !std::mem::replace(&mut skipping, true) && !line(&buffer[..STEP]) {
                return Ok(());
            }
            kept = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dir(content: &[u8]) -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), content).unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap().into();
        (dir, fd)
    }

    fn all_lines(content: &[u8]) -> Vec<Vec<u8>> {
        let (_dir, fd) = dir(content);
        let mut all = Vec::new();
        lines(fd, "f", &mut Vec::new(), |l| {
            all.push(l.to_vec());
            true
        })
        .unwrap();
        all
    }

    #[test]
    fn whole_files_end_somewhere() {
        let (_dir, fd) = dir(&vec![b'x'; 200_000]);
        assert_eq!(bytes(&fd, "f", &mut Vec::new()).unwrap().len(), MOST);
        let (_dir, fd) = dir(b"good\xffbad");
        assert_eq!(text(&fd, "f", &mut Vec::new()).unwrap(), "good");
        assert_eq!(text(&fd, "g", &mut Vec::new()).unwrap_err(), Errno::NOENT);
    }

    #[test]
    fn symbolic_links_are_refused() {
        let (dir, fd) = dir(b"x");
        std::os::unix::fs::symlink("f", dir.path().join("l")).unwrap();
        std::os::unix::fs::symlink(".", dir.path().join("d")).unwrap();
        assert_eq!(text(&fd, "l", &mut Vec::new()).unwrap_err(), Errno::LOOP);
        assert!(directory(&fd, "d").is_err());
    }

    #[test]
    fn long_lines_are_cut() {
        let mut content = vec![b'x'; 100_000];
        content.extend_from_slice(b"\nnext\n");
        let all = all_lines(&content);
        assert_eq!(all.len(), 2);
        assert!(all[0].len() >= STEP && all[0].len() <= 2 * STEP);
        assert_eq!(all[1], b"next");
    }

    #[test]
    fn may_stop() {
        let (_dir, fd) = dir(b"a\nb\nc\n");
        let mut n = 0;
        lines(fd, "f", &mut Vec::new(), |_| {
            n += 1;
            n < 2
        })
        .unwrap();
        assert_eq!(n, 2);
    }

    proptest! {
        #[test]
        fn lines_are_lines(parts in proptest::collection::vec("[a-z]{0,900}", 0..40)) {
            let text = parts.join("\n");
            let expected: Vec<Vec<u8>> = text.lines().map(|l| l.as_bytes().to_vec()).collect();
            prop_assert_eq!(all_lines(text.as_bytes()), expected);
        }
    }
}
