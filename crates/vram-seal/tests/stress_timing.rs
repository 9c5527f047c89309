//! P13: comparing a secret takes the same time for every position of the difference.
//!
//! Method: two classes of input, one that differs in the first byte and one in the last, measured
//! alternately in batches; Welch's t over the faster half of each. The test also measures a
//! comparison that stops at the first difference and must detect it: otherwise the method proves
//! nothing.

#![expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "statistics are in floats")]
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[macro_use]
extern crate vram_testkit;

use core::hint::black_box;
use std::io::Write as _;
use std::time::Instant;

use vram_seal::{ContentDigest, SealKey, SegmentHash};

const BATCH: u32 = 400;
const ROUNDS: usize = 400;
/// Far above chance (equal classes stay below 5), far below any early exit.
const LIMIT: f64 = 25.0;

/// Welch's t: the confidence that the two classes take different times.
fn t_value(compare: &dyn Fn(&[u8; 32]) -> bool, secret: [u8; 32]) -> f64 {
    let (mut first, mut last) = (secret, secret);
    first[0] ^= 0xff;
    last[31] ^= 0xff;
    let mut spent = [vec![], vec![]];
    for round in 0..2 * ROUNDS {
        let class = round % 2;
        let input = if class == 0 { &first } else { &last };
        let start = Instant::now();
        for _ in 0..BATCH {
            assert!(!compare(black_box(input)));
        }
        spent[class].push(start.elapsed().as_nanos() as f64);
    }
    let moments = spent.map(|mut spent| {
        // Interruptions only add time.
        spent.sort_by(f64::total_cmp);
        spent.truncate(ROUNDS / 2);
        let count = spent.len() as f64;
        let mean = spent.iter().sum::<f64>() / count;
        let variance = spent.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    });
    let [(a, a_error), (b, b_error)] = moments;
    ((a - b) / (a_error + b_error).sqrt().max(f64::EPSILON)).abs()
}

/// The smallest of several tries: a real difference appears in each of them.
fn least_t(compare: &dyn Fn(&[u8; 32]) -> bool, secret: [u8; 32]) -> f64 {
    (0..5).map(|_| t_value(compare, secret)).fold(f64::INFINITY, f64::min)
}

#[test]
fn comparisons_of_secrets_do_not_tell_where_they_differ() {
    // On a busy machine a measurement can be wrong by chance, which must not fail an ordinary test
    // run.
    if std::env::var_os("VRAM_STRESS_SECONDS").is_none() {
        let mut stderr = std::io::stderr().lock();
        let _ = writeln!(stderr, "skipped: timing is looked at by `cargo xtask stress`");
        return;
    }
    let secret = [0x5a; 32];
    let early_exit = |input: &[u8; 32]| {
        for (a, b) in input.iter().zip(black_box(&secret)) {
            if black_box(a) != black_box(b) {
                return false;
            }
        }
        true
    };
    let t = least_t(&early_exit, secret);
    assert!(t > LIMIT, "an early exit must be found out, and gave only {t:.1}");

    let digest = ContentDigest::from_bytes(secret);
    let t = least_t(&|input| ContentDigest::from_bytes(*input) == digest, secret);
    assert!(t < LIMIT, "digests: {t:.1}");

    let hash = SegmentHash::from_bytes(secret);
    let t = least_t(&|input| SegmentHash::from_bytes(*input) == hash, secret);
    assert!(t < LIMIT, "segment hashes: {t:.1}");

    let key = SealKey::from_bytes(&[1; 32]).ticket_key();
    let signature = key.sign(b"statement");
    let t = least_t(&|input| key.verify(b"statement", input).is_ok(), signature);
    assert!(t < LIMIT, "signatures: {t:.1}");
}

#[test]
fn what_is_compared_is_compared_whole() {
    let secret: [u8; 32] = core::array::from_fn(|i| u8::try_from(i).unwrap());
    for bit in 0..256 {
        let mut other = secret;
        other[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(ContentDigest::from_bytes(secret), ContentDigest::from_bytes(other));
        assert_ne!(SegmentHash::from_bytes(secret), SegmentHash::from_bytes(other));
    }
}
