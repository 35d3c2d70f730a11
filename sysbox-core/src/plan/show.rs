//! A plan in words.

use super::{DeviceKind, Mount, Plan, TimeOffsets, What};
use crate::procfs::Kind;
use std::fmt;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "container   {}", self.id)?;
        writeln!(
            f,
            "namespaces  user pid network uts (at birth), ipc cgroup{} mount (by init)",
            match self.time {
                TimeOffsets::Host => "",
                _ => " time",
            }
        )?;
        for (name, map) in [("uid", &self.maps.uid), ("gid", &self.maps.gid)] {
            for r in map.ranges() {
                writeln!(f, "{name} map     {} inside is {} on the host, {} of them", r.inside, r.outside, r.count)?;
            }
        }
        for node in &self.cgroup.paths().nodes {
            writeln!(f, "cgroup      {}", node.dir.display())?;
        }
        if let Some(unit) = &self.cgroup.unit {
            writeln!(f, "unit        {} in {}, by systemd", unit.name, unit.slice)?;
            for p in unit.devices.iter().chain(&unit.limits) {
                writeln!(f, "  property  {} = {}", p.name, p.value[1..].join(" "))?;
            }
        }
        for w in &self.cgroup.writes {
            writeln!(f, "  limit     {} = {}", w.file, w.value)?;
        }
        let access = match (self.root.idmap, self.root.readonly) {
            (true, true) => "ID-mapped, read-only",
            (true, false) => "ID-mapped",
            (false, true) => "belongs to the container's IDs already, read-only",
            (false, false) => "belongs to the container's IDs already",
        };
        writeln!(f, "root        {} ({access})", self.root.path.display())?;
        writeln!(f, "locked mounts, which nothing inside can unmount or make writable:")?;
        self.locked.iter().try_for_each(|m| line(f, m))?;
        writeln!(f, "attached by init, which root inside may remove:")?;
        self.attached.iter().try_for_each(|m| line(f, m))?;
        let count = |f: fn(&Kind) -> bool| self.nodes.iter().filter(|n| f(&n.kind)).count();
        let (live, stored) = (count(|k| matches!(k, Kind::Live(_))), count(|k| matches!(k, Kind::Stored { .. })));
        let rest = self.nodes.len() - live - stored;
        writeln!(f, "nodes       {live} live; {stored} stored, where the kernel refuses to be written; {rest} empty")?;
        for (path, value) in &self.sysctls {
            writeln!(f, "sysctl      {} = {value}", path.display())?;
        }
        let p = &self.process;
        writeln!(f, "process     {:?} as {}:{} in {}", p.args, p.uid, p.gid, p.cwd.display())?;
        if let Some(s) = &p.seccomp {
            writeln!(f, "seccomp     {} instructions", s.program.len())?;
            if let Some(l) = &s.listener {
                writeln!(f, "  listener  at {} decides about some calls", l.path.display())?;
            }
        }
        self.notes.iter().try_for_each(|n| writeln!(f, "note        {n}"))
    }
}

fn line(f: &mut fmt::Formatter<'_>, m: &Mount) -> fmt::Result {
    write!(f, "  {:<24} ", m.target.display())?;
    match &m.what {
        What::Bind { source, recursive, idmap, .. } => {
            let (r, i) = (if *recursive { "rbind" } else { "bind" }, if *idmap { ", ID-mapped" } else { "" });
            write!(f, "{r} of {}{i}", source.display())?;
        }
        What::InnerData => write!(f, "the same directory of the root's upper layer")?,
        What::Spare => write!(f, "spare proc and sysfs, covered by the next")?,
        What::Dev { nodes, .. } => {
            write!(f, "tmpfs with")?;
            for n in nodes.iter().filter(|n| n.kind != DeviceKind::File) {
                write!(f, " {}", n.path.display())?;
            }
        }
        What::Proc => write!(f, "proc")?,
        What::Sysfs => write!(f, "sysfs")?,
        What::Fs { fstype, options, .. } => write!(f, "{fstype} {}", options.join(","))?,
        What::Cgroup { v1: None } => write!(f, "cgroup2")?,
        What::Cgroup { v1: Some(c) } => write!(f, "cgroup {c}")?,
        What::Mask => write!(f, "masked")?,
        What::ReadOnly => write!(f, "read-only")?,
    }
    let set = m.attrs.set | m.attrs.set_all;
    if !set.is_empty() {
        write!(f, " [{}]", set.iter_names().map(|(n, _)| n.to_lowercase()).collect::<Vec<_>>().join(" "))?;
    }
    match &m.why {
        Some(why) => writeln!(f, "  ({why})"),
        None => writeln!(f),
    }
}
