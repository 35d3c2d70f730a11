//! Nodes of /proc and /sys: of a container, and on their own.

use crate::boundary::{self, path_of, slice_of, Failure, Out};
use crate::buffer::Buf;
use crate::container::Container;
use crate::error::Error;
use crate::status::Status;
use serde_json::json;
use std::ffi::c_char;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use sysbox_core::cgroup::{self, Layout};
use sysbox_core::container::MonitorStatus;
use sysbox_core::error::SysResult;
use sysbox_core::procfs::live::Sources;
use sysbox_core::procfs::{attach, Initial, Kind, Node, NodeState, Nodes, Value};

/// A node holds one value, or a few lines.
const MAX_NODE: usize = 4096;

/// What a container sees in /proc and /sys where the kernel shows the host, or refuses to be written, and what its root reads there.
///
/// @param[out] json an object: "monitor" (an object with "status": "none", "serves", "stuck" or "dead", and "pid" if there is one) and
/// "nodes", an array of objects with "path", "kind" ("stored", "live", "empty" or "hidden"), "now" (where what is read comes from:
/// "stored", "monitor", "empty", "kernel", "mounted" or "absent"), "value" (up to 4 KiB, or null), "accepted" (whether the kernel
/// would take the value, or null) and "note"
/// @return `SYSBOX_ERR_WRONG_STATE` if it has ended; `SYSBOX_ERR_BUSY` if a file system of its own hangs
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_nodes(
    container: *const Container,
    json: *mut *mut Buf,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = |c: &Container| unsafe {
        let out = Out::new(json, "json")?;
        let monitor = match c.container.monitor() {
            MonitorStatus::None => json!({ "status": "none" }),
            MonitorStatus::Serves(pid) => json!({ "status": "serves", "pid": pid }),
            MonitorStatus::Stuck(pid) => json!({ "status": "stuck", "pid": pid }),
            MonitorStatus::Dead => json!({ "status": "dead" }),
        };
        let nodes: Vec<_> = c.container.nodes()?.iter().map(NodeState::describe).collect();
        out.json(&json!({ "monitor": monitor, "nodes": nodes }));
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(container, err, body) }
}

/// Puts another monitor in the place of one that is stuck or dead. Does nothing if it serves, or if the container has no live nodes.
///
/// @return `SYSBOX_ERR_WRONG_STATE` unless the container is created, running or paused
#[no_mangle]
pub unsafe extern "C" fn sysbox_container_restart_monitor(container: *const Container, err: *mut *mut Error) -> Status {
    let body = |c: &Container| Ok(c.container.restart_monitor()?);
    // SAFETY: by the rules of the header.
    unsafe { boundary::with(container, err, body) }
}

/// What a live node shows for a control group, whoever reads it: on its own, without a container.
///
/// @param cgroup its path as /proc/PID/cgroup has it, as in "/system.slice/cron.service"
/// @param path the node, as in "/proc/meminfo"
/// @param[out] text what a reader would see
/// @return `SYSBOX_ERR_NOT_FOUND` if there is no live node of that path
#[no_mangle]
pub unsafe extern "C" fn sysbox_node_render(
    cgroup: *const c_char,
    path: *const c_char,
    text: *mut *mut Buf,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = || unsafe {
        let out = Out::new(text, "text")?;
        let (group, path) = (path_of(cgroup, "cgroup")?, path_of(path, "path")?);
        let nodes = Nodes::default();
        let live = nodes.iter().find_map(|n| match n.kind {
            Kind::Live(live) if n.path == path => Some(live),
            _ => None,
        });
        let none = || sysbox_core::Error::new(sysbox_core::Kind::NotFound, "there is no live node").at(path);
        let live = live.ok_or_else(none)?;
        let groups = cgroup::plan(&Layout::detect()?, group, None, &[], (0, 0))?.paths();
        let mut text = Vec::new();
        Sources::open(&groups, 0)?.render(live, None, &mut text).op_at("render", path)?;
        out.text(text);
        Ok(())
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::run(err, body) }
}

/// Puts a file over one of the kernel's, for those in the mount namespace of the calling thread, which should be one of its own: on its
/// own, without a container. Does nothing where the kernel has no such file, and, if `mode` lets anybody write, where the caller
/// may write the kernel's. It is taken away with umount(2).
///
/// @param path the kernel's file, below /proc or /sys
/// @param text what it holds. Copied
/// @param text_size how many bytes; at most 4096, UTF-8
/// @param mode permission bits, such as 0444. The file belongs to the caller
/// @return `SYSBOX_ERR_INVALID_CONFIG` for a path that is elsewhere
#[no_mangle]
pub unsafe extern "C" fn sysbox_node_attach(
    path: *const c_char,
    text: *const u8,
    text_size: usize,
    mode: u32,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: by the rules of the header.
    let body = || unsafe {
        if mode & !0o777 != 0 {
            return Err(Failure::argument(format!("mode {mode:#o} is not permission bits")));
        }
        let path: PathBuf = path_of(path, "path")?.into();
        let text = slice_of(text, text_size, MAX_NODE, "text")?.to_vec();
        let text = String::from_utf8(text).map_err(|_| Failure::argument("text is not UTF-8"))?;
        let kind = Kind::Stored { initial: Initial::Text(text), mode };
        let nodes =
            Nodes::none().with(Node { path, kind, value: Value::Text, note: String::new(), on_request: false })?;
        let leaves: Vec<_> = nodes.iter().map(Node::leaf).collect();
        Ok(attach::stored(&leaves, "", File::open("/").op_at("open", "/")?.as_fd())?)
    };
    // SAFETY: by the rules of the header.
    unsafe { boundary::run(err, body) }
}
