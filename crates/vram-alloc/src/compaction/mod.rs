//! Choosing the shards to move: pure arithmetic over holes and the shards between them.
//!
//! A [`Compaction`] is made once and then follows the moves: a step costs O(log n), whichever
//! region it is for.

#![expect(clippy::arithmetic_side_effects, reason = "positions are below 2^48, squares below 2^96")]

mod choice;
mod holes;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BinaryHeap};
use alloc::vec::Vec;

use self::choice::{Choice, Kind};
use self::holes::Holes;
use crate::arena::span::Span as Bytes;
use crate::ledger::MAX_TOTAL;
use crate::units::{ByteLen, DeviceOffset};

/// Bytes of a region, `start..end`, of which none lies at 2^48 or beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    // Invariant: start <= end <= MAX_TOTAL.
    start: u64,
    end: u64,
}

impl Span {
    /// `len` bytes that start at `start`; `None` if they end after [`MAX_TOTAL`].
    #[must_use]
    pub const fn new(start: DeviceOffset, len: ByteLen) -> Option<Self> {
        match start.get().checked_add(len.get()) {
            Some(end) if end <= MAX_TOTAL.get() => Some(Self { start: start.get(), end }),
            _ => None,
        }
    }

    /// The first byte.
    #[must_use]
    pub const fn start(self) -> DeviceOffset {
        DeviceOffset::new(self.start)
    }

    /// Number of bytes in the span.
    #[must_use]
    pub const fn bytes(self) -> ByteLen {
        ByteLen::new(self.len())
    }

    const fn len(self) -> u64 {
        self.end - self.start
    }
}

/// One move of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Index into the shards that the plan was made for.
    pub shard: usize,
    /// Where the shard lies.
    pub from: Span,
    /// Where the shard moves to.
    pub to: DeviceOffset,
}

impl Step {
    /// Returns true if the new place and the old one share no byte.
    #[must_use]
    pub const fn is_clear(&self) -> bool {
        let to = self.to.get();
        to.saturating_add(self.from.len()) <= self.from.start || to >= self.from.end
    }
}

/// The result of planning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Make these moves, one after the other.
    Steps(Vec<Step>),
    /// Holes can be joined, but that takes more bytes than the caller allows to move.
    TooDear,
    /// No holes can be joined.
    Nothing,
}

/// A region that is being compacted: its holes, the shards that may move, and the moves that are
/// worth most.
///
/// The best choice is the one that joins most for the bytes that it moves. The measure is the sum of
/// the squares of all holes: every choice raises it, so planning ends.
///
/// The caller carries out the steps of [`next`](Self::next) and says how each went: with
/// [`moved`](Self::moved), [`fix`](Self::fix) or [`block`](Self::block). A hole that becomes a
/// better target for a shard elsewhere is not noticed: once `next` returns no steps, a new
/// `Compaction` may find more. If that one finds none at first, none are left.
#[derive(Debug)]
pub struct Compaction {
    holes: Holes,
    /// The shards that may move: start → end, and the index of the shard.
    shards: BTreeMap<u64, (u64, usize)>,
    /// Start → end of everything else below the last hole.
    walls: BTreeMap<u64, u64>,
    /// What was worth something when it was put here. Each choice is judged again before it is
    /// made.
    queue: BinaryHeap<Choice>,
    too_dear: bool,
}

impl Compaction {
    /// # Arguments
    ///
    /// * `holes`: in order of their addresses, without overlaps.
    /// * `shards`: those that may move, in any order. A shard that overlaps a hole or another shard
    ///   does not move: it lay elsewhere when the holes were listed.
    #[must_use]
    pub fn new(holes: &[Span], shards: &[Span]) -> Self {
        let mut this = Self {
            holes: Holes::default(),
            shards: BTreeMap::new(),
            walls: BTreeMap::new(),
            queue: BinaryHeap::new(),
            too_dear: false,
        };
        for hole in holes {
            this.holes.give(Bytes { start: hole.start, end: hole.end });
        }
        for (index, shard) in shards.iter().enumerate() {
            let below = this.shards.range(..shard.end).next_back();
            let overlaps = below.is_some_and(|(_, (end, _))| *end > shard.start);
            let in_hole =
                this.holes.last_before(shard.end).is_some_and(|hole| hole.end > shard.start);
            if !overlaps && !in_hole && shard.len() > 0 {
                this.shards.insert(shard.start, (shard.end, index));
            }
        }
        this.build_walls();
        let starts: Vec<u64> = this.holes.iter().map(|hole| hole.start).collect();
        for start in starts {
            this.offer_around(start);
        }
        this
    }

    /// The moves that join most for the bytes they take, one after the other.
    ///
    /// # Arguments
    ///
    /// * `max_bytes`: how many bytes may be moved.
    #[must_use]
    pub fn next(&mut self, max_bytes: ByteLen) -> Found {
        while let Some(best) = self.queue.pop() {
            let Some(now) = self.judge(best.kind) else { continue };
            if now.cost > max_bytes.get() {
                self.too_dear = true;
            } else if self.queue.peek().is_none_or(|other| now >= *other) {
                return Found::Steps(self.steps(now.kind));
            } else {
                self.queue.push(now);
            }
        }
        if self.too_dear { Found::TooDear } else { Found::Nothing }
    }

    /// Records that a step was carried out.
    pub fn moved(&mut self, step: &Step) {
        let Some((end, index)) = self.shards.remove(&step.from.start) else { return };
        let (start, to) = (step.from.start, step.to.get());
        self.holes.give(Bytes { start, end });
        let taken = Bytes { start: to, end: to + (end - start) };
        if let Some(hole) = self.holes.containing(to).filter(|hole| hole.end >= taken.end) {
            self.holes.take(hole, taken);
        }
        self.shards.insert(taken.start, (taken.end, index));
        self.offer_around(start);
        self.offer_around(to);
    }

    /// Records that a shard stays where the step has it.
    pub fn fix(&mut self, step: &Step) {
        if let Some((end, _)) = self.shards.remove(&step.from.start) {
            self.walls.insert(step.from.start, end);
        }
    }

    /// Records that a step found its target taken: that hole is used no more.
    pub fn block(&mut self, step: &Step) {
        if let Some(hole) = self.holes.containing(step.to.get()) {
            self.holes.take(hole, hole);
            self.walls.insert(hole.start, hole.end);
        }
    }

    /// Everything that is neither a hole nor a shard that may move.
    fn build_walls(&mut self) {
        let holes = self.holes.iter().map(|hole| (hole.start, hole.end));
        let shards = self.shards.iter().map(|(start, (end, _))| (*start, *end));
        let mut known: Vec<_> = holes.chain(shards).collect();
        known.sort_unstable();
        let mut at = 0;
        for (start, end) in known {
            if start > at {
                self.walls.insert(at, start);
            }
            at = end;
        }
    }

    fn steps(&self, kind: Kind) -> Vec<Step> {
        let step = |start: u64, end: u64, shard: usize, to: u64| Step {
            shard,
            from: Span { start, end },
            to: DeviceOffset::new(to),
        };
        match kind {
            Kind::Slide { low } => {
                let pair = self.holes.containing(low).zip(self.holes.first_from(low + 1));
                let Some((low, high)) = pair else { return Vec::new() };
                let between = self.shards.range(low.end..high.start);
                between
                    .map(|(start, (end, shard))| step(*start, *end, *shard, start - low.len()))
                    .collect()
            }
            Kind::Hop { from } => {
                let target = self.shards.get(&from).zip(self.target(from));
                let hop = target.map(|((end, shard), to)| step(from, *end, *shard, to.start));
                hop.into_iter().collect()
            }
        }
    }
}
