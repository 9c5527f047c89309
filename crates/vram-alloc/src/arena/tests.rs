//! The index of holes by size keeps its promises whatever is placed and released.

#![expect(clippy::arithmetic_side_effects, reason = "figures are far below 2^63")]

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::blocks::Blocks;
use super::span::{End, Span};
use crate::Arena;
use crate::units::{Alignment, ByteLen, DeviceOffset};

const GRANULE: u64 = 256;

/// Many holes of a few lengths, so that a few bins have them all.
fn checkerboard(lens: &[u64]) -> (Blocks, Vec<usize>) {
    let capacity = lens.iter().map(|len| len * GRANULE + GRANULE).sum();
    let mut blocks = Blocks::whole(capacity);
    let mut live = Vec::new();
    let mut start = 0;
    for (serial, len) in (0_u64..).zip(lens) {
        for (len, serial) in [(len * GRANULE, serial * 2), (GRANULE, serial * 2 + 1)] {
            let hole = blocks.hole_at(start).expect("the rest of the region");
            let end = start + len;
            live.push(blocks.take(hole, Span { start, end }, serial));
            start = end;
        }
    }
    (blocks, live)
}

proptest! {
    #[test]
    fn bins_stay_in_order(
        lens in prop::collection::vec(1_u64..4, 1..80),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..160),
    ) {
        let (mut blocks, live) = checkerboard(&lens);
        // Only every second block is released, so none is joined.
        let mut released = Vec::new();
        for index in order {
            let which = index.index(lens.len());
            let serial = ByteLen::from_usize(which).get() * 2;
            if let Some(at) = released.iter().position(|other| *other == which) {
                released.swap_remove(at);
                let span = blocks.span(live[which * 2]);
                blocks.take(live[which * 2], span, serial);
            } else {
                prop_assert!(blocks.release(live[which * 2], serial).is_some());
                released.push(which);
            }
            blocks.sizes().check();
        }
        prop_assert_eq!(blocks.hole_count(), released.len());
    }
}

/// As a model of tiny tensors leaves them; on the way there and back the bin changes its form.
#[test]
fn holes_of_one_length_are_found_from_either_end_and_their_bin_becomes_a_tree_and_a_list_again() {
    let (mut blocks, live) = checkerboard(&vec![1; 10_000]);
    let fits = |blocks: &Blocks| {
        [End::Low, End::High].map(|end| blocks.best_fit(GRANULE, GRANULE, end).map(|(_, at)| at))
    };
    let start = |which: u64| Some(2 * which * GRANULE);
    for (which, block) in (0_u64..).zip(live.iter().step_by(2)) {
        blocks.release(*block, 2 * which).expect("it is live");
        assert_eq!(fits(&blocks), [start(0), start(which)]);
        if which.is_multiple_of(997) {
            assert_eq!(blocks.sizes().check(), usize::from(which >= 64));
        }
    }
    for which in 0..9_990 {
        let (hole, at) = blocks.best_fit(GRANULE, GRANULE, End::Low).expect("ten are left");
        blocks.take(hole, Span { start: at, end: at + GRANULE }, which);
        assert_eq!(fits(&blocks), [start(which + 1), start(9_999)]);
    }
    assert_eq!(blocks.sizes().check(), 0);
}

#[test]
fn an_arena_of_pages_takes_whole_pages_and_places_at_their_borders() {
    let page = Alignment::MIB_2;
    let mut arena = Arena::with_granule(ByteLen::new(7 << 20), page).unwrap();
    assert_eq!((arena.granule(), arena.clone().granule()), (page, page));
    // The last page of the region is short, and only that. Small pieces go to that end.
    let last = arena.place(ByteLen::new(1 << 20), Alignment::GRANULE).unwrap();
    assert_eq!(last.footprint().get(), 1 << 20);
    let two = arena.place(ByteLen::new((2 << 20) + 1), Alignment::GRANULE).unwrap();
    let one = arena.place(ByteLen::new(1), Alignment::GRANULE).unwrap();
    assert_eq!((one.footprint().get(), two.footprint().get()), (2 << 20, 4 << 20));
    assert_eq!(two.len().get(), (2 << 20) + 1, "the piece keeps its length");
    assert!(one.start().is_aligned(page) && two.start().is_aligned(page));
    assert_eq!(arena.report().free, ByteLen::ZERO);
    assert!(arena.place_at(DeviceOffset::new(256), ByteLen::new(1)).is_err());
    for placement in [one, two, last] {
        arena.release(placement).unwrap();
    }
    assert!(arena.place_at(DeviceOffset::new(256), ByteLen::new(1)).is_err(), "no border");
    assert_eq!(Arena::new(ByteLen::MIB).unwrap().granule(), Alignment::GRANULE);
}
