//! events: what a container uses, and that it runs out of memory, as lines of JSON in runc's format.

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use serde_json::{json, Map, Value};
use std::io::Write;
use std::time::{Duration, Instant};
use sysbox_core::cgroup::stats::{Cpu, DeviceIo, Memory, Stats, Usage};
use sysbox_core::error::SysResult;
use sysbox_core::{Error, Kind, Result, Runtime};

/// How often we ask whether the container has run out of memory.
const TICK: Duration = Duration::from_secs(1);

/// Units of Go's durations, in nanoseconds; of two that fit the longer one comes first.
const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// A positive duration as Go writes them: `5s`, `500ms`, `1m30s`, `1.5h`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration above zero like 5s, 500ms or 1m30s");
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(end);
        let (unit, size) = UNITS.iter().find(|(u, _)| tail.starts_with(u)).ok_or_else(bad)?;
        total += number.parse::<f64>().map_err(|_| bad())? * size;
        rest = &tail[unit.len()..];
    }
    // Go's are 64-bit numbers of nanoseconds.
    match total {
        t if (1.0..=i64::MAX as f64).contains(&t) => Ok(Duration::from_nanos(t as u64)),
        _ => Err(bad()),
    }
}

pub(crate) fn events(runtime: &Runtime, id: &str, interval: Duration, once: bool) -> Result<u8> {
    let container = runtime.open(id)?;
    if once {
        return line("stats", id, Some(data(&container.stats()?))).map(|_| 0);
    }
    let mut oom = container.watch_oom()?;
    let Some(init) = container.pidfd() else {
        return Err(Error::new(Kind::WrongState, format!("container {id} is not running")));
    };
    let mut due = Instant::now() + interval;
    loop {
        let pause = due.saturating_duration_since(Instant::now()).min(TICK);
        // Rounded up, or the last millisecond would be spent asking.
        let pause = PollTimeout::try_from(pause + Duration::from_millis(1)).unwrap_or(PollTimeout::ZERO);
        let ended = match poll(&mut [PollFd::new(init, PollFlags::POLLIN)], pause) {
            Err(nix::errno::Errno::EINTR) => continue,
            r => r.op("poll")? > 0,
        };
        // Also when it has ended: that may be why.
        if oom.as_mut().map_or(Ok(false), sysbox_core::cgroup::OomWatch::occurred)? && !line("oom", id, None)? {
            return Ok(0);
        }
        if ended {
            return Ok(0);
        }
        if Instant::now() >= due {
            due = Instant::now() + interval;
            match container.stats() {
                Ok(stats) if line("stats", id, Some(data(&stats)))? => {}
                Ok(_) => return Ok(0),
                // It ended just now, which the next look will tell.
                Err(e) if e.kind() == Kind::WrongState => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// `false` if nobody listens any more.
fn line(kind: &str, id: &str, data: Option<Value>) -> Result<bool> {
    // In one piece: several may write to the same pipe.
    let text = format!("{}\n", object([("type", Some(json!(kind))), ("id", Some(json!(id))), ("data", data)]));
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        r => r.op("write to standard output").map(|()| true),
    }
}

/// Without what is not known: Go's readers take that for zero.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    fields.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))).collect::<Map<_, _>>().into()
}

fn data(s: &Stats) -> Value {
    let pids = s.pids.map(|p| object([("current", Some(json!(p.current))), ("limit", p.limit.map(Value::from))]));
    let hugetlb = s.hugetlb.iter().map(|(size, h)| {
        let max = h.max.map(Value::from);
        (size.clone(), object([("usage", Some(json!(h.usage))), ("max", max), ("failcnt", Some(json!(h.failures)))]))
    });
    object([
        ("cpu", s.cpu.as_ref().map(cpu)),
        ("memory", s.memory.as_ref().map(memory)),
        ("pids", pids),
        ("blkio", s.io.as_deref().map(blkio)),
        ("hugetlb", Some(hugetlb.collect::<Map<_, _>>().into())),
    ])
}

fn cpu(c: &Cpu) -> Value {
    let percpu = (!c.percpu.is_empty()).then(|| json!(c.percpu));
    let usage = object([
        ("total", Some(json!(c.total))),
        ("percpu", percpu),
        ("kernel", Some(json!(c.kernel))),
        ("user", Some(json!(c.user))),
    ]);
    let throttling = c.throttling.map(|t| {
        json!({
            "periods": t.periods, "throttledPeriods": t.throttled_periods, "throttledTime": t.throttled_time,
        })
    });
    object([("usage", Some(usage)), ("throttling", throttling)])
}

fn memory(m: &Memory) -> Value {
    object([
        ("cache", m.cache.map(Value::from)),
        ("usage", usage(&m.memory)),
        ("swap", usage(&m.with_swap)),
        ("kernel", usage(&m.kernel)),
        ("kernelTCP", usage(&m.sockets)),
        ("raw", Some(json!(m.raw))),
    ])
}

/// No limit is the greatest number there is.
fn usage(u: &Usage) -> Option<Value> {
    u.usage?;
    Some(object([
        ("limit", Some(u.limit.unwrap_or(u64::MAX).into())),
        ("usage", u.usage.map(Value::from)),
        ("max", u.max.map(Value::from)),
        ("failcnt", Some(u.failures.unwrap_or(0).into())),
    ]))
}

fn blkio(devices: &[DeviceIo]) -> Value {
    let table = |numbers: fn(&DeviceIo) -> [u64; 3]| {
        let entries = devices.iter().flat_map(|d| {
            let [read, write, discard] = numbers(d);
            let total = read.saturating_add(write).saturating_add(discard);
            let all = [("Read", read), ("Write", write), ("Discard", discard), ("Total", total)];
            all.map(|(op, value)| json!({ "major": d.major, "minor": d.minor, "op": op, "value": value }))
        });
        Value::from(entries.collect::<Vec<_>>())
    };
    json!({
        "ioServiceBytesRecursive": table(|d| [d.read_bytes, d.written_bytes, d.discarded_bytes]),
        "ioServicedRecursive": table(|d| [d.reads, d.writes, d.discards]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go() {
        for (text, millis) in
            [("5s", 5000), ("500ms", 500), ("1m30s", 90_000), ("1.5h", 5_400_000), ("2000000ns", 2), (".5s", 500)]
        {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for bad in ["", "5", "s", "0s", "-1s", "5 s", "1..5s", "1d", "5sx", "99999999999h", "0.1ns", "é", "1é"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        assert_eq!(data(&Stats::default()), json!({ "hugetlb": {} }));
        let mut memory = Memory::default();
        memory.memory.usage = Some(7);
        memory.raw.insert("cache".into(), 3);
        let mut io = DeviceIo::default();
        (io.major, io.read_bytes, io.written_bytes) = (8, 1, u64::MAX);
        let mut stats = Stats::default();
        (stats.memory, stats.io, stats.cpu) = (Some(memory), Some(vec![io]), Some(Cpu::default()));
        let d = data(&stats);
        assert_eq!(
            d["memory"],
            json!({ "usage": { "limit": u64::MAX, "usage": 7, "failcnt": 0 }, "raw": { "cache": 3 } })
        );
        assert_eq!(d["cpu"], json!({ "usage": { "total": 0, "kernel": 0, "user": 0 } }));
        let total = json!({ "major": 8, "minor": 0, "op": "Total", "value": u64::MAX });
        assert_eq!(d["blkio"]["ioServiceBytesRecursive"][3], total);
    }
}
