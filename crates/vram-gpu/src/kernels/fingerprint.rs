//! Keys and values of fingerprints.

use core::fmt;

use zeroize::Zeroize;

/// 2^61 - 1, a prime: second-level sums are taken modulo it.
const P: u64 = (1 << 61) - 1;

/// Steps of 4096 bytes (8 tiles of 512) in the longest span.
pub(crate) const STEPS: usize = 64;

/// Bytes of the first level: for each step 32 lanes of 8 signed bytes.
const FIRST_LEN: usize = STEPS * 32 * 8;

/// Numbers of the second level: 2 sums of 4 × 256.
const SECOND_LEN: usize = 2 * 4 * 256;

/// A secret key of fingerprints: 16 KiB of random signed bytes, and 2048 random numbers below
/// 2^61 - 1.
///
/// Bytes that were changed without knowledge of the key have the same fingerprint as before with a
/// chance of at most 2^-64 + 2^-122 over the choice of the key. Whoever reads the device's memory
/// while it computes learns the key: renew it.
pub struct FingerprintKey {
    // As the kernels want it: the bytes, then the numbers in little-endian order.
    bytes: Box<[u8]>,
}

impl FingerprintKey {
    /// Bytes of random material in a key.
    pub const LEN: usize = FIRST_LEN + SECOND_LEN * 8;

    /// A key of random bytes. The numbers of the second level are the lower 61 bits of eight bytes
    /// each; 2^61 - 1 becomes zero.
    #[must_use]
    pub fn from_random(mut bytes: Box<[u8; Self::LEN]>) -> Self {
        if let Some(second) = bytes.get_mut(FIRST_LEN..) {
            for number in second.as_chunks_mut::<8>().0 {
                let value = u64::from_le_bytes(*number) & P;
                *number = if value == P { 0 } else { value }.to_le_bytes();
            }
        }
        Self { bytes }
    }

    /// The key as the kernels read it.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The signed byte at a column of one row of the matrix of a step.
    ///
    /// `row` is below 32, `column` below 8.
    pub(crate) fn first(&self, step: usize, row: usize, column: usize) -> i8 {
        let lane = column * 4 + row % 16 / 4;
        let at = (step * 32 + lane) * 8 + row / 16 * 4 + row % 4;
        self.bytes.get(at).map_or(0, |byte| byte.cast_signed())
    }

    /// The number of the second level for a sum, one of 4 places and one of 256 threads.
    pub(crate) fn second(&self, sum: usize, place: usize, thread: usize) -> u64 {
        let at = FIRST_LEN + ((sum * 4 + place) * 256 + thread) * 8;
        let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

impl Drop for FingerprintKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(..)")
    }
}

/// The fingerprint of a span: two numbers below 2^61 - 1, little-endian. It is as secret as its
/// key: values of known bytes tell of the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// From the two sums.
    pub(crate) const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

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
