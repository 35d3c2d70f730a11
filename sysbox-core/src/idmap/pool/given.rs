//! Maps that the pool has not chosen, and who has them: the content of a file of its own.
//!
//! ```text
//! sysbox-subid-given 1
//! MAP MAP DEV INO PATH              of users and of groups, INSIDE:OUTSIDE:COUNT,...; the owner as among the ranges
//! end 1                             number of lines between
//! ```

use super::super::span::{union, Span};
use super::super::{number, IdMap, Maps, Range};
use super::ledger::{escape, unescape};
use super::Owner;
use std::fmt::Write;

const HEADER: &str = "sysbox-subid-given 1";

/// All of them. They may overlap each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Given(pub(super) Vec<(Owner, Maps)>);

impl Given {
    pub(super) fn find(&self, owner: &Owner) -> Option<&Maps> {
        self.0.iter().find(|(o, _)| o == owner).map(|(_, maps)| maps)
    }

    /// Says whether there was something to remove.
    pub(super) fn remove(&mut self, owner: &Owner) -> bool {
        let before = self.0.len();
        self.0.retain(|(o, _)| o != owner);
        self.0.len() != before
    }

    pub(super) fn uids(&self) -> Vec<Span> {
        union(self.0.iter().flat_map(|(_, m)| spans(&m.uid)).collect())
    }

    pub(super) fn gids(&self) -> Vec<Span> {
        union(self.0.iter().flat_map(|(_, m)| spans(&m.gid)).collect())
    }

    pub(super) fn render(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for (owner, maps) in &self.0 {
            // Writing to a string cannot fail.
            let _ = write!(text, "{} {} {} {} ", render_map(&maps.uid), render_map(&maps.gid), owner.dev, owner.ino);
            escape(&owner.state_dir, &mut text);
            text.push('\n');
        }
        let _ = writeln!(text, "end {}", self.0.len());
        text
    }

    /// Reads what [`Given::render`] wrote, and nothing else.
    pub(super) fn parse(bytes: &[u8]) -> Result<Given, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "bytes that are not text")?;
        let text = text.strip_suffix('\n').ok_or("no complete last line")?;
        let mut lines: Vec<&str> = text.split('\n').collect();
        let (last, first) = (lines.pop().unwrap_or_default(), lines.first().copied().unwrap_or_default());
        if first != HEADER {
            return Err(format!("{first:?} instead of {HEADER:?}"));
        }
        let read = |line: &&str| parse_line(line).ok_or_else(|| format!("a bad line ({line:?})"));
        let given = Given(lines.iter().skip(1).map(read).collect::<Result<_, _>>()?);
        if last != format!("end {}", given.0.len()) {
            return Err(format!("{last:?} at the end of {} entries", given.0.len()));
        }
        Ok(given)
    }
}

pub(super) fn spans(map: &IdMap) -> Vec<Span> {
    map.ranges().iter().map(Range::span_outside).collect()
}

fn parse_line(line: &str) -> Option<(Owner, Maps)> {
    let mut fields = line.splitn(5, ' ');
    let maps = Maps { uid: parse_map(fields.next()?)?, gid: parse_map(fields.next()?)? };
    let (dev, ino) = (number(fields.next()?)?, number(fields.next()?)?);
    let state_dir = unescape(fields.next()?)?.into();
    Some((Owner { state_dir, dev, ino }, maps))
}

fn render_map(map: &IdMap) -> String {
    let ranges = map.ranges().iter().map(|r| format!("{}:{}:{}", r.inside, r.outside, r.count));
    ranges.collect::<Vec<_>>().join(",")
}

fn parse_map(field: &str) -> Option<IdMap> {
    let range = |text: &str| {
        let mut numbers = text.splitn(3, ':').map(number);
        let (inside, outside, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(Range { inside, outside, count })
    };
    IdMap::new(field.split(',').map(range).collect::<Option<_>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    fn entry(n: u32, path: Vec<u8>) -> (Owner, Maps) {
        let map =
            |from| IdMap::new([0, 5].map(|i| Range { inside: i, outside: from + 2 * i, count: 2 }).into()).unwrap();
        let owner = Owner { state_dir: OsString::from_vec(path).into(), dev: u64::MAX, ino: u64::from(n) };
        (owner, Maps { uid: map(1 << 30), gid: map(100 + n) })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(paths in prop::collection::vec(prop::collection::vec(1u8.., 1..40), 0..20)) {
            let given = Given(paths.into_iter().zip(0..).map(|(p, n)| entry(n, p)).collect());
            prop_assert_eq!(Given::parse(given.render().as_bytes()), Ok(given));
        }

        #[test]
        fn a_damaged_file_is_an_error_and_never_a_panic(cut in 0usize..200, junk in prop::collection::vec(any::<u8>(), 0..60)) {
            let text = Given(vec![entry(1, b"/run/a b".to_vec()), entry(2, b"/run/c".to_vec())]).render();
            let cut = cut.min(text.len());
            if cut < text.len() {
                prop_assert!(Given::parse(&text.as_bytes()[..cut]).is_err());
            }
            let _ = Given::parse(&[&text.as_bytes()[..cut], &junk].concat());
            prop_assert!(Given::parse(&junk).is_err());
        }
    }

    #[test]
    fn bad_lines_are_errors() {
        let parse = |line: &str| Given::parse(format!("{HEADER}\n{line}\nend 1\n").as_bytes());
        parse("0:300:5,9:400:5 0:300:5 1 2 /b").unwrap();
        for bad in [
            "0:200:1,0:300:1 0:200:1 1 2 /b",
            "0:200 0:200:1 1 2 /b",
            "0:200:1:1 0:200:1 1 2 /b",
            " 0:200:1 1 2 /b",
            "0:200:1 1 2 /b",
            "0:200:1 0:200:1 1 2 ",
            "0:200:0 0:200:1 1 2 /b",
            "0:+200:1 0:200:1 1 2 /b",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
