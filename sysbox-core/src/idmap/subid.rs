//! Where ranges may be taken from: the files of subordinate IDs, or an area that nobody else uses.
//!
//! Source: subuid(5), subgid(5). A line is `user:start:count`, the user by name or by number. Neither page knows comments;
//! people write them all the same, and a line that starts with `#` belongs to nobody. Providers of subordinate IDs other
//! than these files (`subid:` in nsswitch.conf) are not asked.

use super::number;
use super::span::{place, subtract, union, Span};
use crate::error::{Error, Kind, Result};
use std::path::Path;

/// Containers that the area used without an entry shall hold.
const DEFAULT_CONTAINERS: u64 = 4096;

/// Where ranges come from when the files give our user none; the best place first.
///
/// All of it is below 2^31, since some programs and file systems take an ID for a signed number, and ends at 0x7FFE0000,
/// where systemd's "foreign" range (IDs of foreign disk images) begins. systemd's table of IDs
/// (<https://systemd.io/UIDS-GIDS/>) gives 524288 to 1879048191 (0x00080000 to 0x6FFFFFFF) to containers: systemd-nspawn and
/// systemd-nsresourced pick ranges there, at random and without asking us. 0x70000000 to 0x7FFDFFFF is unassigned,
/// but directory services reach into it: SSSD and FreeIPA give users IDs from 200000 up to 2000200000. Hence:
/// 1. above 2000200000, rounded up to 64 Ki: nobody's, 2245 ranges of 64 Ki;
/// 2. the rest of what systemd leaves alone: 1849 more, which with the first is two short of 4096;
/// 3. the container area, from its top down, as much as is needed. Its bottom is where useradd, LXD and people go.
const AREAS: [Span; 3] = [
    Span { start: 0x7739_0000, end: 0x7FFE_0000 },
    Span { start: 0x7000_0000, end: 0x7739_0000 },
    Span { start: 0x0008_0000, end: 0x7000_0000 },
];

/// The IDs that ranges may be taken from, in order of preference, and why these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Windows {
    pub(super) spans: Vec<Span>,
    /// Our user has entries in the file; if not, `spans` are of [`AREAS`].
    pub(super) assigned: bool,
    /// IDs of our entries that are also in somebody else's, and so not in `spans`.
    pub(super) contested: u64,
}

impl Windows {
    /// Where a range of `size` goes: from `from` on and round again, so that what was given back rests for as long as possible.
    /// Our entries are all alike; of the default areas one is left only when it is full. `used` must come from
    /// [`union`].
    pub(super) fn place(&self, used: &[Span], size: u32, from: u32) -> Option<u32> {
        if self.assigned {
            return place(&self.spans, used, size, from);
        }
        self.spans.iter().find_map(|s| place(&[*s], used, size, from))
    }

    /// How many ranges of `size` fit when all is free.
    pub(super) fn capacity(&self, size: u32) -> u64 {
        self.spans.iter().map(|s| s.capacity(size)).sum()
    }
}

/// A line that is neither blank nor a comment.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    number: usize,
    text: &'a str,
    user: &'a str,
    /// The text behind the first colon.
    range: Option<&'a str>,
}

fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().zip(1..).filter_map(|(text, number)| {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            return None;
        }
        let (user, range) = text.split_once(':').map_or((text, None), |(user, range)| (user, Some(range)));
        Some(Line { number, text, user: user.trim(), range })
    })
}

/// Whether some line names its user by number, so that the number of ours matters.
pub(super) fn has_numeric_user(text: &str) -> bool {
    lines(text).any(|l| is_number(l.user))
}

pub(super) fn is_number(user: &str) -> bool {
    !user.is_empty() && user.bytes().all(|b| b.is_ascii_digit())
}

impl Line<'_> {
    /// Reads a line that we are to use: nothing in it may be doubtful.
    fn strict(&self) -> Result<Span, &'static str> {
        let (start, count) = self.range.and_then(|r| r.split_once(':')).ok_or("want user:start:count")?;
        // 0100 is 100 to some readers of this file and 64 to others.
        if [start, count].iter().any(|n| n.len() > 1 && n.starts_with('0')) {
            return Err("a number starts with 0");
        }
        let start: u32 = number(start).ok_or("start is no number from 0 to 4294967294")?;
        let count: u32 = number(count).ok_or("count is no number from 1 to 4294967295")?;
        if count == 0 {
            return Err("count is 0");
        }
        if start == 0 {
            return Err("it contains ID 0, the host's root");
        }
        start.checked_add(count).ok_or("it reaches beyond ID 4294967294, the last valid one")?;
        Ok(Span::new(start, count))
    }

    /// Reads a line that we are to keep away from. One that reaches beyond the last ID counts up to there, since newuidmap(1)
    /// computes with 64 bits and so grants its user all of that.
    fn loose(&self) -> Option<Span> {
        let (start, count) = self.range?.split_once(':')?;
        let (start, count): (u64, u64) = (number(start)?, number(count)?);
        let last = u64::from(u32::MAX);
        Some(Span { start: start.min(last), end: start.saturating_add(count).min(last) })
    }
}

/// Decides from the text of `file` where ranges of `size` IDs for the user called any of `names` may be.
///
/// What other users' entries contain is never in the result, even if it is in ours as well.
///
/// # Errors
/// [`Kind::InvalidConfig`] for a bad line of our user; [`Kind::Exhausted`] if there is no entry and no free area.
pub(super) fn windows(text: &str, file: &Path, names: &[String], size: u32) -> Result<Windows> {
    let (own, others): (Vec<_>, Vec<_>) = lines(text).partition(|l| names.iter().any(|n| n == l.user));
    let others = union(others.iter().filter_map(Line::loose).collect());
    if own.is_empty() {
        let spans = default_windows(&others, size);
        if spans.is_empty() {
            let what =
                format!("find {size} subordinate IDs that belong to nobody: other users' entries cover the area");
            return Err(Error::new(Kind::Exhausted, what).at(file).hint(more(file, names, size)));
        }
        return Ok(Windows { spans, assigned: false, contested: 0 });
    }
    let read = |l: &Line<'_>| {
        let describe = |why| format!("read subordinate IDs: line {} ({:?}): {why};", l.number, l.text);
        l.strict().map_err(|why| Error::invalid(describe(why)).at(file).hint("correct or remove the line"))
    };
    let own = union(own.iter().map(read).collect::<Result<_>>()?);
    let spans = subtract(&own, &others);
    let total = |spans: &[Span]| spans.iter().map(|s| s.len()).sum::<u64>();
    Ok(Windows { contested: total(&own) - total(&spans), spans, assigned: true })
}

/// Free pieces of [`AREAS`], until they hold [`DEFAULT_CONTAINERS`] or there are no more.
fn default_windows(others: &[Span], size: u32) -> Vec<Span> {
    let mut missing = DEFAULT_CONTAINERS;
    let mut spans = Vec::new();
    for (i, area) in AREAS.iter().enumerate() {
        let mut free = subtract(&[*area], others);
        let from_top = i + 1 == AREAS.len();
        if from_top {
            free.reverse();
        }
        for mut span in free {
            let take = span.capacity(size).min(missing);
            if take == 0 {
                continue;
            }
            if from_top {
                span.start = span.end - take * u64::from(size);
            }
            missing -= take;
            spans.push(span);
        }
    }
    spans
}

/// Says how to get more IDs.
pub(super) fn more(file: &Path, names: &[String], size: u32) -> String {
    let user = names.first().map_or("", String::as_str);
    let smaller = if size > super::USABLE_IDS {
        format!(", or give each container fewer IDs than {size}")
    } else {
        String::new()
    };
    format!(
        "add a line \"{user}:START:COUNT\" to {} with COUNT a multiple of {size} and IDs that are in no other line{smaller}",
        file.display()
    )
}
