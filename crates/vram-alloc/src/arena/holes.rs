//! The free parts of a region, found by size and by address in logarithmic time.

use alloc::collections::{BTreeMap, BTreeSet};

/// The end of a hole from which a placement is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Low,
    High,
}

/// A run of bytes, `start..end`, in raw offsets below 2⁴⁸.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// Holes of one region: disjoint, not empty, no two adjacent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holes {
    /// Start → end.
    by_address: BTreeMap<u64, u64>,
    /// (length, start): the same holes, smallest first.
    by_len: BTreeSet<(u64, u64)>,
}

impl Span {
    pub(crate) fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// The start for `len` bytes aligned to `align` inside this span, at the wanted end.
    fn cut(self, len: u64, align: u64, end: End) -> Option<u64> {
        let start = match end {
            End::Low => self.start.checked_next_multiple_of(align)?,
            // `align` is a power of two: clearing the low bits rounds down.
            End::High => self.end.checked_sub(len)? & !align.wrapping_sub(1),
        };
        let fits = start >= self.start && start.checked_add(len)? <= self.end;
        fits.then_some(start)
    }
}

impl Holes {
    /// One hole as large as the region, or none if the region is empty.
    pub(crate) fn whole(capacity: u64) -> Self {
        let mut holes = Self::default();
        holes.insert(Span { start: 0, end: capacity });
        holes
    }

    /// Finds the smallest hole that holds `len` bytes at a multiple of `align`, and the start in
    /// it. Among holes of the same size, the one nearest to the wanted end wins.
    ///
    /// Costs O(log n) for alignments up to that of the holes themselves. With a larger one, the
    /// search may pass over holes that are long enough but misaligned: those of `len..len + align`
    /// bytes.
    pub(crate) fn best_fit(&self, len: u64, align: u64, end: End) -> Option<(Span, u64)> {
        let position_in = |hole: Span| hole.cut(len, align, end).map(|start| (hole, start));
        if end == End::Low {
            // The order of the set is the order of preference.
            return self.by_len.range((len, 0)..).map(Self::span).find_map(position_in);
        }
        let mut at_least = len;
        loop {
            let (hole_len, _) = *self.by_len.range((at_least, 0)..).next()?;
            let same_len = self.by_len.range((hole_len, 0)..=(hole_len, u64::MAX)).rev();
            let found = same_len.map(Self::span).find_map(position_in);
            if found.is_some() {
                return found;
            }
            at_least = hole_len.checked_add(1)?;
        }
    }

    /// The hole that holds the byte at `offset`.
    pub(crate) fn containing(&self, offset: u64) -> Option<Span> {
        let (&start, &end) = self.by_address.range(..=offset).next_back()?;
        (offset < end).then_some(Span { start, end })
    }

    /// The last hole that starts before `offset`.
    pub(crate) fn last_before(&self, offset: u64) -> Option<Span> {
        let (&start, &end) = self.by_address.range(..offset).next_back()?;
        Some(Span { start, end })
    }

    /// The first hole that starts at `offset` or after it.
    pub(crate) fn first_from(&self, offset: u64) -> Option<Span> {
        let (&start, &end) = self.by_address.range(offset..).next()?;
        Some(Span { start, end })
    }

    /// The holes of at least `len` bytes, smallest first.
    pub(crate) fn at_least(&self, len: u64) -> impl Iterator<Item = Span> + '_ {
        self.by_len.range((len, 0)..).map(Self::span)
    }

    /// Takes `taken` out of `hole`, which contains it; the rest on either side stays a hole.
    pub(crate) fn take(&mut self, hole: Span, taken: Span) {
        self.remove(hole);
        self.insert(Span { start: hole.start, end: taken.start });
        self.insert(Span { start: taken.end, end: hole.end });
    }

    /// Adds `span` as a hole and joins it with the holes on either side.
    pub(crate) fn give(&mut self, span: Span) {
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

    /// Bytes in the largest hole.
    pub(crate) fn largest(&self) -> u64 {
        self.by_len.last().map_or(0, |&(len, _)| len)
    }

    /// Number of holes.
    pub(crate) fn count(&self) -> usize {
        self.by_len.len()
    }

    /// The holes in address order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Span> + '_ {
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
