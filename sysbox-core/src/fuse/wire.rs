//! What crosses `/dev/fuse`, decoded and encoded by hand: no state, no system calls (include/uapi/linux/fuse.h, protocol 7).
//!
//! Layouts are those of protocol 7.31 and later, which every kernel since 5.4 speaks; what came after it only took reserved fields.

/// The protocol's major version. It never changed since 2005.
pub(crate) const MAJOR: u32 = 7;
/// The newest minor version known here (Linux 6.16).
pub(crate) const MINOR: u32 = 45;
/// The smallest buffer a request may be read into: the kernel refuses to fill a smaller one.
pub(crate) const MIN_READ_BUFFER: usize = 8192;
/// The root directory's inode.
pub(crate) const ROOT: u64 = 1;

/// Opcodes that a server of generated files has to tell apart.
pub(crate) mod opcode {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const READLINK: u32 = 5;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const IOCTL: u32 = 39;
    pub(crate) const NOTIFY_REPLY: u32 = 41;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const RENAME2: u32 = 45;
}

/// Flags of INIT, `flags2` in the upper half.
pub(crate) mod init {
    pub(crate) const ASYNC_READ: u64 = 1 << 0;
    pub(crate) const PARALLEL_DIROPS: u64 = 1 << 18;
    pub(crate) const INIT_EXT: u64 = 1 << 30;
    /// Linux 6.14.
    pub(crate) const REQUEST_TIMEOUT: u64 = 1 << 42;
}

/// Do not use the page cache for this open file.
pub(crate) const FOPEN_DIRECT_IO: u32 = 1 << 0;
/// SETATTR changes the size.
pub(crate) const FATTR_SIZE: u32 = 1 << 3;
/// READ says for whom it reads: so do all that bypass the page cache, and none that fills it.
const READ_LOCKOWNER: u32 = 1 << 1;

const IN_HEADER: usize = 40;
const OUT_HEADER: usize = 16;
const NOTIFY_INVAL_INODE: i32 = 2;
const NAME_OFFSET: usize = 24;

/// A request of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// What a reply refers to.
    pub(crate) unique: u64,
    /// The inode it is about.
    pub(crate) nodeid: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// 0 where the caller has none in the mounter's pid namespace.
    pub(crate) pid: u32,
    pub(crate) op: Op<'a>,
}

/// What it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op<'a> {
    Init {
        major: u32,
        minor: u32,
        flags: u64,
    },
    Lookup {
        name: &'a [u8],
    },
    Getattr,
    Setattr {
        valid: u32,
    },
    Open {
        flags: u32,
    },
    Read {
        fh: u64,
        offset: u64,
        size: u32,
        /// The text goes to the reader and not into the page cache.
        direct: bool,
    },
    Release {
        fh: u64,
    },
    Readdir {
        offset: u64,
        size: u32,
    },
    Statfs,
    Destroy,
    /// FORGET, BATCH_FORGET, INTERRUPT, NOTIFY_REPLY: to be taken notice of.
    Unanswered,
    /// Any other opcode.
    Other(u32),
    /// Too short for its opcode, or not as long as it says.
    Malformed,
}

/// Decodes what one read(2) of the device gave. `None`: not even a header.
pub(crate) fn decode(bytes: &[u8]) -> Option<Request<'_>> {
    let head = bytes.get(..IN_HEADER)?;
    let body = &bytes[IN_HEADER..];
    let opcode = u32_at(head, 4)?;
    let op = if u32_at(head, 0)? as usize == bytes.len() { decode_body(opcode, body) } else { None };
    Some(Request {
        unique: u64_at(head, 8)?,
        nodeid: u64_at(head, 16)?,
        uid: u32_at(head, 24)?,
        gid: u32_at(head, 28)?,
        pid: u32_at(head, 32)?,
        op: match op {
            Some(op) => op,
            // An answer that nobody waits for is an error.
            None if unanswered(opcode) => Op::Unanswered,
            None => Op::Malformed,
        },
    })
}

fn unanswered(opcode: u32) -> bool {
    matches!(opcode, opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT | opcode::NOTIFY_REPLY)
}

fn decode_body(opcode: u32, body: &[u8]) -> Option<Op<'_>> {
    Some(match opcode {
        opcode::INIT => {
            let low = u64::from(u32_at(body, 12)?);
            let high = if low & init::INIT_EXT != 0 { u64::from(u32_at(body, 16)?) << 32 } else { 0 };
            Op::Init { major: u32_at(body, 0)?, minor: u32_at(body, 4)?, flags: low | high }
        }
        opcode::LOOKUP => Op::Lookup { name: body.strip_suffix(b"\0").filter(|n| !n.contains(&0))? },
        opcode::GETATTR => Op::Getattr,
        opcode::SETATTR => Op::Setattr { valid: u32_at(body, 0)? },
        opcode::OPEN => Op::Open { flags: u32_at(body, 0)? },
        opcode::READ => Op::Read {
            fh: u64_at(body, 0)?,
            offset: u64_at(body, 8)?,
            size: u32_at(body, 16)?,
            direct: u32_at(body, 20)? & READ_LOCKOWNER != 0,
        },
        opcode::RELEASE => Op::Release { fh: u64_at(body, 0)? },
        opcode::READDIR => Op::Readdir { offset: u64_at(body, 8)?, size: u32_at(body, 16)? },
        opcode::STATFS => Op::Statfs,
        opcode::DESTROY => Op::Destroy,
        o if unanswered(o) => Op::Unanswered,
        o => Op::Other(o),
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Header of an answer with a body of `len` bytes; `errno` 0 means success.
pub(crate) fn reply_header(unique: u64, errno: i32, len: usize) -> [u8; OUT_HEADER] {
    let mut h = [0; OUT_HEADER];
    h[..4].copy_from_slice(&((OUT_HEADER + len) as u32).to_ne_bytes());
    h[4..8].copy_from_slice(&errno.wrapping_neg().to_ne_bytes());
    h[8..].copy_from_slice(&unique.to_ne_bytes());
    h
}

/// A whole message of our own accord: what the kernel knows of the inode's attributes is out of date; cached pages stay.
pub(crate) fn invalidate_attr(nodeid: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(OUT_HEADER + 24);
    let body = Body(&mut out).u64(nodeid).u64(-1_i64 as u64).u64(0).0.len();
    let head = reply_header(0, -NOTIFY_INVAL_INODE, body);
    out.splice(..0, head);
    out
}

/// Appends fields in the machine's byte order.
struct Body<'a>(&'a mut Vec<u8>);

impl Body<'_> {
    fn u16(self, v: u16) -> Self {
        self.0.extend_from_slice(&v.to_ne_bytes());
        self
    }
    fn u32(self, v: u32) -> Self {
        self.0.extend_from_slice(&v.to_ne_bytes());
        self
    }
    fn u64(self, v: u64) -> Self {
        self.0.extend_from_slice(&v.to_ne_bytes());
        self
    }
    fn zeros(self, n: usize) -> Self {
        self.0.resize(self.0.len() + n, 0);
        self
    }
}

/// Answer to INIT; what is not here is the kernel's default.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InitOut {
    pub(crate) minor: u32,
    pub(crate) flags: u64,
    pub(crate) max_write: u32,
    /// Seconds.
    pub(crate) request_timeout: u16,
}

impl InitOut {
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        Body(out)
            .u32(MAJOR)
            .u32(self.minor)
            .u32(0) // max_readahead: nothing here is cached
            .u32(self.flags as u32)
            .u16(0) // max_background
            .u16(0) // congestion_threshold
            .u32(self.max_write)
            .u32(1) // time_gran
            .u16(0) // max_pages
            .u16(0) // map_alignment
            .u32((self.flags >> 32) as u32)
            .u32(0) // max_stack_depth
            .u16(self.request_timeout)
            .zeros(22);
    }
}

/// What stat(2) shows of an inode.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attr {
    pub(crate) ino: u64,
    pub(crate) size: u64,
    /// With the type.
    pub(crate) mode: u32,
    pub(crate) nlink: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) blksize: u32,
    /// All three, in seconds.
    pub(crate) time: u64,
}

impl Attr {
    fn put(self, out: &mut Vec<u8>) {
        let whole = Body(out).u64(self.ino).u64(self.size).u64(self.size.div_ceil(512));
        let times = whole.u64(self.time).u64(self.time).u64(self.time).zeros(12);
        times.u32(self.mode).u32(self.nlink).u32(self.uid).u32(self.gid).u32(0).u32(self.blksize).u32(0);
    }

    /// Answer to GETATTR, right for `valid` seconds.
    pub(crate) fn put_attr_out(self, valid: u64, out: &mut Vec<u8>) {
        Body(out).u64(valid).u64(0);
        self.put(out);
    }

    /// Answer to LOOKUP, right for `valid` seconds.
    pub(crate) fn put_entry_out(self, valid: u64, out: &mut Vec<u8>) {
        Body(out).u64(self.ino).u64(0).u64(valid).u64(valid).u64(0);
        self.put(out);
    }
}

/// Answer to OPEN.
pub(crate) fn put_open_out(fh: u64, flags: u32, out: &mut Vec<u8>) {
    Body(out).u64(fh).u32(flags).u32(0);
}

/// Answer to STATFS: so many inodes, no space.
pub(crate) fn put_statfs_out(files: u64, out: &mut Vec<u8>) {
    Body(out).zeros(24).u64(files).u64(0).u32(4096).u32(255).u32(4096).zeros(28);
}

/// One entry of the answer to READDIR; `false`, and nothing is written, if it would exceed `limit` bytes in all.
pub(crate) fn put_dirent(ino: u64, next: u64, kind: u32, name: &[u8], limit: usize, out: &mut Vec<u8>) -> bool {
    let len = (NAME_OFFSET + name.len()).next_multiple_of(8);
    if out.len() + len > limit {
        return false;
    }
    let end = out.len() + len;
    Body(out).u64(ino).u64(next).u32(name.len() as u32).u32(kind);
    out.extend_from_slice(name);
    out.resize(end, 0);
    true
}
