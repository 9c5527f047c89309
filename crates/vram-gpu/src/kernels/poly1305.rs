//! Poly1305 as ChaCha20-Poly1305 uses it without associated data: over sealed bytes that are filled
//! up with zeros to whole blocks, and then their length.
//!
//! # Source
//!
//! RFC 8439, sections 2.5 and 2.8; limbs of 44, 44 and 42 bits as in Andrew Moon's *poly1305-donna*.

#![expect(clippy::many_single_char_names, reason = "limbs, lowest first")]
#![expect(
    clippy::arithmetic_side_effects,
    reason = "limbs have at most 45 bits before a product and products at most 98; shifts are constants"
)]

use zeroize::Zeroize;

const BLOCK_LEN: usize = 16;

/// The lower 44 and 42 bits.
const LOW_44: u64 = (1 << 44) - 1;
const LOW_42: u64 = (1 << 42) - 1;

/// A one-time authenticator.
pub(crate) struct Poly1305 {
    factor: [u64; 3],
    sum: [u64; 3],
    pad: u128,
    // Bytes so far.
    len: u64,
}

impl Poly1305 {
    /// With a key for one message.
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let [first, second] = [0, 1]
            .map(|half| key.as_chunks().0.get(half).map_or(0, |bytes| u128::from_le_bytes(*bytes)));
        let factor = limbs(first & 0x0FFF_FFFC_0FFF_FFFC_0FFF_FFFC_0FFF_FFFF);
        Self { factor, sum: [0; 3], pad: second, len: 0 }
    }

    /// The next bytes. All pieces but the last one are whole blocks.
    pub(crate) fn update(&mut self, piece: &[u8]) {
        for bytes in piece.chunks(BLOCK_LEN) {
            let mut block = [0; BLOCK_LEN];
            for (to, from) in block.iter_mut().zip(bytes) {
                *to = *from;
            }
            self.add(u128::from_le_bytes(block));
            self.len += u64::try_from(bytes.len()).unwrap_or(0);
        }
    }

    /// The tag.
    pub(crate) fn finish(mut self) -> [u8; 16] {
        self.add(u128::from(self.len) << 64);
        let mut sum = self.sum;
        for _ in 0..2 {
            sum = carried(sum);
        }
        // The sum, or less the prime 2^130 - 5 if it is not below it: chosen without a branch.
        let [a, b, c] = sum;
        let low = a + 5;
        let middle = b + (low >> 44);
        let high = (c + (middle >> 44)).wrapping_sub(1 << 42);
        let less = (high >> 63).wrapping_sub(1);
        let chosen = |own: u64, other: u64| u128::from(own & !less | other & less);
        let (a, b, c) = (chosen(a, low & LOW_44), chosen(b, middle & LOW_44), chosen(c, high));
        (a | b << 44 | c << 88).wrapping_add(self.pad).to_le_bytes()
    }

    /// Adds a block of sixteen bytes and multiplies.
    fn add(&mut self, block: u128) {
        let [a, b, c] = limbs(block);
        let [h, i, j] = self.sum;
        let [h, i, j] = [h + a, i + b, j + c + (1 << 40)];
        let [r, s, t] = self.factor;
        // What leaves 130 bits comes back five times; limbs that overlap 132 bits, twenty times.
        let (s20, t20) = (s * 20, t * 20);
        let times = |a: u64, b: u64| u128::from(a) * u128::from(b);
        let low = times(h, r) + times(i, t20) + times(j, s20);
        let middle = times(h, s) + times(i, r) + times(j, t20) + (low >> 44);
        let high = times(h, t) + times(i, s) + times(j, r) + (middle >> 44);
        let [low, middle] = [low, middle].map(|sum| lower(sum) & LOW_44);
        let low = low + lower(high >> 42) * 5;
        self.sum = [low & LOW_44, middle + (low >> 44), lower(high) & LOW_42];
    }
}

impl Drop for Poly1305 {
    fn drop(&mut self) {
        self.factor.zeroize();
        self.sum.zeroize();
        self.pad.zeroize();
    }
}

/// A number of 128 bits in limbs.
fn limbs(number: u128) -> [u64; 3] {
    [lower(number) & LOW_44, lower(number >> 44) & LOW_44, lower(number >> 88)]
}

/// Moves what is above the bits of each limb to the next one.
fn carried([a, b, c]: [u64; 3]) -> [u64; 3] {
    let c = c + (b >> 44);
    let a = a + (c >> 42) * 5;
    let b = (b & LOW_44) + (a >> 44);
    let c = (c & LOW_42) + (b >> 44);
    [a & LOW_44, b & LOW_44, c]
}

/// The lower 64 bits.
fn lower(number: u128) -> u64 {
    u64::try_from(number & u128::from(u64::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_at_the_prime_wrap_as_integers_say() {
        // Blocks of ones under small factors, compared with a slower way.
        for factor in [1_u8, 2, 4, 0xFC] {
            for blocks in [1, 2, 3, 9] {
                let mut key = [0; 32];
                key[0] = factor;
                key[16..].fill(0xFF);
                let mut ours = Poly1305::new(&key);
                ours.update(&vec![0xFF; 16 * blocks]);
                assert_eq!(ours.finish(), reference(u128::from(factor), &vec![u128::MAX; blocks]));
            }
        }
    }

    /// With a factor of one the sum is that of the blocks, of which each has a bit 2^128 more.
    #[test]
    fn a_sum_between_the_prime_and_two_to_the_130_is_less_the_prime() {
        for below in 1..=8_u128 {
            let mut key = [0; 32];
            key[0] = 1;
            let mut ours = Poly1305::new(&key);
            // Two blocks and the length, 32: 2^130 less this much.
            ours.update(&0_u128.wrapping_sub(below + (32 << 64)).to_le_bytes());
            ours.update(&[0; 16]);
            let expected = 5_u128.checked_sub(below).unwrap_or(0_u128.wrapping_sub(below));
            assert_eq!(u128::from_le_bytes(ours.finish()), expected, "{below}");
        }
    }

    /// In 128 bits and what is above them, reduced after each step.
    fn reference(factor: u128, blocks: &[u128]) -> [u8; 16] {
        let length = u128::try_from(blocks.len() * 16).unwrap() << 64;
        // The sum as its part above 128 bits and the rest; factors are below 2^8.
        let (mut high, mut low) = (0_u128, 0_u128);
        for block in blocks.iter().chain([&length]) {
            let (sum, carry) = low.overflowing_add(*block);
            high += 1 + u128::from(carry);
            let (part, rest) = (sum >> 64, sum & u128::from(u64::MAX));
            let (part, rest) = (part * factor + ((rest * factor) >> 64), rest * factor);
            high = high * factor + (part >> 64);
            low = (part << 64) | (rest & u128::from(u64::MAX));
            // Modulo 2^130 - 5.
            while high >= 4 {
                let (sum, carry) = low.overflowing_add(5 * (high / 4));
                (high, low) = (high % 4 + u128::from(carry), sum);
            }
            if high == 3 && low >= u128::MAX - 4 {
                (high, low) = (0, low - (u128::MAX - 4));
            }
        }
        low.wrapping_add(u128::MAX).to_le_bytes()
    }
}
