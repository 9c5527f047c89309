//! Choosing the shards to move: pure arithmetic over holes and the shards between them.

#![expect(clippy::arithmetic_side_effects, reason = "positions are below 2^48, squares below 2^96")]

use alloc::vec::Vec;

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

/// The moves that join most for the bytes they take.
///
/// The measure is the sum of the squares of all holes: every plan raises it, so planning ends.
///
/// # Arguments
///
/// * `holes`, `shards`: in order of their addresses, each without overlaps. Of the shards, only
///   those that may move.
/// * `max_bytes`: how many bytes may be moved.
#[must_use]
pub fn best_moves(holes: &[Span], shards: &[Span], max_bytes: ByteLen) -> Found {
    let mut best = Best { max_bytes: max_bytes.get(), too_dear: false, found: None };
    slides(holes, shards, &mut best);
    hops(holes, shards, &mut best);
    match best.found {
        Some(candidate) => Found::Steps(candidate.steps(shards)),
        None if best.too_dear => Found::TooDear,
        None => Found::Nothing,
    }
}

/// The best candidate so far.
struct Best {
    max_bytes: u64,
    too_dear: bool,
    found: Option<Candidate>,
}

#[derive(Clone, Debug)]
struct Candidate {
    /// How much the moves add to the measure, for each byte moved.
    worth: u128,
    cost: u64,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// These shards move down by this many bytes.
    Slide { shards: core::ops::Range<usize>, by: u64 },
    /// This shard moves to this place.
    Hop { shard: usize, to: u64 },
}

impl Best {
    fn offer(&mut self, gain: u128, cost: u64, kind: Kind) {
        if cost > self.max_bytes {
            self.too_dear = true;
            return;
        }
        let worth = gain / u128::from(cost.max(1));
        let better = |old: &Candidate| (worth, old.cost) > (old.worth, cost);
        if self.found.as_ref().is_none_or(better) {
            self.found = Some(Candidate { worth, cost, kind });
        }
    }
}

impl Candidate {
    fn steps(self, shards: &[Span]) -> Vec<Step> {
        let step = |shard: usize, to: &dyn Fn(Span) -> u64| {
            shards.get(shard).map(|from| Step {
                shard,
                from: *from,
                to: DeviceOffset::new(to(*from)),
            })
        };
        match self.kind {
            Kind::Slide { shards, by } => {
                shards.filter_map(|shard| step(shard, &|from| from.start - by)).collect()
            }
            Kind::Hop { shard, to } => step(shard, &|_from| to).into_iter().collect(),
        }
    }
}

/// Two neighbouring holes with only movable shards between them: slid down, the shards leave one
/// hole.
fn slides(holes: &[Span], shards: &[Span], best: &mut Best) {
    for pair in holes.windows(2) {
        let [low, high] = pair else { continue };
        let first = shards.partition_point(|shard| shard.start < low.end);
        let mut at = low.end;
        let mut end = first;
        while let Some(shard) = shards.get(end).filter(|shard| shard.start == at) {
            at = shard.end;
            end += 1;
            if at >= high.start {
                break;
            }
        }
        if at == high.start && end > first {
            let gain = 2 * u128::from(low.len()) * u128::from(high.len());
            let kind = Kind::Slide { shards: first..end, by: low.len() };
            best.offer(gain, high.start - low.end, kind);
        }
    }
}

/// A shard that moves into a hole elsewhere, so that its old place joins the holes beside it.
fn hops(holes: &[Span], shards: &[Span], best: &mut Best) {
    let square = |len: u64| u128::from(len) * u128::from(len);
    let mut by_len: Vec<&Span> = holes.iter().collect();
    by_len.sort_by_key(|hole| (hole.len(), hole.start));
    for (index, shard) in shards.iter().enumerate() {
        let at = holes.partition_point(|hole| hole.start < shard.start);
        let below = at.checked_sub(1).and_then(|below| holes.get(below));
        let below = below.filter(|hole| hole.end == shard.start);
        let above = holes.get(at).filter(|hole| hole.start == shard.end);
        let fitting = by_len.partition_point(|hole| hole.len() < shard.len());
        let beside = |hole: &Span| Some(hole) == below || Some(hole) == above;
        let Some(hole) = by_len.iter().skip(fitting).find(|hole| !beside(hole)) else { continue };
        let (below, above) =
            (below.map_or(0, |hole| hole.len()), above.map_or(0, |hole| hole.len()));
        let before = square(below) + square(above) + square(hole.len());
        let after = square(below + shard.len() + above) + square(hole.len() - shard.len());
        if after > before {
            best.offer(after - before, shard.len(), Kind::Hop { shard: index, to: hole.start });
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn span(start: u64, end: u64) -> Span {
        Span { start, end }
    }

    #[test]
    fn a_run_between_two_holes_slides_down() {
        let holes = [span(0, 10), span(30, 40)];
        let shards = [span(10, 12), span(12, 30)];
        let steps = [
            Step { shard: 0, from: span(10, 12), to: DeviceOffset::new(0) },
            Step { shard: 1, from: span(12, 30), to: DeviceOffset::new(2) },
        ];
        assert_eq!(
            best_moves(&holes, &shards, ByteLen::new(u64::MAX)),
            Found::Steps(steps.to_vec())
        );
        assert_eq!(best_moves(&holes, &shards, ByteLen::new(1)), Found::TooDear);
        assert!(steps[0].is_clear() && !steps[1].is_clear());
    }

    #[test]
    fn a_small_shard_between_large_holes_hops_into_a_hole_that_fits() {
        let holes = [span(0, 100), span(110, 200), span(300, 310)];
        let shards = [span(100, 110)];
        let found = best_moves(&holes, &shards, ByteLen::new(u64::MAX));
        let hop = Step { shard: 0, from: span(100, 110), to: DeviceOffset::new(300) };
        assert_eq!(found, Found::Steps(vec![hop]));
    }

    #[test]
    fn what_cannot_be_moved_keeps_holes_apart() {
        // The bytes between 10 and 30 belong to no movable shard.
        assert_eq!(
            best_moves(&[span(0, 10), span(30, 40)], &[], ByteLen::new(u64::MAX)),
            Found::Nothing
        );
        assert_eq!(
            best_moves(&[span(0, 10), span(30, 40)], &[span(10, 20)], ByteLen::new(u64::MAX)),
            Found::Steps(vec![Step { shard: 0, from: span(10, 20), to: DeviceOffset::new(30) }])
        );
        assert_eq!(best_moves(&[], &[span(0, 10)], ByteLen::new(u64::MAX)), Found::Nothing);
    }

    #[test]
    fn a_run_that_stops_short_of_the_next_hole_does_not_slide() {
        // What lies between 20 and 30 may not move, and no hole takes the shard.
        let found = best_moves(&[span(0, 10), span(30, 35)], &[span(10, 20)], ByteLen::MAX);
        assert_eq!(found, Found::Nothing);
    }

    #[test]
    fn a_shard_does_not_hop_into_a_hole_of_its_own_length_for_nothing() {
        // No hole is beside it: after the move there would be one of the same length.
        let found = best_moves(&[span(0, 10)], &[span(50, 60)], ByteLen::MAX);
        assert_eq!(found, Found::Nothing);
    }

    /// Carries out a plan on a list of shards.
    fn carry_out(shards: &mut [Span], steps: &[Step]) {
        for step in steps {
            let len = step.from.len();
            shards[step.shard] = span(step.to.get(), step.to.get() + len);
        }
    }

    fn holes_of(shards: &[Span], capacity: u64) -> Vec<Span> {
        let mut at = 0;
        let mut holes = Vec::new();
        for shard in shards {
            if shard.start > at {
                holes.push(span(at, shard.start));
            }
            at = shard.end;
        }
        if at < capacity {
            holes.push(span(at, capacity));
        }
        holes
    }

    proptest! {
        /// If every shard can be moved, planning ends with one hole, and no step ever lands on a
        /// shard or outside the region.
        #[test]
        fn plans_end_with_one_hole_and_never_overlap(
            layout in prop::collection::vec((1..50_u64, any::<bool>()), 1..40)
        ) {
            let mut shards = Vec::new();
            let mut capacity = 0;
            for (len, is_shard) in layout {
                if is_shard {
                    shards.push(span(capacity, capacity + len));
                }
                capacity += len;
            }
            let rounds = 4 * shards.len() + 16;
            for round in 0.. {
                prop_assert!(round <= rounds, "it does not end");
                let holes = holes_of(&shards, capacity);
                let Found::Steps(steps) = best_moves(&holes, &shards, ByteLen::new(u64::MAX)) else { break };
                for step in &steps {
                    carry_out(&mut shards, core::slice::from_ref(step));
                    let mut sorted = shards.clone();
                    sorted.sort_by_key(|shard| shard.start);
                    prop_assert!(sorted.windows(2).all(|pair| pair[0].end <= pair[1].start));
                    prop_assert!(sorted.iter().all(|shard| shard.end <= capacity));
                }
                shards.sort_by_key(|shard| shard.start);
            }
            prop_assert!(holes_of(&shards, capacity).len() <= 1);
        }
    }
}
