//! A FUSE server as a process of its own, and readers that are kind and unkind to it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use rustix::fs::{AtFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use sysbox_core::fuse::{self, Owner, Progress, Reader, Server};

const FILES: [&str; 6] = ["text", "big", "caller", "fails", "empty", "grows"];
const TEXT: usize = 1500;
const BIG_LINES: usize = 30_000;
const OWNER: u32 = 231_072;
const SERVER: &str = "SYSBOX_TEST_FUSE_SERVER";
/// Less than the kernel waits for a server that does not answer.
const AT_ONCE: Duration = Duration::from_secs(20);

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

/// Whether the caller, a test of that name, is to go on: else it has run in a process of its own. Before Linux 6.9, a read is
/// lost whose process forks meanwhile, as other tests make this one do.
fn alone(name: &str) -> bool {
    const ALONE: &str = "SYSBOX_TEST_FUSE_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut c = Command::new(std::env::current_exe().unwrap());
    assert!(c.args(["--exact", name, "--nocapture"]).env(ALONE, "1").status().unwrap().success());
    false
}

fn turn(text: &[u8]) -> u64 {
    assert_eq!(text.len(), TEXT);
    std::str::from_utf8(text).unwrap().trim().parse().unwrap()
}

#[test]
fn texts_are_whole_and_fresh_at_offset_0() {
    if !alone("texts_are_whole_and_fresh_at_offset_0") {
        return;
    }
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
    let dir = rustix::fs::Dir::read_from(s.open(".")).unwrap();
    let names: Vec<_> = dir.map(|e| e.unwrap().file_name().to_str().unwrap().to_owned()).collect();
    assert_eq!(names, [".", "..", "text", "big", "caller", "fails", "empty", "grows"]);
    let root = rustix::fs::fstat(&s.mount).unwrap();
    assert_eq!((root.st_mode, root.st_uid, root.st_nlink), (0o40_555, OWNER, 2));
    let fs = rustix::fs::fstatfs(&s.mount).unwrap();
    assert_eq!((fs.f_files, fs.f_blocks, fs.f_namelen), (7, 0, 255));
}

#[test]
fn ten_thousand_reads_at_once() {
    if !alone("ten_thousand_reads_at_once") {
        return;
    }
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
    let n = f.read_at(&mut large, 0).unwrap();
    assert!(turn(&large[..n]) > 0);
    // sendfile(2): whole, or an error upon which programs use read(2). Never less.
    let out = tempfile::tempfile().unwrap();
    match rustix::fs::sendfile(&out, &f, Some(&mut 0), 1 << 20) {
        Ok(n) => assert_eq!(n, TEXT),
        Err(e) => assert_eq!(e, Errno::INVAL),
    }
    // Mappings: none that is shared; a private one has nothing in it.
    for (flags, expected) in [("MAP_SHARED", "[Errno 19] No such device"), ("MAP_PRIVATE", "")] {
        let script = format!(
            "import mmap\n\
             try: print(mmap.mmap(0, 4096, mmap.{flags}, mmap.PROT_READ)[0])\n\
             except OSError as e: print(e)"
        );
        match Command::new("python3").args(["-c", &script]).stdin(s.open("text")).output() {
            Ok(o) if String::from_utf8_lossy(&o.stderr).contains("ModuleNotFoundError") => {
                eprintln!("SKIP {flags}: python3 has no mmap");
            }
            Ok(o) if expected.is_empty() => assert_eq!(o.status.signal(), Some(libc::SIGBUS), "{o:?}"),
            Ok(o) => assert_eq!(String::from_utf8_lossy(&o.stdout).trim(), expected, "{o:?}"),
            Err(e) => eprintln!("SKIP {flags}: python3: {e}"),
        }
    }
    // All handles that one process may have, each with a text begun.
    let many: Vec<_> = (0..500).map(|_| s.open("big")).collect();
    for f in &many {
        assert_eq!(f.read_at(&mut [0; 100], 0).unwrap(), 100);
    }
    let memory = std::fs::read_to_string(format!("/proc/{}/status", s.server.id())).unwrap();
    let data = memory.lines().find_map(|l| l.strip_prefix("RssAnon:")).unwrap();
    let kib: u64 = data.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 2048, "{kib} KiB for 500 handles of {BIG_LINES} lines");
    drop(many);
    // Still there.
    assert!(turn(&s.read("text").unwrap()) > 0);
}

/// Threads that read for ever, until an error, which they return with the time it took to come.
fn readers(s: &Served, count: usize, while_they_read: impl FnOnce()) -> Vec<(i32, Instant)> {
    let reads = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|i| {
                let (reads, file) = (&reads, FILES[i % 3]);
                scope.spawn(move || loop {
                    match s.read(file) {
                        Ok(_) => reads.fetch_add(1, Ordering::Relaxed),
                        Err(e) => return (e.raw_os_error().unwrap(), Instant::now()),
                    };
                })
            })
            .collect();
        while reads.load(Ordering::Relaxed) < 500 {
            std::thread::sleep(Duration::from_millis(1));
        }
        while_they_read();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

#[test]
fn a_killed_server_is_an_error_at_once() {
    let Some(s) = Served::new("a_killed_server_is_an_error_at_once") else { return };
    let mut killed = Instant::now();
    let failed = readers(&s, 50, || {
        killed = Instant::now();
        s.signal(Signal::SIGKILL);
    });
    for (errno, at) in failed {
        assert!(matches!(errno, libc::ECONNABORTED | libc::ENOTCONN), "{errno}");
        assert!(at.duration_since(killed) < AT_ONCE, "{:?}", at.duration_since(killed));
    }
    assert_eq!(s.open_as("text", OFlags::RDONLY).unwrap_err(), Errno::NOTCONN);
}

#[test]
fn a_stopped_server_makes_readers_wait_and_goes_on() {
    let Some(mut s) = Served::new("a_stopped_server_makes_readers_wait_and_goes_on") else { return };
    s.read("text").unwrap();
    let f = s.open("text");
    s.signal(Signal::SIGSTOP);
    // A request that the server has not taken can be given up: its caller dies.
    let mut cat = Command::new("cat").stdin(f.try_clone().unwrap()).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(cat.try_wait().unwrap().is_none());
    cat.kill().unwrap();
    let start = Instant::now();
    cat.wait().unwrap();
    assert!(start.elapsed() < AT_ONCE);
    let (send, done) = channel();
    std::thread::scope(|scope| {
        scope.spawn(|| send.send(f.read_at(&mut [0; TEXT], 0).unwrap()).unwrap());
        assert!(done.recv_timeout(Duration::from_millis(500)).is_err());
        s.signal(Signal::SIGCONT);
        assert_eq!(done.recv_timeout(AT_ONCE).unwrap(), TEXT);
    });
    // Unmounted, with a file open and without: the server learns of it.
    let Served { mount, server } = &mut s;
    drop((f, std::mem::replace(mount, rustix::fs::memfd_create("nothing", rustix::fs::MemfdFlags::CLOEXEC).unwrap())));
    let start = Instant::now();
    while server.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < AT_ONCE, "the server did not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server.wait().unwrap().code(), Some(7));
}

#[test]
fn the_kernel_gives_up_a_server_that_stays_stopped() {
    let name = "the_kernel_gives_up_a_server_that_stays_stopped";
    if !Path::new("/proc/sys/fs/fuse/max_request_timeout").exists() {
        return eprintln!("SKIP {name}: needs Linux 6.14");
    }
    let Some(mut s) = Served::new(name) else { return };
    let mut stopped = Instant::now();
    let failed = readers(&s, 10, || {
        stopped = Instant::now();
        s.signal(Signal::SIGSTOP);
    });
    let took = failed.iter().map(|(_, at)| at.duration_since(stopped));
    let (first, last) = (took.clone().min().unwrap(), took.max().unwrap());
    eprintln!("given up after {first:?} to {last:?}");
    assert!(first > Duration::from_secs(29) && last < Duration::from_secs(60), "{first:?} to {last:?}");
    assert!(failed.iter().all(|(e, _)| matches!(*e, libc::ECONNABORTED | libc::ENOTCONN)), "{failed:?}");
    s.signal(Signal::SIGCONT);
    let start = Instant::now();
    while s.server.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < AT_ONCE, "the server did not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(s.server.wait().unwrap().code(), Some(7));
}

/// What programs make of it, in a mount namespace of their own, as single files over others.
#[test]
fn everyday_programs_read_it_whole() {
    let name = "everyday_programs_read_it_whole";
    let Some(s) = Served::new(name) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (root, leaf) = (dir.path().join("root"), dir.path().join("leaf"));
    std::fs::create_dir(&root).unwrap();
    std::fs::write(&leaf, "").unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Of this thread alone: programs that it starts are in it too.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS | nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(&s.mount, "", rustix::fs::CWD, &root, flags).unwrap();
            rustix::mount::mount_bind(root.join("big"), &leaf).unwrap();
            let run = |script: &str, uid: u32| {
                let mut c = Command::new("sh");
                let o = c.args(["-c", script]).current_dir(dir.path()).uid(uid).gid(uid).output().unwrap();
                let text = |bytes| String::from_utf8(bytes).unwrap();
                (o.status.code(), text(o.stdout), text(o.stderr))
            };
            let length = (BIG_LINES * 10).to_string();
            let busybox = "/var/tmp/sysbox-trees/busybox/bin/busybox";
            let common =
                ["cat leaf", "tail -n +1 leaf", "awk 1 leaf", "sed '' leaf", "grep '' leaf", "dd if=leaf bs=7k"];
            let mut ways = common.map(str::to_owned).to_vec();
            ways.push("t=$(mktemp); cp leaf $t && cat $t; rm -f $t".into());
            if Path::new(busybox).exists() {
                ways.extend(common.map(|c| format!("{busybox} {c}")));
            } else {
                eprintln!("SKIP busybox in {name}: no tree of it");
            }
            if Command::new("node").arg("-v").output().is_ok() {
                // Reads as much as fstat(2) says, and no more.
                ways.push("node -e 'require(\"fs\").readFile(\"leaf\", (e, d) => process.stdout.write(d))'".into());
            } else {
                eprintln!("SKIP node in {name}: not installed");
            }
            for uid in [0, OWNER, 65_534] {
                for way in &ways {
                    let (code, out, err) = run(way, uid);
                    let lines = out.as_bytes().chunks(10);
                    let whole = out.len() == BIG_LINES * 10 && lines.clone().all(|l| Some(l) == lines.clone().next());
                    assert!(code == Some(0) && whole, "{way} as {uid}: {code:?} {} bytes, {err}", out.len());
                }
                assert_eq!(run("wc -c <leaf", uid).1.trim(), length);
                assert_eq!(run("tail -c 10 leaf", uid).1.len(), 10);
                let (code, _, err) = run("echo x >leaf", uid);
                assert!(code != Some(0) && err.contains("ermission denied"), "{err}");
            }
            // Root of a user namespace in which the owner is root too: the kernel lets it through, the server does not.
            let tries =
                "echo x >leaf || chmod 666 leaf || touch leaf || truncate -s 0 leaf || rm -f root/text || mkdir root/x";
            let (_, out, err) =
                run(&format!("unshare -r sh -c 'id -u; stat -c %u leaf; {tries} || echo refused'"), OWNER);
            assert_eq!(out, "0\n0\nrefused\n", "{err}");
        });
    });
}
