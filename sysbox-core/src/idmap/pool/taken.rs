//! All that is not free, whoever chose it.

use super::super::span::{union, Span};
use super::super::Maps;
use super::given::{spans, Given};
use super::ledger::{Ledger, Record};
use super::owner::{self, Owner};
use crate::error::Result;

/// What is not free.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) placed: Ledger,
    pub(super) given: Given,
}

impl Taken {
    pub(super) fn find(&self, owner: &Owner) -> Result<Option<Maps>> {
        match self.placed.find(owner) {
            Some(record) => record.maps().map(Some),
            None => Ok(self.given.find(owner).cloned()),
        }
    }

    /// Takes out what is of owners that are gone; says whether some of it was given.
    pub(super) fn forget_gone(&mut self) -> bool {
        let placed = self.placed.records().iter().map(|r| &r.owner);
        let all: Vec<&Owner> = placed.chain(self.given.0.iter().map(|(o, _)| o)).collect();
        let alive = owner::alive(&all);
        let (placed, given) = alive.split_at(self.placed.records().len());
        self.placed.keep(placed);
        let mut given = given.iter();
        let before = self.given.0.len();
        self.given.0.retain(|_| given.next() != Some(&false));
        before != self.given.0.len()
    }

    /// User IDs that are not free, by [`union`].
    pub(super) fn uids(&self) -> Vec<Span> {
        union([self.placed.uids(), self.given.uids()].concat())
    }

    /// The same of groups.
    pub(super) fn gids(&self) -> Vec<Span> {
        union([self.placed.gids(), self.given.gids()].concat())
    }

    /// Who has some of these IDs to itself.
    pub(super) fn conflict(&self, maps: &Maps) -> Option<&Owner> {
        let (uids, gids) = (spans(&maps.uid), spans(&maps.gid));
        let within = |spans: &[Span], first, count| spans.iter().any(|s| s.overlaps(Span::new(first, count)));
        let has = |r: &&Record| within(&uids, r.uid, r.count) || within(&gids, r.gid, r.count);
        self.placed.records().iter().find(has).map(|r| &r.owner)
    }
}
