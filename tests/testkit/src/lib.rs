//! Helpers for the suites of all crates: bytes to seal, seeded numbers, the duration of a stress
//! test, a time limit on every test. Imports no crate of this workspace, so that every crate can
//! use it in its tests.

#![forbid(unsafe_code)]

mod limit;

pub use limit::{Limit, limit};
pub use vram_test_limit::test;

use core::str::FromStr;
use core::time::Duration;
use std::time::Instant;

/// Bytes without a pattern, the same for each seed.
#[must_use]
pub fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let mut data = vec![0; len];
    for chunk in data.chunks_mut(8) {
        for (byte, random) in chunk.iter_mut().zip(dice.roll().to_le_bytes()) {
            *byte = random;
        }
    }
    data
}

/// Fixed bytes for tests that accept any content.
#[must_use]
pub fn weights(len: usize) -> Vec<u8> {
    content(len, 0)
}

/// A small generator (xorshift): the same numbers for the same seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        // Zero is the only state that the steps below never leave.
        let state = seed ^ 0x9e37_79b9_7f4a_7c15;
        Self(if state == 0 { 1 } else { state })
    }

    /// The next number.
    pub const fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The next number below a bound; 0 if the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The low bits of xorshift are its weakest.
        (self.roll() >> 16).checked_rem(bound).unwrap_or_default()
    }

    /// The next number, as an index into `len` items.
    pub fn index(&mut self, len: usize) -> usize {
        let bound = u64::try_from(len).unwrap_or(u64::MAX);
        usize::try_from(self.below(bound)).unwrap_or_default()
    }
}

/// The value of an environment variable, if it is set and readable.
#[must_use]
pub fn setting<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs `round` once, and repeats it for as long as `VRAM_STRESS_SECONDS` says.
pub fn for_a_while(mut round: impl FnMut()) {
    let seconds = Duration::from_secs_f64(setting("VRAM_STRESS_SECONDS").unwrap_or(0.0));
    let start = Instant::now();
    loop {
        round();
        if start.elapsed() >= seconds {
            return;
        }
    }
}
