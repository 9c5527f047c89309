//! The index of holes by size keeps its promises whatever is placed and released.

#![expect(clippy::arithmetic_side_effects, reason = "figures are far below 2^63")]

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::blocks::Blocks;
use super::span::{End, Span};
use crate::units::ByteLen;

const GRANULE: u64 = 256;

/// Many holes of a few lengths, so that one tree has most of them.
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
    fn trees_stay_balanced_and_in_order(
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
            blocks.check_trees();
        }
        prop_assert_eq!(blocks.hole_count(), released.len());
    }
}

/// As many holes of one length as a model of tiny tensors leaves: in rising order, which makes a
/// tree without rotations a list.
#[test]
fn a_hundred_thousand_holes_of_one_length_are_no_deeper_than_a_few_steps() {
    let (mut blocks, live) = checkerboard(&vec![1; 100_000]);
    for (serial, block) in (0_u64..).step_by(2).zip(live.iter().step_by(2)) {
        blocks.release(*block, serial).expect("it is live");
    }
    assert!(blocks.check_trees() <= 24, "the height is at most 1.44 times the logarithm");
    assert_eq!(blocks.best_fit(GRANULE, GRANULE, End::Low).map(|(_, start)| start), Some(0));
    let last = 2 * 99_999 * GRANULE;
    assert_eq!(blocks.best_fit(GRANULE, GRANULE, End::High).map(|(_, start)| start), Some(last));
}
