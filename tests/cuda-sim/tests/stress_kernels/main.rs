//! Stress: the kernels at random lengths, keys and launches, beside the reference crates.
//!
//! `VRAM_STRESS_SEED` repeats a run; `VRAM_STRESS_SECONDS` sets for how long rounds follow.

#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "helpers of tests are tests"
)]

#[macro_use]
extern crate vram_testkit;

#[path = "../kernels/blake3.rs"]
mod blake3;
#[path = "../kernels/card.rs"]
#[expect(dead_code, reason = "other suites use more of it")]
mod card;
#[path = "../kernels/chacha.rs"]
mod chacha;
#[path = "../kernels/fingerprint.rs"]
#[expect(dead_code, reason = "other suites use more of it")]
mod fingerprint;

use vram_testkit::{for_a_while, setting};

use crate::card::{Card, Dice, pattern};
use crate::chacha::Segment;

fn dice() -> Dice {
    Dice(setting("VRAM_STRESS_SEED").unwrap_or(1))
}

/// A length of which every power of two is as likely.
fn len(dice: &mut Dice, log_max: u32) -> usize {
    let log = dice.below(usize::try_from(log_max).unwrap() + 1);
    1 + dice.below(1 << log)
}

#[test]
fn hashes_of_any_shard_are_those_of_the_crate() {
    let (card, mut dice) = (Card::new(blake3::PTX), dice());
    for_a_while(|| {
        for _ in 0..10 {
            let segment = 1024 << dice.below(15);
            blake3::check(&card, len(&mut dice, 20), segment, &mut dice);
        }
    });
    card.finish();
}

#[test]
fn fingerprints_of_any_items_are_those_of_the_definition() {
    let (card, mut dice) = (Card::new(fingerprint::PTX), dice());
    for_a_while(|| {
        let keys = [(); 2].map(|()| fingerprint::Key::new(dice.next()));
        let items: Vec<Vec<u8>> =
            (0..=dice.below(6)).map(|_| pattern(len(&mut dice, 18), dice.next())).collect();
        let blocks = 1 + u32::try_from(dice.below(8)).unwrap();
        fingerprint::check(&card, &items, keys.each_ref(), blocks);
    });
    card.finish();
}

#[test]
fn any_segments_are_sealed_and_opened_as_ring_does_and_forged_ones_refused() {
    let (card, mut dice) = (Card::new(chacha::PTX), dice());
    for_a_while(|| {
        let plain: Vec<Segment> =
            (0..=dice.below(6)).map(|_| Segment::new(len(&mut dice, 18) - 1, &mut dice)).collect();
        chacha::check(&card, &plain, dice.below(2) == 1);
        let lens = core::array::from_fn(|_| len(&mut dice, 16));
        chacha::check_forgery(&card, lens, &mut dice);
    });
    card.finish();
}
