//! Names of the network that a Docker Engine of the host's gives a system container, asked for by containers and builds of the
//! engine inside.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in #[test] functions, not in what they share

mod common;

use common::engine::{Engine, STEP};
use common::inner::{Inner, ENGINE};
use common::wait_for;

/// Asks Docker's resolver about `server`, over UDP and TCP, from any address inside.
const ASK: &str = r#"
import socket, struct, sys
query = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + b"\x06server\x00" + struct.pack(">HH", 1, 1)
for server in "198.51.100.53", "127.0.0.11":
    for kind in socket.SOCK_DGRAM, socket.SOCK_STREAM:
        for source in None, "127.0.0.1", sys.argv[1]:
            s = socket.socket(socket.AF_INET, kind)
            s.settimeout(10)
            if source: s.bind((source, 0))
            s.connect((server, 53))
            s.send(query if kind == socket.SOCK_DGRAM else struct.pack(">H", len(query)) + query)
            print(socket.inet_ntoa(s.recv(512)[-4:]))
"#;

const WEB: &str = "mkdir /www; echo page of $0 >/www/index.html; exec httpd -f -h /www -p $1";

/// A network with both versions of IP, a container `server` on it, and a system container with an engine.
struct Site {
    engine: Engine,
    network: String,
    server: (String, String),
}

impl Site {
    fn new(name: &'static str, kind: &str, extra: &[(&str, serde_json::Value)]) -> Option<Site> {
        let engine = Engine::start(name, extra)?;
        engine.image("busybox");
        engine.image(kind);
        let number = engine.subnet().split('.').nth(1).unwrap().to_owned();
        let (network, v6) = (format!("names{}-{number}", std::process::id()), format!("fd5b:{number}::/64"));
        engine.docker(&["network", "create", "--ipv6", "--subnet", &v6, &network]).ok();
        // A plain container.
        engine
            .docker(&[
                "run",
                "-d",
                "--name",
                "server",
                "--network",
                &network,
                "busybox",
                "sh",
                "-c",
                WEB,
                "server",
                "80",
            ])
            .ok();
        let of = |what: &str| {
            let format = format!("{{{{range .NetworkSettings.Networks}}}}{{{{.{what}}}}}{{{{end}}}}");
            engine.inspect("server", &format)
        };
        let server = (of("IPAddress"), of("GlobalIPv6Address"));
        engine.run(&["-d", "--name", "sys", "--network", &network, kind, "sh", "-c", ENGINE]).ok();
        Some(Site { engine, network, server })
    }

    fn inner(&self) -> Inner<'_> {
        let mut inner = Inner::new(&self.engine.lab, |script| self.engine.client(&["exec", "sys", "sh", "-c", script]));
        inner.start();
        inner
    }

    /// The inner container's `nslookup` finds both addresses, and what is there can be reached by name.
    fn finds(&self, inner: &mut Inner<'_>, how: &str, run: &str) {
        let (v4, v6) = &self.server;
        inner.step(&format!("addresses by name, {how}"), &format!("{run} busybox nslookup server"), |code, out| {
            let has = |a: &str| out.lines().any(|l| l.trim_start() == format!("Address: {a}"));
            code == 0 && has(v4) && has(v6)
        });
        inner.prints(
            &format!("page by name, {how}"),
            &format!("{run} busybox timeout 20 wget -qO- http://server/"),
            "page of server",
        );
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.engine.client(&["rm", "-fv", "sys", "server", "open", "peer"]).output();
        let _ = self.engine.client(&["network", "rm", &self.network]).output();
    }
}

fn everywhere(name: &'static str, kind: &'static str) {
    let Some(site) = Site::new(name, kind, &[]) else { return };
    let mut inner = site.inner();
    inner.prints(
        "resolv.conf",
        "grep -c 127.0.0.11 /etc/resolv.conf; grep nameserver /etc/resolv.conf",
        "0\nnameserver 198.51.100.53",
    );
    inner.prints("itself", "getent ahostsv4 server | awk '{print $1; exit}'", &site.server.0);
    let own = "$(ip -4 -o addr show eth0 | awk '{sub(\"/.*\", \"\", $4); print $4}')";
    inner.prints(
        "itself, each way",
        &format!("python3 -c '{ASK}' {own} | uniq -c | awk '{{print $1, $2}}'"),
        &format!("12 {}", site.server.0),
    );
    site.finds(&mut inner, "default bridge", "docker run --rm");
    inner.step("network", "docker network create mine", |code, _| code == 0);
    site.finds(&mut inner, "user-defined network", "docker run --rm --network mine");
    site.finds(&mut inner, "network of the system container", "docker run --rm --network host");
    // Those of the inner network go first, and the inner resolver's own addresses are as always.
    let both = "docker run -d --network mine --name neighbour busybox sleep 1000 >/dev/null
        docker run --rm --network mine busybox sh -c 'grep nameserver /etc/resolv.conf; ping -c1 -W5 neighbour >/dev/null && echo found'
        docker rm -f neighbour >/dev/null";
    inner.prints("inner names", both, "nameserver 127.0.0.11\nfound");
    let dockerfile =
        r"mkdir -p /build && printf 'FROM busybox\nRUN wget -qO /made http://server/\n' >/build/Dockerfile";
    inner.step("Dockerfile", dockerfile, |code, _| code == 0);
    for (how, buildkit) in [("classic", 0), ("buildkit", 1)] {
        let build = format!(
            "DOCKER_BUILDKIT={buildkit} docker build --no-cache -t {how} /build >/tmp/log 2>&1 || cat /tmp/log"
        );
        inner.prints(&format!("build, {how}"), &format!("{build}; docker run --rm {how} cat /made"), "page of server");
    }
    inner.judge();
    drop(inner);
    // The engine writes the file anew, and init changes it anew.
    site.engine.docker(&["restart", "-t", "30", "sys"]).ok();
    let mut inner = site.inner();
    site.finds(&mut inner, "after a restart", "docker run --rm");
    inner.judge();
}

#[test]
fn names_of_bookworm() {
    everywhere("names_of_bookworm", "docker-bookworm");
}

#[test]
fn names_of_trixie() {
    everywhere("names_of_trixie", "docker-trixie");
}

/// dockerd comes back with other ports for containers that it has left running.
#[test]
fn names_outlive_the_engine() {
    let Some(site) = Site::new("names_outlive_the_engine", "docker-bookworm", &[("live-restore", true.into())]) else {
        return;
    };
    let mut inner = site.inner();
    site.finds(&mut inner, "before", "docker run --rm");
    let ports = || {
        site.engine.docker(&["exec", "sys", "sh", "-c", "grep -h 0B00007F /proc/net/udp | awk '{print $2}'"]).ok().out
    };
    let before = ports();
    // In good order: a containerd that is about to die would be taken for one that runs.
    let pid = std::fs::read_to_string(site.engine.path("dockerd.pid")).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(wait_for(STEP, || !site.engine.path("dockerd.pid").exists()), "dockerd ends");
    site.engine.kill();
    site.engine.launch();
    assert_ne!(before, ports(), "the resolver has other ports now");
    // By Docker's own rules; from this on ours know.
    inner.prints("itself, after", "getent ahostsv4 server | awk '{print $1; exit}'", &site.server.0);
    site.finds(&mut inner, "after", "docker run --rm");
    inner.judge();
}

/// Writes down the names that it is asked for, at any address.
const RECORD: &str = r#"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 53))
open("/ready", "w").close()
while True:
    query = s.recv(512)
    open("/asked", "a").write(query[13 : 13 + query[12]].decode() + "\n")
"#;

/// Packets for 127.0.0.0/8 from other containers do not arrive, though the kernel lets them through for the resolver.
#[test]
fn loopback_stays_closed() {
    let Some(site) = Site::new("loopback_stays_closed", "docker-bookworm", &[]) else { return };
    let engine = &site.engine;
    let run = |name: &str, more: &[&str], script: &str| {
        let mut args = vec!["run", "-d", "--name", name, "--network", &site.network];
        args.extend(more);
        args.extend(["--sysctl", "net.ipv4.conf.all.route_localnet=1", "busybox", "sh", "-c", script]);
        engine.docker(&args).ok();
    };
    // A container whose loopback is open, so that what the peer does is known to work.
    run("open", &[], "mkdir /www; echo open >/www/index.html; exec httpd -f -h /www -p 127.0.0.1:80");
    run("peer", &["--cap-add", "NET_ADMIN"], "sleep 1000");
    let peer = |script: &str| engine.docker(&["exec", "peer", "sh", "-c", script]);
    let address = |name: &str| engine.inspect(name, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
    // The peer's own loopback leads elsewhere.
    let turn = "ip addr del 127.0.0.1/8 dev lo";
    peer(&format!("{turn} && ip route add 127.0.0.1/32 via {}", address("open"))).ok();
    let opened = wait_for(STEP, || peer("timeout 5 wget -qO- http://127.0.0.1/").text() == "open");
    assert!(opened, "the trick works where nothing is done against it");

    let mut inner = site.inner();
    let record = format!(
        "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
        python3 -c '{RECORD}' >/dev/null 2>&1 & until [ -e /ready ]; do sleep 0.1; done"
    );
    inner.step("listener", &record, |code, _| code == 0);
    let sys = address("sys");
    // Nobody answers, and nobody refuses. On a slow host nslookup may give up before it is killed.
    let unanswered = |script: &str| assert!(wait_for(STEP, || peer(script).code == 143), "{script}");
    unanswered(&format!("ip route replace 127.0.0.1/32 via {sys}; timeout 3 nslookup trick1 127.0.0.1"));
    unanswered(&format!("for i in 1 2 3; do timeout 3 nslookup plain1 {sys}; done"));
    let within = format!(
        "docker run --rm --privileged busybox sh -c 'echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
        {turn} && ip route add 127.0.0.1/32 via 172.17.0.1 || exit 1
        timeout 3 nslookup trick2 127.0.0.1; for i in 1 2 3; do timeout 3 nslookup plain2 172.17.0.1; done; true'"
    );
    inner.step("from a container inside", &within, |code, _| code == 0);
    inner.prints("what has arrived", "sort -u /asked", "plain1\nplain2");
    inner.judge();
}
