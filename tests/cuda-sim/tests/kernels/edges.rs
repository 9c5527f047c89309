//! Every kernel at the lengths at which something changes, beside the reference crates.

use crate::card::{Card, Dice, pattern};
use crate::chacha::{self, Segment};
use crate::{blake3, fingerprint};

#[test]
fn every_edge_of_blocks_chunks_and_segments_hashes_as_the_crate_does() {
    let card = Card::new(blake3::PTX);
    let mut dice = Dice(7);
    for segment in [1024_usize, 4096, 8192, 1 << 14, 1 << 15, 1 << 16] {
        let near = [0, 1, 63, 64, 65, 1023, 1024, 1025];
        let lens = [1, 15, 16, 17, 31, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 2047, 2048];
        let more =
            [2049, 3072, 3073, 2 * segment - 1, 2 * segment, 2 * segment + 1, 3 * segment + 5];
        let edges = near.iter().flat_map(|by| [segment.saturating_sub(*by).max(1), segment + by]);
        for len in lens.into_iter().chain(more).chain(edges) {
            blake3::check(&card, len, segment, &mut dice);
        }
    }
    card.finish();
}

#[test]
fn shards_of_many_items_hash_as_the_crate_does() {
    const ITEM: usize = blake3::ITEM;
    let card = Card::new(blake3::PTX);
    let mut dice = Dice(8);
    for (len, segment) in [
        (ITEM - 1, ITEM),
        (ITEM, ITEM),
        (ITEM + 1, ITEM),
        (ITEM + 1, 1 << 16),
        (2 * ITEM, 2 * ITEM),
        (2 * ITEM + 1, 2 * ITEM),
        (5 * ITEM + 1024, 1 << 20),
        (700_001, 1 << 24),
        (824_288, 1 << 19),
        (1_300_000, 1 << 20),
        // The longest segment: 64 subtrees.
        ((16 << 20) - 1, 1 << 24),
    ] {
        blake3::check(&card, len, segment, &mut dice);
    }
    card.finish();
}

/// Lengths of items at which something changes.
const EDGES: [usize; 18] = [
    1, 15, 16, 17, 31, 511, 512, 513, 4095, 4096, 4097, 16_383, 16_384, 16_385, 32_769, 131_072,
    262_143, 262_144,
];

#[test]
fn items_of_every_edge_have_the_fingerprint_of_the_definition() {
    let card = Card::new(fingerprint::PTX);
    let keys = [1, 2].map(fingerprint::Key::new);
    let items: Vec<Vec<u8>> = (0..).zip(EDGES).map(|(seed, len)| pattern(len, seed)).collect();
    for blocks in [1, 3, 18, 20] {
        fingerprint::check(&card, &items, keys.each_ref(), blocks);
    }
    card.finish();
}

#[test]
fn the_largest_bytes_under_the_largest_key_are_exact() {
    let card = Card::new(fingerprint::PTX);
    let key = fingerprint::Key::extreme();
    let items = [vec![0xFF; fingerprint::ITEM], vec![0xFF; 17]];
    fingerprint::check(&card, &items, [&key, &key], 2);
    card.finish();
}

#[test]
fn one_flipped_bit_changes_the_fingerprint_of_its_item_alone() {
    let card = Card::new(fingerprint::PTX);
    let key = fingerprint::Key::new(3);
    let mut dice = Dice(4);
    for round in 0..40 {
        let len = |dice: &mut Dice| 1 + dice.below(1 << (1 + round % 15));
        let mut items: Vec<Vec<u8>> =
            (0..3).map(|seed| pattern(len(&mut dice), seed + dice.next())).collect();
        let before = fingerprint::on_card(&card, &items, &[&key], 2).unwrap();
        let which = dice.below(3);
        let bit = dice.below(items[which].len() * 8);
        items[which][bit / 8] ^= 1 << (bit % 8);
        let after = fingerprint::on_card(&card, &items, &[&key], 2).unwrap();
        let differ: Vec<usize> = (0..3).filter(|item| before[*item] != after[*item]).collect();
        assert_eq!(differ, [which], "bit {bit}");
    }
    card.finish();
}

#[test]
fn segments_of_every_edge_are_sealed_tagged_and_opened_as_ring_does() {
    let card = Card::new(chacha::PTX);
    let mut dice = Dice(11);
    let lens = (0..=1100).step_by(7).chain([15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 127, 128, 129]);
    let far = [2048, 4096, 8192, 16_384, 65_536].into_iter().flat_map(|base: usize| {
        [65, 64, 63, 17, 16, 15, 1, 0].into_iter().flat_map(move |by| [base - by, base + by])
    });
    let plain: Vec<Segment> = lens.chain(far).map(|len| Segment::new(len, &mut dice)).collect();
    for in_place in [false, true] {
        chacha::check(&card, &plain, in_place);
    }
    card.finish();
}

#[test]
fn extreme_messages_are_authenticated_exactly() {
    let card = Card::new(chacha::PTX);
    let mut dice = Dice(12);
    // Ciphertext of ones fills every limb; many lengths, so that carries meet every place.
    let segments: Vec<Segment> = [16, 255, 4096, 4112, 20_000]
        .into_iter()
        .flat_map(|len| [(len, 0xFF), (len, 0)])
        .map(|(len, byte)| {
            let wanted = Segment { bytes: vec![byte; len], ..Segment::new(len, &mut dice) };
            // Sealing twice gives what was there: this is sealed to the bytes that were wanted.
            Segment { bytes: wanted.sealed().bytes, ..wanted }
        })
        .collect();
    let sealed: Vec<Segment> = segments.iter().map(Segment::sealed).collect();
    assert!(sealed.iter().all(|s| s.bytes.iter().all(|byte| *byte == s.bytes[0])));
    for (sealed, outcome) in
        sealed.iter().zip(chacha::on_card(&card, "chacha_tag", &sealed, false).unwrap())
    {
        assert_eq!(outcome.tag, sealed.tag, "{} bytes", sealed.bytes.len());
    }
    card.finish();
}

#[test]
fn one_flipped_bit_anywhere_is_refused_and_nothing_is_written() {
    let card = Card::new(chacha::PTX);
    let mut dice = Dice(13);
    for round in 0..60 {
        let lens = core::array::from_fn(|_| 1 + dice.below(1 << (1 + round % 14)));
        chacha::check_forgery(&card, lens, &mut dice);
    }
    card.finish();
}
