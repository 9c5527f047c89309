//! Property: the arena agrees with a naive reference over any run of calls (P2, P3, P4).
//!
//! Method: the reference keeps a plain list of taken intervals and recomputes everything by
//! scanning. Regions are often not a multiple of 256 and sizes sit near granule edges, since that
//! is where sub-allocators lose their last bytes.

#![expect(clippy::arithmetic_side_effects, reason = "figures are far below 2^63")]
#![expect(clippy::unwrap_used, reason = "a panic is the failure of the test")]

#[macro_use]
extern crate vram_testkit;

use proptest::collection::vec;
use proptest::prelude::*;
use vram_alloc::{
    Alignment, Arena, ArenaError, ArenaPolicy, ByteLen, ByteOffset, ByteRange, Placement,
    ReleaseReason,
};

const GRANULE: u64 = 256;

/// Taken intervals in address order, and nothing else.
#[derive(Clone, Default)]
struct Naive {
    capacity: u64,
    taken: Vec<(u64, u64)>,
}

impl Naive {
    fn holes(&self) -> Vec<(u64, u64)> {
        let mut holes = Vec::new();
        let mut at = 0;
        for &(start, end) in &self.taken {
            if start > at {
                holes.push((at, start));
            }
            at = end;
        }
        if at < self.capacity {
            holes.push((at, self.capacity));
        }
        holes
    }

    /// Whether any granule-aligned start serves, found by looking at the lowest one of each hole.
    fn fits(&self, len: u64, align: u64) -> bool {
        let align = align.max(GRANULE);
        len == 0
            || self.holes().iter().any(|&(start, end)| start.next_multiple_of(align) + len <= end)
    }

    fn take(&mut self, start: u64, end: u64) {
        if start < end {
            self.taken.push((start, end));
            self.taken.sort_unstable();
        }
    }
}

#[derive(Clone, Debug)]
enum Call {
    Place { len: u64, align_power: u32 },
    Release { which: usize },
    Reset,
}

fn len_below(max: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        1 => Just(0),
        2 => 1..=2 * GRANULE,
        4 => (1..=max / GRANULE + 1, -1..=1_i64)
            .prop_map(|(granules, edge)| (granules * GRANULE).saturating_add_signed(edge)),
        4 => 1..=max,
    ]
}

fn run_of_calls() -> impl Strategy<Value = (u64, u64, Vec<Call>)> {
    (0..200 * GRANULE, 0..8 * GRANULE).prop_flat_map(|(capacity, small_max)| {
        let call = prop_oneof![
            60 => (len_below(capacity / 4 + 1), 0..14_u32)
                .prop_map(|(len, align_power)| Call::Place { len, align_power }),
            40 => any::<usize>().prop_map(|which| Call::Release { which }),
            1 => Just(Call::Reset),
        ];
        (Just(capacity), Just(small_max), vec(call, 0..120))
    })
}

fn arena(capacity: u64, small_max: u64) -> Arena {
    let policy = ArenaPolicy { small_max: ByteLen::new(small_max) };
    Arena::with_policy(ByteLen::new(capacity), policy).unwrap()
}

/// The publicly visible state of an arena.
fn state(arena: &Arena) -> impl PartialEq + core::fmt::Debug + use<> {
    (arena.report(), arena.holes().collect::<Vec<_>>(), arena.live().collect::<Vec<_>>())
}

fn check(arena: &Arena, naive: &Naive, live_count: usize) -> Result<(), TestCaseError> {
    let report = arena.report();
    let holes: Vec<_> = arena.holes().map(|h| (h.start().get(), h.end().get())).collect();
    // The reference's holes are disjoint, in order and never adjacent, by how they are computed.
    prop_assert_eq!(&holes, &naive.holes());
    let lens = holes.iter().map(|(start, end)| end - start);
    prop_assert_eq!(report.capacity.get(), naive.capacity);
    prop_assert_eq!(report.free.get(), lens.clone().sum::<u64>());
    prop_assert_eq!(report.used.get() + report.free.get(), naive.capacity);
    prop_assert_eq!(report.largest_hole.get(), lens.max().unwrap_or(0));
    prop_assert_eq!(report.hole_count, holes.len());
    prop_assert_eq!(report.live_count, live_count);
    let live: Vec<_> = arena.live().map(|l| (l.start().get(), l.end().get())).collect();
    let taken: Vec<_> = live.into_iter().filter(|(start, end)| start < end).collect();
    prop_assert_eq!(&taken, &naive.taken);
    Ok(())
}

proptest! {
    /// P2, P3: placements are in bounds, aligned and disjoint; live and holes make up the region
    /// exactly; a refusal means that no hole fits; a drained arena is as new.
    #[test]
    fn the_arena_agrees_with_a_list_of_intervals((capacity, small_max, calls) in run_of_calls()) {
        let mut arena = arena(capacity, small_max);
        let fresh = state(&arena);
        let mut naive = Naive { capacity, taken: Vec::new() };
        let mut live: Vec<Placement> = Vec::new();

        for call in calls {
            match call {
                Call::Place { len, align_power } => {
                    let align = Alignment::new(1 << align_power).unwrap();
                    let fits = naive.fits(len, align.get());
                    let before = state(&arena);
                    match arena.place(ByteLen::new(len), align) {
                        Ok(placement) => {
                            prop_assert!(fits);
                            let (start, footprint) =
                                (placement.start().get(), placement.footprint().get());
                            prop_assert!(start.is_multiple_of(align.get().max(GRANULE)));
                            prop_assert_eq!(placement.len().get(), len);
                            prop_assert!(footprint >= len && footprint < len + GRANULE);
                            prop_assert!(
                                footprint.is_multiple_of(GRANULE) || start + footprint == capacity
                            );
                            prop_assert!(start + footprint <= capacity);
                            let free = |&(a, b): &(u64, u64)| start + footprint <= a || b <= start;
                            prop_assert!(footprint == 0 || naive.taken.iter().all(free));
                            naive.take(start, start + footprint);
                            live.push(placement);
                        }
                        Err(ArenaError::NoHole { needed, free, largest_hole, .. }) => {
                            prop_assert!(!fits);
                            prop_assert_eq!(needed.get(), len);
                            prop_assert_eq!(free, arena.report().free);
                            prop_assert_eq!(largest_hole, arena.report().largest_hole);
                            prop_assert_eq!(state(&arena), before);
                        }
                        Err(other) => prop_assert!(false, "unexpected refusal: {other}"),
                    }
                }
                Call::Release { which } if !live.is_empty() => {
                    let placement = live.swap_remove(which % live.len());
                    let (start, end) = {
                        let range = placement.footprint_range();
                        (range.start().get(), range.end().get())
                    };
                    arena.release(placement).unwrap();
                    naive.taken.retain(|&taken| taken != (start, end));
                }
                Call::Release { .. } => {}
                Call::Reset => {
                    arena.reset();
                    naive.taken.clear();
                    // P4: what was live before is refused now, and nothing changes.
                    for stale in live.drain(..) {
                        let before = state(&arena);
                        let refused = arena.release(stale).unwrap_err();
                        prop_assert_eq!(refused.reason, ReleaseReason::Stale);
                        prop_assert_eq!(state(&arena), before);
                    }
                }
            }
            check(&arena, &naive, live.len())?;
        }

        for placement in live {
            arena.release(placement).unwrap();
        }
        prop_assert_eq!(state(&arena), fresh);
        let whole = arena.place(ByteLen::new(capacity), Alignment::GRANULE).unwrap();
        prop_assert_eq!(whole.footprint().get(), capacity);
    }

    /// The same calls give the same placements; `fits` predicts exactly the outcome of placing.
    #[test]
    fn a_dry_run_foretells_the_placements(
        capacity in 0..200 * GRANULE,
        pieces in vec((0..20 * GRANULE, 0..12_u32), 0..60),
    ) {
        let pieces: Vec<_> = pieces
            .into_iter()
            .map(|(len, power)| (ByteLen::new(len), Alignment::new(1 << power).unwrap()))
            .collect();
        let mut first = arena(capacity, 4 * GRANULE);
        let mut second = arena(capacity, 4 * GRANULE);
        let foretold = first.fits(pieces.iter().copied());
        prop_assert_eq!(first.report().live_count, 0);

        for (index, &(len, align)) in pieces.iter().enumerate() {
            match (first.place(len, align), second.place(len, align)) {
                (Ok(a), Ok(b)) => prop_assert_eq!(a.footprint_range(), b.footprint_range()),
                (Err(a), Err(b)) => {
                    prop_assert_eq!(a, b);
                    let misfit = foretold.unwrap_err();
                    prop_assert_eq!(misfit.index, index);
                    prop_assert_eq!(misfit.needed, len);
                    return Ok(());
                }
                (a, b) => prop_assert!(false, "{a:?} and {b:?}"),
            }
        }
        prop_assert!(foretold.is_ok());
    }

    /// A part of a shard lies inside the shard's placement, at the same distance.
    #[test]
    fn a_part_is_located_inside_its_placement(
        before in 0..5000_u64, len in 0..5000_u64, offset in 0..6000_u64, part_len in 0..6000_u64,
    ) {
        let mut arena = arena(20_000, 0);
        let _first = arena.place(ByteLen::new(before), Alignment::ONE).unwrap();
        let placement = arena.place(ByteLen::new(len), Alignment::ONE).unwrap();
        let part =
            ByteRange::checked(ByteOffset::new(offset), ByteLen::new(part_len), ByteLen::MAX)
                .unwrap();
        match placement.locate(part) {
            Ok(range) => {
                prop_assert!(offset + part_len <= len);
                prop_assert_eq!(range.start().get(), placement.start().get() + offset);
                prop_assert_eq!(range.len(), part.len());
            }
            Err(_) => prop_assert!(offset + part_len > len),
        }
    }
}

/// P4: an arena and its clone each refuse the other's placement, and return it.
#[test]
fn a_foreign_placement_is_refused_and_nothing_changes() {
    let mut ours = arena(10_000, 0);
    let mut theirs = ours.clone();
    let placement = ours.place(ByteLen::new(1000), Alignment::ONE).unwrap();
    let twin = theirs.place(ByteLen::new(1000), Alignment::ONE).unwrap();
    assert_eq!(placement.range(), twin.range(), "a clone places alike");

    let (ours_before, theirs_before) = (state(&ours), state(&theirs));
    let refused = theirs.release(placement).unwrap_err();
    assert_eq!(refused.reason, ReleaseReason::Foreign);
    assert_eq!(state(&theirs), theirs_before);
    assert_eq!(state(&ours), ours_before);

    ours.release(refused.placement).unwrap();
    theirs.release(twin).unwrap();
    assert_eq!(ours.report().free.get(), 10_000);
}

/// P4: a placement does not free its slot once the slot belongs to a later placement.
#[test]
fn a_stale_placement_does_not_free_its_successor() {
    let mut arena = arena(4096, 0);
    let stale = arena.place(ByteLen::new(256), Alignment::ONE).unwrap();
    arena.reset();
    let successor = arena.place(ByteLen::new(256), Alignment::ONE).unwrap();
    assert_eq!(stale.range(), successor.range());
    assert_eq!(arena.release(stale).unwrap_err().reason, ReleaseReason::Stale);
    assert_eq!(arena.report().live_count, 1);
    arena.release(successor).unwrap();
}

/// P3: in a region of any length, the last bytes can be placed and released.
#[test]
fn a_region_that_is_no_multiple_of_a_granule_is_given_out_whole() {
    for capacity in [1, 255, 256, 257, 1000, 65_537, (1 << 48) - 1] {
        let mut arena = arena(capacity, 4096);
        let whole = arena.place(ByteLen::new(capacity), Alignment::GRANULE).unwrap();
        assert_eq!(whole.footprint().get(), capacity);
        assert_eq!(arena.report().free, ByteLen::ZERO);
        assert!(arena.place(ByteLen::new(1), Alignment::ONE).is_err());
        arena.release(whole).unwrap();
        assert_eq!(arena.report().largest_hole.get(), capacity);
    }
}

/// The largest arguments are refused, never wrapped.
#[test]
fn extreme_sizes_and_alignments_are_refused() {
    assert!(matches!(Arena::new(ByteLen::new(1 << 48)), Err(ArenaError::CapacityTooLarge { .. })));
    let top = Alignment::new(1 << 63).unwrap();
    for len in [1 << 48, 1 << 63, u64::MAX - 1, u64::MAX] {
        let mut arena = arena((1 << 48) - 1, 0);
        assert!(arena.place(ByteLen::new(len), Alignment::ONE).is_err());
        assert!(arena.place(ByteLen::new(len), top).is_err());
        // Position 0 is a multiple of everything.
        let _first = arena.place(ByteLen::new(1), top).unwrap();
        assert!(arena.place(ByteLen::new(1), top).is_err());
        assert_eq!(arena.report().live_count, 1);
    }
}

/// Small pieces gather at the high end and large ones at the low end.
#[test]
fn small_and_large_pieces_grow_towards_each_other() {
    let mut arena = arena(1 << 20, 1024);
    let starts: Vec<_> = [512, 4096, 1024, 8192]
        .map(|len| arena.place(ByteLen::new(len), Alignment::ONE).unwrap().start().get())
        .into();
    assert_eq!(starts, [(1 << 20) - 512, 0, (1 << 20) - 512 - 1024, 4096]);
    assert_eq!(arena.holes().count(), 1);
    assert_eq!(arena.live().map(|r| r.start().get()).collect::<Vec<_>>()[0], 0);
}
