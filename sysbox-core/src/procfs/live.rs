//! Live nodes: files whose content follows the container's control groups.
//!
//! [`Sources`] opens what is needed while there still are paths, and then renders nodes with nothing but descriptors, in a process
//! that may call openat(2) (read-only, below those descriptors, never through a symbolic link), pread(2), fstat(2), getdents64(2),
//! close(2), clock_gettime(2) and what an allocator needs. Files that are read again and again stay open, some dozens of them.
//! Nothing is waited for; files, depths and numbers of tasks that are looked at are bounded.
//!
//! # Which limits count
//! Those from the container's own cgroup down to the reader's: the smallest. What is in use is that of the cgroup whose limit it is,
//! the outermost of equal ones. A reader that is elsewhere, gone or unknown sees the container's own. Limits above the host's
//! figures, and none at all, show the host's figures. `/proc/loadavg`, `/proc/pressure/*` and the numbers of tasks in
//! `/proc/stat` are the container's for every reader. What has happened (`/proc/diskstats`, events in `/proc/vmstat`) is counted of the
//! reader's own cgroup.
//!
//! # CPUs
//! A container has as many CPUs as its cpuset, or as many as its quota is worth, rounded up, if that is less: the JVM and
//! Go count the same way. They keep the host's numbers, so that sched_getaffinity(2) and getcpu(2) agree with the files. With a quota
//! worth less than the cpuset the first ones are shown, while nproc(1), which asks for the affinity, says how many the cpuset has.
//!
//! `/sys/devices/system/cpu/possible` always is the host's. It is no count of what may be used, but how long a table by number
//! of CPU must be: allocators index such tables by getcpu(2), and bpf(2) fills as many fields, whatever the file said.

mod cpus;
mod disks;
mod figures;
mod file;
mod load;
mod memory;
mod place;
mod scan;
mod stat;
mod sysinfo;
#[cfg(test)]
mod tests;
mod vmstat;

use crate::cgroup::Paths;
use crate::error::{Result, SysResult};
use cpus::{CpuInfo, CpuSet, Cpus};
use figures::Figures;
use file::Dir;
use load::Load;
use memory::Host;
use place::Own;
use rustix::fs::{open, Mode, OFlags};
use rustix::time::{clock_gettime, ClockId};
use scan::Tasks;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For how long the numbers of tasks are good enough not to look again.
const FRESH: Duration = Duration::from_secs(1);

/// What tasks had to wait for (PSI, accounting/psi.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Pressure {
    /// A CPU.
    Cpu,
    /// A disk.
    Io,
    /// Memory.
    Memory,
    /// Interrupts (Linux 6.1, if so configured).
    Irq,
}

/// A live node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Live {
    /// Memory and swap.
    Meminfo,
    /// One paragraph for each CPU.
    Cpuinfo,
    /// Time used, by CPU; when the container was started.
    Stat,
    /// How many tasks want to run.
    Loadavg,
    /// Swap alone.
    Swaps,
    /// Memory in pages, and what happened to them since the start.
    Vmstat,
    /// Input and output, by device.
    Diskstats,
    /// How much time was lost waiting.
    Pressure(Pressure),
    /// CPUs that may be used.
    CpuOnline,
    /// CPUs that there may ever be: the host's, see [the module](self).
    CpuPossible,
    /// CPUs that there are; shown like those that may be used.
    CpuPresent,
}

impl Live {
    /// Every node.
    pub const ALL: [Live; 14] = [
        Live::Meminfo,
        Live::Cpuinfo,
        Live::Stat,
        Live::Loadavg,
        Live::Swaps,
        Live::Vmstat,
        Live::Diskstats,
        Live::Pressure(Pressure::Cpu),
        Live::Pressure(Pressure::Io),
        Live::Pressure(Pressure::Memory),
        Live::Pressure(Pressure::Irq),
        Live::CpuOnline,
        Live::CpuPossible,
        Live::CpuPresent,
    ];

    /// Where it is.
    pub const fn path(self) -> &'static str {
        match self {
            Live::Meminfo => "/proc/meminfo",
            Live::Cpuinfo => "/proc/cpuinfo",
            Live::Stat => "/proc/stat",
            Live::Loadavg => "/proc/loadavg",
            Live::Swaps => "/proc/swaps",
            Live::Vmstat => "/proc/vmstat",
            Live::Diskstats => "/proc/diskstats",
            Live::Pressure(Pressure::Cpu) => "/proc/pressure/cpu",
            Live::Pressure(Pressure::Io) => "/proc/pressure/io",
            Live::Pressure(Pressure::Memory) => "/proc/pressure/memory",
            Live::Pressure(Pressure::Irq) => "/proc/pressure/irq",
            Live::CpuOnline => "/sys/devices/system/cpu/online",
            Live::CpuPossible => "/sys/devices/system/cpu/possible",
            Live::CpuPresent => "/sys/devices/system/cpu/present",
        }
    }

    /// The name of the file.
    fn file(self) -> &'static str {
        self.path().rsplit('/').next().unwrap_or_default()
    }
}

/// Where the figures of one container come from.
#[derive(Debug)]
pub struct Sources {
    /// The host's procfs.
    proc: Dir,
    /// The host's `/sys/devices/system/cpu`.
    cpu: Dir,
    nodes: Vec<Own>,
    /// Which of the nodes tells the container's tasks.
    census: Option<usize>,
    /// Of the container's time namespace, in nanoseconds.
    boottime_offset: i64,
    /// The size of a page, in bytes: where it is said may be out of reach later.
    page: u64,
    load: Load,
    tasks: Option<(Duration, Tasks)>,
    /// The greatest number of a task so far.
    newest: u64,
    /// See [`stat::cpu_lines`].
    debt: u64,
    buffers: [Vec<u8>; 2],
}

impl Sources {
    /// Opens the host's `/proc` and CPUs and the container's cgroups. To be called in the host's namespaces; all else may be
    /// called by a process that can open nothing by path any more.
    ///
    /// `boottime_offset` is that of the container's time namespace in nanoseconds (time_namespaces(7)), 0 without one.
    ///
    /// # Errors
    /// One of them cannot be opened.
    pub fn open(cgroups: &Paths, boottime_offset: i64) -> Result<Sources> {
        // The first look at the clock finds the vDSO, for which it asks the kernel.
        now();
        let census = cgroups.census().and_then(|c| cgroups.nodes.iter().position(|n| n == c));
        let nodes = cgroups.nodes.iter().map(|n| {
            let below = n.dir.strip_prefix(&n.mount).unwrap_or(Path::new(""));
            let path: PathBuf = n.root.components().chain(below.components()).collect();
            let path = path.into_os_string().into_vec();
            Ok(Own { dir: open_dir(&n.dir)?, version: n.version, controllers: n.controllers.clone(), path })
        });
        Ok(Sources {
            proc: open_dir(Path::new("/proc"))?,
            cpu: open_dir(Path::new("/sys/devices/system/cpu"))?,
            nodes: nodes.collect::<Result<_>>()?,
            census,
            boottime_offset,
            page: rustix::param::page_size() as u64,
            load: Load::default(),
            tasks: None,
            newest: 0,
            debt: 0,
            buffers: [Vec::new(), Vec::new()],
        })
    }

    /// Replaces `out` by the content of a node, for the process or thread `reader` as the procfs opened knows it.
    ///
    /// # Errors
    /// The host's own file cannot be read.
    pub fn render(&mut self, node: Live, reader: Option<u32>, out: &mut Vec<u8>) -> io::Result<()> {
        out.clear();
        let now = now();
        let mut place = Vec::new();
        let reader = reader
            .filter(|pid| *pid != 0)
            .and_then(|pid| self.proc.process(pid).ok()?.bytes("cgroup", &mut place).ok());
        let [buffer, second] = &mut self.buffers;
        let mut figures = Figures { nodes: &self.nodes, reader, buffer: second };
        match node {
            Live::Meminfo => {
                let text = self.proc.text(node.file(), buffer)?;
                let host = Host::parse(text);
                let (memory, swap) = figures.memory(&host);
                memory::meminfo(text, &host, memory.as_ref(), swap, out);
            }
            Live::Swaps => {
                let host = Host::parse(self.proc.text(Live::Meminfo.file(), buffer)?);
                let (_, swap) = figures.memory(&host);
                memory::swaps(self.proc.text(node.file(), buffer)?, &host, swap, out);
            }
            Live::Vmstat => {
                let text = self.proc.text(Live::Meminfo.file(), buffer)?;
                let (host, mut meminfo) = (Host::parse(text), Vec::new());
                let (memory, swap) = figures.memory(&host);
                memory::meminfo(text, &host, memory.as_ref(), swap, &mut meminfo);
                let meminfo = String::from_utf8_lossy(&meminfo);
                let io = figures.devices();
                let shown = vmstat::Shown {
                    meminfo: memory.map(|_| &*meminfo),
                    page: self.page,
                    events: figures.events(),
                    read: io.values().map(|d| d.read_bytes).sum(),
                    written: io.values().map(|d| d.written_bytes).sum(),
                };
                self.proc.lines(node.file(), buffer, |line| {
                    shown.line(line, out);
                    true
                })?;
            }
            Live::Cpuinfo => {
                let cpus = figures.cpus(&online(&self.cpu, buffer)?);
                let mut filter = CpuInfo::new(&cpus.shown);
                self.proc.lines(node.file(), buffer, |line| {
                    filter.line(line, out);
                    true
                })?;
            }
            Live::CpuOnline | Live::CpuPresent => {
                let cpus = figures.cpus(&online(&self.cpu, buffer)?);
                out.extend_from_slice(cpus.shown.list().as_bytes());
                out.push(b'\n');
            }
            Live::CpuPossible => out.extend_from_slice(self.cpu.bytes(node.file(), buffer)?),
            Live::Diskstats => {
                let devices = figures.devices();
                self.proc.lines(node.file(), buffer, |line| {
                    disks::line(line, |major, minor| devices.get(&(major, minor)).cloned(), out);
                    true
                })?;
            }
            Live::Pressure(_) => self.pressure(node, out)?,
            Live::Stat => {
                let cpus = figures.cpus(&online(&self.cpu, buffer)?);
                let used = figures.used(cpus.binding);
                self.stat(&cpus, &used, now, out)?;
            }
            Live::Loadavg => {
                let tasks = self.tasks(now);
                let load = self.load.read(now, || tasks.running.saturating_add(tasks.blocked));
                out.extend_from_slice(load::line(load, tasks.running, tasks.tasks, self.newest).as_bytes());
            }
        }
        Ok(())
    }

    /// What sysinfo(2) returns on a 64-bit machine, for this reader: the structure's bytes.
    ///
    /// # Errors
    /// As for [`Sources::render`].
    pub fn sysinfo(&mut self, reader: Option<u32>) -> io::Result<Vec<u8>> {
        let (mut meminfo, mut loadavg) = (Vec::new(), Vec::new());
        self.render(Live::Meminfo, reader, &mut meminfo)?;
        self.render(Live::Loadavg, reader, &mut loadavg)?;
        let uptime = now().as_nanos() as i128 + i128::from(self.boottime_offset);
        // As the kernel does: a second that has begun counts.
        let uptime = u64::try_from((uptime.max(0) + 999_999_999) / 1_000_000_000).unwrap_or(0);
        let text = String::from_utf8_lossy;
        Ok(sysinfo::structure(&text(&meminfo), &text(&loadavg), uptime))
    }

    /// Whether there is such a node on this host, for this container. All but `/proc/pressure/*` always are there.
    pub fn available(&mut self, node: Live) -> bool {
        let [buffer, _] = &mut self.buffers;
        match node {
            Live::Pressure(_) => pressure_file(&self.nodes, node, buffer).is_some(),
            _ => true,
        }
    }

    /// Takes a sample for `/proc/loadavg`, if one is due.
    pub fn tick(&mut self) {
        let now = now();
        if self.load.next(now) == Some(Duration::ZERO) {
            let tasks = self.tasks(now);
            self.load.sample(now, || tasks.running.saturating_add(tasks.blocked));
        }
    }

    /// How long until [`Sources::tick`] wants to be called; `None` if nobody has read `/proc/loadavg` for 15 minutes.
    pub fn next_tick(&self) -> Option<Duration> {
        self.load.next(now())
    }

    fn stat(&mut self, cpus: &Cpus, used: &stat::Used, now: Duration, out: &mut Vec<u8>) -> io::Result<()> {
        let mut tasks = self.tasks(now);
        tasks.newest = self.newest;
        let uptime = i128::from(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)) + i128::from(self.boottime_offset);
        stat::cpu_lines(used, cpus, u64::try_from(uptime).unwrap_or(0), &mut self.debt, out);
        let offset = self.boottime_offset.div_euclid(1_000_000_000);
        let [buffer, _] = &mut self.buffers;
        self.proc.lines(Live::Stat.file(), buffer, |line| {
            stat::other_line(line, &tasks, offset, out);
            true
        })?;
        Ok(())
    }

    /// The container's, or the host's where the container's cgroup has none.
    fn pressure(&mut self, node: Live, out: &mut Vec<u8>) -> io::Result<()> {
        let [buffer, _] = &mut self.buffers;
        match pressure_file(&self.nodes, node, buffer) {
            Some(text) => out.extend_from_slice(text),
            None => out.extend_from_slice(self.proc.directory("pressure")?.bytes(node.file(), buffer)?),
        }
        Ok(())
    }

    fn tasks(&mut self, now: Duration) -> Tasks {
        if let Some((_, tasks)) = self.tasks.filter(|(when, _)| now.saturating_sub(*when) < FRESH) {
            return tasks;
        }
        let [buffer, _] = &mut self.buffers;
        let total = Figures { nodes: &self.nodes, reader: None, buffer }.tasks();
        let own = self.census.and_then(|i| self.nodes.get(i));
        let tasks = own.map(|own| scan::tasks(&self.proc, own, total, &mut self.buffers)).unwrap_or_default();
        self.newest = self.newest.max(tasks.newest);
        self.tasks = Some((now, tasks));
        tasks
    }
}

fn open_dir(path: &Path) -> Result<Dir> {
    let dir = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).op_at("open", path)?;
    Ok(Dir::keeping(dir))
}

/// The host's time since its boot.
fn now() -> Duration {
    let t = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
}

fn online(cpu: &Dir, buffer: &mut Vec<u8>) -> io::Result<CpuSet> {
    Ok(CpuSet::parse(cpu.text(Live::CpuOnline.file(), buffer)?))
}

/// The content of the container's own, if v2 has such a file.
fn pressure_file<'b>(nodes: &[Own], node: Live, buffer: &'b mut Vec<u8>) -> Option<&'b [u8]> {
    let own = nodes.iter().find(|n| n.version == crate::cgroup::Version::V2)?;
    let name = match node {
        Live::Pressure(Pressure::Cpu) => "cpu.pressure",
        Live::Pressure(Pressure::Io) => "io.pressure",
        Live::Pressure(Pressure::Memory) => "memory.pressure",
        _ => "irq.pressure",
    };
    own.dir.bytes(name, buffer).ok()
}
