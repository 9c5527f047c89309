//! The hash of a thread's number, for a map that every call on a GPU changes twice.

use core::hash::Hasher;

/// Multiplies numbers by an odd constant. Only for keys that this process counts itself: others could be
/// chosen so that they collide.
#[derive(Debug, Default)]
pub(super) struct ByNumber(u64);

impl ByNumber {
    const fn take(&mut self, number: u64) {
        // 2^64 divided by the golden ratio: numbers that follow each other spread over the whole range.
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

impl Hasher for ByNumber {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.take(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.take(number);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
