//! Runs a shell script in a system container on a root file system, and ends with its exit code.
//!
//! ```text
//! cargo run --example run -- /srv/debian 'id; cat /proc/self/uid_map'
//! ```
//!
//! Needs root. The directory must be owned by root and lie on a file system with ID-mapped mounts (ext4, xfs, btrfs, tmpfs).

use std::path::Path;
use std::process::ExitCode;
use sysbox_core::{CreateOptions, Result, Runtime, SystemContainer};

fn main() -> ExitCode {
    // First of all: the library starts this program once more, as the stage that makes the container.
    sysbox_core::stage::dispatch();

    let args: Vec<String> = std::env::args().collect();
    let [_, rootfs, script] = args.as_slice() else {
        eprintln!("usage: run ROOTFS SCRIPT");
        return ExitCode::from(2);
    };
    match run(rootfs, script) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            // The message has the operation, the path, the errno and what to do about it.
            eprintln!("run: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(rootfs: &str, script: &str) -> Result<u8> {
    let runtime = Runtime::new("/run/sysbox-example");
    let spec = SystemContainer::new(rootfs)
        .args(["/bin/sh", "-c", script])
        .hostname("example")
        .memory(512 << 20)
        .pids(1000)
        .tmpfs("/tmp", &["mode=1777"])
        .spec()?;

    // Relative paths in the configuration would be looked up here. There are none.
    let bundle = Path::new("/");
    let id = format!("example-{}", std::process::id());
    // All namespaces, mounts and limits are there, and init waits. Its streams are ours.
    let mut container = runtime.create(&id, &spec, bundle, CreateOptions::default())?;
    let ended = container.start().and_then(|()| container.wait());
    // With force, so that it goes away whatever went wrong before.
    container.delete(true)?;
    ended.map(|exit| exit.code() as u8)
}
