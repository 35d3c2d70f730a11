//! Netlink messages as bytes, and their way to the kernel (netlink(7), rtnetlink(7)).

use rustix::net::{self, netlink, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::net::Ipv4Addr;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
const NLMSG_ERROR: u16 = 2;
const NLA_F_NESTED: u16 = 0x8000;
/// Of struct nlmsghdr.
const HEADER: usize = 16;

const RTM_NEWADDR: u16 = 20;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RT_SCOPE_HOST: u8 = 254;
/// The loopback interface's index in every network namespace.
pub(crate) const LO: u32 = 1;

/// An attribute: its header and value, padded to four bytes.
pub(crate) fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
    // Everything sent from here is a few bytes long.
    let len = (value.len() + 4) as u16;
    let mut out = Vec::with_capacity(value.len() + 8);
    out.extend(len.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// An attribute made of attributes.
pub(crate) fn nest(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attr(kind | NLA_F_NESTED, &parts.concat())
}

/// A message: the family's own header, then attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    /// Besides `NLM_F_REQUEST`.
    pub(crate) flags: u16,
    /// The family's header and the attributes.
    pub(crate) body: Vec<u8>,
}

/// Messages as one datagram, numbered from 1.
pub(crate) fn encode(messages: &[Message]) -> Vec<u8> {
    let mut out = Vec::new();
    for (m, seq) in messages.iter().zip(1u32..) {
        let len = (HEADER + m.body.len()) as u32;
        out.extend(len.to_ne_bytes());
        out.extend(m.kind.to_ne_bytes());
        out.extend((NLM_F_REQUEST | m.flags).to_ne_bytes());
        out.extend(seq.to_ne_bytes());
        out.extend(0u32.to_ne_bytes());
        out.extend(&m.body);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// The first error in the kernel's answers, and how many there are.
fn verdicts(mut answers: &[u8]) -> io::Result<usize> {
    let number = |b: &[u8], at: usize| -> Option<i32> { Some(i32::from_ne_bytes(b.get(at..at + 4)?.try_into().ok()?)) };
    let mut n = 0;
    while let Some(len) = number(answers, 0).and_then(|l| usize::try_from(l).ok()) {
        let kind = answers.get(4..6).map(|k| u16::from_ne_bytes([k[0], k[1]]));
        if kind == Some(NLMSG_ERROR) {
            match number(answers, HEADER) {
                Some(0) => n += 1,
                Some(e) => return Err(io::Error::from_raw_os_error(e.wrapping_neg())),
                None => break,
            }
        }
        match answers.get(len.max(HEADER).next_multiple_of(4)..) {
            Some(rest) => answers = rest,
            None => break,
        }
    }
    Ok(n)
}

/// Sends messages together and reads what the kernel says to those with `NLM_F_ACK`. No protocol is `NETLINK_ROUTE`.
///
/// # Errors
/// The first error among the answers. `EPROTONOSUPPORT` if the kernel has no such protocol.
pub(crate) fn transact(protocol: Option<net::Protocol>, messages: &[Message]) -> io::Result<()> {
    let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    let kernel = netlink::SocketAddrNetlink::new(0, 0);
    net::sendto(&socket, &encode(messages), SendFlags::empty(), &kernel)?;
    let wanted = messages.iter().filter(|m| m.flags & NLM_F_ACK != 0).count();
    let mut buf = [0u8; 8192];
    let mut got = 0;
    // The kernel has answered when the send returns: nothing is waited for.
    loop {
        match net::recv(&socket, &mut buf, RecvFlags::DONTWAIT) {
            Ok((n, _)) => got += verdicts(&buf[..n.min(buf.len())])?,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) if got >= wanted => return Ok(()),
            Err(rustix::io::Errno::AGAIN) => return Err(io::Error::from_raw_os_error(libc::EPROTO)),
            Err(e) => return Err(e.into()),
        }
    }
}

/// The message that adds an address to `lo`, known in the network namespace only.
fn new_loopback_address(address: Ipv4Addr) -> Message {
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let mut body = vec![libc::AF_INET as u8, 32, 0, RT_SCOPE_HOST];
    body.extend(LO.to_ne_bytes());
    body.extend(attr(IFA_LOCAL, &address.octets()));
    body.extend(attr(IFA_ADDRESS, &address.octets()));
    Message { kind: RTM_NEWADDR, flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, body }
}

/// Adds an address to `lo` in the network namespace of the caller.
pub(crate) fn add_loopback_address(address: Ipv4Addr) -> io::Result<()> {
    transact(None, &[new_loopback_address(address)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded() {
        assert_eq!(attr(7, b"abcde"), [9, 0, 7, 0, b'a', b'b', b'c', b'd', b'e', 0, 0, 0]);
        assert_eq!(nest(2, &[attr(1, &[5])]), [12, 0, 2, 0x80, 5, 0, 1, 0, 5, 0, 0, 0]);
    }

    /// As `ip addr add 192.0.2.53/32 dev lo scope host` sends it, but for the sequence number.
    #[test]
    fn bytes_of_a_new_address() {
        let bytes = encode(&[new_loopback_address(Ipv4Addr::new(192, 0, 2, 53))]);
        #[rustfmt::skip]
        let expected = [
            40, 0, 0, 0, 20, 0, 0x05, 0x06, 1, 0, 0, 0, 0, 0, 0, 0,
            2, 32, 0, 254, 1, 0, 0, 0,
            8, 0, 2, 0, 192, 0, 2, 53,
            8, 0, 1, 0, 192, 0, 2, 53,
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn answers() {
        let answer = |e: i32| {
            let mut b = vec![20, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
            b.extend(e.to_ne_bytes());
            b
        };
        assert_eq!(verdicts(&[answer(0), answer(0)].concat()).unwrap(), 2);
        let e = verdicts(&[answer(0), answer(-libc::EEXIST)].concat()).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EEXIST));
        // Cut short, or of no length: no answer, and no endless loop.
        assert_eq!(verdicts(&answer(0)[..18]).unwrap(), 0);
        assert_eq!(verdicts(&[0; 64]).unwrap(), 0);
    }
}
