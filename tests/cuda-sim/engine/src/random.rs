//! Pseudorandom numbers that are fixed by a seed.

/// One step of the generator `SplitMix64`.
///
/// # Source
///
/// Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014.
pub(crate) const fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// 16 bytes that differ in every call, in this process and in others: not fixed by a seed.
pub(crate) fn nonce() -> [u8; 16] {
    use core::hash::{BuildHasher as _, Hasher as _};
    use std::collections::hash_map::RandomState;

    let word = || RandomState::new().build_hasher().finish();
    ((u128::from(word()) << 64) | u128::from(word())).to_le_bytes()
}

/// A sequence of such numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        let value = mix(self.0);
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        value
    }

    /// A number below `end`, or 0 if `end` is 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }
}
