//! Parts of the library on their own, without a container: ID maps, nodes of /proc and /sys.
//!
//! ```text
//! cargo run --example parts -- /system.slice/cron.service    # any control group, as /proc/PID/cgroup has it
//! ```
//!
//! Needs root. Leaves nothing behind: what it mounts is in a mount namespace of its own.

use std::error::Error;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use sysbox_core::cgroup::{self, Layout};
use sysbox_core::idmap::IdMap;
use sysbox_core::procfs::live::{Live, Sources};
use sysbox_core::procfs::{attach, Initial, Node, Nodes, Value};

fn main() -> Result<(), Box<dyn Error>> {
    let group = std::env::args().nth(1).ok_or("usage: parts CGROUP")?;
    ids()?;
    live(Path::new(&group))?;
    stored()
}

/// A map as uid_map has it: which ID of the host is 1000 inside, and back.
fn ids() -> Result<(), Box<dyn Error>> {
    let map: IdMap = "0 100000 65536".parse()?;
    println!(
        "1000 inside is {:?} outside, 100000 outside is {:?} inside",
        map.to_outside(1000),
        map.to_inside(100_000)
    );
    Ok(())
}

/// What a process in that control group would see.
fn live(group: &Path) -> Result<(), Box<dyn Error>> {
    let groups = cgroup::plan(&Layout::detect()?, group, None, &[], (0, 0))?.paths();
    let mut sources = Sources::open(&groups, 0)?;
    let mut text = Vec::new();
    for node in [Live::Meminfo, Live::CpuOnline, Live::Loadavg] {
        sources.render(node, None, &mut text)?;
        let first = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned();
        println!("{}: {first}", node.path());
    }
    Ok(())
}

/// A file over the kernel's, for this process and those that it starts.
fn stored() -> Result<(), Box<dyn Error>> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    nix::mount::mount(
        None::<&str>,
        "/",
        None::<&str>,
        nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE,
        None::<&str>,
    )?;
    let panic = Node::sysctl("kernel/panic", Initial::Text("30\n".into()), Value::integer(0, 300));
    // Nobody may write it; otherwise it would be left to the kernel, which lets the host's root write.
    let nodes = Nodes::none().with(panic.mode(0o444))?;
    let leaves: Vec<_> = nodes.iter().map(Node::leaf).collect();
    attach::stored(&leaves, "example", File::open("/")?.as_fd())?;
    print!("/proc/sys/kernel/panic: {}", std::fs::read_to_string("/proc/sys/kernel/panic")?);
    Ok(())
}
