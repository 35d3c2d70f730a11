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
        Ok((Channel(a.into()), Channel(b.into())))
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
        // MSG_NOSIGNAL: a peer that died must be an error, not a SIGPIPE in the embedding program.
        let sent = match sendmsg::<()>(self.0.as_raw_fd(), &iov, control, MsgFlags::MSG_NOSIGNAL, None) {
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
            let n = sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(rest)], &[], MsgFlags::MSG_NOSIGNAL, None)
                .op("send a message")?;
            rest = &rest[n..];
        }
        Ok(())
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
                        fds.push(super::fd::adopt(r).op("adopt a received descriptor")?);
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

/// For init under a seccomp filter that forbids sendmsg(2), with the reason why it cannot execute the program.
fn write_all(socket: &UnixStream, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let n = rustix::io::write(socket, bytes).op("send a message")?;
        bytes = &bytes[n..];
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
}
