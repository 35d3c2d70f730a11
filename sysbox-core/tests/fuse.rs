//! A FUSE server as a process of its own, and readers that are kind and unkind to it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use rustix::fs::{AtFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use sysbox_core::fuse::{self, Owner, Progress, Reader, Server};

const FILES: [&str; 6] = ["text", "big", "caller", "fails", "empty", "grows"];
const TEXT: usize = 1500;
const BIG_LINES: usize = 30_000;
const OWNER: u32 = 231_072;
const SERVER: &str = "SYSBOX_TEST_FUSE_SERVER";

/// Not a test: what the others start as their server. Its standard input is the device.
#[test]
fn server_process() {
    if std::env::var_os(SERVER).is_none() {
        return;
    }
    let dev = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    nix::unistd::close(0).unwrap();
    let files = FILES.map(|name| fuse::File { name: name.into(), mode: 0o444 });
    let mut server = Server::new(dev, files.into(), Owner { uid: OWNER, gid: OWNER });
    let mut turn = 0;
    loop {
        match server.serve(&mut |file, reader| text_of(file, reader, &mut turn)) {
            Ok(Progress::Ended) => std::process::exit(7),
            Ok(Progress::More) => {}
            Ok(Progress::Idle) => {
                let mut fd = [rustix::event::PollFd::new(&server, rustix::event::PollFlags::IN)];
                rustix::event::poll(&mut fd, None).unwrap();
            }
            Err(e) => {
                eprintln!("{e}");
                std::process::exit(8);
            }
        }
    }
}

fn text_of(file: usize, reader: Reader, turn: &mut usize) -> Result<Vec<u8>, i32> {
    *turn += 1;
    Ok(match FILES[file] {
        "text" => format!("{turn:<width$}\n", width = TEXT - 1).into_bytes(),
        // 10 bytes a line, all lines the same: a mix of two texts shows.
        "big" => format!("{:09}\n", *turn).repeat(BIG_LINES).into_bytes(),
        "caller" => format!("{} {} {}\n", reader.pid, reader.uid, reader.gid).into_bytes(),
        "fails" => return Err(libc::ENODATA),
        "grows" => vec![b'x'; *turn * 1000],
        _ => Vec::new(),
    })
}

/// A mounted file system and its server, which is killed at the end.
struct Served {
    mount: OwnedFd,
    server: Child,
}

impl Served {
    fn new(name: &str) -> Option<Served> {
        let (dev, mount) = match fuse::mount("sysbox-test") {
            Ok(m) => m,
            Err(e) => {
                eprintln!("SKIP {name}: {e}");
                return None;
            }
        };
        let mut c = Command::new(std::env::current_exe().unwrap());
        let c = c.args(["--exact", "server_process", "--nocapture"]).env(SERVER, "1");
        let server = c.stdin(dev).stdout(Stdio::null()).spawn().unwrap();
        Some(Served { mount, server })
    }

    fn open(&self, name: &str) -> File {
        self.open_as(name, OFlags::RDONLY).unwrap()
    }

    fn open_as(&self, name: &str, flags: OFlags) -> Result<File, Errno> {
        rustix::fs::openat(&self.mount, name, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644)).map(File::from)
    }

    fn read(&self, name: &str) -> std::io::Result<Vec<u8>> {
        let mut text = Vec::new();
        self.open_as(name, OFlags::RDONLY)?.read_to_end(&mut text)?;
        Ok(text)
    }

    fn signal(&self, s: Signal) {
        kill(Pid::from_raw(self.server.id() as i32), s).unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn turn(text: &[u8]) -> u64 {
    assert_eq!(text.len(), TEXT);
    std::str::from_utf8(text).unwrap().trim().parse().unwrap()
}

#[test]
fn texts_are_whole_and_fresh_at_offset_0() {
    let Some(s) = Served::new("texts_are_whole_and_fresh_at_offset_0") else { return };
    let first = turn(&s.read("text").unwrap());
    assert!(turn(&s.read("text").unwrap()) > first);
    // One handle, as monitoring programs hold it.
    let mut f = s.open("text");
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        let mut text = vec![0; TEXT * 2];
        let n = f.read_at(&mut text, 0).unwrap();
        assert!(seen.insert(turn(&text[..n])));
    }
    for _ in 0..100 {
        f.rewind().unwrap();
        let mut text = Vec::new();
        f.read_to_end(&mut text).unwrap();
        assert!(seen.insert(turn(&text)));
    }
    // A reader by the byte gets one text, whoever else reads; at any offset.
    let whole = s.open("text");
    let mut text = [0; TEXT];
    for (i, b) in text.iter_mut().enumerate() {
        assert_eq!(whole.read_at(std::slice::from_mut(b), i as u64).unwrap(), 1);
        if i % 100 == 0 {
            s.read("text").unwrap();
        }
    }
    assert!(seen.insert(turn(&text)));
    assert_eq!(whole.read_at(&mut text, TEXT as u64).unwrap(), 0);
    assert_eq!(whole.read_at(&mut text, u64::MAX >> 1).unwrap_or(0), 0);
    assert_eq!(whole.read_at(&mut text, 10).unwrap(), TEXT - 10);

    for _ in 0..20 {
        let big = s.read("big").unwrap();
        assert_eq!(big.len(), BIG_LINES * 10);
        assert!(big.chunks(10).all(|line| line == &big[..10]));
    }
    assert_eq!(s.read("empty").unwrap(), b"");
    assert_eq!(s.read("fails").unwrap_err().raw_os_error(), Some(libc::ENODATA));
    assert_eq!(s.read("absent").unwrap_err().raw_os_error(), Some(libc::ENOENT));
    let caller = String::from_utf8(s.read("caller").unwrap()).unwrap();
    assert_eq!(caller, format!("{} 0 0\n", rustix::thread::gettid().as_raw_nonzero()));
}

#[test]
fn attributes_and_names() {
    let Some(s) = Served::new("attributes_and_names") else { return };
    for (i, name) in FILES.iter().enumerate() {
        let m = s.open(name).metadata().unwrap();
        assert_eq!((m.ino(), m.mode(), m.nlink()), (i as u64 + 2, 0o100_444, 1));
        assert_eq!((m.uid(), m.gid(), m.atime(), m.ctime()), (OWNER, OWNER, m.mtime(), m.mtime()));
        // Not less than the text, or programs read less; not sparse, or programs look for holes.
        assert!(
            m.size() > 0 && m.size() % 4096 == 0 && m.blksize() == m.size() && m.blocks() * 512 == m.size(),
            "{m:?}"
        );
    }
    assert_eq!(s.open("text").metadata().unwrap().size(), 4096);
    assert!(s.open("big").metadata().unwrap().size() >= BIG_LINES as u64 * 10);
    for _ in 0..100 {
        let length = s.read("grows").unwrap().len() as u64;
        let size = s.open("grows").metadata().unwrap().size();
        assert!(size >= length, "{size} {length}");
    }
    let dir = rustix::fs::Dir::read_from(&s.mount).unwrap();
    let names: Vec<_> = dir.map(|e| e.unwrap().file_name().to_str().unwrap().to_owned()).collect();
    assert_eq!(names, [".", "..", "text", "big", "caller", "fails", "empty", "grows"]);
    let root = rustix::fs::fstat(&s.mount).unwrap();
    assert_eq!((root.st_mode, root.st_uid, root.st_nlink), (0o40_555, OWNER, 2));
    let fs = rustix::fs::fstatfs(&s.mount).unwrap();
    assert_eq!((fs.f_files, fs.f_blocks, fs.f_namelen), (7, 0, 255));
}

#[test]
fn ten_thousand_reads_at_once() {
    let Some(s) = Served::new("ten_thousand_reads_at_once") else { return };
    let seen: BTreeSet<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..50)
            .map(|_| {
                scope.spawn(|| {
                    let read = |_| turn(&s.read("text").unwrap());
                    (0..200).map(read).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(seen.len(), 10_000);
}

/// What `f` says of something that must fail.
#[track_caller]
fn refused<T>(what: &str, result: Result<T, Errno>, with: &[Errno]) {
    match result {
        Ok(_) => panic!("{what} succeeded"),
        Err(e) => assert!(with.contains(&e), "{what}: {e:?}"),
    }
}

#[test]
fn hostile_readers() {
    let Some(s) = Served::new("hostile_readers") else { return };
    let m = &s.mount;
    // As root of the host: the one whom the kernel lets through to the server.
    for flags in [OFlags::WRONLY, OFlags::RDWR, OFlags::WRONLY | OFlags::TRUNC, OFlags::WRONLY | OFlags::APPEND] {
        refused("open to write", s.open_as("text", flags), &[Errno::ACCESS]);
    }
    refused("create", s.open_as("new", OFlags::WRONLY | OFlags::CREATE), &[Errno::PERM]);
    refused("create on it", s.open_as("text", OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC), &[Errno::ACCESS]);
    refused("tmpfile", s.open_as(".", OFlags::WRONLY | OFlags::TMPFILE), &[Errno::OPNOTSUPP]);
    let mode = Mode::from_raw_mode(0o777);
    refused("mkdir", rustix::fs::mkdirat(m, "d", mode), &[Errno::PERM]);
    refused("mknod", rustix::fs::mknodat(m, "d", rustix::fs::FileType::Fifo, mode, 0), &[Errno::PERM]);
    refused("symlink", rustix::fs::symlinkat("x", m, "d"), &[Errno::PERM]);
    refused("link", rustix::fs::linkat(m, "text", m, "d", AtFlags::empty()), &[Errno::PERM]);
    refused("rename", rustix::fs::renameat(m, "text", m, "d"), &[Errno::PERM]);
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    refused("exchange", rustix::fs::renameat_with(m, "text", m, "big", exchange), &[Errno::PERM]);
    refused("unlink", rustix::fs::unlinkat(m, "text", AtFlags::empty()), &[Errno::PERM]);
    refused("rmdir", rustix::fs::unlinkat(m, "text", AtFlags::REMOVEDIR), &[Errno::NOTDIR]);
    refused("chmod", rustix::fs::chmodat(m, "text", mode, AtFlags::empty()), &[Errno::PERM]);
    refused(
        "chown",
        rustix::fs::chownat(m, "text", Some(rustix::fs::Uid::ROOT), None, AtFlags::empty()),
        &[Errno::PERM],
    );
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 },
        last_modification: rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 },
    };
    refused("utimes", rustix::fs::utimensat(m, "text", &times, AtFlags::empty()), &[Errno::PERM]);
    refused("readlink", rustix::fs::readlinkat(m, "text", Vec::new()), &[Errno::INVAL]);
    refused("long name", s.open_as(&"n".repeat(255), OFlags::RDONLY), &[Errno::NOENT]);
    refused("longer name", s.open_as(&"n".repeat(1025), OFlags::RDONLY), &[Errno::NAMETOOLONG]);
    refused("long target", rustix::fs::symlinkat("x".repeat(4000), m, "d"), &[Errno::PERM]);
    refused("a file as a directory", s.open_as("text/x", OFlags::RDONLY), &[Errno::NOTDIR]);
    let path = format!("/proc/self/fd/{}/text", m.as_raw_fd());
    let truncated = nix::unistd::truncate(path.as_str(), 0).map_err(|e| Errno::from_raw_os_error(e as i32));
    refused("truncate", truncated, &[Errno::ACCESS]);
    let flags = rustix::fs::XattrFlags::empty();
    for value in [&b"v"[..], &[0; 65536]] {
        refused("setxattr", rustix::fs::setxattr(&path, "user.x", value, flags), &[Errno::OPNOTSUPP, Errno::TOOBIG]);
    }
    refused("getxattr", rustix::fs::getxattr(&path, "user.x", &mut [0u8; 10][..]), &[Errno::OPNOTSUPP]);
    refused("removexattr", rustix::fs::removexattr(&path, "user.x"), &[Errno::OPNOTSUPP]);

    let mut f = s.open("text");
    refused("write", rustix::io::write(&f, b"x"), &[Errno::BADF]);
    refused("ftruncate", rustix::fs::ftruncate(&f, 0), &[Errno::INVAL, Errno::BADF]);
    refused("fallocate", rustix::fs::fallocate(&f, rustix::fs::FallocateFlags::empty(), 0, 10), &[Errno::BADF]);
    refused("fionread", rustix::io::ioctl_fionread(&f), &[Errno::NOTTY]);
    refused("tcgetattr", rustix::termios::tcgetattr(&f), &[Errno::NOTTY]);
    rustix::fs::fsync(&f).unwrap();
    rustix::fs::seek(&f, SeekFrom::End(0)).unwrap();
    rustix::fs::seek(&f, SeekFrom::Start(0)).unwrap();
    assert_eq!(rustix::fs::seek(&f, SeekFrom::Hole(0)).unwrap(), 4096);
    assert_eq!(rustix::fs::seek(&f, SeekFrom::Data(7)).unwrap(), 7);
    f.rewind().unwrap();
    let mut polled = [rustix::event::PollFd::new(&f, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut polled, None).unwrap(), 1);
    rustix::fs::flock(&f, rustix::fs::FlockOperation::LockExclusive).unwrap();
    // O_DIRECT, and sizes of every sort.
    let direct = s.open_as("text", OFlags::DIRECT).unwrap();
    assert_eq!(direct.read_at(&mut [0; 4096], 0).unwrap(), TEXT);
    assert_eq!(f.read(&mut []).unwrap(), 0);
    let mut large = vec![0; 1 << 20];
    assert_eq!(turn(&large[..f.read_at(&mut large, 0).unwrap()].to_vec()) > 0, true);
    // sendfile(2): whole, or an error upon which programs use read(2). Never less.
    let out = tempfile::tempfile().unwrap();
    match rustix::fs::sendfile(&out, &f, Some(&mut 0), 1 << 20) {
        Ok(n) => assert_eq!(n, TEXT),
        Err(e) => assert_eq!(e, Errno::INVAL),
    }
    eprintln!("sendfile: {:?}", rustix::fs::sendfile(&out, &f, Some(&mut 0), 1 << 20));
    // Mappings: none that is shared; a private one has nothing in it.
    use nix::sys::mman::{mmap, MapFlags, ProtFlags};
    let page = std::num::NonZeroUsize::new(4096).unwrap();
    for prot in [ProtFlags::PROT_READ, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE] {
        // SAFETY: a new mapping, if any.
        #[allow(unsafe_code)]
        let r = unsafe { mmap(None, page, prot, MapFlags::MAP_SHARED, &f, 0) };
        assert!(matches!(r, Err(nix::errno::Errno::ENODEV | nix::errno::Errno::EACCES)), "{r:?}");
    }
    let touch = "import mmap,sys\nm=mmap.mmap(0,4096,mmap.MAP_PRIVATE,mmap.PROT_READ)\nprint(m[0])";
    match Command::new("python3").args(["-c", touch]).stdin(s.open("text")).output() {
        Ok(o) => eprintln!("private mapping: {:?} {:?}", o.status, String::from_utf8_lossy(&o.stdout)),
        Err(e) => eprintln!("SKIP private mapping: {e}"),
    }
    // All handles that one process may have, each with a text begun.
    let many: Vec<_> = (0..500).map(|_| s.open("big")).collect();
    for f in &many {
        assert_eq!(f.read_at(&mut [0; 100], 0).unwrap(), 100);
    }
    let memory = std::fs::read_to_string(format!("/proc/{}/status", s.server.id())).unwrap();
    let data = memory.lines().find(|l| l.starts_with("RssAnon")).unwrap().to_owned();
    eprintln!("500 handles of 300 kB: {data}");
    drop(many);
    // Still there.
    assert!(turn(&s.read("text").unwrap()) > 0);
}
