//! User and group ID maps: what a container's IDs are on the host, and where its range comes from.
//!
//! An [`IdMap`] is the content of `/proc/PID/uid_map` or `gid_map` as a checked value: one that exists is one that the
//! kernel accepts. A [`Maps`] is the pair that a user namespace needs. [`pool`] hands out exclusive host ranges.
//!
//! Source: user_namespaces(7), and `map_write()` in the kernel's `kernel/user_namespace.c` where the page is silent.

pub mod pool;
mod span;
mod subid;

#[cfg(test)]
mod tests;

use crate::error::{Error, Kind, Result, Within};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use serde::{Deserialize, Serialize};
use span::Span;
use std::fmt;

/// Most ranges that the kernel takes in one map (`UID_GID_MAP_MAX_EXTENTS`, Linux 4.15).
pub const MAX_RANGES: usize = 340;

/// The text of a map must be shorter than a page, because it must be written in one go; the smallest page is taken, so that
/// a map is valid on every machine or on none.
pub const MAX_TEXT: usize = 4095;

/// IDs from 0 that a system container needs: what distributions use, up to `nobody` (65534) and the 16-bit -1.
pub const USABLE_IDS: u32 = 65536;

/// What the kernel shows for an ID that has no mapping (the default of `/proc/sys/kernel/overflowuid`).
pub const OVERFLOW_ID: u32 = 65534;

/// Consecutive IDs and what they are outside: one line of `/proc/PID/uid_map`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Range {
    /// First ID in the user namespace.
    pub inside: u32,
    /// The ID that `inside` is in the parent namespace; for a container, on the host.
    pub outside: u32,
    /// Number of IDs.
    pub count: u32,
}

impl Range {
    fn span_inside(&self) -> Span {
        Span::new(self.inside, self.count)
    }

    fn span_outside(&self) -> Span {
        Span::new(self.outside, self.count)
    }

    fn check(&self) -> Result<()> {
        if self.count == 0 {
            return Err(Error::invalid(format!("ID range \"{self}\" is empty")));
        }
        // 4294967295 is (uid_t)-1, "leave unchanged" to chown(2) and setresuid(2), so the kernel maps no range that
        // contains it: the last ID is 4294967294 and the exclusive end is at most 4294967295, which u32 just holds.
        if self.inside.checked_add(self.count).is_none() || self.outside.checked_add(self.count).is_none() {
            return Err(Error::invalid(format!(
                "ID range \"{self}\" reaches beyond ID 4294967294, the last valid one"
            )));
        }
        Ok(())
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.inside, self.outside, self.count)
    }
}

/// A map that the kernel accepts.
///
/// Always: 1 to [`MAX_RANGES`] ranges; none empty; no ID beyond 4294967294; no ID twice, neither inside nor outside; text of
/// at most [`MAX_TEXT`] bytes. Kept sorted by `inside` and with adjoining ranges joined, so that two maps are equal exactly
/// if they map the same IDs to the same IDs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<Range>", into = "Vec<Range>")]
pub struct IdMap(Vec<Range>);

impl IdMap {
    /// Maps IDs `0..count` to `outside..outside + count`.
    ///
    /// # Errors
    /// [`Kind::InvalidConfig`] if the range is empty or reaches beyond the last valid ID.
    pub fn single(outside: u32, count: u32) -> Result<IdMap> {
        IdMap::new(vec![Range { inside: 0, outside, count }])
    }

    /// Checks and normalises ranges given in any order.
    ///
    /// # Errors
    /// [`Kind::InvalidConfig`] naming the range that breaks one of the rules of [`IdMap`].
    pub fn new(mut ranges: Vec<Range>) -> Result<IdMap> {
        if ranges.is_empty() {
            return Err(Error::invalid("an ID map needs at least one range"));
        }
        ranges.iter().try_for_each(Range::check)?;
        ranges.sort_unstable_by_key(|r| r.outside);
        check_disjoint(&ranges, "outside", Range::span_outside)?;
        ranges.sort_unstable_by_key(|r| r.inside);
        check_disjoint(&ranges, "inside", Range::span_inside)?;
        ranges.dedup_by(|next, last| {
            let adjoins = last.inside + last.count == next.inside && last.outside + last.count == next.outside;
            if adjoins {
                last.count += next.count;
            }
            adjoins
        });
        if ranges.len() > MAX_RANGES {
            let n = ranges.len();
            return Err(Error::invalid(format!("an ID map has {n} ranges; the kernel takes {MAX_RANGES}")));
        }
        let map = IdMap(ranges);
        // A line has 33 bytes at most, so that a map of few ranges need not be printed to know.
        let length = if map.0.len() * 33 > MAX_TEXT { map.to_string().len() } else { 0 };
        if length > MAX_TEXT {
            return Err(Error::invalid(format!("an ID map is {length} bytes of text; the kernel takes {MAX_TEXT}")));
        }
        Ok(map)
    }

    /// Reads the text of `/proc/PID/uid_map`: a range a line, three decimal numbers in it separated by blanks.
    ///
    /// As in the kernel, signs, other bases, further fields and blank lines are refused.
    ///
    /// # Errors
    /// [`Kind::InvalidConfig`] naming the line, or the rule of [`IdMap`] that is broken. The empty text, which the file
    /// has until it is written, is no map.
    pub fn parse(text: &str) -> Result<IdMap> {
        IdMap::new(text.lines().map(parse_line).collect::<Result<_>>()?)
    }

    /// What an ID of the namespace is outside; `None` if it is not mapped.
    pub fn to_outside(&self, id: u32) -> Option<u32> {
        let after = self.0.partition_point(|r| r.inside <= id);
        let r = self.0[..after].last()?;
        let offset = id - r.inside;
        (offset < r.count).then(|| r.outside + offset)
    }

    /// What an ID from outside is in the namespace; `None` if it is not mapped.
    pub fn to_inside(&self, id: u32) -> Option<u32> {
        self.0.iter().find_map(|r| {
            let offset = id.checked_sub(r.outside)?;
            (offset < r.count).then(|| r.inside + offset)
        })
    }

    /// The map from the inside of `self` to the outside of `outer`, where `outer` is the map of the parent namespace.
    ///
    /// IDs that `outer` does not map are left out, as the kernel would show them as [`OVERFLOW_ID`].
    ///
    /// # Errors
    /// [`Kind::InvalidConfig`] if nothing is left, or if the result has too many ranges for one map.
    pub fn compose(&self, outer: &IdMap) -> Result<IdMap> {
        let mut ranges = Vec::new();
        for a in &self.0 {
            for b in &outer.0 {
                let from = a.outside.max(b.inside);
                let to = (a.outside + a.count).min(b.inside + b.count);
                if from < to {
                    let (inside, outside) = (a.inside + (from - a.outside), b.outside + (from - b.inside));
                    ranges.push(Range { inside, outside, count: to - from });
                }
            }
        }
        IdMap::new(ranges).within("compose two ID maps")
    }

    /// Whether some outside ID is mapped by both; two containers of which this holds are not isolated from each other.
    pub fn overlaps_outside(&self, other: &IdMap) -> bool {
        self.0.iter().any(|a| other.0.iter().any(|b| a.span_outside().overlaps(b.span_outside())))
    }

    /// How many IDs are mapped.
    pub fn size(&self) -> u64 {
        self.0.iter().map(|r| u64::from(r.count)).sum()
    }

    /// The ranges, by ascending `inside`.
    pub fn ranges(&self) -> &[Range] {
        &self.0
    }

    /// How many IDs are mapped without a gap from 0 up.
    pub fn prefix(&self) -> u32 {
        self.0.iter().fold(0, |next, r| if r.inside == next { next + r.count } else { next })
    }

    /// Takes `linux.uidMappings` or `linux.gidMappings` of an OCI configuration.
    ///
    /// # Errors
    /// As [`IdMap::new`].
    pub fn from_oci(mappings: &[LinuxIdMapping]) -> Result<IdMap> {
        let range = |m: &LinuxIdMapping| Range { inside: m.container_id(), outside: m.host_id(), count: m.size() };
        IdMap::new(mappings.iter().map(range).collect())
    }

    /// The same as OCI mappings.
    ///
    /// # Errors
    /// [`Kind::InvalidConfig`] if the OCI type refuses a value, which no valid map contains.
    pub fn to_oci(&self) -> Result<Vec<LinuxIdMapping>> {
        let mapping = |r: &Range| {
            let builder = LinuxIdMappingBuilder::default().container_id(r.inside).host_id(r.outside).size(r.count);
            builder.build().map_err(|e| Error::invalid(format!("write ID range \"{r}\" as OCI mapping: {e}")))
        };
        self.0.iter().map(mapping).collect()
    }
}

/// The text to write to `/proc/PID/uid_map`, in one write: a line a range, each with its newline.
impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|r| writeln!(f, "{r}"))
    }
}

impl TryFrom<Vec<Range>> for IdMap {
    type Error = Error;

    fn try_from(ranges: Vec<Range>) -> Result<IdMap> {
        IdMap::new(ranges)
    }
}

impl From<IdMap> for Vec<Range> {
    fn from(map: IdMap) -> Vec<Range> {
        map.0
    }
}

impl std::str::FromStr for IdMap {
    type Err = Error;

    fn from_str(text: &str) -> Result<IdMap> {
        IdMap::parse(text)
    }
}

/// The two maps of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Maps {
    /// Of user IDs.
    pub uid: IdMap,
    /// Of group IDs.
    pub gid: IdMap,
}

impl Maps {
    /// The host's user and group ID of the container's root; [`OVERFLOW_ID`] for one that is not mapped, which
    /// [`Maps::check_usable`] rules out.
    pub fn root(&self) -> (u32, u32) {
        (self.uid.to_outside(0).unwrap_or(OVERFLOW_ID), self.gid.to_outside(0).unwrap_or(OVERFLOW_ID))
    }

    /// Checks that a system container can run with these maps: root and at least [`USABLE_IDS`] IDs from 0 up are mapped,
    /// and the host's root is not.
    ///
    /// # Errors
    /// [`Kind::Refused`] with the reason and the cure.
    pub fn check_usable(&self) -> Result<()> {
        check_usable("uid", &self.uid)?;
        check_usable("gid", &self.gid)
    }
}

fn check_usable(which: &str, map: &IdMap) -> Result<()> {
    let refuse = |why: String, hint: String| {
        Err(Error::new(Kind::Refused, format!("use the {which} map of the container: {why}")).hint(hint))
    };
    let map_more =
        || format!("map IDs 0 to {} at least, as podman run --userns=auto:size={USABLE_IDS} does", USABLE_IDS - 1);
    if let Some(inside) = map.to_inside(0) {
        let hint = "map to a range of host IDs that does not contain 0";
        return refuse(format!("ID {inside} of the container would be root on the host"), hint.into());
    }
    match map.prefix() {
        0 => refuse("ID 0 (root) is not mapped".into(), map_more()),
        n if n < USABLE_IDS => {
            refuse(format!("only {n} IDs from 0 up are mapped, a system container needs {USABLE_IDS}"), map_more())
        }
        _ => Ok(()),
    }
}

fn check_disjoint(sorted: &[Range], side: &str, span: impl Fn(&Range) -> Span) -> Result<()> {
    match sorted.windows(2).find(|w| span(&w[0]).overlaps(span(&w[1]))) {
        Some(w) => Err(Error::invalid(format!("ID ranges \"{}\" and \"{}\" overlap {side}", w[0], w[1]))),
        None => Ok(()),
    }
}

fn parse_line(line: &str) -> Result<Range> {
    let bad = || Error::invalid(format!("parse ID map line {line:?}: want three numbers from 0 to 4294967295"));
    let mut fields = line.split_ascii_whitespace().map(number);
    match (fields.next(), fields.next(), fields.next(), fields.next()) {
        (Some(Some(inside)), Some(Some(outside)), Some(Some(count)), None) => Ok(Range { inside, outside, count }),
        _ => Err(bad()),
    }
}

/// Decimal digits only: `str::parse` would also take a sign.
fn number<T: std::str::FromStr>(field: &str) -> Option<T> {
    field.bytes().all(|b| b.is_ascii_digit()).then(|| field.parse().ok()).flatten()
}
