//! Any requests, as if from /dev/fuse: answered in the protocol's form or ignored. A byte before each is its length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::os::unix::net::UnixDatagram;
use sysbox_core::fuse::{File, Owner, Progress, Server};

const FORGET: u32 = 2;
const READ: u32 = 15;
const READDIR: u32 = 28;
const INTERRUPT: u32 = 36;
const NOTIFY_REPLY: u32 = 41;
const BATCH_FORGET: u32 = 42;

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fuzz_target!(|bytes: &[u8]| {
    let (dev, kernel) = UnixDatagram::pair().expect("a pair of sockets");
    dev.set_nonblocking(true).expect("not to block");
    kernel.set_nonblocking(true).expect("not to block");
    let files = ["cpuinfo", "meminfo", "stat"].map(|name| File { name: name.into(), mode: 0o444 });
    let mut server = Server::new(dev.into(), files.into(), Owner { uid: 100_000, gid: 100_000 });
    let mut turn = 0;
    let mut rest = bytes;
    while let Some((length, more)) = rest.split_first() {
        let (request, more) = more.split_at(usize::from(*length).min(more.len()));
        rest = more;
        kernel.send(request).expect("send");
        let mut source = |file: usize, _| {
            turn += 1;
            if file == 2 {
                Err(5)
            } else {
                Ok(vec![b'x'; turn * 1000])
            }
        };
        assert_eq!(server.serve(&mut source).expect("a socket that works"), Progress::Idle);
        let mut answers = 0;
        let mut answer = vec![0; 1 << 20];
        while let Ok(n) = kernel.recv(&mut answer) {
            assert_eq!(word(&answer, 0), Some(n as u32));
            let errno = word(&answer, 4).expect("a header") as i32;
            if errno > 0 {
                // Of its own accord: attributes have changed.
                assert_eq!((errno, n, &answer[8..16]), (2, 40, &[0; 8][..]));
                continue;
            }
            answers += 1;
            assert!(errno > -4096 && (errno == 0 || n == 16), "{errno}, {n} bytes");
            assert_eq!(answer[8..16], request[8..16]);
            if let (Some(READ | READDIR), Some(size)) = (word(request, 4), word(request, 56)) {
                assert!(n - 16 <= size as usize, "{n} bytes of {size}");
            }
        }
        let silent = [FORGET, INTERRUPT, NOTIFY_REPLY, BATCH_FORGET];
        let wanted = request.len() >= 40 && word(request, 4).is_some_and(|o| !silent.contains(&o));
        assert_eq!(answers, usize::from(wanted));
    }
});
