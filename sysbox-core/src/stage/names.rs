//! Names through a resolver of the engine's that listens on the loopback, for engines inside.
//!
//! On its own networks, Docker gives a container `nameserver 127.0.0.11`: a resolver of its own, which listens there on
//! two random ports and is reached through translation rules for what is sent from inside. An engine inside cannot give
//! that address on, for in its containers the loopback is another one, and gives them public resolvers instead. So the
//! container gets an address for the same resolver that is good for every network inside ([`rules`]), and its
//! resolv.conf names that.

mod rules;

use crate::error::{Result, SysResult};
use crate::mount::Root;
use crate::plan::{Plan, What};
use crate::sys::netlink;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::Ipv4Addr;
use std::path::Path;

/// Docker's resolver.
const DOCKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// The resolver's other address: from a block for documentation (RFC 5737), which is routed nowhere and is not a private
/// one that a network inside might take. It is the one address that the container does not reach outside any more.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);
/// Longest file that is looked at.
const LONGEST: u64 = 1 << 16;

/// What may have to be done at the start, opened while nothing inside can put something else in its place.
#[derive(Debug)]
pub(super) struct Names {
    /// Whether the host name has a domain, which the C library searches where resolv.conf names none.
    search: bool,
    resolv_conf: File,
    udp: File,
    tcp: File,
    route_localnet: File,
}

/// Where the engine has put a resolv.conf that it keeps for this container alone; a user's file is not ours to change.
fn target(plan: &Plan) -> Option<&Path> {
    let own = Path::new(&plan.id).join("resolv.conf");
    let is_it = |m: &&crate::plan::Mount| matches!(&m.what, What::Bind { source, .. } if source.ends_with(&own));
    plan.locked.iter().find(is_it).map(|m| m.target.as_path())
}

impl Names {
    /// `None` where the engine gives no file, or nothing may be changed.
    pub(super) fn open(plan: &Plan, root: &Root) -> Option<Names> {
        let names = || -> Result<Option<Names>> {
            let Some(target) = target(plan) else { return Ok(None) };
            Ok(Some(Names {
                search: plan.hostname.as_ref().is_some_and(|h| h.contains('.')),
                resolv_conf: root.update(target)?,
                udp: root.read(Path::new("/proc/net/udp"))?,
                tcp: root.read(Path::new("/proc/net/tcp"))?,
                // Of interfaces that do not exist yet, so of those that software inside makes. Those that do keep
                // what they have: there the kernel itself goes on to drop what comes for the loopback.
                route_localnet: root.write(Path::new("/proc/sys/net/ipv4/conf/default/route_localnet"))?,
            }))
        };
        names().unwrap_or_else(|e| {
            tracing::debug!(id = plan.id, "names of the engine's network will not work in containers inside: {e}");
            None
        })
    }

    /// Looks what the engine has done by now, and does what is needed. A failure leaves names as the engine made them.
    pub(super) fn provide(mut self, id: &str) {
        if let Err(e) = self.try_provide() {
            tracing::debug!(id, "names of the engine's network will not work in containers inside: {e}");
        }
    }

    fn try_provide(&mut self) -> Result<()> {
        let path = "/etc/resolv.conf";
        let Some(changed) = rewrite(&read(&self.resolv_conf).op_at("read", path)?, self.search) else {
            return Ok(());
        };
        let port = |file: &File, path, state| Ok(port(&read(file).op_at("read", path)?, state));
        let udp = port(&self.udp, "/proc/net/udp", UNCONNECTED)?;
        let tcp = port(&self.tcp, "/proc/net/tcp", LISTEN)?;
        let (Some(udp), Some(tcp)) = (udp, tcp) else { return Ok(()) };
        rules::table(udp, tcp).commit().op("make nf_tables rules")?;
        netlink::add_loopback_address(ADDRESS).op("add an address to lo")?;
        self.route_localnet.write_all(b"1").op_at("write", "/proc/sys/net/ipv4/conf/default/route_localnet")?;
        let len = changed.len() as u64;
        let file = &mut self.resolv_conf;
        file.rewind().and_then(|()| file.write_all(&changed)).and_then(|()| file.set_len(len)).op_at("write", path)
    }
}

fn read(file: &File) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(text)
}

/// The IPv4 address that a line of resolv.conf names as a server.
fn nameserver(line: &[u8]) -> Option<Ipv4Addr> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    (words.next()? == "nameserver").then_some(words.next()?)?.parse().ok()
}

/// The file with our address in place of Docker's resolver; `None` if it does not name that, or is too long to be looked
/// at whole.
///
/// Docker adds `ndots:0`: names without a dot are tried as they are before domains are searched. Where there are none to
/// search, that says nothing; but Docker inside takes it for the user's wish that such names are never asked of others.
fn rewrite(resolv_conf: &[u8], search: bool) -> Option<Vec<u8>> {
    if resolv_conf.len() as u64 >= LONGEST {
        return None;
    }
    let words = |line: &[u8]| -> Vec<String> {
        String::from_utf8_lossy(line).split_ascii_whitespace().map(String::from).collect()
    };
    let lines = || resolv_conf.split(|b| *b == b'\n');
    let domains = |line: &[u8]| {
        let words = words(line);
        let (key, list) = words.split_first().map_or(("", &[][..]), |(k, l)| (k.as_str(), l));
        matches!(key, "search" | "domain") && list.iter().any(|d| d != ".")
    };
    let search = search || lines().any(domains);
    let mut found = false;
    let mut made: Vec<Vec<u8>> = Vec::new();
    for line in lines() {
        let mut all = words(line);
        if nameserver(line) == Some(DOCKER) {
            found = true;
            made.push(format!("nameserver {ADDRESS}").into_bytes());
        } else if !search && all.first().is_some_and(|k| k == "options") && all.iter().any(|o| o == "ndots:0") {
            all.retain(|o| o != "ndots:0");
            if all.len() > 1 {
                made.push(all.join(" ").into_bytes());
            }
        } else {
            made.push(line.to_vec());
        }
    }
    found.then(|| made.join(&b'\n'))
}

/// States of sockets, as the kernel shows them.
const UNCONNECTED: &str = "07";
const LISTEN: &str = "0A";

/// The port of the socket in such a state on Docker's address, from /proc/net/udp or /proc/net/tcp.
fn port(table: &[u8], state: &str) -> Option<u16> {
    // An address is shown as the number that its bytes are in memory.
    let address = format!("{:08X}", u32::from_ne_bytes(DOCKER.octets()));
    let of = |line: &[u8]| {
        let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace().skip(1);
        let (local, _, is) = (words.next()?, words.next()?, words.next()?);
        let (a, port) = local.split_once(':')?;
        (a == address && is == state).then(|| u16::from_str_radix(port, 16).ok()).flatten()
    };
    table.split(|b| *b == b'\n').find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dockers_server_is_replaced() {
        let given = b"# made by Docker\nsearch example.org\nnameserver 127.0.0.11\noptions edns0 ndots:0\n";
        let made = rewrite(given, false).unwrap();
        assert_eq!(made, b"# made by Docker\nsearch example.org\nnameserver 198.51.100.53\noptions edns0 ndots:0\n");
        assert_eq!(rewrite(&made, false), None);
        assert_eq!(rewrite(b"  nameserver\t127.0.0.11", false).unwrap(), b"nameserver 198.51.100.53");
        assert_eq!(
            rewrite(b"nameserver 127.0.0.11\nnameserver ::1\n\xff\n", false).unwrap(),
            b"nameserver 198.51.100.53\nnameserver ::1\n\xff\n"
        );
    }

    #[test]
    fn names_without_dots_are_asked_inside_where_that_changes_nothing_here() {
        let made = |given: &str, search| {
            String::from_utf8(rewrite(format!("nameserver 127.0.0.11\n{given}").as_bytes(), search).unwrap()).unwrap()
        };
        let is = |rest: &str| format!("nameserver 198.51.100.53\n{rest}");
        assert_eq!(made("options ndots:0\n", false), is(""));
        assert_eq!(made("search .\noptions edns0 ndots:0 trust-ad\n", false), is("search .\noptions edns0 trust-ad\n"));
        for (kept, search) in [
            ("options ndots:0\n", true),
            ("options ndots:0\nsearch a.example\n", false),
            ("domain a.example\noptions ndots:0\n", false),
            ("options ndots:2\n", false),
            ("#options ndots:0\n", false),
        ] {
            assert_eq!(made(kept, search), is(kept));
        }
    }

    #[test]
    fn other_files_are_left_alone() {
        for other in [
            "",
            "nameserver 127.0.0.1\n",
            "nameserver 127.0.0.111\n",
            "nameserver 127.0.0.11.example\n",
            "#nameserver 127.0.0.11\n",
            "search nameserver 127.0.0.11\n",
            "nameserver\n127.0.0.11\n",
            "nameserver ::ffff:127.0.0.11\n",
        ] {
            assert_eq!(rewrite(other.as_bytes(), false), None, "{other:?}");
        }
        let long = [b"nameserver 127.0.0.11\n".to_vec(), vec![b'\n'; LONGEST as usize]].concat();
        assert_eq!(rewrite(&long, false), None);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn ports_of_the_resolver() {
        let udp = b"   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n \
            4472: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0\n \
            4473: 0B00007F:CFB6 00000000:0000 07 00000000:00000000 00:00000000 00000000     0\n";
        assert_eq!(port(udp, UNCONNECTED), Some(0xcfb6));
        assert_eq!(port(udp, LISTEN), None);
        // A connection to it is not it.
        let tcp = b"  0: 0B00007F:A7D9 0100007F:0016 01 0:0\n  1: 0B00007F:A7D8 00000000:0000 0A 0:0\n";
        assert_eq!(port(tcp, LISTEN), Some(0xa7d8));
        assert_eq!(port(b"\n1: 0B00007F 0 07\n2: 0B00007F:XYZ 0 07\n\xff", UNCONNECTED), None);
    }
}
