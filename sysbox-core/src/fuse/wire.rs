//! What crosses `/dev/fuse`, decoded and encoded by hand: no state, no system calls (include/uapi/linux/fuse.h).
//!
//! Layouts are those of protocol 7.31, which every kernel since 5.4 speaks; what came later only took reserved fields.

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

/// A whole message that answers nothing: what the kernel knows of the inode's attributes is out of date.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(opcode: u32, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Body(&mut out)
            .u32((IN_HEADER + body.len()) as u32)
            .u32(opcode)
            .u64(77)
            .u64(3)
            .u32(1000)
            .u32(1001)
            .u32(42)
            .u32(0);
        out.extend_from_slice(body);
        out
    }

    fn op_of(bytes: &[u8]) -> String {
        format!("{:?}", decode(bytes).unwrap().op)
    }

    /// Each opcode that has a body, with the shortest that is whole.
    fn samples() -> Vec<(u32, Vec<u8>, Op<'static>)> {
        let fields = |values: &[u64]| values.iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<_>>();
        let words = |values: &[u32]| values.iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<_>>();
        let mut read = fields(&[5, 4096]);
        read.extend(words(&[100, 2]));
        let mut cached = fields(&[5, 4096]);
        cached.extend(words(&[100, 0]));
        let mut readdir = fields(&[0, 9]);
        readdir.extend(words(&[4096]));
        let ext = init::INIT_EXT as u32;
        vec![
            (opcode::INIT, words(&[7, 31, 0, 1]), Op::Init { major: 7, minor: 31, flags: 1 }),
            (
                opcode::INIT,
                words(&[7, 45, 0, ext, 1 << 10]),
                Op::Init { major: 7, minor: 45, flags: init::INIT_EXT | init::REQUEST_TIMEOUT },
            ),
            (opcode::LOOKUP, b"name\0".into(), Op::Lookup { name: b"name" }),
            (opcode::SETATTR, words(&[8]), Op::Setattr { valid: FATTR_SIZE }),
            (opcode::OPEN, words(&[0o100_000]), Op::Open { flags: 0o100_000 }),
            (opcode::READ, read, Op::Read { fh: 5, offset: 4096, size: 100, direct: true }),
            (opcode::READ, cached, Op::Read { fh: 5, offset: 4096, size: 100, direct: false }),
            (opcode::RELEASE, fields(&[6]), Op::Release { fh: 6 }),
            (opcode::READDIR, readdir, Op::Readdir { offset: 9, size: 4096 }),
        ]
    }

    #[test]
    fn requests_of_every_sort() {
        for (opcode, body, op) in samples() {
            let bytes = request(opcode, &body);
            let expected = Request { unique: 77, nodeid: 3, uid: 1000, gid: 1001, pid: 42, op };
            assert_eq!(decode(&bytes), Some(expected));
            // A newer kernel's has more fields; names have none.
            if opcode != opcode::LOOKUP {
                assert_eq!(op_of(&request(opcode, &[&body[..], &[0; 16]].concat())), format!("{op:?}"));
            }
            for n in 0..body.len() {
                assert_eq!(op_of(&request(opcode, &body[..n])), "Malformed", "{opcode} with {n} bytes");
            }
            // As long as it says, or nothing in it is to be trusted.
            for n in IN_HEADER..bytes.len() {
                assert_eq!(op_of(&bytes[..n]), "Malformed");
            }
        }
        for name in [&b"no end"[..], b"", b"a\0b\0"] {
            assert_eq!(op_of(&request(opcode::LOOKUP, name)), "Malformed");
        }
        for opcode in 0..5000 {
            let got = op_of(&request(opcode, &[]));
            let expected = match opcode {
                opcode::GETATTR => "Getattr".to_owned(),
                opcode::STATFS => "Statfs".to_owned(),
                opcode::DESTROY => "Destroy".to_owned(),
                opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT | opcode::NOTIFY_REPLY => {
                    "Unanswered".to_owned()
                }
                o if samples().iter().any(|s| s.0 == o) => "Malformed".to_owned(),
                o => format!("Other({o})"),
            };
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn no_header_no_request() {
        let whole = request(opcode::FORGET, &[0; 8]);
        for n in 0..IN_HEADER {
            assert_eq!(decode(&whole[..n]), None);
        }
        // Never an answer to what waits for none, however damaged.
        assert_eq!(op_of(&whole[..IN_HEADER + 1]), "Unanswered");
    }

    #[test]
    fn answers_have_the_kernels_sizes() {
        assert_eq!(
            reply_header(9, libc::EACCES, 3),
            *[&[19, 0, 0, 0][..], &(-13i32).to_ne_bytes(), &9u64.to_ne_bytes()].concat()
        );
        assert_eq!(reply_header(1, i32::MIN, 0)[4..8], i32::MIN.to_ne_bytes());
        let mut out = Vec::new();
        let flags = init::ASYNC_READ | init::REQUEST_TIMEOUT;
        InitOut { minor: 40, flags, max_write: 4096, request_timeout: 30 }.put(&mut out);
        assert_eq!(out.len(), 64);
        assert_eq!((u32_at(&out, 12), u32_at(&out, 20), u32_at(&out, 32)), (Some(1), Some(4096), Some(1 << 10)));
        assert_eq!(u32_at(&out, 40), Some(30));
        let attr = Attr { ino: 2, size: 4096, mode: 0o100_444, nlink: 1, uid: 5, gid: 6, blksize: 4096, time: 7 };
        let sizes = [(104, 16 + 60), (128, 40 + 60)];
        for (entry, (size, mode)) in [false, true].into_iter().zip(sizes) {
            out.clear();
            if entry {
                attr.put_entry_out(1, &mut out);
            } else {
                attr.put_attr_out(1, &mut out);
            }
            assert_eq!((out.len(), u32_at(&out, mode)), (size, Some(0o100_444)));
            assert_eq!((u32_at(&out, mode + 8), u32_at(&out, mode + 20)), (Some(5), Some(4096)));
        }
        out.clear();
        put_open_out(3, FOPEN_DIRECT_IO, &mut out);
        assert_eq!(out.len(), 16);
        out.clear();
        put_statfs_out(7, &mut out);
        assert_eq!((out.len(), u64_at(&out, 24), u32_at(&out, 44)), (80, Some(7), Some(255)));
        let note = invalidate_attr(4);
        assert_eq!((note.len(), u32_at(&note, 0), u32_at(&note, 4)), (40, Some(40), Some(2)));
        assert_eq!((u64_at(&note, 8), u64_at(&note, 16), u64_at(&note, 24)), (Some(0), Some(4), Some(u64::MAX)));
    }

    #[test]
    fn directory_entries_stop_at_the_limit() {
        let mut out = Vec::new();
        assert!(put_dirent(2, 3, 8, b"meminfo", 64, &mut out));
        assert_eq!(out.len(), 32);
        assert!(put_dirent(3, 4, 8, b"12345678", 64, &mut out));
        assert!(!put_dirent(4, 5, 8, b"x", 64, &mut out));
        assert_eq!((out.len(), &out[56..64]), (64, &b"12345678"[..]));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            decode(&bytes);
        }

        #[test]
        fn no_body_panics(opcode in 0u32..60, body in proptest::collection::vec(any::<u8>(), 0..120), cut in 0usize..160) {
            let bytes = request(opcode, &body);
            prop_assert!(decode(&bytes).is_some());
            decode(&bytes[..cut.min(bytes.len())]);
        }
    }
}
