//! Keys and values of fingerprints, and what a host computes of bytes that it has.
//!
//! `docs/fingerprint.md` is the definition, with the proof of what it finds.

#![expect(clippy::arithmetic_side_effects, reason = "positions in a key or in a row")]

#[cfg(test)]
mod bound;
mod sums;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector instructions that not every processor has")]
mod wide;

use core::fmt;

use zeroize::Zeroize;

use self::sums::{COLUMNS, Column, Sums};
#[cfg(test)]
pub(super) use self::tests::definition;
use super::FINGERPRINT_SPAN_MAX;

/// 2^61 - 1, a prime: second-level sums are taken modulo it.
const P: u64 = (1 << 61) - 1;

/// Steps of 4096 bytes (8 tiles of 512) in the longest span.
const STEPS: usize = 64;

/// Bytes of the first level: for each step 32 lanes of 8 signed bytes.
const FIRST_LEN: usize = STEPS * 32 * 8;

/// Numbers of the second level: 2 sums of 4 × 256.
const SECOND_LEN: usize = 2 * 4 * 256;

/// A secret key of fingerprints: 16 KiB of random signed bytes, and 2048 random numbers below
/// 2^61 - 1.
///
/// Bytes that were changed without knowledge of the key have the same fingerprint as before with a
/// chance of at most 2^-64 + 2^-121 over the choice of the key. Whoever reads the device's memory
/// while it computes learns the key: renew it.
pub struct FingerprintKey {
    // As the kernels want it: the bytes, then the numbers in little-endian order.
    bytes: Box<[u8]>,
    // The signed bytes again, as a host multiplies them: eight columns for each step.
    columns: Box<[[Column; COLUMNS]]>,
}

/// The ways in which a host computes fingerprints; all give the same values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Form {
    /// Plain Rust.
    Portable,
    /// 256-bit vectors: AVX2.
    Avx2,
    /// 512-bit vectors with products of bytes: AVX-512 VNNI.
    Avx512Vnni,
}

impl Form {
    /// All of them, the fastest first.
    pub const ALL: [Self; 3] = [Self::Avx512Vnni, Self::Avx2, Self::Portable];

    /// Whether this processor has it.
    #[must_use]
    pub fn is_usable(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The fastest that this processor has.
    fn fastest() -> Self {
        Self::ALL.into_iter().find(|form| form.is_usable()).unwrap_or(Self::Portable)
    }

    /// The sums of the first level.
    fn sums(self, bytes: &[u8], columns: &[[Column; COLUMNS]]) -> Option<Sums> {
        match self {
            Self::Portable => Some(sums::portable(bytes, columns)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => wide::avx2(bytes, columns),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => wide::avx512(bytes, columns),
            #[cfg(not(target_arch = "x86_64"))]
            _ => None,
        }
    }
}

impl FingerprintKey {
    /// Bytes of random material in a key.
    pub const LEN: usize = FIRST_LEN + SECOND_LEN * 8;

    /// A key of random bytes. The numbers of the second level are eight bytes each, as a
    /// little-endian number modulo 2^61 - 1.
    #[must_use]
    pub fn from_random(mut bytes: Box<[u8; Self::LEN]>) -> Self {
        if let Some(second) = bytes.get_mut(FIRST_LEN..) {
            for number in second.as_chunks_mut::<8>().0 {
                *number = (u64::from_le_bytes(*number) % P).to_le_bytes();
            }
        }
        let mut key = Self { bytes, columns: Box::default() };
        let steps = 0..STEPS;
        key.columns = steps.map(|step| sums::columns(|row, at| key.first(step, row, at))).collect();
        key
    }

    /// The fingerprint of a span of 1 byte to [`FINGERPRINT_SPAN_MAX`] bytes; none for others.
    ///
    /// Bytes that follow each other in two spans are two calls: each span starts anew.
    #[must_use]
    pub fn fingerprint(&self, bytes: &[u8]) -> Option<Fingerprint> {
        self.fingerprint_by(Form::fastest(), bytes)
    }

    /// The fingerprints of a span under this key, and under `renewed` if it is given. The second
    /// finds the bytes in the processor's cache.
    #[must_use]
    pub fn fingerprints(&self, bytes: &[u8], renewed: Option<&Self>) -> Option<Fingerprints> {
        let value = self.fingerprint(bytes)?;
        Some(Fingerprints { value, renewed: renewed.and_then(|key| key.fingerprint(bytes)) })
    }

    /// As [`fingerprint`](Self::fingerprint), in one way of several: to compare and to measure
    /// them. None as well where the processor does not have it.
    #[must_use]
    pub fn fingerprint_by(&self, form: Form, bytes: &[u8]) -> Option<Fingerprint> {
        let fits = FINGERPRINT_SPAN_MAX.to_usize().is_some_and(|max| bytes.len() <= max);
        if bytes.is_empty() || !fits {
            return None;
        }
        let sums = form.sums(bytes, &self.columns)?;
        let [low, high] = [0, 1].map(|sum| sums::folded(&sums, P, |at| self.second(sum, at)));
        let mut value = [0; 16];
        let (first, last) = value.split_at_mut(8);
        first.copy_from_slice(&low.to_le_bytes());
        last.copy_from_slice(&high.to_le_bytes());
        Some(Fingerprint::new(value))
    }

    /// The key as the kernels read it.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of the second level for a sum, and one of 4 × 256 places.
    fn second(&self, sum: usize, place: usize) -> u64 {
        let at = FIRST_LEN + (sum * 4 * 256 + place) * 8;
        let bytes = self.as_bytes().get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// The signed byte of one row and column of the matrix of a step.
    ///
    /// `row` is below 32, `column` below 8.
    fn first(&self, step: usize, row: usize, column: usize) -> i8 {
        let lane = column * 4 + row % 16 / 4;
        let at = (step * 32 + lane) * 8 + row / 16 * 4 + row % 4;
        self.as_bytes().get(at).map_or(0, |byte| byte.cast_signed())
    }
}

impl Drop for FingerprintKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
        for column in self.columns.as_flattened_mut() {
            column.0.zeroize();
        }
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(..)")
    }
}

/// The fingerprint of a span: two numbers below 2^61 - 1, little-endian. It is as secret as its
/// key: values of known bytes tell of the key.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// From the two sums.
    pub(crate) const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, to falsify them.
    pub(crate) const fn bytes_mut(&mut self) -> &mut [u8; 16] {
        &mut self.0
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Can be wiped: the default is zeros.
impl zeroize::DefaultIsZeroes for Fingerprint {}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(..)")
    }
}

/// What one pass over a span gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fingerprints {
    /// Under the key.
    pub value: Fingerprint,
    /// Under the new key, if one was given.
    pub renewed: Option<Fingerprint>,
}
