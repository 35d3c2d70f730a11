//! Messages with descriptors over a stream socket: four bytes of length, then JSON.

use crate::error::{Error, Kind, Result, SysResult};
use crate::limit::Limit;
use nix::errno::Errno;
use nix::sys::socket::{
    recvmsg, sendmsg, socketpair, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
};
use serde::{de::DeserializeOwned, Serialize};
use std::io::{IoSlice, IoSliceMut, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// No plan comes near it; more is nonsense from a broken peer.
const MAX_MESSAGE: usize = 64 << 20;
/// The kernel's SCM_MAX_FD.
const MAX_FDS: usize = 253;

/// One end of a connection between two of our own processes.
#[derive(Debug)]
pub(crate) struct Channel(UnixStream);

impl Channel {
    pub(crate) fn pair() -> Result<(Channel, Channel)> {
        let (a, b) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).op("socketpair")?;
        let above = |fd| super::fd::above(fd).op("dup");
        Ok((Channel(above(a)?.into()), Channel(above(b)?.into())))
    }

    pub(crate) fn new(s: UnixStream) -> Self {
        Channel(s)
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.0)
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0.into()
    }

    pub(crate) fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.deliver(message, fds, None)
    }

    /// As [`Channel::send`], until `limit` is over: a peer that is stopped reads nothing, and a long message does not fit into the
    /// socket.
    pub(crate) fn send_within<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>], limit: &Limit) -> Result<()> {
        self.deliver(message, fds, Some(limit))
    }

    fn deliver<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>], limit: Option<&Limit>) -> Result<()> {
        let body =
            serde_json::to_vec(message).map_err(|e| Error::new(Kind::Protocol, format!("encode a message: {e}")))?;
        let len = u32::try_from(body.len()).map_err(|_| Error::new(Kind::Protocol, "message too long"))?;
        if fds.len() > MAX_FDS {
            return Err(Error::new(Kind::Protocol, format!("{} descriptors in one message", fds.len())));
        }
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let header = len.to_le_bytes();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        let iov = [IoSlice::new(&header), IoSlice::new(&body)];
        let sent = match self.transmit(&iov, control, limit)? {
            Err(e) if raw.is_empty() && !matches!(e, Errno::EPIPE | Errno::ECONNRESET) => {
                return write_all(&self.0, &[&header, &body[..]].concat())
            }
            r => r.op("send a message")?,
        };
        let mut rest = &body[sent.saturating_sub(header.len()).min(body.len())..];
        if sent < header.len() {
            return Err(Error::new(Kind::Protocol, "short write of a message header"));
        }
        while !rest.is_empty() {
            let n = self.transmit(&[IoSlice::new(rest)], &[], limit)?.op("send a message")?;
            rest = &rest[n..];
        }
        Ok(())
    }

    /// One sendmsg(2). The outer error is the limit's.
    fn transmit(
        &self,
        iov: &[IoSlice<'_>],
        control: &[ControlMessage<'_>],
        limit: Option<&Limit>,
    ) -> Result<nix::Result<usize>> {
        // MSG_NOSIGNAL: a peer that died must be an error, not a SIGPIPE in the embedding program.
        let mut flags = MsgFlags::MSG_NOSIGNAL;
        // Without a limit nothing but sendmsg(2) is called: init's filter may forbid poll(2).
        flags.set(MsgFlags::MSG_DONTWAIT, limit.is_some());
        loop {
            match (sendmsg::<()>(self.0.as_raw_fd(), iov, control, flags, None), limit) {
                (Err(Errno::EINTR), _) => {}
                (Err(Errno::EAGAIN), Some(limit)) => limit.wait_writable(self.as_fd())?,
                (r, _) => return Ok(r),
            }
        }
    }

    /// The next message and its descriptors; `None` if the peer has closed.
    pub(crate) fn recv<T: DeserializeOwned>(&self) -> Result<Option<(T, Vec<OwnedFd>)>> {
        let mut header = [0u8; 4];
        let mut fds = Vec::new();
        let mut got = 0;
        while got < header.len() {
            let mut iov = [IoSliceMut::new(&mut header[got..])];
            let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
            let msg = match recvmsg::<()>(self.0.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
                Ok(m) => m,
                Err(Errno::EINTR) => continue,
                // A peer that died with unread data in its queue.
                Err(Errno::ECONNRESET) => return Ok(None),
                Err(e) => return Err(Error::sys("receive a message", e as i32)),
            };
            for c in msg.cmsgs().op("receive descriptors")? {
                if let ControlMessageOwned::ScmRights(raw) = c {
                    for r in raw {
                        let fd = super::fd::adopt(r).op("adopt a received descriptor")?;
                        fds.push(super::fd::above(fd).op("dup")?);
                    }
                }
            }
            if msg.bytes == 0 {
                return Ok(None);
            }
            got += msg.bytes;
        }
        let len = u32::from_le_bytes(header) as usize;
        if len > MAX_MESSAGE {
            return Err(Error::new(Kind::Protocol, format!("a message of {len} bytes")));
        }
        let mut body = vec![0u8; len];
        (&self.0).read_exact(&mut body).op("receive a message")?;
        let value =
            serde_json::from_slice(&body).map_err(|e| Error::new(Kind::Protocol, format!("decode a message: {e}")))?;
        Ok(Some((value, fds)))
    }

    /// Tells the peer that nothing more comes. What it sends still arrives.
    pub(crate) fn hang_up(&self) {
        let _ = self.0.shutdown(std::net::Shutdown::Write);
    }

    /// Takes nothing any more: what the peer sends from here on fails there. What has come before can be received.
    pub(crate) fn refuse(&self) {
        let _ = self.0.shutdown(std::net::Shutdown::Read);
    }

    /// Waits until something can be received.
    ///
    /// # Errors
    /// [`Kind::Protocol`] if `other`, whose peer has nothing more to say, is hung up on before; EAGAIN after `patience`.
    pub(crate) fn wait_while(&self, other: &Channel, patience: Option<std::time::Duration>) -> Result<()> {
        use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN), PollFd::new(other.as_fd(), PollFlags::POLLIN)];
        loop {
            let time = patience.map_or(Ok(PollTimeout::NONE), PollTimeout::try_from);
            match poll(&mut fds, time.unwrap_or(PollTimeout::MAX)) {
                Err(nix::errno::Errno::EINTR) => {}
                Ok(0) => return Err(Error::sys("receive a message", libc::EAGAIN)),
                r => {
                    r.op("poll")?;
                    break;
                }
            }
        }
        if fds[0].any().unwrap_or(false) {
            return Ok(());
        }
        Err(Error::new(Kind::Protocol, "the caller has hung up"))
    }

    /// As [`Channel::recv`], until `limit` is over.
    pub(crate) fn recv_within<T: DeserializeOwned>(&self, limit: &Limit) -> Result<Option<(T, Vec<OwnedFd>)>> {
        limit.wait_readable(self.as_fd())?;
        self.recv()
    }

    /// As [`Channel::recv`], where the peer closing is an error that says who died.
    pub(crate) fn expect<T: DeserializeOwned>(&self, peer: &str) -> Result<(T, Vec<OwnedFd>)> {
        self.recv()?.ok_or_else(|| Error::new(Kind::Protocol, format!("{peer} ended without a word")))
    }
}

/// Sends one descriptor, with a byte to carry it.
pub(crate) fn send_fd(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> std::io::Result<()> {
    let raw = [fd.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&raw)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(b".")], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// What [`send_fd`] has sent, without waiting for it; `None` if the peer has hung up.
pub(crate) fn receive_fd(socket: BorrowedFd<'_>) -> std::io::Result<Option<OwnedFd>> {
    let mut byte = [0u8];
    let mut iov = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), flags)?;
    let mut found = None;
    for c in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = c {
            for r in raw {
                found = Some(super::fd::above(super::fd::adopt(r)?)?);
            }
        }
    }
    Ok(found)
}

/// For init under a seccomp filter that forbids sendmsg(2), with the reason why it cannot execute the program.
fn write_all(socket: &UnixStream, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(socket, bytes) {
            Err(rustix::io::Errno::INTR) => {}
            r => bytes = &bytes[r.op("send a message")?..],
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn long_messages_and_descriptors_arrive() {
        let (a, b) = Channel::pair().unwrap();
        let text = "x".repeat(3 << 20);
        let t = std::thread::spawn(move || {
            let f = std::fs::File::open("/dev/null").unwrap();
            a.send(&text, &[f.as_fd(), f.as_fd()]).unwrap();
        });
        let (s, fds): (String, _) = b.recv().unwrap().unwrap();
        assert_eq!((s.len(), fds.len()), (3 << 20, 2));
        t.join().unwrap();
        assert!(b.recv::<String>().unwrap().is_none());
    }

    #[test]
    fn a_peer_that_does_not_read_is_given_up() {
        let (a, b) = Channel::pair().unwrap();
        let text = "x".repeat(3 << 20);
        let limit = Limit::after(std::time::Duration::from_millis(100));
        assert_eq!(a.send_within(&text, &[], &limit).unwrap_err().kind(), Kind::TimedOut);
        // Or is waited for.
        let (c, d) = Channel::pair().unwrap();
        let t = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            d.recv::<String>().unwrap().unwrap().0.len()
        });
        c.send_within(&text, &[], &Limit::after(std::time::Duration::from_secs(30))).unwrap();
        assert_eq!(t.join().unwrap(), 3 << 20);
        drop(b);
        let gone = a.send_within(&text, &[], &Limit::none()).unwrap_err();
        assert_eq!(gone.errno(), Some(libc::EPIPE));
    }
}
