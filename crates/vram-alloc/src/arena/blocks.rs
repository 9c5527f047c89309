//! The blocks of one region: every byte belongs to a live placement or to a hole.
//!
//! ```text
//!   address list   | live | hole | live | live |   hole   | live |     each block knows its neighbours
//!   by size                 └──────────── bins ────────────┘           holes alone: see `sizes`
//!   landmarks      ^                    ^                 ^            some starts: see `hole_at`
//! ```
//!
//! A placement names its block by an index that does not change while it lives, so a release finds
//! the holes beside it without a search.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::sizes::{Hole, Sizes};
use super::span::{End, Span};

/// The index of no block.
const NONE: usize = usize::MAX;

/// The block at offset 0. A split leaves the lower part in place and a join keeps the lower block,
/// so the lowest block keeps its index.
const LOWEST: usize = 0;

/// Blocks between two landmarks that a search by address leaves behind.
const LANDMARK_STEPS: usize = 8;

/// A part of the region, or an index that waits for its next use. It ends where the block above it
/// begins, or with the region. There is one for every shard, so it is kept small.
#[derive(Clone, Copy, Debug)]
struct Block {
    start: u64,
    /// The neighbours in address order, or [`NONE`].
    below: usize,
    above: usize,
    kind: Kind,
}

/// What a block is: the serial of a placement, or one of two numbers that no serial reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind(u64);

impl Kind {
    /// Not part of the region.
    const VACANT: Self = Self(u64::MAX);
    /// A hole. It stands in [`Sizes`] as well, but while it is changed.
    const HOLE: Self = Self(u64::MAX - 1);

    /// A placement. An empty one has no place in the address list.
    const fn live(serial: u64) -> Self {
        Self(serial)
    }

    const fn is_live(self) -> bool {
        self.0 < Self::HOLE.0
    }
}

/// The blocks of one region. No two holes are neighbours.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks {
    /// Where the region ends.
    end: u64,
    all: Vec<Block>,
    /// Vacant indices of `all`; the last one is reused first.
    vacant: Vec<usize>,
    sizes: Sizes,
    /// Starts of some blocks, for searches by address.
    landmarks: BTreeMap<u64, usize>,
    live_count: usize,
}

impl Block {
    const fn new(start: u64, kind: Kind) -> Self {
        Self { start, below: NONE, above: NONE, kind }
    }

    fn is_hole(&self) -> bool {
        self.kind == Kind::HOLE
    }
}

impl Blocks {
    /// One hole as large as the region, or nothing if the region is empty.
    pub(super) fn whole(capacity: u64) -> Self {
        let mut blocks = Self { end: capacity, ..Self::default() };
        if capacity > 0 {
            blocks.all.push(Block::new(0, Kind::HOLE));
            blocks.sizes.insert(Hole::new(Span { start: 0, end: capacity }, LOWEST));
        }
        blocks
    }

    /// The smallest hole that holds `len` bytes at a multiple of `align`, and the start in it.
    pub(super) fn best_fit(&self, len: u64, align: u64, end: End) -> Option<(usize, u64)> {
        self.sizes.best_fit(len, align, end)
    }

    /// The hole that holds the byte at `offset`.
    ///
    /// Walks from the landmark below it, and leaves landmarks on the way: the first search visits
    /// every block, and a later one those that came since, and the few between two landmarks.
    pub(super) fn hole_at(&mut self, offset: u64) -> Option<usize> {
        let landmark = self.landmarks.range(..=offset).next_back();
        let mut index = landmark.map_or(LOWEST, |(_, &index)| index);
        let mut steps = 0_usize;
        loop {
            let block = *self.all.get(index)?;
            if offset < self.end_of(&block) {
                return block.is_hole().then_some(index);
            }
            index = block.above;
            steps = steps.wrapping_add(1);
            if steps.is_multiple_of(LANDMARK_STEPS)
                && let Some(block) = self.all.get(index)
            {
                self.landmarks.insert(block.start, index);
            }
        }
    }

    pub(super) fn span(&self, index: usize) -> Span {
        self.all.get(index).map_or(Span { start: 0, end: 0 }, |block| self.span_of(block))
    }

    fn end_of(&self, block: &Block) -> u64 {
        self.all.get(block.above).map_or(self.end, |above| above.start)
    }

    fn span_of(&self, block: &Block) -> Span {
        Span { start: block.start, end: self.end_of(block) }
    }

    /// Makes `taken`, which lies in the hole, a live block, and returns its index; the rest on
    /// either side stays a hole.
    pub(super) fn take(&mut self, hole: usize, taken: Span, serial: u64) -> usize {
        let whole = self.span(hole);
        self.sizes.remove(Hole::new(whole, hole));
        let mut index = hole;
        if whole.start < taken.start {
            index = self.split(hole, taken.start);
            self.sizes.insert(Hole::new(Span { end: taken.start, ..whole }, hole));
        }
        if taken.end < whole.end {
            let rest = self.split(index, taken.end);
            self.sizes.insert(Hole::new(Span { start: taken.end, ..whole }, rest));
        }
        if let Some(block) = self.all.get_mut(index) {
            block.kind = Kind::live(serial);
        }
        self.live_count = self.live_count.saturating_add(1);
        index
    }

    /// An empty placement: it takes an index and no byte.
    pub(super) fn take_nothing(&mut self, serial: u64) -> usize {
        self.live_count = self.live_count.saturating_add(1);
        // Where the region ends, so that it ends where it begins.
        self.store(Block::new(self.end, Kind::live(serial)))
    }

    /// Makes a live block a hole and joins it with the holes beside it, if the block still belongs
    /// to the placement of that serial. Returns the number of its bytes.
    pub(super) fn release(&mut self, index: usize, serial: u64) -> Option<u64> {
        let block = self.all.get(index);
        let block = *block.filter(|block| block.kind == Kind::live(serial))?;
        self.live_count = self.live_count.saturating_sub(1);
        let own = self.span_of(&block);
        if own.len() == 0 {
            self.vacate(index);
            return Some(0);
        }
        let (mut hole, mut span) = (index, own);
        if let Some(below) = self.hole(block.below) {
            self.sizes.remove(Hole::new(below, block.below));
            self.absorb(block.below, index);
            (hole, span.start) = (block.below, below.start);
        }
        if let Some(above) = self.hole(block.above) {
            self.sizes.remove(Hole::new(above, block.above));
            self.absorb(hole, block.above);
            span.end = above.end;
        }
        if let Some(block) = self.all.get_mut(hole) {
            block.kind = Kind::HOLE;
        }
        self.sizes.insert(Hole::new(span, hole));
        Some(own.len())
    }

    /// Bytes in the largest hole.
    pub(super) fn largest_hole(&self) -> u64 {
        self.sizes.largest()
    }

    pub(super) const fn hole_count(&self) -> usize {
        self.sizes.count()
    }

    pub(super) const fn live_count(&self) -> usize {
        self.live_count
    }

    /// The holes in address order: O(n log n).
    pub(super) fn holes(&self) -> impl Iterator<Item = Span> + use<> {
        self.in_order(Block::is_hole)
    }

    /// The live blocks in address order, the empty ones last: O(n log n).
    pub(super) fn live(&self) -> impl Iterator<Item = Span> + use<> {
        self.in_order(|block| block.kind.is_live())
    }

    fn in_order(&self, wanted: fn(&Block) -> bool) -> impl Iterator<Item = Span> + use<> {
        let wanted = self.all.iter().filter(|block| wanted(block));
        let mut spans: Vec<_> = wanted.map(|block| self.span_of(block)).collect();
        spans.sort_unstable_by_key(|span| (span.start, span.end));
        spans.into_iter()
    }

    #[cfg(test)]
    pub(super) const fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// The span of a block that is a hole.
    fn hole(&self, index: usize) -> Option<Span> {
        self.all.get(index).filter(|block| block.is_hole()).map(|block| self.span_of(block))
    }

    /// Cuts a block in two at an offset inside it; returns the index of the upper part.
    fn split(&mut self, index: usize, at: u64) -> usize {
        let Some(&lower) = self.all.get(index) else { return index };
        let upper = Block { below: index, above: lower.above, ..Block::new(at, Kind::HOLE) };
        let upper = self.store(upper);
        if let Some(above) = self.all.get_mut(lower.above) {
            above.below = upper;
        }
        if let Some(lower) = self.all.get_mut(index) {
            lower.above = upper;
        }
        upper
    }

    /// Adds the block above to the one below it, and vacates its index.
    fn absorb(&mut self, index: usize, above: usize) {
        let Some(&gone) = self.all.get(above) else { return };
        self.landmarks.remove(&gone.start);
        if let Some(block) = self.all.get_mut(index) {
            block.above = gone.above;
        }
        if let Some(next) = self.all.get_mut(gone.above) {
            next.below = index;
        }
        self.vacate(above);
    }

    fn store(&mut self, block: Block) -> usize {
        if let Some(index) = self.vacant.pop()
            && let Some(vacant) = self.all.get_mut(index)
        {
            *vacant = block;
            return index;
        }
        self.all.push(block);
        self.all.len().saturating_sub(1)
    }

    fn vacate(&mut self, index: usize) {
        if let Some(block) = self.all.get_mut(index) {
            block.kind = Kind::VACANT;
            self.vacant.push(index);
        }
    }
}
