//! Property: placing at a chosen offset succeeds exactly where a bitmap of granules is free, and
//! keeps the arena's figures (P2, P3).
//!
//! Method: the reference marks each granule of a small region. Regions are often not a multiple of
//! 256, so that the last granule is short.

#![expect(clippy::arithmetic_side_effects, reason = "figures are far below 2^63")]

#[macro_use]
extern crate vram_testkit;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use vram_alloc::{Alignment, Arena, ByteLen, DeviceOffset, Placement};

const GRANULE: u64 = 256;

/// Which placement is released before the next one is asked for, if any.
fn gone() -> impl Strategy<Value = Option<Index>> {
    prop_oneof![3 => Just(None), 1 => any::<Index>().prop_map(Some)]
}

proptest! {
    #[test]
    fn a_place_is_given_exactly_where_all_of_it_is_free(
        capacity in prop_oneof![1..5000_u64, 1..60_000_u64],
        wanted in vec((0..61_000_u64, any::<bool>(), 0..1500_u64, gone()), 1..240),
    ) {
        let mut arena = Arena::new(ByteLen::new(capacity)).unwrap();
        let mut taken = vec![false; usize::try_from(capacity.div_ceil(GRANULE)).unwrap()];
        let mut placements = Vec::new();
        for (start, aligned, len, released) in wanted {
            // Also those between which a search by address has found its way before.
            if let Some(which) = released.filter(|_| !placements.is_empty()) {
                let placement: Placement = placements.swap_remove(which.index(placements.len()));
                let (first, len) = (placement.start().get(), placement.footprint().get());
                let granules = first / GRANULE..(first + len).div_ceil(GRANULE);
                let range = usize::try_from(granules.start).unwrap()..usize::try_from(granules.end).unwrap();
                taken[range].fill(false);
                arena.release(placement).unwrap();
            }
            let start = start % (capacity + 300);
            let start = if aligned { start & !(GRANULE - 1) } else { start };
            let granules = start / GRANULE..(start + len).div_ceil(GRANULE);
            let range = usize::try_from(granules.start).unwrap()..usize::try_from(granules.end).unwrap();
            let free = len == 0
                || (start % GRANULE == 0
                    && start + len <= capacity
                    && taken[range.clone()].iter().all(|granule| !granule));
            let placed = arena.place_at(DeviceOffset::new(start), ByteLen::new(len));
            prop_assert_eq!(placed.is_ok(), free);
            let Ok(placement) = placed else { continue };
            prop_assert_eq!(placement.len().get(), len);
            if len > 0 {
                prop_assert_eq!(placement.start().get(), start);
                taken[range].fill(true);
            }
            placements.push(placement);

            let report = arena.report();
            prop_assert_eq!(report.used.get() + report.free.get(), capacity);
            let live: u64 = arena.live().map(|range| range.len().get()).sum();
            prop_assert_eq!(live, report.used.get());
        }
        for placement in placements {
            arena.release(placement).unwrap();
        }
        prop_assert_eq!(arena.report().largest_hole.get(), capacity);
        // Places chosen by the caller mix with places chosen by the arena.
        prop_assert!(arena.place(ByteLen::new(capacity), Alignment::GRANULE).is_ok());
    }
}

/// Spelled out, since a random piece rarely fills its hole.
#[test]
fn a_piece_is_placed_in_a_hole_that_it_fills_exactly_and_one_byte_more_is_not() {
    let mut arena = Arena::new(ByteLen::new(1024)).unwrap();
    let start = DeviceOffset::new(256);
    assert!(arena.place_at(start, ByteLen::new(769)).is_err());
    let placement = arena.place_at(start, ByteLen::new(768)).unwrap();
    assert_eq!((placement.start(), placement.footprint().get()), (start, 768));
    assert_eq!(arena.report().largest_hole.get(), 256);
}
