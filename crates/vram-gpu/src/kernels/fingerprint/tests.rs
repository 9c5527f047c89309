//! The forms against the definition, byte by byte as `docs/fingerprint.md` states it.

#![expect(clippy::arithmetic_side_effects, reason = "positions below 2^18, sums below 2^104")]

use super::*;
use crate::dice::mix;

fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let words = (0_u64..).flat_map(|at| mix(seed ^ mix(at)).to_le_bytes());
    words.take(len).collect()
}

fn key_of(material: &[u8]) -> FingerprintKey {
    FingerprintKey::from_random(Box::new(material.try_into().unwrap()))
}

/// Sections "First level" and "Second level" of the document, with a loop over single bytes.
pub(crate) fn definition(material: &[u8], span: &[u8]) -> [u8; 16] {
    let mut cells = vec![[[0_i64; 8]; 16]; 8];
    for (at, byte) in span.iter().enumerate() {
        let (step, warp, lane) = (at / 4096, at / 512 % 8, at % 512 / 16);
        let (word, byte_of_word) = (at % 16 / 4, at % 4);
        let (group, thread) = (lane / 4, lane % 4);
        let row = group + 8 * (word % 2);
        let depth = 16 * (word / 2) + 4 * thread + byte_of_word;
        for (column, cell) in cells[warp][row].iter_mut().enumerate() {
            let place =
                ((step * 32 + column * 4 + depth % 16 / 4) * 2 + depth / 16) * 4 + depth % 4;
            let factor = i8::from_le_bytes([material[place]]);
            *cell += i64::from(*byte) * i64::from(factor);
        }
    }
    let mut value = Vec::new();
    for sum in 0..2 {
        let mut total = 0_u128;
        for thread in 0..256 {
            for place in 0..4 {
                let (warp, lane) = (thread / 32, thread % 32);
                let cell = cells[warp][lane / 4 + 8 * (place / 2)][2 * (lane % 4) + place % 2];
                let cell = u128::try_from(cell.rem_euclid(1 << 32)).unwrap();
                let at = 64 * 256 + ((sum * 4 + place) * 256 + thread) * 8;
                let number = u64::from_le_bytes(material[at..at + 8].try_into().unwrap());
                total += cell * u128::from(number % ((1 << 61) - 1));
            }
        }
        value.extend(u64::try_from(total % ((1 << 61) - 1)).unwrap().to_le_bytes());
    }
    value.try_into().unwrap()
}

/// Lengths around every boundary of the construction.
fn lengths() -> impl Iterator<Item = usize> {
    let edges = [1, 4, 16, 64, 512, 1024, 4096, 8192, 65_536, 131_072, 258_048, 262_144];
    let near = edges.into_iter().flat_map(|at: usize| at.saturating_sub(2)..=at + 2);
    let random = (0_u64..40).map(|at| usize::try_from(mix(at) % (1 << (at % 18 + 1))).unwrap());
    near.chain(random).filter(|len| (1..=1 << 18).contains(len))
}

#[test]
fn every_form_gives_what_the_definition_says() {
    let random = bytes(FingerprintKey::LEN, 1);
    let usable: Vec<_> = Form::ALL.into_iter().filter(|form| form.is_usable()).collect();
    assert!(usable.contains(&Form::Portable));
    // The largest sums of either sign, and bytes that a signed product would take for negative.
    for (material, filled) in [
        (random, None),
        (vec![0x80; FingerprintKey::LEN], Some(0xFF)),
        (vec![0x7F; FingerprintKey::LEN], Some(0xFF)),
        (vec![0xFF; FingerprintKey::LEN], Some(0x80)),
    ] {
        let key = key_of(&material);
        for len in lengths().step_by(if filled.is_some() { 11 } else { 1 }) {
            let span = filled.map_or_else(|| bytes(len, 2), |byte| vec![byte; len]);
            let expected = definition(&material, &span);
            for form in &usable {
                let value = key.fingerprint_by(*form, &span).unwrap();
                assert_eq!(*value.as_bytes(), expected, "{form:?} of {len} bytes");
            }
            assert_eq!(key.fingerprint(&span).unwrap().as_bytes(), &expected);
        }
    }
}

#[test]
fn a_form_that_the_processor_lacks_and_a_span_that_does_not_fit_have_no_value() {
    let key = key_of(&bytes(FingerprintKey::LEN, 3));
    for form in Form::ALL {
        assert_eq!(key.fingerprint_by(form, &[1]).is_some(), form.is_usable(), "{form:?}");
        assert!(key.fingerprint_by(form, &[]).is_none());
        assert!(key.fingerprint_by(form, &vec![0; (256 << 10) + 1]).is_none());
    }
    let renewed = key_of(&bytes(FingerprintKey::LEN, 4));
    let both = key.fingerprints(&[1, 2, 3], Some(&renewed)).unwrap();
    assert_eq!(Some(both.value), key.fingerprint(&[1, 2, 3]));
    assert!(both.renewed.is_some() && both.renewed == renewed.fingerprint(&[1, 2, 3]));
    assert_eq!(key.fingerprints(&[1], None).unwrap().renewed, None);
}

#[test]
fn numbers_of_a_key_are_below_the_prime_and_keys_show_nothing() {
    let key = key_of(&vec![0xFF; FingerprintKey::LEN]);
    // 2^64 - 1 is 7 modulo 2^61 - 1.
    assert!((0..2048).all(|place| key.second(0, place) == 7));
    let value = key.fingerprint(&[1]).unwrap();
    assert_eq!(format!("{key:?} {value:?}"), "FingerprintKey(..) Fingerprint(..)");
}
