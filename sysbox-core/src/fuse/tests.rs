//! The server on a socket instead of a device: messages have boundaries there too.

use super::*;
use proptest::prelude::*;
use std::os::unix::net::UnixDatagram;

fn server() -> (Server, UnixDatagram) {
    let (dev, kernel) = UnixDatagram::pair().unwrap();
    dev.set_nonblocking(true).unwrap();
    kernel.set_nonblocking(true).unwrap();
    let files = ["a", "b"].map(|name| File { name: name.into(), mode: 0o444 });
    (Server::new(dev.into(), files.into(), Owner { uid: 1, gid: 2 }), kernel)
}

fn request(opcode: u32, nodeid: u64, body: &[u8]) -> Vec<u8> {
    let head = [(40 + body.len()) as u32, opcode].map(u32::to_ne_bytes).concat();
    [&head[..], &[77, nodeid].map(u64::to_ne_bytes).concat(), &[0; 16], body].concat()
}

/// Errno and body of the answer.
fn ask(server: &mut Server, kernel: &UnixDatagram, request: &[u8]) -> Option<(i32, Vec<u8>)> {
    kernel.send(request).unwrap();
    let mut turn = 0;
    let mut source = |file, _| {
        turn += 1;
        if file == 0 {
            Ok(vec![b'0' + turn; 5000])
        } else {
            Err(libc::ENODATA)
        }
    };
    assert_eq!(server.serve(&mut source).unwrap(), Progress::Idle);
    let mut answer = vec![0; 1 << 17];
    let n = kernel.recv(&mut answer).ok()?;
    let number = |at: usize| i32::from_ne_bytes(answer[at..at + 4].try_into().unwrap());
    // What was not asked for first; the answer after it.
    if number(8) == 0 && number(4) > 0 {
        return ask_again(kernel);
    }
    assert_eq!(number(0) as usize, n);
    assert!((-4095..=0).contains(&number(4)), "{}", number(4));
    assert_eq!(answer[8..16], request[8..16]);
    Some((-number(4), answer[16..n].to_vec()))
}

fn ask_again(kernel: &UnixDatagram) -> Option<(i32, Vec<u8>)> {
    let mut answer = vec![0; 1 << 17];
    let n = kernel.recv(&mut answer).ok()?;
    Some((-i32::from_ne_bytes(answer[4..8].try_into().unwrap()), answer[16..n].to_vec()))
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

#[test]
fn versions_and_flags() {
    let (mut s, kernel) = server();
    let field = |body: &[u8], at: usize| u32::from_ne_bytes(body[at..at + 4].try_into().unwrap());
    let all = u32::MAX;
    for (minor, flags2, expected) in
        [(36, 0, (36, 0, 0)), (38, 0, (38, 0, 0)), (45, 1 << 10, (45, 1 << 10, 30)), (99, all, (45, 1 << 10, 30))]
    {
        let init = words(&[7, minor, 1 << 17, all, flags2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let (errno, body) = ask(&mut s, &kernel, &request(opcode::INIT, 0, &init)).unwrap();
        assert_eq!((errno, body.len(), field(&body, 0)), (0, 64, 7));
        assert_eq!((field(&body, 4), field(&body, 32), field(&body, 40)), expected);
        // Nothing that was not asked for and understood.
        assert_eq!(field(&body, 12), (init::ASYNC_READ | init::PARALLEL_DIROPS | init::INIT_EXT) as u32);
    }
    // Without INIT_EXT there is no second word of flags, whatever is in its place.
    let init = words(&[7, 31, 0, 1, all]);
    let (_, body) = ask(&mut s, &kernel, &request(opcode::INIT, 0, &init)).unwrap();
    assert_eq!((field(&body, 12), field(&body, 32), field(&body, 40)), (1, 0, 0));
    assert_eq!(ask(&mut s, &kernel, &request(opcode::INIT, 0, &words(&[6, 1, 0, 0]))).unwrap().0, libc::EPROTO);
    let (_, body) = ask(&mut s, &kernel, &request(opcode::INIT, 0, &words(&[8, 0, 0, 0]))).unwrap();
    assert_eq!(field(&body, 0), 7);
}

#[test]
fn errors_by_opcode() {
    let (mut s, kernel) = server();
    for (opcode, errno) in [
        (opcode::MKDIR, libc::EPERM),
        (opcode::RENAME2, libc::EPERM),
        (opcode::WRITE, libc::EACCES),
        (opcode::IOCTL, libc::ENOTTY),
        (opcode::READLINK, libc::EINVAL),
        (25, libc::ENOSYS),
        (46, libc::ENOSYS),
        (52, libc::ENOSYS),
        (4096, libc::ENOSYS),
        (opcode::DESTROY, 0),
        (opcode::OPEN, libc::EIO),
    ] {
        assert_eq!(ask(&mut s, &kernel, &request(opcode, 2, &[])), Some((errno, vec![])), "{opcode}");
    }
    for opcode in [opcode::FORGET, opcode::BATCH_FORGET, opcode::INTERRUPT, opcode::NOTIFY_REPLY] {
        assert_eq!(ask(&mut s, &kernel, &request(opcode, 2, &[0; 8])), None);
    }
    let open = |flags: i32| words(&[flags as u32, 0]);
    for (nodeid, flags, errno) in [
        (2, libc::O_RDONLY, 0),
        (2, libc::O_WRONLY, libc::EACCES),
        (2, libc::O_RDWR | libc::O_TRUNC, libc::EACCES),
        (1, libc::O_RDONLY, libc::EISDIR),
        (0, libc::O_RDONLY, libc::ESTALE),
        (4, libc::O_RDONLY, libc::ESTALE),
        (u64::MAX, libc::O_RDONLY, libc::ESTALE),
    ] {
        assert_eq!(ask(&mut s, &kernel, &request(opcode::OPEN, nodeid, &open(flags))).unwrap().0, errno, "{nodeid}");
    }
    assert_eq!(ask(&mut s, &kernel, b"no header"), None);
}

#[test]
fn texts_by_handle_and_offset() {
    let (mut s, kernel) = server();
    let mut read = |nodeid, fh: u64, offset: u64, size, direct: bool| {
        let mut body = [fh, offset].map(u64::to_ne_bytes).concat();
        body.extend(words(&[size, if direct { 2 } else { 0 }]));
        ask(&mut s, &kernel, &request(opcode::READ, nodeid, &body)).unwrap()
    };
    assert_eq!(read(2, 1, 0, 100, true), (0, vec![b'1'; 100]));
    assert_eq!(read(2, 1, 4990, 100, true), (0, vec![b'1'; 10]));
    assert_eq!(read(2, 1, 5000, 100, true), (0, vec![]));
    assert_eq!(read(2, 1, u64::MAX, u32::MAX, true), (0, vec![]));
    // Unknown: made anew, at its offset.
    assert_eq!(read(2, 9, 4999, u32::MAX, true), (0, vec![b'1']));
    assert_eq!(read(3, 2, 0, 100, true), (libc::ENODATA, vec![]));
    // Into the page cache.
    assert_eq!(read(2, 1, 0, 4096, false), (libc::EINVAL, vec![]));
}

#[test]
fn sizes_are_powers_of_two_with_room() {
    for (length, size) in [(0, 4096), (3000, 4096), (3277, 4096), (3400, 8192), (4096, 8192), (usize::MAX, 1 << 30)] {
        assert_eq!(shown_size(length), size, "{length}");
    }
}

proptest! {
    /// Requests that are whole at least in their header, one after the other.
    #[test]
    fn any_request_is_answered_or_ignored(
        requests in proptest::collection::vec((0u32..60, 0u64..6, proptest::collection::vec(any::<u8>(), 0..80)), 1..20)
    ) {
        let (mut s, kernel) = server();
        for (opcode, nodeid, body) in requests {
            let answer = ask(&mut s, &kernel, &request(opcode, nodeid, &body));
            let silent = matches!(opcode, opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT | opcode::NOTIFY_REPLY);
            prop_assert_eq!(answer.is_none(), silent);
        }
    }
}
