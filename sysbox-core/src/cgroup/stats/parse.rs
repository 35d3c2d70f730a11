//! The texts of the kernel's statistics files. What makes no sense reads as not there.

use super::DeviceIo;
use std::collections::BTreeMap;

/// v1 has no word for "no limit": the greatest number of whole pages, of up to 64 KiB.
const UNLIMITED: u64 = i64::MAX as u64 & !0xffff;

/// A file that holds one number.
pub(crate) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A file that holds a limit; `None` is no limit.
pub(crate) fn limit(text: &str) -> Option<u64> {
    number(text).filter(|n| *n < UNLIMITED)
}

/// Lines like `key 1`.
pub(crate) fn pair_lines(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, number(value)?))
    })
}

/// The same, kept.
pub(crate) fn pairs(text: &str) -> BTreeMap<String, u64> {
    pair_lines(text).map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A line of numbers, one for each CPU: all or none, since their places count.
pub(crate) fn list(text: &str) -> Vec<u64> {
    text.split_whitespace().map(number).collect::<Option<_>>().unwrap_or_default()
}

/// `cpuacct.stat` and the like count in `USER_HZ`, which is 100 on every architecture we run on.
pub(crate) fn ticks(n: u64) -> u64 {
    n.saturating_mul(1_000_000_000 / 100)
}

/// v2 counts microseconds.
pub(crate) fn micros(n: u64) -> u64 {
    n.saturating_mul(1000)
}

/// Numbers by device.
pub(crate) type Devices = BTreeMap<(u32, u32), DeviceIo>;

fn device<'a>(all: &'a mut Devices, name: &str) -> Option<&'a mut DeviceIo> {
    let (major, minor) = name.split_once(':')?;
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    Some(all.entry((major, minor)).or_insert(DeviceIo { major, minor, ..DeviceIo::default() }))
}

/// What a v1 file counts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Counted {
    Bytes,
    Operations,
}

/// Lines like `8:0 Read 4096`, and a sum without a device at the end. `Sync` and `Async` count the same again.
pub(crate) fn v1_io(all: &mut Devices, text: &str, counted: Counted) {
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, operation, value] = words[..] else { continue };
        let Some(value) = number(value) else { continue };
        let Some(io) = device(all, name) else { continue };
        let field = match (operation, counted) {
            ("Read", Counted::Bytes) => &mut io.read_bytes,
            ("Write", Counted::Bytes) => &mut io.written_bytes,
            ("Discard", Counted::Bytes) => &mut io.discarded_bytes,
            ("Read", Counted::Operations) => &mut io.reads,
            ("Write", Counted::Operations) => &mut io.writes,
            ("Discard", Counted::Operations) => &mut io.discards,
            _ => continue,
        };
        *field = value;
    }
}

/// `io.stat`: lines like `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
pub(crate) fn v2_io(text: &str) -> Devices {
    let mut all = Devices::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(io) = words.next().and_then(|name| device(&mut all, name)) else { continue };
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            let field = match key {
                "rbytes" => &mut io.read_bytes,
                "wbytes" => &mut io.written_bytes,
                "dbytes" => &mut io.discarded_bytes,
                "rios" => &mut io.reads,
                "wios" => &mut io.writes,
                "dios" => &mut io.discards,
                _ => continue,
            };
            *field = number(value).unwrap_or(*field);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_and_limits() {
        assert_eq!(number("42\n"), Some(42));
        for bad in ["", "\n", "max", "-1", "4 2", "0x1", "18446744073709551616", "9\u{0}"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
        assert_eq!(limit("4096\n"), Some(4096));
        for none in ["max\n", "9223372036854771712\n", "9223372036854710272", "18446744073709551615", "", "x"] {
            assert_eq!(limit(none), None, "{none:?}");
        }
        assert_eq!(ticks(u64::MAX), u64::MAX);
        assert_eq!((ticks(3), micros(3)), (30_000_000, 3000));
    }

    #[test]
    fn pairs_skip_what_makes_no_sense() {
        let text = "cache 4096\nanon\n 7\nrss -1\nhierarchical_memory_limit 9223372036854771712\nx 1 2\n\n";
        let all = pairs(text);
        assert_eq!(all.get("cache"), Some(&4096));
        assert_eq!(all.get("hierarchical_memory_limit"), Some(&9_223_372_036_854_771_712));
        assert_eq!(all.len(), 3, "{all:?}");
        assert_eq!(list("1 2 3 \n"), [1, 2, 3]);
        assert_eq!(list("1 x 3\n"), [0; 0]);
        assert_eq!(list(""), [0; 0]);
    }

    #[test]
    fn io_of_v1() {
        let mut all = Devices::new();
        let bytes = "8:0 Read 10\n8:0 Write 20\n8:0 Sync 30\n8:0 Discard 5\n8:0 Total 35\n259:1 Read 1\nTotal 36\n";
        v1_io(&mut all, bytes, Counted::Bytes);
        v1_io(&mut all, "8:0 Read 1\n8:0 Write 2\n8:0 Discard 3\nTotal 6\n", Counted::Operations);
        let first = &all[&(8, 0)];
        assert_eq!((first.read_bytes, first.written_bytes, first.discarded_bytes), (10, 20, 5));
        assert_eq!((first.reads, first.writes, first.discards), (1, 2, 3));
        assert_eq!(all[&(259, 1)].read_bytes, 1);
        let mut none = Devices::new();
        v1_io(
            &mut none,
            "Total 0\n8: Read 1\n:0 Read 1\n8:0 Read\n8:0 Read x\n8:0 Read 1 2\n-8:0 Read 1\n",
            Counted::Bytes,
        );
        assert_eq!(none, Devices::new());
    }

    #[test]
    fn io_of_v2() {
        let text = "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6 cost.usage=7\n8:0\nx rbytes=1\n7:1 rbytes=max wios=\n";
        let all = v2_io(text);
        let one = DeviceIo {
            major: 8,
            minor: 16,
            read_bytes: 1,
            written_bytes: 2,
            reads: 3,
            writes: 4,
            discarded_bytes: 5,
            discards: 6,
        };
        assert_eq!(all[&(8, 16)], one);
        assert_eq!(all[&(7, 1)], DeviceIo { major: 7, minor: 1, ..DeviceIo::default() });
        assert_eq!(all.len(), 3);
    }

    proptest! {
        #[test]
        fn never_panics(text in "([0-9:]{0,22}[ =]?(Read|rbytes=|max)?[ ]?[-0-9]{0,22}\\PC?\n?){0,4}") {
            let _ = (number(&text), limit(&text), pairs(&text), list(&text), v2_io(&text));
            let mut all = Devices::new();
            v1_io(&mut all, &text, Counted::Bytes);
            v1_io(&mut all, &text, Counted::Operations);
            prop_assert!(all.len() <= text.lines().count());
        }
    }
}
