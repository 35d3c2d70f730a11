//! What a caller is, and what it asks for.

use rustix::fs::{openat, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The kernel's PATH_MAX, with the NUL byte.
const LONGEST: usize = 4096;
const PAGE: u64 = 4096;
/// How long a list of a process's mappings may be: some 10 000 of them.
const MAPS: usize = 1 << 20;

/// A thread, by descriptors, which stay its own whatever becomes of its number. Whoever opens it asks afterwards whether the call
/// still waits: until then it may be another's.
#[derive(Debug)]
pub(super) struct Caller {
    /// Its directory in the host's procfs.
    dir: OwnedFd,
    memory: OwnedFd,
}

/// In IDs of whoever opened it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// Real, effective, saved, and for files.
    pub(super) uid: [u32; 4],
    pub(super) gid: [u32; 4],
    pub(super) groups: Vec<u32>,
    /// Effective capabilities, in its own user namespace.
    pub(super) caps: u64,
}

impl Caller {
    pub(super) fn open(proc: BorrowedFd<'_>, tid: u32) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(proc, rustix::path::DecInt::new(tid), flags, Mode::empty())?;
        let memory = openat(&dir, "mem", OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Caller { dir, memory })
    }

    /// What a link of its directory leads to.
    pub(super) fn follow(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        openat(&self.dir, name, flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// The file that is open there as this number: the same place, in a descriptor that can do nothing but name it.
    pub(super) fn descriptor(&self, number: i32) -> Result<OwnedFd, Errno> {
        self.follow(&format!("fd/{number}"), OFlags::PATH)
    }

    /// A string of its memory, if there is one that is no longer than a path may be.
    pub(super) fn string(&self, address: u64) -> Option<CString> {
        let mut text = Vec::new();
        while text.len() < LONGEST {
            let piece = self.piece(address.checked_add(text.len() as u64)?, LONGEST - text.len())?;
            match piece.iter().position(|b| *b == 0) {
                Some(end) => {
                    text.extend_from_slice(&piece[..end]);
                    return CString::new(text).ok();
                }
                None => text.extend_from_slice(&piece),
            }
        }
        None
    }

    /// So many bytes, or as many as there are, and zeroes. `None` if there are none.
    pub(super) fn bytes<const N: usize>(&self, address: u64) -> Option<Box<[u8; N]>> {
        let mut out = Box::new([0; N]);
        let mut got = 0;
        while got < N {
            match address.checked_add(got as u64).and_then(|at| self.piece(at, N - got)) {
                Some(piece) => {
                    out[got..got + piece.len()].copy_from_slice(&piece);
                    got += piece.len();
                }
                None if got == 0 => return None,
                None => break,
            }
        }
        Some(out)
    }

    /// Up to the end of a page, since the next one may not be there.
    fn piece(&self, address: u64, most: usize) -> Option<Vec<u8>> {
        let mut out = vec![0; most.min((PAGE - address % PAGE) as usize)];
        let n = rustix::io::retry_on_intr(|| rustix::io::pread(&self.memory, &mut out[..], address)).ok()?;
        out.truncate(n);
        (n > 0).then_some(out)
    }

    /// Writes to its memory, all or, if it is not there, perhaps a part. Only what the caller itself can write: the kernel does not ask.
    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> bool {
        let maps = Self::text(self.dir.as_fd(), "maps", MAPS).unwrap_or_default();
        if !is_writable(&maps, address, bytes.len() as u64) {
            return false;
        }
        let n = rustix::io::retry_on_intr(|| rustix::io::pwrite(&self.memory, bytes, address));
        n == Ok(bytes.len())
    }

    /// A file of its directory, or of that of a process of that number or name below `proc`.
    fn text(dir: BorrowedFd<'_>, name: &str, most: usize) -> Result<String, Errno> {
        let file = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        read_text(&file, most)
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        parse_status(&Self::text(self.dir.as_fd(), "status", 64 << 10).ok()?)
    }

    /// Whether a security module lets this process do the same as the caller, as far as can be seen: they have the same label.
    pub(super) fn labelled_as_we_are(&self, proc: BorrowedFd<'_>) -> bool {
        ["attr/current", "attr/apparmor/current"].iter().all(|name| {
            let theirs = Self::text(self.dir.as_fd(), name, PAGE as usize);
            theirs != Err(Errno::FBIG) && theirs == Self::text(proc, &format!("self/{name}"), PAGE as usize)
        })
    }
}

/// A file's text: the whole of it, or EFBIG if that is `most` bytes or more.
pub(super) fn read_text(file: &OwnedFd, most: usize) -> Result<String, Errno> {
    let mut out = Vec::new();
    loop {
        let start = out.len();
        out.resize(start + 4096, 0);
        let n = rustix::io::retry_on_intr(|| rustix::io::read(file, &mut out[start..]));
        out.truncate(start + n.unwrap_or(0));
        if n? == 0 {
            return Ok(String::from_utf8_lossy(&out).into_owned());
        }
        if out.len() >= most {
            return Err(Errno::FBIG);
        }
    }
}

/// `/proc/PID/status` (proc_pid_status(5)). What is not there to its end is not there: a part of a number is another number.
fn parse_status(text: &str) -> Option<Identity> {
    let line = |name: &str| {
        text.split_inclusive('\n').find_map(|l| l.strip_prefix(name)?.strip_prefix(":\t")?.strip_suffix('\n'))
    };
    let numbers =
        |name: &str| -> Option<Vec<u32>> { line(name)?.split_ascii_whitespace().map(|w| w.parse().ok()).collect() };
    let caps = line("CapEff").filter(|c| c.len() == 16 && c.bytes().all(|b| b.is_ascii_hexdigit()))?;
    Some(Identity {
        uid: numbers("Uid")?.try_into().ok()?,
        gid: numbers("Gid")?.try_into().ok()?,
        groups: numbers("Groups")?,
        caps: u64::from_str_radix(caps, 16).ok()?,
    })
}

/// Whether a process whose mappings (`/proc/PID/maps`) these are may write so many bytes there.
fn is_writable(maps: &str, address: u64, len: u64) -> bool {
    let Some(end) = address.checked_add(len) else { return false };
    let ranges = maps.lines().filter_map(|l| {
        let (range, rest) = l.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let hex = |s| u64::from_str_radix(s, 16).ok();
        rest[..rest.len().min(4)].contains('w').then_some((hex(from)?, hex(to)?))
    });
    // They are in order, and those next to each other may differ in other ways.
    ranges.fold(address, |at, (from, to)| if from <= at && at < to { to } else { at }) >= end
}

/// Whether two descriptors are of one namespace.
pub(super) fn same(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    match (rustix::fs::fstat(a), rustix::fs::fstat(b)) {
        (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
        _ => false,
    }
}

/// The descriptor that a path names by way of /proc/self/fd, /proc/thread-self/fd or /dev/fd, wherever these are, and whether the path
/// ends with it. Such a path means the caller's own, so a process that uses it for the caller must have the same there.
pub(super) fn descriptor_in(path: &[u8]) -> Option<(i32, bool)> {
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
    let number = |part: &[u8]| std::str::from_utf8(part).ok()?.parse::<i32>().ok().filter(|n| *n >= 0);
    let found = parts.windows(3).enumerate().find_map(|(i, w)| {
        let own = matches!(w[0], b"self" | b"thread-self" | b"dev") && w[1] == b"fd";
        own.then(|| Some((number(w[2])?, i + 3)))?
    })?;
    Some((found.0, found.1 == parts.len() && !path.ends_with(b"/") && !path.ends_with(b"/.")))
}

/// As an argument: a descriptor, or AT_FDCWD.
pub(super) fn descriptor_argument(argument: u64) -> i32 {
    argument as u32 as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_in_paths() {
        for (path, found) in [
            ("/proc/self/fd/7", Some((7, true))),
            ("/proc/thread-self/fd/12/", Some((12, false))),
            ("//proc/./self//fd/3/sub", Some((3, false))),
            ("/x/proc/self/fd/4", Some((4, true))),
            ("/dev/fd/0", Some((0, true))),
            ("/proc/self/fd/x", None),
            ("/proc/self/fd/-1", None),
            ("/proc/self/fd", None),
            ("/proc", None),
            ("", None),
        ] {
            assert_eq!(descriptor_in(path.as_bytes()), found, "{path}");
        }
    }

    #[test]
    fn status_is_read() {
        let text = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapEff:\t00000000a80425fb\n";
        let i = parse_status(text).unwrap();
        assert_eq!((i.uid, i.gid, i.groups, i.caps), ([1, 2, 3, 4], [5, 6, 7, 8], vec![9, 10], 0xa804_25fb));
        assert!(parse_status(&text.replace("Groups", "Gruppen")).is_none());
        for caps in ["00000000a80425f", "00000000a80425fb0", "+0000000a80425fb", "00000000a80425fg", ""] {
            assert!(parse_status(&text.replace("00000000a80425fb", caps)).is_none(), "{caps}");
        }
    }

    #[test]
    fn a_status_that_is_cut_is_none_or_the_same() {
        let text = "Name:\tx\nUid:\t10\t20\t30\t40\nGid:\t50\t60\t70\t80\nGroups:\t90 100 \nCapPrm:\t000001ffffffffff\nCapEff:\t00000000a80425fb\nCapBnd:\t000001ffffffffff\n";
        let whole = parse_status(text);
        let end = text.find("CapBnd").unwrap();
        for cut in 0..=text.len() {
            assert_eq!(parse_status(&text[..cut]), whole.clone().filter(|_| cut >= end), "{}", &text[..cut]);
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_an_error() {
        let file = || rustix::fs::open("/proc/self/status", OFlags::RDONLY, Mode::empty()).unwrap();
        let whole = read_text(&file(), 1 << 16).unwrap();
        assert!(whole.ends_with('\n') && whole.contains("CapEff"));
        assert_eq!(read_text(&file(), 100), Err(Errno::FBIG));
        let zero = rustix::fs::open("/dev/zero", OFlags::RDONLY, Mode::empty()).unwrap();
        assert_eq!(read_text(&zero, 1 << 16), Err(Errno::FBIG));
    }

    #[test]
    fn only_what_may_be_written_is_writable() {
        let maps = "1000-3000 r--p 00000000 00:00 0 /bin/w\n3000-4000 rw-p 00000000 00:00 0\n4000-5000 rwxs 00000000 00:00 0\n6000-7000 -w-p 0 00:00 0\n";
        for (address, len, may) in [
            (0x3000, 0x1000, true),
            (0x3ff0, 0x20, true),
            (0x2ff0, 0x20, false),
            (0x4ff0, 0x20, false),
            (0x6000, 1, true),
            (0x1000, 8, false),
            (0x7000, 1, false),
            (u64::MAX, 2, false),
        ] {
            assert_eq!(is_writable(maps, address, len), may, "{address:x}");
        }
        assert!(!is_writable("", 1, 1) && !is_writable("nonsense\n1000-2000 w", 0x1000, 0x1001));
    }

    #[test]
    fn memory_is_read_as_far_as_it_goes() {
        let proc = rustix::fs::open("/proc", OFlags::PATH, Mode::empty()).unwrap();
        let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        let Ok(me) = Caller::open(proc.as_fd(), tid) else { return };
        let text = c"some text";
        assert_eq!(me.string(text.as_ptr() as u64).as_deref(), Some(text));
        assert_eq!(me.string(0), None);
        assert_eq!(me.string(u64::MAX), None);
        assert_eq!(me.bytes::<4>(text.as_ptr() as u64).as_deref(), Some(b"some"));
        assert_eq!(me.bytes::<4>(8), None);
        let long = vec![b'x'; 10_000];
        assert_eq!(me.string(long.as_ptr() as u64), None);
        assert!(!me.write(16, b"x"));
        static CONSTANT: [u8; 5] = *b"fixed";
        assert!(!me.write(CONSTANT.as_ptr() as u64, b"other"));
        assert!(me.identity().is_some() && me.labelled_as_we_are(proc.as_fd()));
    }
}
