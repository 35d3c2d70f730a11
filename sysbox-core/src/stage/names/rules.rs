//! The rules for an address of the resolver's that is good on every network inside.
//!
//! As nft(8) would show them, for the address A and every transport protocol P of UDP and TCP:
//! ```text
//! table ip sysbox {
//!   map ports { type inet_proto : inet_service }            # where the resolver listens
//!   set known { type inet_proto . inet_service }            # what has been in `ports`
//!   chain guard  { prerouting -300   iif != lo ip saddr 127.0.0.0/8 drop; iif != lo ip daddr 127.0.0.0/8 drop }
//!   chain leave  { postrouting 300   oif != lo ip saddr 127.0.0.0/8 drop }
//!   chain inner  { nat prerouting    ip daddr A P dport 53 dnat to 127.0.0.11:(ports[P]) }
//!   chain bound  { nat output        the same }
//!   chain ask    { output -300       ip saddr A ip daddr A P dport 53 ip daddr set 127.0.0.11 }
//!   chain answer { input 300         iif lo ip saddr 127.0.0.11 ip daddr A P sport 53 ip saddr set A }
//!   chain learn  { input 0           iif lo ip daddr 127.0.0.11 P ct original ip daddr 127.0.0.11
//!                                    ct original proto-dst 53, P . dport not in known:
//!                                    replace ports[P], add to known }
//! }
//! ```
//! What the container itself sends is addressed to 127.0.0.11 before connections are tracked, and then is Docker's own
//! rules' to translate, whatever ports they say: these change when dockerd restarts and leaves containers running. Those
//! rules see nothing of what comes from networks inside, and a connection is translated once only. So that is
//! translated here, to the ports that were found at the start, or that were last seen to be used since.

use crate::sys::nftables::*;

const LOOPBACK_NET: [u8; 1] = [127];
const SADDR: u32 = 12;
const DADDR: u32 = 16;
/// Before connection tracking, and after everything.
const RAW: i32 = -300;
const LAST: i32 = 300;
/// Before what others, who use -100, might translate.
const NAT: i32 = -101;
/// Types by the numbers of nft(8), which alone uses them: inet_proto and inet_service.
const INET_PROTO: u32 = 12;
const INET_SERVICE: u32 = 13;
const DNS: [u8; 2] = 53u16.to_be_bytes();

const R0: Reg = Reg(0);
const R1: Reg = Reg(1);

/// All of them; the ports are those on which Docker's resolver listens.
pub(super) fn table(udp: u16, tcp: u16) -> Table {
    let (own, docker, lo) = (super::ADDRESS.octets(), super::DOCKER.octets(), crate::sys::netlink::LO.to_ne_bytes());
    let mut t = Table::new("sysbox");
    t.set("ports", (INET_PROTO, 1), Some((INET_SERVICE, 2)));
    t.set("known", (INET_PROTO << 6 | INET_SERVICE, 8), None);
    t.chain("guard", "filter", Hook::PreRouting, RAW);
    t.chain("leave", "filter", Hook::PostRouting, LAST);
    t.chain("inner", "nat", Hook::PreRouting, NAT);
    t.chain("bound", "nat", Hook::LocalOut, NAT);
    t.chain("ask", "filter", Hook::LocalOut, RAW);
    t.chain("answer", "filter", Hook::LocalIn, LAST);
    t.chain("learn", "filter", Hook::LocalIn, 0);
    let is = |what: Load<'_>, data: &[u8]| [load(what, R0), equal(R0, data)].concat();
    let loopback = |offset| [is(Load::Payload(Base::Network, offset, 1), &LOOPBACK_NET), drop_packet()].concat();
    let elsewhere = |interface| [load(interface, R0), differs(R0, &lo)].concat();
    t.rule("guard", &[elsewhere(Load::MetaIif), loopback(SADDR)]);
    t.rule("guard", &[elsewhere(Load::MetaIif), loopback(DADDR)]);
    t.rule("leave", &[elsewhere(Load::MetaOif), loopback(SADDR)]);
    for (proto, port) in [(libc::IPPROTO_UDP as u8, udp), (libc::IPPROTO_TCP as u8, tcp)] {
        let port = port.to_be_bytes();
        t.element("ports", &[proto], Some(&port));
        t.element("known", &[proto, 0, 0, 0, port[0], port[1], 0, 0], None);
        let l4 = is(Load::MetaL4proto, &[proto]);
        let local = is(Load::MetaIif, &lo);
        let saddr = |a: &[u8]| is(Load::Payload(Base::Network, SADDR, 4), a);
        let daddr = |a: &[u8]| is(Load::Payload(Base::Network, DADDR, 4), a);
        let sport = is(Load::Payload(Base::Transport, 0, 2), &DNS);
        let dport = is(Load::Payload(Base::Transport, 2, 2), &DNS);
        let translate = [
            daddr(&own),
            l4.clone(),
            dport.clone(),
            load(Load::MetaL4proto, R1),
            lookup("ports", R1, R1),
            load(Load::Immediate(&docker), R0),
            dnat(R0, R1),
        ];
        t.rule("inner", &translate);
        t.rule("bound", &translate);
        let readdress = |a: &[u8], offset| [load(Load::Immediate(a), R0), set_address(offset, R0)].concat();
        t.rule("ask", &[saddr(&own), daddr(&own), l4.clone(), dport, readdress(&docker, DADDR)]);
        t.rule("answer", &[local.clone(), saddr(&docker), daddr(&own), l4.clone(), sport, readdress(&own, SADDR)]);
        t.rule(
            "learn",
            &[
                local,
                daddr(&docker),
                l4,
                is(Load::CtOriginalDst, &docker),
                is(Load::CtOriginalProtoDst, &DNS),
                load(Load::MetaL4proto, R0),
                load(Load::Payload(Base::Transport, 2, 2), R1),
                absent("known", R0),
                delete("ports", R0, R1),
                add("ports", R0, Some(R1)),
                add("known", R0, None),
            ],
        );
    }
    t
}
