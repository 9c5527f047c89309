//! The holes of a region that is being compacted, found by size and by address in logarithmic time.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::arena::span::Span;

/// Holes of one region: disjoint, not empty, no two adjacent.
#[derive(Clone, Debug, Default)]
pub(super) struct Holes {
    /// Start → end.
    by_address: BTreeMap<u64, u64>,
    /// (length, start): the same holes, smallest first.
    by_len: BTreeSet<(u64, u64)>,
}

impl Holes {
    /// The hole that holds the byte at `offset`.
    pub(super) fn containing(&self, offset: u64) -> Option<Span> {
        let (&start, &end) = self.by_address.range(..=offset).next_back()?;
        (offset < end).then_some(Span { start, end })
    }

    /// The last hole that starts before `offset`.
    pub(super) fn last_before(&self, offset: u64) -> Option<Span> {
        let (&start, &end) = self.by_address.range(..offset).next_back()?;
        Some(Span { start, end })
    }

    /// The first hole that starts at `offset` or after it.
    pub(super) fn first_from(&self, offset: u64) -> Option<Span> {
        let (&start, &end) = self.by_address.range(offset..).next()?;
        Some(Span { start, end })
    }

    /// The holes of at least `len` bytes, smallest first.
    pub(super) fn at_least(&self, len: u64) -> impl Iterator<Item = Span> + '_ {
        self.by_len.range((len, 0)..).map(Self::span)
    }

    /// Takes `taken` out of `hole`, which contains it; the rest on either side stays a hole.
    pub(super) fn take(&mut self, hole: Span, taken: Span) {
        self.remove(hole);
        self.insert(Span { start: hole.start, end: taken.start });
        self.insert(Span { start: taken.end, end: hole.end });
    }

    /// Adds `span` as a hole and joins it with the holes on either side.
    pub(super) fn give(&mut self, span: Span) {
        if span.len() == 0 {
            return;
        }
        let mut joined = span;
        let before = self.by_address.range(..span.start).next_back();
        if let Some((&start, &end)) = before.filter(|&(_, &end)| end == span.start) {
            self.remove(Span { start, end });
            joined.start = start;
        }
        if let Some(&end) = self.by_address.get(&span.end) {
            self.remove(Span { start: span.end, end });
            joined.end = end;
        }
        self.insert(joined);
    }

    /// The holes in address order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        self.by_address.iter().map(|(&start, &end)| Span { start, end })
    }

    fn span(&(len, start): &(u64, u64)) -> Span {
        Span { start, end: start.saturating_add(len) }
    }

    fn insert(&mut self, hole: Span) {
        if hole.len() > 0 {
            self.by_address.insert(hole.start, hole.end);
            self.by_len.insert((hole.len(), hole.start));
        }
    }

    fn remove(&mut self, hole: Span) {
        self.by_address.remove(&hole.start);
        self.by_len.remove(&(hole.len(), hole.start));
    }
}
