//! A file system of generated read-only files, served through `/dev/fuse` by one thread that never blocks.
//!
//! For a process that has to stay small: no threads, no memory that readers can make grow, no system calls but
//! read(2) and writev(2) on the device. Files behave as those of procfs: a read at offset 0 makes the text anew, later
//! offsets of the same open file continue in it.
//!
//! ```no_run
//! use sysbox_core::fuse::{self, File, Owner, Progress, Server};
//!
//! let (dev, mount) = fuse::mount("example")?;
//! let mut server = Server::new(dev, vec![File { name: "answer".into(), mode: 0o444 }], Owner { uid: 0, gid: 0 });
//! // `mount` is attached elsewhere with move_mount(2).
//! while server.serve(&mut |_file, reader| Ok(format!("42, pid {}\n", reader.pid).into_bytes()))? != Progress::Ended {
//!     // wait until `server` is readable
//! }
//! # drop(mount);
//! # Ok::<(), sysbox_core::Error>(())
//! ```
//!
//! # What readers see
//! Everyone may read by the file's mode and nobody can write: the kernel checks modes (`default_permissions`), and whom
//! it lets through as the owner or as root is refused here, with EACCES for opens and truncation, else with EPERM.
//!
//! When the server dies, all reads fail at once: ECONNABORTED where one was under way, ENOTCONN after. A server that
//! is stopped or stuck for 30 seconds is given up by the kernel in the same way (Linux 6.14; it looks every 15
//! seconds). Before 6.14 its readers wait for it; who is killed is let go unless the server has taken the request.
//!
//! A file is shown as large as one block that its text fits in, 4096 bytes or more, as sysfs does. It cannot be shown
//! as empty, as procfs does: since Linux 6.5, sendfile(2) and splice(2) of FUSE files go through the page cache even
//! where the server has forbidden it, and of an empty file they give nothing without ever asking (`busybox cat` printed
//! nothing on 6.18). As it is they give EINVAL, upon which programs use read(2). Before 6.5 they work.
//! mmap(2) is refused if shared; a private mapping gives SIGBUS when touched.
//!
//! Before Linux 6.9, FUSE does not pin the pages that it reads into: in a process that forks in one thread while another
//! reads, that read may leave its buffer as it was. So it is for every FUSE file that is not cached, lxcfs's too.

mod snapshot;
#[cfg(test)]
mod tests;
mod wire;

use crate::error::{Errno, Error, Result, SysResult};
use crate::mount::Attrs;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno as Raw;
use snapshot::Snapshots;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::SystemTime;
use wire::{init, opcode, Attr, Op, Request};

/// Requests answered by one call of [`Server::serve`] at most.
const BATCH: usize = 64;
/// The least that the kernel accepts; nothing is ever written here.
const MAX_WRITE: u32 = 4096;
/// Seconds that the kernel lets a request wait before it gives the server up. The kernel raises less than 15 to that.
const REQUEST_TIMEOUT: u16 = 30;
/// Seconds that names and attributes stay right: for ever.
const VALID: u64 = u32::MAX as u64;
/// The least size shown.
const PAGE: usize = 4096;

/// One file; its inode is its index + 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Without `/`.
    pub name: String,
    /// Permission bits.
    pub mode: u32,
}

/// Whom all files belong to, in IDs of the user namespace that mounted: for a container's root, those of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Who reads, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader {
    /// The reading thread (gettid(2)) in the pid namespace of the process that mounted; 0 if it has none there.
    pub pid: u32,
    /// File system user ID, in the user namespace that mounted.
    pub uid: u32,
    /// File system group ID.
    pub gid: u32,
}

/// Makes the text of the file of that index; an errno goes to the reader.
pub type Source<'a> = &'a mut dyn FnMut(usize, Reader) -> std::result::Result<Vec<u8>, i32>;

/// What [`Server::serve`] has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// No request is waiting: poll the device.
    Idle,
    /// More may be waiting: it stopped so that the caller gets to other things.
    More,
    /// The file system was unmounted everywhere, or the connection was aborted. Nothing will come any more.
    Ended,
}

/// A new FUSE file system: its device, and its root as a detached mount (nosuid, nodev, noexec); both close-on-exec.
///
/// `source` is what mountinfo shows as its device. The file system lives as long as any copy of the device's descriptor
/// does: only the serving process should have one. To bind single files of it with open_tree(2), it has to be attached
/// somewhere first: Linux 6.18 does without, 6.1 gives EINVAL.
///
/// # Errors
/// No `/dev/fuse`, no CAP_SYS_ADMIN, no FUSE in the kernel. Needs Linux 5.2.
pub fn mount(source: &str) -> Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let dev = rustix::fs::open("/dev/fuse", flags, Mode::empty()).op_at("open", "/dev/fuse")?;
    // user_id and group_id may abort the connection by fusectl: host root, whoever the files belong to.
    let fd = format!("fd={}", dev.as_raw_fd());
    let options = [&fd, "rootmode=40555", "user_id=0", "group_id=0", "allow_other", "default_permissions"];
    let attrs = Attrs::NOSUID | Attrs::NODEV | Attrs::NOEXEC;
    let mount = crate::mount::new_fs("fuse", Some(source), &options.map(str::to_owned), attrs)?;
    Ok((dev, mount))
}

/// Serves one mount. It answers what [`mount`]'s device gives, and holds it.
#[derive(Debug)]
pub struct Server {
    dev: OwnedFd,
    files: Vec<Served>,
    owner: Owner,
    /// Shown as every time.
    time: u64,
    next_handle: u64,
    snapshots: Snapshots,
    request: Box<[u8]>,
    body: Vec<u8>,
}

#[derive(Debug)]
struct Served {
    file: File,
    /// As large as it is shown; 0 until its text was made once.
    size: usize,
}

/// What goes back for a request.
enum Answer {
    /// What is in `body`.
    Body,
    /// An errno, or 0.
    Errno(i32),
    /// A range of a handle's text.
    Text(u64, usize, usize),
    /// Nobody waits.
    None,
}

impl Server {
    /// `dev` is that of [`mount`], or another that is O_NONBLOCK and mounted. Nothing is read yet: until
    /// [`Server::serve`] every path look-up in the mount waits, so that who serves must not look up.
    pub fn new(dev: OwnedFd, files: Vec<File>, owner: Owner) -> Self {
        let time = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_secs());
        Server {
            dev,
            files: files.into_iter().map(|file| Served { file, size: 0 }).collect(),
            owner,
            time,
            next_handle: 1,
            snapshots: Snapshots::default(),
            request: vec![0; wire::MIN_READ_BUFFER].into(),
            body: Vec::new(),
        }
    }

    /// Answers what is waiting, at most 64 requests. Never blocks, but for what `source` does.
    ///
    /// # Errors
    /// A system call on the device failed in a way that does not end the connection. Calling again is safe.
    pub fn serve(&mut self, source: Source<'_>) -> Result<Progress> {
        for _ in 0..BATCH {
            let n = match rustix::io::read(&self.dev, &mut self.request[..]) {
                Ok(n) => n,
                Err(Raw::AGAIN) => return Ok(Progress::Idle),
                // The request was taken back while it was being read.
                Err(Raw::INTR | Raw::NOENT) => continue,
                Err(Raw::NODEV | Raw::CONNABORTED) => return Ok(Progress::Ended),
                Err(e) => return Err(e).op_at("read", "/dev/fuse"),
            };
            // Moved out and back, for the request borrows it.
            let buffer = std::mem::take(&mut self.request);
            let done = match wire::decode(&buffer[..n]) {
                Some(request) => self.handle(&request, source),
                None => Ok(true),
            };
            self.request = buffer;
            if !done? {
                return Ok(Progress::Ended);
            }
        }
        Ok(Progress::More)
    }

    /// `false` if the connection has ended.
    fn handle(&mut self, request: &Request<'_>, source: Source<'_>) -> Result<bool> {
        self.body.clear();
        let answer = self.answer(request, source).unwrap_or_else(Answer::Errno);
        let (errno, body) = match answer {
            Answer::None => return Ok(true),
            Answer::Errno(e) => (e, &[][..]),
            Answer::Body => (0, &self.body[..]),
            Answer::Text(handle, from, to) => {
                (0, self.snapshots.get(handle).and_then(|t| t.get(from..to)).unwrap_or(&[]))
            }
        };
        let head = wire::reply_header(request.unique, errno, body.len());
        send(self.dev.as_fd(), &[IoSlice::new(&head), IoSlice::new(body)])
    }

    fn answer(&mut self, r: &Request<'_>, source: Source<'_>) -> std::result::Result<Answer, i32> {
        let reader = Reader { pid: r.pid, uid: r.uid, gid: r.gid };
        match r.op {
            Op::Init { major, minor, flags } => return init_answer(major, minor, flags, &mut self.body),
            Op::Lookup { name } => {
                let found = self.files.iter().position(|f| f.file.name.as_bytes() == name);
                let index = found.filter(|_| r.nodeid == wire::ROOT).ok_or(libc::ENOENT)?;
                self.attr(index as u64 + 2, reader, source)?.put_entry_out(VALID, &mut self.body);
            }
            Op::Getattr => self.attr(r.nodeid, reader, source)?.put_attr_out(VALID, &mut self.body),
            // What an owner or root is refused; others the kernel has stopped.
            Op::Setattr { valid } => {
                return Err(if valid & wire::FATTR_SIZE != 0 { libc::EACCES } else { libc::EPERM })
            }
            Op::Open { flags } => {
                self.index(r.nodeid)?;
                if flags & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32 {
                    return Err(libc::EACCES);
                }
                let handle = self.next_handle;
                self.next_handle += 1;
                wire::put_open_out(handle, wire::FOPEN_DIRECT_IO, &mut self.body);
            }
            // Only a mapping, or a splice(2) that will fall back to read(2): cached text would be wrong text.
            Op::Read { direct: false, .. } => return Err(libc::EINVAL),
            Op::Read { fh, offset, size, .. } => {
                let index = self.index(r.nodeid)?;
                let length = match self.snapshots.get(fh) {
                    Some(text) if offset != 0 => text.len(),
                    _ => {
                        let text = source(index, reader)?;
                        self.grow(index, text.len());
                        self.snapshots.put(fh, text)
                    }
                };
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(length);
                return Ok(Answer::Text(fh, from, from.saturating_add(size as usize).min(length)));
            }
            Op::Release { fh } => {
                self.snapshots.remove(fh);
                return Ok(Answer::Errno(0));
            }
            Op::Readdir { offset, size } => self.list(offset, size as usize),
            Op::Statfs => wire::put_statfs_out(self.files.len() as u64 + 1, &mut self.body),
            Op::Destroy => return Ok(Answer::Errno(0)),
            Op::Unanswered => return Ok(Answer::None),
            Op::Other(o) => return Err(refusal(o)),
            Op::Malformed => return Err(libc::EIO),
        }
        Ok(Answer::Body)
    }

    fn index(&self, nodeid: u64) -> std::result::Result<usize, i32> {
        if nodeid == wire::ROOT {
            return Err(libc::EISDIR);
        }
        let index = nodeid.checked_sub(2).and_then(|i| usize::try_from(i).ok());
        index.filter(|i| *i < self.files.len()).ok_or(libc::ESTALE)
    }

    fn attr(&mut self, nodeid: u64, reader: Reader, source: Source<'_>) -> std::result::Result<Attr, i32> {
        let Owner { uid, gid } = self.owner;
        let root = Attr {
            ino: nodeid,
            size: 0,
            mode: libc::S_IFDIR | 0o555,
            nlink: 2,
            uid,
            gid,
            blksize: PAGE as u32,
            time: self.time,
        };
        if nodeid == wire::ROOT {
            return Ok(root);
        }
        let f = self.index(nodeid)?;
        if self.files[f].size == 0 {
            let length = source(f, reader).map_or(0, |text| text.len());
            self.files[f].size = shown_size(length);
        }
        let Served { file, size } = &self.files[f];
        // A block of that size: tools read a file whole that claims to be no larger than one.
        let mode = libc::S_IFREG | (file.mode & 0o777);
        Ok(Attr { mode, nlink: 1, size: *size as u64, blksize: *size as u32, ..root })
    }

    /// Some programs read no more than the size shown, so that it must never be less than the text's.
    fn grow(&mut self, index: usize, length: usize) {
        let size = &mut self.files[index].size;
        if length > *size {
            *size = shown_size(length);
            // Of no consequence for this reader; ENOENT where the kernel has forgotten the inode.
            let _ = rustix::io::write(&self.dev, &wire::invalidate_attr(index as u64 + 2));
        }
    }

    fn list(&mut self, offset: u64, limit: usize) {
        let dots = [(wire::ROOT, libc::DT_DIR, "."), (wire::ROOT, libc::DT_DIR, "..")];
        let files = (2..).zip(&self.files).map(|(ino, f)| (ino, libc::DT_REG, f.file.name.as_str()));
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, (ino, kind, name)) in (1..).zip(dots.into_iter().chain(files)).skip(skip) {
            if !wire::put_dirent(ino, next, kind.into(), name.as_bytes(), limit, &mut self.body) {
                break;
            }
        }
    }
}

impl AsFd for Server {
    /// To poll for POLLIN.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dev.as_fd()
    }
}

/// Room for a quarter more, at least a page, and a power of two, as block sizes are.
fn shown_size(length: usize) -> usize {
    (length.saturating_add(length / 4)).clamp(PAGE, 1 << 30).next_power_of_two()
}

fn init_answer(major: u32, minor: u32, offered: u64, body: &mut Vec<u8>) -> std::result::Result<Answer, i32> {
    if major < wire::MAJOR {
        return Err(libc::EPROTO);
    }
    // A newer major version asks again when it sees ours.
    let wanted = init::ASYNC_READ | init::PARALLEL_DIROPS | init::INIT_EXT | init::REQUEST_TIMEOUT;
    let flags = wanted & offered;
    let request_timeout = if flags & init::REQUEST_TIMEOUT != 0 { REQUEST_TIMEOUT } else { 0 };
    wire::InitOut { minor: minor.min(wire::MINOR), flags, max_write: MAX_WRITE, request_timeout }.put(body);
    Ok(Answer::Body)
}

/// ENOSYS makes the kernel do without, and not ask again: FLUSH, FSYNC, ACCESS, OPENDIR, POLL, LSEEK, all of the xattrs.
fn refusal(opcode: u32) -> i32 {
    match opcode {
        opcode::SYMLINK
        | opcode::MKNOD
        | opcode::MKDIR
        | opcode::UNLINK
        | opcode::RMDIR
        | opcode::RENAME
        | opcode::RENAME2
        | opcode::LINK
        | opcode::CREATE => libc::EPERM,
        opcode::WRITE => libc::EACCES,
        opcode::READLINK => libc::EINVAL,
        opcode::IOCTL => libc::ENOTTY,
        _ => libc::ENOSYS,
    }
}

/// `false` if the connection has ended.
fn send(dev: BorrowedFd<'_>, message: &[IoSlice<'_>]) -> Result<bool> {
    loop {
        return match rustix::io::writev(dev, message) {
            // ENOENT: who asked was killed meanwhile.
            Ok(_) | Err(Raw::NOENT) => Ok(true),
            Err(Raw::INTR) => continue,
            Err(Raw::NODEV | Raw::CONNABORTED) => Ok(false),
            Err(e) => Err(Error::sys("write", e.errno()).at("/dev/fuse")),
        };
    }
}
