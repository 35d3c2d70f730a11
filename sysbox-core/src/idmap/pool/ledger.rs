//! Who has which range: the content of the pool's file.
//!
//! ```text
//! sysbox-subid 1
//! UID GID COUNT DEV INO PATH        first user ID, first group ID, number of each; the owner, %XX for odd bytes of its path
//! end 1                             number of lines between: a file that was cut short is noticed
//! ```

use super::super::span::{union, Span};
use super::super::{number, IdMap, Maps};
use super::Owner;
use crate::error::Result;
use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

const HEADER: &str = "sysbox-subid 1";

/// One allocation. Both ranges have one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) owner: Owner,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) count: u32,
}

impl Record {
    pub(super) fn maps(&self) -> Result<Maps> {
        Ok(Maps { uid: IdMap::single(self.uid, self.count)?, gid: IdMap::single(self.gid, self.count)? })
    }
}

/// All allocations, in the order in which they were made. No two overlap, no two have the same owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ledger(Vec<Record>);

impl Ledger {
    pub(super) fn records(&self) -> &[Record] {
        &self.0
    }

    pub(super) fn find(&self, owner: &Owner) -> Option<&Record> {
        // The number first: comparing paths is slow.
        self.0.iter().find(|r| r.owner.ino == owner.ino && r.owner == *owner)
    }

    pub(super) fn push(&mut self, record: Record) {
        self.0.push(record);
    }

    /// Says whether there was something to remove.
    pub(super) fn remove(&mut self, owner: &Owner) -> bool {
        let before = self.0.len();
        self.0.retain(|r| r.owner != *owner);
        self.0.len() != before
    }

    /// Keeps the records for which the item of `mask` at the same place is true.
    pub(super) fn keep(&mut self, mask: &[bool]) {
        let mut mask = mask.iter();
        self.0.retain(|_| mask.next() != Some(&false));
    }

    pub(super) fn uids(&self) -> Vec<Span> {
        union(self.0.iter().map(|r| Span::new(r.uid, r.count)).collect())
    }

    pub(super) fn gids(&self) -> Vec<Span> {
        union(self.0.iter().map(|r| Span::new(r.gid, r.count)).collect())
    }

    pub(super) fn render(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for Record { owner, uid, gid, count } in &self.0 {
            // Writing to a string cannot fail.
            let _ = write!(text, "{uid} {gid} {count} {} {} ", owner.dev, owner.ino);
            escape(&owner.state_dir, &mut text);
            text.push('\n');
        }
        let _ = writeln!(text, "end {}", self.0.len());
        text
    }

    /// Reads what [`Ledger::render`] wrote; takes nothing else, since a guess could give IDs away twice.
    pub(super) fn parse(bytes: &[u8]) -> Result<Ledger, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "bytes that are not text")?;
        let text = text.strip_suffix('\n').ok_or("no complete last line")?;
        let mut lines: Vec<&str> = text.split('\n').collect();
        let (last, first) = (lines.pop().unwrap_or_default(), lines.first().copied().unwrap_or_default());
        if first != HEADER {
            return Err(format!("{first:?} instead of {HEADER:?}"));
        }
        let records = lines.iter().zip(1..).skip(1);
        let read = |(line, n): (&&str, usize)| parse_record(line).ok_or_else(|| format!("a bad line {n} ({line:?})"));
        let ledger = Ledger(records.map(read).collect::<Result<_, _>>()?);
        if last != format!("end {}", ledger.0.len()) {
            return Err(format!("{last:?} at the end of {} entries", ledger.0.len()));
        }
        ledger.check()?;
        Ok(ledger)
    }

    fn check(&self) -> Result<(), String> {
        let mut owners: Vec<_> = self.0.iter().map(|r| &r.owner).collect();
        owners.sort_unstable_by_key(|o| (o.ino, o.dev, o.state_dir.as_os_str()));
        if let Some(twice) = owners.windows(2).find(|w| w[0] == w[1]) {
            return Err(format!("two ranges for {}", twice[0].state_dir.display()));
        }
        // The union joins what overlaps, and records are never empty.
        if self.uids().len() != self.0.len() || self.gids().len() != self.0.len() {
            return Err("ranges that overlap".into());
        }
        Ok(())
    }
}

fn parse_record(line: &str) -> Option<Record> {
    let mut fields = line.splitn(6, ' ');
    let (uid, gid, count) = (number(fields.next()?)?, number(fields.next()?)?, number(fields.next()?)?);
    let (dev, ino) = (number(fields.next()?)?, number(fields.next()?)?);
    let state_dir = unescape(fields.next()?)?.into();
    let record = Record { owner: Owner { state_dir, dev, ino }, uid, gid, count };
    // Never handed out, so never taken back: the host's root, and what makes no map.
    (uid != 0 && gid != 0 && record.maps().is_ok()).then_some(record)
}

pub(super) fn escape(path: &Path, text: &mut String) {
    for &b in path.as_os_str().as_bytes() {
        if b.is_ascii_graphic() && b != b'%' {
            text.push(char::from(b));
        } else {
            let _ = write!(text, "%{b:02X}");
        }
    }
}

pub(super) fn unescape(field: &str) -> Option<OsString> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.bytes();
    while let Some(b) = rest.next() {
        match b {
            b'%' => {
                let digit = |c: u8| char::from(c).to_digit(16);
                let value = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
                bytes.push(u8::try_from(value).ok()?);
            }
            b if b.is_ascii_graphic() => bytes.push(b),
            _ => return None,
        }
    }
    (!bytes.is_empty()).then(|| OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(n: u32, path: Vec<u8>) -> Record {
        let owner = Owner { state_dir: OsString::from_vec(path).into(), dev: u64::MAX, ino: u64::from(n) };
        Record { owner, uid: 1 + 10 * n, gid: 5 + 10 * n, count: 10 }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(paths in prop::collection::vec(prop::collection::vec(1u8.., 1..40), 0..20)) {
            let ledger = Ledger(paths.into_iter().zip(0..).map(|(p, n)| record(n, p)).collect());
            prop_assert_eq!(Ledger::parse(ledger.render().as_bytes()), Ok(ledger));
        }

        #[test]
        fn a_damaged_file_is_an_error_and_never_a_panic(cut in 0usize..200, junk in prop::collection::vec(any::<u8>(), 0..60)) {
            let text = Ledger(vec![record(1, b"/run/a b".to_vec()), record(2, b"/run/c".to_vec())]).render();
            let cut = cut.min(text.len());
            if cut < text.len() {
                prop_assert!(Ledger::parse(&text.as_bytes()[..cut]).is_err());
            }
            let _ = Ledger::parse(&[&text.as_bytes()[..cut], &junk].concat());
            prop_assert!(Ledger::parse(&junk).is_err());
        }
    }

    #[test]
    fn contradictions_are_errors() {
        let one = "100 100 10 1 1 /a";
        let good = format!("{HEADER}\n{one}\n110 110 10 1 2 /a\nend 2\n");
        assert!(Ledger::parse(good.as_bytes()).is_ok());
        for second in [
            "109 200 10 1 2 /b",
            "200 109 10 1 2 /b",
            "100 100 10 1 2 /b",
            "200 200 10 1 1 /a",
            "0 200 10 1 2 /b",
            "200 0 10 1 2 /b",
            "200 200 0 1 2 /b",
            "4294967290 200 6 1 2 /b",
            "200 200 10 1 2 ",
            "200 200 10 1 2 /b c",
            "200 200 10 1 2 %",
            "200 200 10 1 2 %G0",
            "200 200 +10 1 2 /b",
            "200 200 10 1 2",
            "",
        ] {
            let text = format!("{HEADER}\n{one}\n{second}\nend 2\n");
            assert!(Ledger::parse(text.as_bytes()).is_err(), "{second:?}");
        }
        assert!(Ledger::parse(b"sysbox-subid 2\nend 0\n").is_err());
        assert!(Ledger::parse(b"").is_err());
        assert!(Ledger::parse(b"end 0\n").is_err());
    }
}
