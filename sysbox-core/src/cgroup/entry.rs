//! The fast way into a container's cgroups.
//!
//! Moving another process makes the kernel stop all forks and exits on the machine for some milliseconds. Two ways do not: a
//! thread that writes `0` to a v1 `tasks` file moves itself alone, and clone3(2) lets a child be born in a v2 cgroup.

use super::manager::open_dir;
use super::paths::Node;
use super::{Paths, Version};
use crate::error::{Result, SysResult};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Open doors into the nodes of a container. The kernel checks the rights of who opened them, not of who goes through.
#[derive(Debug)]
pub struct Entry {
    tasks: Vec<File>,
    unified: Option<OwnedFd>,
}

impl Entry {
    /// The container's own nodes.
    ///
    /// # Errors
    /// One cannot be opened.
    pub fn open(nodes: &[Node]) -> Result<Entry> {
        let unified = nodes.iter().find(|n| n.version == Version::V2);
        Ok(Entry { tasks: open_tasks(nodes)?, unified: unified.map(|n| open_dir(&n.dir)).transpose()? })
    }

    /// Where an exec belongs: as [`Entry::open`], but on pure v2 the leaf, or init's own cgroup if the leaf is gone.
    ///
    /// # Errors
    /// One cannot be opened; init is gone.
    pub fn open_for_exec(paths: &Paths, init_pid: u32) -> Result<Entry> {
        Ok(Entry { tasks: open_tasks(&paths.nodes)?, unified: paths.open_exec_unified(init_pid)? })
    }

    /// The v2 cgroup, for `CLONE_INTO_CGROUP` (Linux 5.7).
    pub fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// For a process that cannot be born in the v2 cgroup, since its parent has left the host's user namespace: it will move there by
    /// [`Entry::enter_v1`] as well, which costs milliseconds.
    ///
    /// # Errors
    /// `cgroup.procs` cannot be opened.
    pub fn on_foot(mut self) -> Result<Entry> {
        if let Some(dir) = self.unified.take() {
            let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
            let procs = rustix::fs::openat(dir, "cgroup.procs", flags, rustix::fs::Mode::empty());
            self.tasks.push(procs.op("open cgroup.procs of the container")?.into());
        }
        Ok(self)
    }

    /// Takes the calling thread, the only one of its process, into the v1 nodes.
    ///
    /// # Errors
    /// A move is refused; the process may be in some of the nodes then.
    pub fn enter_v1(&self) -> Result<()> {
        for mut file in &self.tasks {
            file.write_all(b"0").op("move into a cgroup of the container")?;
        }
        Ok(())
    }
}

fn open_tasks(nodes: &[Node]) -> Result<Vec<File>> {
    let v1 = nodes.iter().filter(|n| n.version == Version::V1);
    v1.map(|n| {
        let path = n.dir.join("tasks");
        OpenOptions::new().write(true).open(&path).op_at("open", &path)
    })
    .collect()
}
