//! Carries a plan out: makes the nodes, sets the limits, delegates.

use super::file::{apply, keyed, read, write, write_raw};
use super::layout::Version;
use super::paths::{remove, Node};
use super::plan::{Enable, Plan};
use super::tree;
use crate::error::{Errno, Error, Kind, Result, SysResult, Within};
use crate::sys::bpf;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{chown, DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

/// What a container's root gets besides the directory (cgroup-v2.rst, "Model of Delegation").
const DELEGATED_V2: [&str; 3] = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];
/// The same on v1, where `tasks` moves single threads.
const DELEGATED_V1: [&str; 2] = ["cgroup.procs", "tasks"];

/// Makes the container's cgroups, with limits, device rules and delegation. Nothing is left behind on failure, except parents.
///
/// A node that exists already is taken over if nothing runs in it.
///
/// # Errors
/// [`Kind::Exists`] if it holds processes; [`Kind::Unsupported`], [`Kind::InvalidConfig`] or [`Kind::Busy`] if the kernel cannot or
/// does not set a limit, naming its field; else the failed system call.
pub fn create(plan: &Plan) -> Result<()> {
    create_with(plan, None)
}

/// The same after systemd has made the plan's unit with the process `holder` in it: what systemd has made is completed, and what is
/// missing is made beside it.
///
/// # Errors
/// As [`create`]; [`Kind::System`] if systemd has put the unit elsewhere.
pub fn create_in_unit(plan: &Plan, holder: u32) -> Result<()> {
    create_with(plan, Some(holder))
}

fn create_with(plan: &Plan, holder: Option<u32>) -> Result<()> {
    let mut made: Vec<&Path> = Vec::with_capacity(plan.nodes.len());
    let result = build(plan, holder, &mut made);
    if result.is_err() {
        // The error is what matters. Nobody has been in there: no need to wait.
        for dir in made {
            let _ = remove(dir, Instant::now());
        }
    }
    result.within("create cgroups")
}

fn build<'a>(plan: &'a Plan, holder: Option<u32>, made: &mut Vec<&'a Path>) -> Result<()> {
    for (i, node) in plan.nodes.iter().enumerate() {
        let held = holder.map(|pid| Ok::<_, Error>(tree::pids(&node.dir)?.contains(&pid))).transpose()?;
        if held == Some(false) && node.is_tracked() {
            return Err(Error::new(Kind::System, "systemd has not put the container's unit into").at(&node.dir));
        }
        let held = held == Some(true);
        let mut fresh = !held && make_dir(&node.dir, &node.mount)?;
        if !fresh && !held {
            // A new one in its place, so that whoever made the old one no longer takes it for theirs.
            if occupied(node)? || remove(&node.dir, Instant::now()).is_err() || !make_dir(&node.dir, &node.mount)? {
                return Err(Error::new(Kind::Exists, "another container's processes run in cgroup").at(&node.dir));
            }
            fresh = true;
        }
        if !held {
            made.push(&node.dir);
        }
        match node.version {
            Version::V1 if node.has("cpuset") => fill_cpuset(plan, i, fresh)?,
            Version::V1 => {}
            Version::V2 => enable(node, &plan.enable)?,
        }
    }
    apply(&plan.nodes, &plan.writes)?;
    if let Some(p) = &plan.device_program {
        let node = plan.nodes.get(p.node).ok_or_else(|| Error::invalid("the plan's device program has no node"))?;
        attach(node, &p.code)?;
    }
    for node in &plan.nodes {
        let (uid, gid) = plan.owner;
        let leaf = plan.leaf.as_ref().filter(|_| node.version == Version::V2).map(|l| node.dir.join(l));
        if let Some(leaf) = &leaf {
            make_dir(leaf, &node.dir)?;
        }
        if plan.owner == (0, 0) {
            continue;
        }
        let files: &[&str] = if node.version == Version::V1 { &DELEGATED_V1 } else { &DELEGATED_V2 };
        for dir in [Some(&node.dir), leaf.as_ref()].into_iter().flatten() {
            chown(dir, Some(uid), Some(gid)).op_at("delegate", dir)?;
            for file in files.iter().map(|f| dir.join(f)) {
                chown(&file, Some(uid), Some(gid)).op_at("delegate", &file)?;
            }
        }
    }
    Ok(())
}

/// The kernel heeds the mode, and a runtime's umask is often zero: nobody else shall make children here.
fn create_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o755).create(dir)
}

/// Makes a directory, and its parents up to the mount; `false` if it existed.
fn make_dir(dir: &Path, mount: &Path) -> Result<bool> {
    match create_dir(dir) {
        Ok(()) => Ok(true),
        Err(e) if e.errno() == libc::EEXIST => Ok(false),
        Err(e) if e.errno() == libc::ENOENT => match dir.parent() {
            Some(parent) if parent != mount && parent.starts_with(mount) => {
                make_dir(parent, mount)?;
                match create_dir(dir) {
                    Err(e) if e.errno() == libc::EEXIST => Ok(false),
                    r => r.map(|()| true).op_at("make cgroup", dir),
                }
            }
            _ => Err(e).op_at("make cgroup", dir),
        },
        Err(e) => Err(e).op_at("make cgroup", dir),
    }
}

fn occupied(node: &Node) -> Result<bool> {
    Ok(match node.version {
        Version::V1 => !tree::pids(&node.dir)?.is_empty(),
        Version::V2 => keyed(&read(&node.dir.join("cgroup.events"))?, "populated") == Some(1),
    })
}

/// A v1 cpuset is born empty and takes no process until it has CPUs and memory nodes (cpuset(7)); so is any parent we made.
fn fill_cpuset(plan: &Plan, index: usize, fresh: bool) -> Result<()> {
    let node = &plan.nodes[index];
    let Some(parent) = node.dir.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if plan.writes.iter().any(|w| w.node == index && w.file == file) {
            fill(parent, &node.mount, file)?;
        } else if fresh {
            write(&node.dir.join(file), &fill(parent, &node.mount, file)?)?;
        } else {
            fill(&node.dir, &node.mount, file)?;
        }
    }
    Ok(())
}

/// Copies a setting down from the closest ancestor that has one; what is set stays.
fn fill(dir: &Path, mount: &Path, file: &str) -> Result<String> {
    let path = dir.join(file);
    let value = read(&path)?;
    let value = value.trim();
    if !value.is_empty() || dir == mount {
        return Ok(value.to_owned());
    }
    let Some(parent) = dir.parent() else { return Ok(String::new()) };
    let above = fill(parent, mount, file)?;
    write(&path, &above)?;
    Ok(above)
}

/// Switches controllers on in the ancestors of a v2 node, from the top; only ever adds.
fn enable(node: &Node, wanted: &[Enable]) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let path = node.dir.join("cgroup.controllers");
    let lacking = |text: &str| -> Vec<&Enable> {
        wanted.iter().filter(|w| !text.split_whitespace().any(|have| have == w.controller)).collect()
    };
    // The second container below a parent finds everything on.
    let missing = lacking(&read(&path)?);
    if missing.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = missing.iter().map(|w| format!("+{}", w.controller)).collect();
    let mut ancestors: Vec<&Path> = node.dir.ancestors().skip(1).take_while(|d| d.starts_with(&node.mount)).collect();
    ancestors.reverse();
    let mut refusal = None;
    for dir in ancestors {
        let control = dir.join("cgroup.subtree_control");
        if write_raw(&control, &all.join(" ")).is_ok() {
            continue;
        }
        // All or nothing, as far as the kernel goes; we take what we can get.
        for one in &all {
            if let Err(e) = write_raw(&control, one) {
                refusal.get_or_insert((control.clone(), one.clone(), e.errno()));
            }
        }
    }
    let Some((control, one, errno)) = refusal else { return Ok(()) };
    for w in lacking(&read(&path)?) {
        if let Some(field) = &w.needed_by {
            let e = Error::sys(format!("write {one:?} to"), errno).at(&control);
            let e = if errno == libc::EBUSY {
                e.kinded(Kind::Busy)
                    .hint("a cgroup with processes of its own cannot limit its children: choose another parent")
            } else {
                e
            };
            return Err(e.within(format!("switch on the cgroup controller {:?}, which {field} needs", w.controller)));
        }
    }
    Ok(())
}

fn attach(node: &Node, code: &[u64]) -> Result<()> {
    let dir = open_dir(&node.dir)?;
    let program = bpf::load_cgroup_device(code).op("load the device program")?;
    bpf::attach_cgroup_device(dir.as_fd(), program.as_fd()).op_at("attach the device program to", &node.dir)
}

pub(super) fn open_dir(dir: &Path) -> Result<OwnedFd> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_DIRECTORY);
    Ok(options.open(dir).op_at("open", dir)?.into())
}

/// The leaf's `cgroup.procs`, open for writing, through which init moves itself by writing `0`: the kernel checks the rights of who
/// opened it. `None` where there is no leaf.
///
/// # Errors
/// It cannot be opened.
pub fn open_leaf_procs(plan: &Plan) -> Result<Option<OwnedFd>> {
    let Some(leaf) = &plan.leaf else { return Ok(None) };
    let Some(node) = plan.nodes.iter().find(|n| n.version == Version::V2) else { return Ok(None) };
    let path = node.dir.join(leaf).join("cgroup.procs");
    Ok(Some(OpenOptions::new().write(true).open(&path).op_at("open", &path)?.into()))
}
