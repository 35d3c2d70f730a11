//! What the container's tasks are doing.

use super::file::Dir;
use super::place::Own;
use crate::cgroup::Version;
use rustix::fs::{fstat, FileType, RawDir};
use rustix::io::Result;
use std::ffi::CString;
use std::mem::MaybeUninit;

/// How many cgroups are looked into, how far down, and how many tasks are looked at and counted: what is beyond is taken to be
/// as what was seen.
const CGROUPS: usize = 256;
const DEPTH: usize = 16;
const LOOKS: u64 = 256;
const COUNTED: u64 = 65_536;

/// Numbers of tasks, which is threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tasks {
    /// That run or could run.
    pub(super) running: u64,
    /// That wait for a disk or the like.
    pub(super) blocked: u64,
    /// All.
    pub(super) tasks: u64,
    /// The number, in the container's pid namespace, of the one with the greatest.
    pub(super) newest: u64,
}

/// Looks at the tasks of the cgroup and all below it. `total` is how many there are, if somebody counts them.
pub(super) fn tasks(proc: &Dir, own: &Own, total: Option<u64>, buffers: &mut [Vec<u8>; 2]) -> Tasks {
    let file = if own.version == Version::V1 { "tasks" } else { "cgroup.threads" };
    // One of every so many, so that old and new ones are looked at alike.
    let step = total.unwrap_or(0).div_ceil(LOOKS).max(1);
    let mut seen =
        Seen { proc, file, buffers, step, cgroups: CGROUPS, looked: 0, counted: 0, running: 0, blocked: 0, last: 0 };
    // What has gone meanwhile has no tasks.
    let _ = own.dir.listable().and_then(|top| seen.visit(&top, 0));
    let tasks = total.unwrap_or(seen.counted).max(seen.looked);
    let newest = seen.number(seen.last).unwrap_or(0);
    let whole = |n: u64| n.saturating_mul(tasks).checked_div(seen.looked).unwrap_or(0);
    Tasks { running: whole(seen.running), blocked: whole(seen.blocked), tasks, newest }
}

struct Seen<'a> {
    proc: &'a Dir,
    file: &'static str,
    buffers: &'a mut [Vec<u8>; 2],
    cgroups: usize,
    step: u64,
    looked: u64,
    counted: u64,
    running: u64,
    blocked: u64,
    last: u32,
}

impl Seen<'_> {
    fn visit(&mut self, dir: &Dir, depth: usize) -> Result<()> {
        self.cgroups = self.cgroups.saturating_sub(1);
        let [list, buffer] = &mut *self.buffers;
        let _ = dir.lines(self.file, list, |line| {
            let Some(tid) = std::str::from_utf8(line).ok().and_then(|l| l.parse().ok()).filter(|t| *t != 0) else {
                return true;
            };
            self.last = self.last.max(tid);
            if self.looked < LOOKS && self.counted % self.step == 0 {
                self.looked += 1;
                match self.proc.process(tid).and_then(|dir| Ok(state(dir.text("stat", buffer)?))) {
                    Ok(Some('R')) => self.running += 1,
                    Ok(Some('D')) => self.blocked += 1,
                    _ => {}
                }
            }
            self.counted += 1;
            self.counted < COUNTED
        });
        // The kernel counts a cgroup's children as links to it.
        if depth == DEPTH || self.cgroups == 0 || fstat(dir)?.st_nlink <= 2 {
            return Ok(());
        }
        for name in children(dir, self.cgroups)? {
            if self.cgroups == 0 {
                break;
            }
            if let Ok(below) = dir.directory(&name) {
                self.visit(&below, depth + 1)?;
            }
        }
        Ok(())
    }

    /// The number of a task in the container's pid namespace, which is the first below that of our procfs.
    fn number(&mut self, tid: u32) -> Option<u64> {
        let [buffer, _] = &mut *self.buffers;
        namespaced(self.proc.process(tid).ok()?.text("status", buffer).ok()?)
    }
}

fn children(dir: &Dir, most: usize) -> Result<Vec<CString>> {
    let dir = dir.listable()?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(&dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next().filter(|_| names.len() < most) {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// The state in `/proc/PID/stat`, after the name, which may have anything in it.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

fn namespaced(status: &str) -> Option<u64> {
    let mut numbers = status.lines().find_map(|l| l.strip_prefix("NSpid:"))?.split_whitespace();
    let outside = numbers.next()?;
    numbers.next().unwrap_or(outside).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn states_and_numbers() {
        assert_eq!(state("12 (sleep) S 1 2"), Some('S'));
        assert_eq!(state("12 (a) R) (b) D 1 2"), Some('D'));
        assert_eq!(state("12 (sleep"), None);
        assert_eq!(namespaced("Name:\tx\nNSpid:\t512\t7\t1\n"), Some(7));
        assert_eq!(namespaced("NSpid:\t512\n"), Some(512));
        assert_eq!(namespaced("NSpid:\n"), None);
        assert_eq!(namespaced(""), None);
    }

    #[test]
    fn a_tree_of_files() {
        // As a procfs and a cgroup look: this process as a task, many that are gone, and one in a cgroup below.
        let dir = tempfile::tempdir().unwrap();
        let (proc, top) = (dir.path().join("proc"), dir.path().join("c"));
        for (pid, state) in [(1, "R"), (2, "D"), (3, "S")] {
            std::fs::create_dir_all(proc.join(pid.to_string())).unwrap();
            std::fs::write(proc.join(format!("{pid}/stat")), format!("{pid} (x) {state} 1")).unwrap();
            std::fs::write(proc.join(format!("{pid}/status")), format!("NSpid:\t{pid}\t{}\n", pid * 10)).unwrap();
        }
        std::fs::create_dir_all(top.join("in")).unwrap();
        std::fs::write(top.join("tasks"), "1\n2\nx\n0\n").unwrap();
        std::fs::write(top.join("in/tasks"), "3\n").unwrap();
        let open = |p: &std::path::Path| Dir::new(std::fs::File::open(p).unwrap().into());
        let own = Own { dir: open(&top), version: Version::V1, controllers: vec![], path: vec![] };
        let mut buffers = [Vec::new(), Vec::new()];
        // A tmpfs or the like may not count links as cgroupfs does.
        let linked = std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata(&top).unwrap()) > 2;
        let seen = tasks(&open(&proc), &own, None, &mut buffers);
        let (count, newest) = if linked { (3, 30) } else { (2, 20) };
        assert_eq!(seen, Tasks { running: 1, blocked: 1, tasks: count, newest });
        // One of three runs: ten of thirty.
        if linked {
            assert_eq!(tasks(&open(&proc), &own, Some(30), &mut buffers).running, 10);
        }
    }

    #[test]
    fn many_are_sampled() {
        let dir = tempfile::tempdir().unwrap();
        let open = |p: &std::path::Path| Dir::new(std::fs::File::open(p).unwrap().into());
        std::fs::create_dir(dir.path().join("c")).unwrap();
        // The first half sleeps, the second half runs.
        let tids: Vec<u32> = (1..=1000).collect();
        let list: Vec<String> = tids.iter().map(ToString::to_string).collect();
        std::fs::write(dir.path().join("c/tasks"), list.join("\n")).unwrap();
        for tid in tids {
            std::fs::create_dir(dir.path().join(tid.to_string())).unwrap();
            let state = if tid <= 500 { 'S' } else { 'R' };
            std::fs::write(dir.path().join(format!("{tid}/stat")), format!("{tid} (x) {state} 1")).unwrap();
        }
        let own = Own { dir: open(&dir.path().join("c")), version: Version::V1, controllers: vec![], path: vec![] };
        let seen = tasks(&open(dir.path()), &own, Some(1000), &mut [Vec::new(), Vec::new()]);
        assert_eq!((seen.tasks, seen.running, seen.blocked), (1000, 500, 0));
    }

    proptest! {
        #[test]
        fn anything_is_read(text in "\\PC{0,20}(NSpid:)?[\t 0-9]{0,20}\\)? ?") {
            let _ = (state(&text), namespaced(&text));
        }
    }
}
