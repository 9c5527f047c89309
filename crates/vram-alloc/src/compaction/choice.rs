//! What a move is worth, judged where the region stands now.

use core::cmp::{Ordering, Reverse};

use super::Compaction;
use crate::arena::span::Span as Bytes;

/// Moves that could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The shards between the hole that starts here and the next hole move down by its length.
    Slide { low: u64 },
    /// The shard that starts here moves into the smallest other hole that fits it.
    Hop { from: u64 },
}

/// Moves, and what they are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// How much the moves add to the measure, for each byte moved.
    worth: u128,
    pub(super) cost: u64,
    pub(super) kind: Kind,
}

/// The better choice is the greater one; between equals, the lower address decides, so that a plan
/// is repeatable.
impl Ord for Choice {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |choice: &Self| (choice.worth, Reverse(choice.cost), Reverse(choice.kind));
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Choice {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Choice {
    fn new(gain: u128, cost: u64, kind: Kind) -> Self {
        Self { worth: gain / u128::from(cost.max(1)), cost, kind }
    }
}

impl Compaction {
    /// What moves are worth now; `None` if they cannot be made, or add nothing.
    pub(super) fn judge(&self, kind: Kind) -> Option<Choice> {
        match kind {
            Kind::Slide { low } => {
                let low = self.holes.containing(low).filter(|hole| hole.start == low)?;
                let high = self.holes.first_from(low.end)?;
                // Only shards that may move lie between them.
                let free = self.walls.range(low.end..high.start).next().is_none();
                let gain = 2 * u128::from(low.len()) * u128::from(high.len());
                free.then(|| Choice::new(gain, high.start - low.end, kind))
            }
            Kind::Hop { from } => {
                let (end, _) = *self.shards.get(&from)?;
                let len = end - from;
                let (below, above) = self.beside(from, end);
                let (below, above) = (below.map_or(0, Bytes::len), above.map_or(0, Bytes::len));
                let hole = self.target(from)?.len();
                let square = |len: u64| u128::from(len) * u128::from(len);
                let before = square(below) + square(above) + square(hole);
                let after = square(below + len + above) + square(hole - len);
                (after > before).then(|| Choice::new(after - before, len, kind))
            }
        }
    }

    /// The smallest hole that fits a shard and does not lie beside it.
    pub(super) fn target(&self, from: u64) -> Option<Bytes> {
        let (end, _) = *self.shards.get(&from)?;
        self.holes.at_least(end - from).find(|hole| hole.end != from && hole.start != end)
    }

    /// Puts every choice into the queue that the holes around `at` take part in.
    pub(super) fn offer_around(&mut self, at: u64) {
        let below = self.holes.last_before(at.saturating_add(1));
        let above = self.holes.first_from(at.saturating_add(1));
        let further = below.and_then(|below| self.holes.last_before(below.start));
        for hole in [further, below, above].into_iter().flatten() {
            self.offer(Kind::Slide { low: hole.start });
            self.offer(Kind::Hop { from: hole.end });
            let before = self.shards.range(..hole.start).next_back();
            if let Some((start, _)) = before.filter(|(_, (end, _))| *end == hole.start) {
                self.offer(Kind::Hop { from: *start });
            }
        }
    }

    fn offer(&mut self, kind: Kind) {
        self.queue.extend(self.judge(kind));
    }

    /// The holes that end and begin where a shard begins and ends.
    fn beside(&self, start: u64, end: u64) -> (Option<Bytes>, Option<Bytes>) {
        let below = self.holes.last_before(start).filter(|hole| hole.end == start);
        let above = self.holes.containing(end).filter(|hole| hole.start == end);
        (below, above)
    }
}
