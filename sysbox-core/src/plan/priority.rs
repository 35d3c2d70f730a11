//! How the kernel schedules a process, and which system it is told it runs on.

use super::{Affinity, Scheduling};
use crate::error::{Error, Kind, Result};
use oci_spec::runtime as oci;
use oci_spec::runtime::LinuxSchedulerPolicy as Policy;

/// `process.scheduler`, for sched_setattr(2).
pub(super) fn scheduling(s: Option<&oci::Scheduler>) -> Result<Option<Scheduling>> {
    let Some(s) = s else { return Ok(None) };
    let unsupported = |what: &str| {
        Err(Error::new(Kind::Unsupported, format!("process.scheduler: {what} is not supported")).hint("remove it"))
    };
    let (policy, realtime) = match s.policy() {
        Policy::SchedOther => (libc::SCHED_OTHER, false),
        Policy::SchedBatch => (libc::SCHED_BATCH, false),
        Policy::SchedIdle => (libc::SCHED_IDLE, false),
        Policy::SchedFifo => (libc::SCHED_FIFO, true),
        Policy::SchedRr => (libc::SCHED_RR, true),
        // A process under it may not fork, as what starts the program must; the kernel knows no SCHED_ISO.
        Policy::SchedDeadline => return unsupported("SCHED_DEADLINE"),
        Policy::SchedIso => return unsupported("SCHED_ISO"),
    };
    if s.flags().as_ref().is_some_and(|f| !f.is_empty()) {
        return unsupported("a flag");
    }
    let (nice, priority) = (s.nice().unwrap_or(0), s.priority().unwrap_or(0));
    if !(-20..=19).contains(&nice) {
        return Err(Error::invalid(format!("process.scheduler.nice {nice} is not between -20 and 19")));
    }
    if !(if realtime { 1..=99 } else { 0..=0 }).contains(&priority) {
        let range = if realtime { "between 1 and 99" } else { "0, as this policy has it" };
        return Err(Error::invalid(format!("process.scheduler.priority {priority} is not {range}")));
    }
    Ok(Some(Scheduling { policy: policy as u32, nice, priority: priority as u32 }))
}

/// `process.ioPriority`, as ioprio_set(2) has it.
pub(super) fn io_priority(p: Option<&oci::LinuxIOPriority>) -> Result<Option<i32>> {
    use oci::IOPriorityClass as Class;
    const CLASS_SHIFT: i32 = 13;
    let Some(p) = p else { return Ok(None) };
    if !(0..=7).contains(&p.priority()) {
        return Err(Error::invalid(format!("process.ioPriority.priority {} is not between 0 and 7", p.priority())));
    }
    let class = match p.class() {
        Class::IoprioClassRt => 1,
        Class::IoprioClassBe => 2,
        Class::IoprioClassIdle => 3,
    };
    Ok(Some(class << CLASS_SHIFT | p.priority() as i32))
}

/// `linux.personality`, as personality(2) has it.
pub(super) fn personality(p: Option<&oci::LinuxPersonality>) -> Result<Option<u32>> {
    let Some(p) = p else { return Ok(None) };
    if p.flags().as_ref().is_some_and(|f| !f.is_empty()) {
        return Err(Error::new(Kind::Unsupported, "linux.personality.flags is not supported").hint("remove it"));
    }
    Ok(Some(match p.domain() {
        oci::LinuxPersonalityDomain::PerLinux => 0,
        oci::LinuxPersonalityDomain::PerLinux32 => 8,
    }))
}

/// `process.execCPUAffinity`, which is about exec only.
pub(super) fn affinity(a: Option<&oci::ExecCPUAffinity>) -> Result<Affinity> {
    let Some(a) = a else { return Ok(Affinity::default()) };
    let list = |text: &Option<String>, field: &str| -> Result<Vec<usize>> {
        let text = text.as_deref().unwrap_or_default();
        cpus(text).ok_or_else(|| Error::invalid(format!("process.execCPUAffinity.{field} {text:?}: no list of CPUs")))
    };
    Ok(Affinity { initial: list(a.initial(), "initial")?, last: list(a.cpu_affinity_final(), "final")? })
}

/// `0-3,7`. No CPU has a number of 1024 or more here, as in glibc's cpu_set_t.
fn cpus(text: &str) -> Option<Vec<usize>> {
    let mut out = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= 1024 {
            return None;
        }
        out.extend(first..=last);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, Value};

    #[test]
    fn schedulers() {
        let of = |v: Value| scheduling(Some(&from_value(v).unwrap()));
        let set = |policy, nice, priority| Some(Scheduling { policy, nice, priority });
        assert_eq!(scheduling(None).unwrap(), None);
        assert_eq!(of(json!({ "policy": "SCHED_BATCH", "nice": 5 })).unwrap(), set(3, 5, 0));
        assert_eq!(of(json!({ "policy": "SCHED_FIFO", "priority": 99 })).unwrap(), set(1, 0, 99));
        for (v, word) in [
            (json!({ "policy": "SCHED_OTHER", "nice": 20 }), "nice"),
            (json!({ "policy": "SCHED_OTHER", "nice": -21 }), "nice"),
            (json!({ "policy": "SCHED_OTHER", "priority": 1 }), "priority"),
            (json!({ "policy": "SCHED_RR" }), "priority"),
            (json!({ "policy": "SCHED_RR", "priority": 100 }), "priority"),
            (json!({ "policy": "SCHED_DEADLINE" }), "SCHED_DEADLINE"),
            (json!({ "policy": "SCHED_IDLE", "flags": ["SCHED_RESET_ON_FORK"] }), "flag"),
        ] {
            assert!(of(v.clone()).unwrap_err().to_string().contains(word), "{v}");
        }
    }

    #[test]
    fn io_priorities_and_personalities() {
        let io = |v: Value| io_priority(Some(&from_value(v).unwrap()));
        assert_eq!(io(json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 })).unwrap(), Some(3 << 13));
        assert_eq!(io(json!({ "class": "IOPRIO_CLASS_BE", "priority": 7 })).unwrap(), Some(2 << 13 | 7));
        assert!(io(json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 })).is_err());
        let of = |v: Value| personality(Some(&from_value(v).unwrap()));
        assert_eq!(of(json!({ "domain": "LINUX32" })).unwrap(), Some(8));
        assert_eq!(of(json!({ "domain": "LINUX", "flags": [] })).unwrap(), Some(0));
        assert_eq!(of(json!({ "domain": "LINUX", "flags": ["X"] })).unwrap_err().kind(), Kind::Unsupported);
    }

    #[test]
    fn lists_of_cpus() {
        assert_eq!(cpus("0-2,7, 9"), Some(vec![0, 1, 2, 7, 9]));
        assert_eq!(cpus(""), Some(vec![]));
        for bad in ["x", "2-1", "1024", "0-", "-1", "0-99999999999"] {
            assert_eq!(cpus(bad), None, "{bad}");
        }
    }
}
