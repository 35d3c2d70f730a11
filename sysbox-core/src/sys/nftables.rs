//! The part of nf_tables' netlink language that is needed here, as bytes. Names are the kernel's
//! (`linux/netfilter/nf_tables.h`); numbers in attributes are big-endian unless they are matched with a packet's.

use super::netlink::{self, attr, nest, Message};
use std::io;

/// The hook of a chain (`NF_INET_*`).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hook {
    PreRouting = 0,
    LocalIn = 1,
    LocalOut = 3,
    PostRouting = 4,
}

/// Where in a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Base {
    Network = 1,
    Transport = 2,
}

/// Packet or connection data of four bytes at most, by a name of the kernel's.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load<'a> {
    /// Index of the interface that it came by.
    MetaIif,
    /// Index of the interface that it leaves by.
    MetaOif,
    /// Transport protocol.
    MetaL4proto,
    /// Offset and length.
    Payload(Base, u32, u32),
    /// Destination port of the connection's first packet, before any translation.
    CtOriginalProtoDst,
    /// Destination address likewise.
    CtOriginalDst,
    /// A constant.
    Immediate(&'a [u8]),
}

/// A register of four bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reg(pub(crate) u32);

const NFT_REG32_00: u32 = 8;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;
const NFT_SET_MAP: u32 = 0x8;
const NFT_SET_EVAL: u32 = 0x20;

fn be(n: u32) -> [u8; 4] {
    n.to_be_bytes()
}

fn text(kind: u16, s: &str) -> Vec<u8> {
    attr(kind, &[s.as_bytes(), &[0]].concat())
}

fn register(kind: u16, r: Reg) -> Vec<u8> {
    attr(kind, &be(NFT_REG32_00 + r.0))
}

fn value(kind: u16, data: &[u8]) -> Vec<u8> {
    nest(kind, &[attr(NFTA_DATA_VALUE, data)])
}

fn expr(name: &str, parts: &[Vec<u8>]) -> Vec<u8> {
    nest(NFTA_LIST_ELEM, &[text(1, name), nest(2, parts)])
}

pub(crate) fn load(what: Load<'_>, to: Reg) -> Vec<u8> {
    let meta = |key: u32| expr("meta", &[register(1, to), attr(2, &be(key))]);
    // Direction 0: original.
    let ct = |key: u32| expr("ct", &[register(1, to), attr(2, &be(key)), attr(3, &[0])]);
    match what {
        Load::MetaIif => meta(4),
        Load::MetaOif => meta(5),
        Load::MetaL4proto => meta(16),
        Load::Payload(base, offset, len) => {
            expr("payload", &[register(1, to), attr(2, &be(base as u32)), attr(3, &be(offset)), attr(4, &be(len))])
        }
        Load::CtOriginalDst => ct(9),
        Load::CtOriginalProtoDst => ct(12),
        Load::Immediate(data) => expr("immediate", &[register(1, to), value(2, data)]),
    }
}

/// Goes on with the rule only if they are equal.
pub(crate) fn equal(reg: Reg, data: &[u8]) -> Vec<u8> {
    expr("cmp", &[register(1, reg), attr(2, &be(0)), value(3, data)])
}

/// Goes on with the rule only if they differ.
pub(crate) fn differs(reg: Reg, data: &[u8]) -> Vec<u8> {
    expr("cmp", &[register(1, reg), attr(2, &be(1)), value(3, data)])
}

/// Goes on only if the key is in the map, with its value.
pub(crate) fn lookup(map: &str, key: Reg, to: Reg) -> Vec<u8> {
    expr("lookup", &[text(1, map), register(2, key), register(3, to)])
}

/// Goes on only if the key is not in the set.
pub(crate) fn absent(set: &str, key: Reg) -> Vec<u8> {
    expr("lookup", &[text(1, set), register(2, key), attr(5, &be(1))])
}

/// Adds to a set, or to a map, what the registers hold.
pub(crate) fn add(set: &str, key: Reg, data: Option<Reg>) -> Vec<u8> {
    dynset(0, set, key, data)
}

/// Takes out of a map. The kernel wants to be told a value here too.
pub(crate) fn delete(map: &str, key: Reg, data: Reg) -> Vec<u8> {
    dynset(2, map, key, Some(data))
}

fn dynset(op: u32, set: &str, key: Reg, data: Option<Reg>) -> Vec<u8> {
    let mut parts = vec![text(1, set), attr(3, &be(op)), register(4, key)];
    parts.extend(data.map(|d| register(5, d)));
    expr("dynset", &parts)
}

/// Writes an address into the IPv4 header, and corrects its checksum and that of the transport header.
pub(crate) fn set_address(offset: u32, from: Reg) -> Vec<u8> {
    let base = be(Base::Network as u32);
    expr(
        "payload",
        &[
            attr(2, &base),
            attr(3, &be(offset)),
            attr(4, &be(4)),
            register(5, from),
            attr(6, &be(1)),
            attr(7, &be(10)),
            attr(8, &be(1)),
        ],
    )
}

/// Translates the destination.
pub(crate) fn dnat(address: Reg, port: Reg) -> Vec<u8> {
    let family = be(libc::NFPROTO_IPV4 as u32);
    expr("nat", &[attr(1, &be(1)), attr(2, &family), register(3, address), register(5, port)])
}

pub(crate) fn drop_packet() -> Vec<u8> {
    let verdict = nest(2, &[nest(2, &[attr(1, &be(libc::NF_DROP as u32))])]);
    expr("immediate", &[attr(1, &be(0)), verdict])
}

/// A table of IPv4 in the making. Either all of it comes to be or nothing.
#[derive(Debug)]
pub(crate) struct Table {
    name: &'static str,
    messages: Vec<Message>,
}

impl Table {
    /// There must be none of that name.
    pub(crate) fn new(name: &'static str) -> Self {
        let mut table = Table { name, messages: Vec::new() };
        table.push(NFT_MSG_NEWTABLE, netlink::NLM_F_EXCL, &[text(1, name)]);
        table
    }

    fn push(&mut self, kind: u16, flags: u16, attributes: &[Vec<u8>]) {
        let kind = NFNL_SUBSYS_NFTABLES << 8 | kind;
        let flags = netlink::NLM_F_ACK | netlink::NLM_F_CREATE | flags;
        self.messages.push(Message { kind, flags, body: body(libc::NFPROTO_IPV4 as u8, 0, attributes) });
    }

    pub(crate) fn chain(&mut self, name: &str, kind: &str, hook: Hook, priority: i32) {
        let hook = nest(4, &[attr(1, &be(hook as u32)), attr(2, &priority.to_be_bytes())]);
        self.push(NFT_MSG_NEWCHAIN, 0, &[text(1, self.name), text(3, name), hook, text(7, kind)]);
    }

    pub(crate) fn rule(&mut self, chain: &str, expressions: &[Vec<u8>]) {
        let parts = [text(1, self.name), text(2, chain), nest(4, expressions)];
        self.push(NFT_MSG_NEWRULE, netlink::NLM_F_APPEND, &parts);
    }

    /// A set that packets change: type and length of its key, and of its value if it is a map. Types are for nft(8) only.
    pub(crate) fn set(&mut self, name: &str, (key, key_len): (u32, u32), data: Option<(u32, u32)>) {
        let map = if data.is_some() { NFT_SET_MAP } else { 0 };
        let mut parts = vec![
            text(1, self.name),
            text(2, name),
            attr(3, &be(NFT_SET_EVAL | map)),
            attr(4, &be(key)),
            attr(5, &be(key_len)),
        ];
        if let Some((kind, len)) = data {
            parts.extend([attr(6, &be(kind)), attr(7, &be(len))]);
        }
        // An ID of the batch's own, which it must have.
        parts.push(attr(10, &be(self.messages.len() as u32)));
        self.push(NFT_MSG_NEWSET, 0, &parts);
    }

    pub(crate) fn element(&mut self, set: &str, key: &[u8], data: Option<&[u8]>) {
        let mut parts = vec![value(1, key)];
        parts.extend(data.map(|d| value(2, d)));
        let elements = nest(3, &[nest(NFTA_LIST_ELEM, &parts)]);
        self.push(NFT_MSG_NEWSETELEM, 0, &[text(1, self.name), text(2, set), elements]);
    }

    fn batch(self) -> Vec<Message> {
        let edge = |kind| Message { kind, flags: 0, body: body(0, NFNL_SUBSYS_NFTABLES, &[]) };
        let mut all = vec![edge(NFNL_MSG_BATCH_BEGIN)];
        all.extend(self.messages);
        all.push(edge(NFNL_MSG_BATCH_END));
        all
    }

    /// Makes it, in the network namespace of the caller.
    ///
    /// # Errors
    /// `EEXIST` if there is one of that name; `EPROTONOSUPPORT`, `EOPNOTSUPP` or `ENOENT` if the kernel lacks nf_tables
    /// or a part of it.
    pub(crate) fn commit(self) -> io::Result<()> {
        netlink::transact(Some(rustix::net::netlink::NETFILTER), &self.batch())
    }
}

/// struct nfgenmsg (family, version, resource) and what follows it.
fn body(family: u8, resource: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    let [high, low] = resource.to_be_bytes();
    [vec![family, 0, high, low], attributes.concat()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// nft(8) lists it as `meta l4proto udp`.
    #[test]
    fn bytes_of_a_rule() {
        let mut t = Table::new("t");
        t.rule("c", &[load(Load::MetaL4proto, Reg(0)), equal(Reg(0), &[17])]);
        let batch = t.batch();
        let kinds: Vec<_> = batch.iter().map(|m| (m.kind, m.flags)).collect();
        assert_eq!(kinds, [(0x10, 0), (0xa00, 0x604), (0xa06, 0xc04), (0x11, 0)]);
        assert_eq!(batch[0].body, [0, 0, 0, 10]);
        assert_eq!(batch[1].body, [2, 0, 0, 0, 6, 0, 1, 0, b't', 0, 0, 0]);
        #[rustfmt::skip]
        let rule = [
            2, 0, 0, 0,
            6, 0, 1, 0, b't', 0, 0, 0,
            6, 0, 2, 0, b'c', 0, 0, 0,
            84, 0, 4, 0x80,
                36, 0, 1, 0x80,
                    9, 0, 1, 0, b'm', b'e', b't', b'a', 0, 0, 0, 0,
                    20, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 8, 8, 0, 2, 0, 0, 0, 0, 16,
                44, 0, 1, 0x80,
                    8, 0, 1, 0, b'c', b'm', b'p', 0,
                    32, 0, 2, 0x80,
                        8, 0, 1, 0, 0, 0, 0, 8,
                        8, 0, 2, 0, 0, 0, 0, 0,
                        12, 0, 3, 0x80, 5, 0, 1, 0, 17, 0, 0, 0,
        ];
        assert_eq!(batch[2].body[..], rule);
    }

    #[test]
    fn bytes_of_a_chain_and_a_drop() {
        let mut t = Table::new("t");
        t.chain("c", "nat", Hook::LocalOut, -101);
        #[rustfmt::skip]
        let chain = [
            2, 0, 0, 0,
            6, 0, 1, 0, b't', 0, 0, 0,
            6, 0, 3, 0, b'c', 0, 0, 0,
            20, 0, 4, 0x80, 8, 0, 1, 0, 0, 0, 0, 3, 8, 0, 2, 0, 0xff, 0xff, 0xff, 0x9b,
            8, 0, 7, 0, b'n', b'a', b't', 0,
        ];
        assert_eq!(t.batch()[2].body[..], chain);
        #[rustfmt::skip]
        let expected = [
            48, 0, 1, 0x80,
            14, 0, 1, 0, b'i', b'm', b'm', b'e', b'd', b'i', b'a', b't', b'e', 0, 0, 0,
            28, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 0,
            16, 0, 2, 0x80, 12, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 0,
        ];
        assert_eq!(drop_packet(), expected);
    }

    #[test]
    fn bytes_of_a_map() {
        let mut t = Table::new("t");
        t.set("m", (12, 1), Some((13, 2)));
        t.element("m", &[17], Some(&[0xcf, 0xb6]));
        let batch = t.batch();
        #[rustfmt::skip]
        let map = [
            2, 0, 0, 0,
            6, 0, 1, 0, b't', 0, 0, 0,
            6, 0, 2, 0, b'm', 0, 0, 0,
            8, 0, 3, 0, 0, 0, 0, 0x28,
            8, 0, 4, 0, 0, 0, 0, 12,
            8, 0, 5, 0, 0, 0, 0, 1,
            8, 0, 6, 0, 0, 0, 0, 13,
            8, 0, 7, 0, 0, 0, 0, 2,
            8, 0, 10, 0, 0, 0, 0, 1,
        ];
        assert_eq!(batch[2].body[..], map);
        #[rustfmt::skip]
        let element = [
            2, 0, 0, 0,
            6, 0, 1, 0, b't', 0, 0, 0,
            6, 0, 2, 0, b'm', 0, 0, 0,
            32, 0, 3, 0x80, 28, 0, 1, 0x80,
                12, 0, 1, 0x80, 5, 0, 1, 0, 17, 0, 0, 0,
                12, 0, 2, 0x80, 6, 0, 1, 0, 0xcf, 0xb6, 0, 0,
        ];
        assert_eq!(batch[3].body[..], element);
    }
}
