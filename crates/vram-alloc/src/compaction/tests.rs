//! Which moves are chosen, and that following them ends with the largest hole there can be.

use alloc::vec;

use proptest::prelude::*;

use super::*;

fn span(start: u64, end: u64) -> Span {
    Span { start, end }
}

fn first(holes: &[Span], shards: &[Span], max_bytes: ByteLen) -> Found {
    Compaction::new(holes, shards).next(max_bytes)
}

#[test]
fn a_run_between_two_holes_slides_down() {
    let holes = [span(0, 10), span(30, 40)];
    let shards = [span(10, 12), span(12, 30)];
    let steps = [
        Step { shard: 0, from: span(10, 12), to: DeviceOffset::new(0) },
        Step { shard: 1, from: span(12, 30), to: DeviceOffset::new(2) },
    ];
    assert_eq!(first(&holes, &shards, ByteLen::new(u64::MAX)), Found::Steps(steps.to_vec()));
    assert_eq!(first(&holes, &shards, ByteLen::new(1)), Found::TooDear);
    assert!(steps[0].is_clear() && !steps[1].is_clear());
}

#[test]
fn a_small_shard_between_large_holes_hops_into_a_hole_that_fits() {
    let holes = [span(0, 100), span(110, 200), span(300, 310)];
    let shards = [span(100, 110)];
    let found = first(&holes, &shards, ByteLen::new(u64::MAX));
    let hop = Step { shard: 0, from: span(100, 110), to: DeviceOffset::new(300) };
    assert_eq!(found, Found::Steps(vec![hop]));
}

#[test]
fn what_cannot_be_moved_keeps_holes_apart() {
    // The bytes between 10 and 30 belong to no movable shard.
    assert_eq!(first(&[span(0, 10), span(30, 40)], &[], ByteLen::new(u64::MAX)), Found::Nothing);
    assert_eq!(
        first(&[span(0, 10), span(30, 40)], &[span(10, 20)], ByteLen::new(u64::MAX)),
        Found::Steps(vec![Step { shard: 0, from: span(10, 20), to: DeviceOffset::new(30) }])
    );
    assert_eq!(first(&[], &[span(0, 10)], ByteLen::new(u64::MAX)), Found::Nothing);
}

#[test]
fn a_run_that_stops_short_of_the_next_hole_does_not_slide() {
    // What lies between 20 and 30 may not move, and no hole takes the shard.
    let holes = [span(0, 10), span(30, 35)];
    assert_eq!(first(&holes, &[span(10, 20)], ByteLen::new(u64::MAX)), Found::Nothing);
}

#[test]
fn a_shard_does_not_hop_into_a_hole_of_its_own_length_for_nothing() {
    // No hole is beside it: after the move there would be one of the same length.
    let found = first(&[span(0, 10)], &[span(50, 60)], ByteLen::new(u64::MAX));
    assert_eq!(found, Found::Nothing);
}

fn holes_of(shards: &[Span], capacity: u64) -> Vec<Span> {
    let mut sorted = shards.to_vec();
    sorted.sort_by_key(|shard| shard.start);
    let mut at = 0;
    let mut holes = Vec::new();
    for shard in sorted {
        assert!(at <= shard.start, "two shards overlap");
        if shard.start > at {
            holes.push(span(at, shard.start));
        }
        at = shard.end;
    }
    assert!(at <= capacity, "a shard lies outside the region");
    if at < capacity {
        holes.push(span(at, capacity));
    }
    holes
}

/// A region whose shards are moved as the plans say. The first of the shards may move.
struct Region {
    shards: Vec<Span>,
    movable: usize,
    capacity: u64,
    moves: usize,
}

impl Region {
    fn holes(&self) -> Vec<Span> {
        holes_of(&self.shards, self.capacity)
    }

    fn measure(&self) -> u128 {
        self.holes().iter().map(|hole| u128::from(hole.len()) * u128::from(hole.len())).sum()
    }

    /// Follows one plan to its end. Returns the number of moves.
    fn follow_one(&mut self) -> usize {
        let before = self.moves;
        let mut plan = Compaction::new(&self.holes(), &self.shards[..self.movable]);
        let mut measure = self.measure();
        while let Found::Steps(steps) = plan.next(ByteLen::new(u64::MAX)) {
            for step in steps {
                assert_eq!(self.shards[step.shard], step.from, "the plan knows where it lies");
                let to = step.to.get();
                self.shards[step.shard] = span(to, to + step.from.len());
                plan.moved(&step);
                self.moves += 1;
                self.holes();
            }
            assert!(self.measure() > measure, "each choice joins something");
            measure = self.measure();
        }
        self.moves - before
    }

    /// Follows plans until a new one finds nothing. Returns the number of plans.
    fn follow(&mut self) -> u64 {
        let mut plans = 1;
        while self.follow_one() > 0 {
            plans += 1;
        }
        plans
    }
}

/// Lengths, and whether a shard lies there (or a hole), and whether it may move.
fn region(layout: &[(u64, bool, bool)]) -> Region {
    let (mut movable, mut fixed, mut capacity) = (Vec::new(), Vec::new(), 0);
    for (len, is_shard, moves) in layout {
        if *is_shard {
            let kind = if *moves { &mut movable } else { &mut fixed };
            kind.push(span(capacity, capacity + len));
        }
        capacity += len;
    }
    let count = movable.len();
    movable.append(&mut fixed);
    Region { shards: movable, movable: count, capacity, moves: 0 }
}

#[test]
fn a_step_that_failed_is_not_planned_again() {
    let (holes, shards) = ([span(0, 10), span(30, 40)], [span(10, 20), span(20, 30)]);
    let mut plan = Compaction::new(&holes, &shards);
    let mut seen = 0;
    while let Found::Steps(steps) = plan.next(ByteLen::new(u64::MAX)) {
        plan.fix(&steps[0]);
        seen += 1;
        assert!(seen <= shards.len(), "each shard is tried once");
    }
    let mut plan = Compaction::new(&holes, &shards);
    let mut targets = Vec::new();
    while let Found::Steps(steps) = plan.next(ByteLen::new(u64::MAX)) {
        plan.block(&steps[0]);
        assert!(!targets.contains(&steps[0].to), "each hole is tried once");
        targets.push(steps[0].to);
    }
}

#[test]
fn what_lay_elsewhere_when_the_holes_were_listed_does_not_move() {
    let holes = [span(0, 10), span(30, 40)];
    // The first lies in a hole, the last two on each other.
    let shards = [span(5, 15), span(15, 30), span(20, 30)];
    let mut plan = Compaction::new(&holes, &shards);
    while let Found::Steps(steps) = plan.next(ByteLen::new(u64::MAX)) {
        assert!(steps.iter().all(|step| step.shard == 1), "{steps:?}");
        for step in &steps {
            plan.moved(step);
        }
    }
}

proptest! {
    /// If every shard can be moved, planning ends with one hole, and no step ever lands on a shard
    /// or outside the region.
    #[test]
    fn plans_end_with_one_hole_and_never_overlap(
        layout in prop::collection::vec((1..50_u64, any::<bool>(), Just(true)), 1..40)
    ) {
        let mut region = region(&layout);
        let plans = region.follow();
        prop_assert!(region.holes().len() <= 1);
        prop_assert!(plans <= 8, "{plans} plans");
        prop_assert!(region.moves <= 4 * layout.len(), "{} moves", region.moves);
    }

    /// What may not move stays, and no two holes are left that a run of movable shards parts.
    #[test]
    fn plans_go_around_what_may_not_move(
        layout in prop::collection::vec((1..50_u64, any::<bool>(), prop::bool::weighted(0.7)), 1..60)
    ) {
        let mut region = region(&layout);
        let fixed = region.shards[region.movable..].to_vec();
        let plans = region.follow();
        prop_assert!(plans <= 8, "{plans} plans");
        prop_assert_eq!(&region.shards[region.movable..], fixed.as_slice());
        for pair in region.holes().windows(2) {
            let between = pair[0].end..pair[1].start;
            prop_assert!(fixed.iter().any(|wall| between.contains(&wall.start)));
        }
    }
}
