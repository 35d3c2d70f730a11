//! A mount namespace in which files below /etc are a test's own: those that say which IDs may be given away, and which
//! networks there are. Nothing of the host's is changed for a test.

use super::{Lab, Running, LIMIT};
use std::process::{Command, Stdio};

/// What the networks are called for engines.
pub(crate) const NETWORK: &str = "lab";

/// Ends, with its bridge, when it goes out of scope.
pub(crate) struct Etc {
    holder: Running,
    bridge: String,
    net: u32,
}

const SCRIPT: &str = r#"
set -e
mount --bind "$1/subid" /etc/subuid
mount --bind "$1/subid" /etc/subgid
mount --bind "$1/net.d" /etc/cni/net.d
echo ready
exec sleep 100000
"#;

impl Etc {
    /// `None`: there are no files to cover, or no plugins, and stderr says so.
    pub(crate) fn new(name: &str, lab: &Lab) -> Option<Etc> {
        for needed in ["/etc/subuid", "/etc/subgid", "/etc/cni/net.d", "/usr/lib/cni/bridge"] {
            if !std::path::Path::new(needed).exists() {
                eprintln!("SKIP {name}: no {needed}");
                return None;
            }
        }
        let pid = std::process::id();
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (bridge, net) = (format!("sbc{pid}-{n}"), 64 + (pid * 4 + n) % 128);
        let dir = lab.path("etc");
        std::fs::create_dir_all(dir.join("net.d")).unwrap();
        // Away from the IDs that the runtime's own pool takes, and from other tests' of this moment.
        let first = 3_000_000_000 + (pid * 4 + n) % 100 * 1_000_000;
        std::fs::write(dir.join("subid"), format!("containers:{first}:1000000\n")).unwrap();
        // No plugin that writes firewall rules: those are the host's.
        let list = serde_json::json!({"cniVersion": "0.4.0", "name": NETWORK, "plugins": [{
            "type": "bridge", "bridge": bridge, "isGateway": true, "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": lab.path("cni"),
                "ranges": [[{"subnet": format!("10.{net}.64.0/24"), "gateway": format!("10.{net}.64.1")}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }]});
        std::fs::write(dir.join("net.d/10-lab.conflist"), list.to_string()).unwrap();
        let mut c = Command::new("unshare");
        // Slave: what others unmount on the host is not held here.
        c.args(["--mount", "--propagation", "slave", "sh", "-c", SCRIPT, "sh"]).arg(&dir).stdin(Stdio::null());
        let mut holder = lab.spawn(c);
        holder.says("ready", LIMIT);
        Some(Etc { holder, bridge, net })
    }

    /// A program in the namespace.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut c = Command::new("nsenter");
        c.args(["--mount", "--wd=/", "-t", &self.holder.pid().to_string(), program]);
        c
    }

    pub(crate) fn gateway(&self) -> String {
        format!("10.{}.64.1", self.net)
    }

    pub(crate) fn mountinfo(&self) -> String {
        format!("/proc/{}/mountinfo", self.holder.pid())
    }
}

impl Drop for Etc {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.bridge]).output();
    }
}
