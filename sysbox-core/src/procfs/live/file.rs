//! Reading kernel files by descriptor, as far as a process may that can open nothing but what lies below the directories it has.

use rustix::fs::{openat, Mode, OFlags};
use rustix::io::{pread, retry_on_intr, Errno, Result};
use rustix::path::{Arg, DecInt};
use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How much of a file is looked at, when it is wanted whole. The longest is `/proc/PID/cgroup`, with a path for each hierarchy.
const MOST: usize = 64 << 10;
/// How much is read at a time, and the longest line.
const STEP: usize = 4 << 10;

/// What is opened never is a symbolic link.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory of kernel files. One that is read again and again keeps them open: opening costs several times what reading does,
/// and each read from the beginning has the kernel write the file anew.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    kept: Option<RefCell<Vec<(String, OwnedFd)>>>,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    pub(super) fn new(fd: OwnedFd) -> Dir {
        Dir { fd, kept: None }
    }

    pub(super) fn keeping(fd: OwnedFd) -> Dir {
        Dir { fd, kept: Some(RefCell::default()) }
    }

    /// A directory in this one; `name` is one component.
    pub(super) fn directory(&self, name: impl Arg) -> Result<Dir> {
        let name = name.as_cow_c_str()?;
        retry_on_intr(|| openat(&self.fd, name.as_ref(), DIRECTORY, Mode::empty())).map(Dir::new)
    }

    /// The directory of a process or thread, if this is a procfs.
    pub(super) fn process(&self, pid: u32) -> Result<Dir> {
        self.directory(DecInt::new(pid))
    }

    /// The same directory in a state that it can be listed in; keeps nothing.
    pub(super) fn listable(&self) -> Result<Dir> {
        retry_on_intr(|| openat(&self.fd, c".", FILE.union(OFlags::DIRECTORY), Mode::empty())).map(Dir::new)
    }

    fn with<T>(&self, name: &str, read: impl FnOnce(BorrowedFd<'_>) -> Result<T>) -> Result<T> {
        let open = || retry_on_intr(|| openat(&self.fd, name, FILE, Mode::empty()));
        let Some(kept) = &self.kept else { return read(open()?.as_fd()) };
        if let Some((_, file)) = kept.borrow().iter().find(|(n, _)| n == name) {
            return read(file.as_fd());
        }
        let file = open()?;
        let result = read(file.as_fd());
        if let Ok(mut kept) = kept.try_borrow_mut() {
            kept.push((name.to_owned(), file));
        }
        result
    }

    /// The text of a file, as far as it is UTF-8, in a buffer that is used again and again. No more than 64 KiB.
    pub(super) fn text<'b>(&self, name: &str, buffer: &'b mut Vec<u8>) -> Result<&'b str> {
        self.bytes(name, buffer)?;
        Ok(match std::str::from_utf8(buffer) {
            Ok(text) => text,
            Err(e) => std::str::from_utf8(buffer.get(..e.valid_up_to()).unwrap_or_default()).unwrap_or_default(),
        })
    }

    /// The same, whatever it is.
    pub(super) fn bytes<'b>(&self, name: &str, buffer: &'b mut Vec<u8>) -> Result<&'b [u8]> {
        buffer.clear();
        self.with(name, |file| {
            while buffer.len() < MOST {
                let before = buffer.len();
                buffer.resize(before + STEP, 0);
                let n = retry_on_intr(|| pread(file, &mut buffer[before..], before as u64));
                buffer.truncate(before + n.as_ref().copied().unwrap_or(0));
                if n? == 0 {
                    break;
                }
            }
            Ok(())
        })?;
        Ok(buffer)
    }

    /// Feeds a file's lines, without their ends, to `line` until it says false. Of a line longer than 4 KiB only the beginning is
    /// there: the whole file never is in memory.
    pub(super) fn lines(&self, name: &str, buffer: &mut Vec<u8>, line: impl FnMut(&[u8]) -> bool) -> Result<()> {
        self.with(name, |file| lines(file, buffer, line))
    }
}

fn lines(file: BorrowedFd<'_>, buffer: &mut Vec<u8>, mut line: impl FnMut(&[u8]) -> bool) -> Result<()> {
    buffer.clear();
    buffer.resize(2 * STEP, 0);
    let (mut offset, mut kept, mut skipping) = (0, 0, false);
    loop {
        let n = match retry_on_intr(|| pread(file, &mut buffer[kept..], offset)) {
            // A cgroup or a process has gone meanwhile.
            Err(Errno::NODEV | Errno::SRCH) => 0,
            n => n?,
        };
        offset += n as u64;
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

    fn dir(content: &[u8]) -> (tempfile::TempDir, Dir) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), content).unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap().into();
        (dir, Dir::new(fd))
    }

    fn all_lines(content: &[u8]) -> Vec<Vec<u8>> {
        let (_dir, fd) = dir(content);
        let mut all = Vec::new();
        fd.lines("f", &mut Vec::new(), |l| {
            all.push(l.to_vec());
            true
        })
        .unwrap();
        all
    }

    #[test]
    fn whole_files_end_somewhere() {
        let (_dir, fd) = dir(&vec![b'x'; 200_000]);
        assert_eq!(fd.bytes("f", &mut Vec::new()).unwrap().len(), MOST);
        let (_dir, fd) = dir(b"good\xffbad");
        assert_eq!(fd.text("f", &mut Vec::new()).unwrap(), "good");
        assert_eq!(fd.text("g", &mut Vec::new()).unwrap_err(), Errno::NOENT);
    }

    #[test]
    fn what_is_kept_is_read_anew() {
        let (dir, fd) = dir(b"old");
        let fd = Dir::keeping(fd.fd);
        let mut buffer = Vec::new();
        assert_eq!(fd.text("f", &mut buffer).unwrap(), "old");
        std::fs::write(dir.path().join("f"), "new and longer").unwrap();
        assert_eq!(fd.text("f", &mut buffer).unwrap(), "new and longer");
        std::fs::remove_file(dir.path().join("f")).unwrap();
        assert_eq!(fd.text("f", &mut buffer).unwrap(), "new and longer");
        assert_eq!(fd.text("g", &mut buffer).unwrap_err(), Errno::NOENT);
        let mut n = 0;
        fd.lines("f", &mut buffer, |_| {
            n += 1;
            true
        })
        .unwrap();
        assert_eq!(n, 1);
    }

    #[test]
    fn symbolic_links_are_refused() {
        let (dir, fd) = dir(b"x");
        std::os::unix::fs::symlink("f", dir.path().join("l")).unwrap();
        std::os::unix::fs::symlink(".", dir.path().join("d")).unwrap();
        assert_eq!(fd.text("l", &mut Vec::new()).unwrap_err(), Errno::LOOP);
        assert!(fd.directory("d").is_err());
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
        fd.lines("f", &mut Vec::new(), |_| {
            n += 1;
            n < 2
        })
        .unwrap();
        assert_eq!(n, 2);
    }

    proptest! {
        // Each makes files.
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn lines_are_lines(parts in proptest::collection::vec("[a-z]{0,900}", 0..40)) {
            let text = parts.join("\n");
            let expected: Vec<Vec<u8>> = text.lines().map(|l| l.as_bytes().to_vec()).collect();
            prop_assert_eq!(all_lines(text.as_bytes()), expected);
        }
    }
}
