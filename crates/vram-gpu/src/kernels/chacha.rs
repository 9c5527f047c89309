//! ChaCha20-Poly1305 of segments: no associated data, one nonce for each segment.
//!
//! # Source
//!
//! RFC 8439, sections 2.3 (block function), 2.4 (cipher), 2.6 (one-time key) and 2.8 (construction).

use zeroize::Zeroize;

use super::poly1305::Poly1305;

const BLOCK_LEN: usize = 64;

/// The words of a state that every key has.
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646E, 0x7962_2D32, 0x6B20_6574];

/// The nonce of a segment: whether it is the last one, and its number.
pub(crate) fn nonce(index: u32, last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    let (first, number) = nonce.split_at_mut(8);
    number.copy_from_slice(&index.to_be_bytes());
    if let Some(first) = first.first_mut() {
        *first = u8::from(last);
    }
    nonce
}

/// One segment under its key.
pub(crate) struct Segment {
    state: [u32; 16],
}

impl Segment {
    /// A segment with this key and nonce.
    pub(crate) fn new(key: &[u8; 32], nonce: [u8; 12]) -> Self {
        let mut state = [0; 16];
        let given = key.as_chunks().0.iter().chain([&[0; 4]]).chain(nonce.as_chunks().0);
        let given = CONSTANTS.into_iter().chain(given.map(|bytes| u32::from_le_bytes(*bytes)));
        for (word, from) in state.iter_mut().zip(given) {
            *word = from;
        }
        Self { state }
    }

    /// Encrypts or decrypts bytes of the segment that begin at this one, a multiple of 64.
    pub(crate) fn apply(&self, start: usize, bytes: &mut [u8]) {
        let first = u32::try_from(start / BLOCK_LEN).unwrap_or(u32::MAX);
        for (block, at) in bytes.chunks_mut(BLOCK_LEN).zip(1_u32..) {
            let stream = self.block(first.wrapping_add(at));
            for (byte, key) in block.iter_mut().zip(stream) {
                *byte ^= key;
            }
        }
    }

    /// The authenticator of the sealed bytes, which get their length at the end.
    pub(crate) fn authenticator(&self) -> Poly1305 {
        let mut block = self.block(0);
        let mut key = [0; 32];
        for (to, from) in key.iter_mut().zip(block) {
            *to = from;
        }
        let authenticator = Poly1305::new(&key);
        block.zeroize();
        key.zeroize();
        authenticator
    }

    /// A block of the key stream.
    fn block(&self, number: u32) -> [u8; BLOCK_LEN] {
        let mut start = self.state;
        if let Some(word) = start.get_mut(12) {
            *word = number;
        }
        let mut state = start;
        for _ in 0..10 {
            // Columns, then diagonals. Positions that are constants need no check when inlined.
            mix(&mut state, [0, 4, 8, 12]);
            mix(&mut state, [1, 5, 9, 13]);
            mix(&mut state, [2, 6, 10, 14]);
            mix(&mut state, [3, 7, 11, 15]);
            mix(&mut state, [0, 5, 10, 15]);
            mix(&mut state, [1, 6, 11, 12]);
            mix(&mut state, [2, 7, 8, 13]);
            mix(&mut state, [3, 4, 9, 14]);
        }
        let mut block = [0; BLOCK_LEN];
        for ((to, word), from) in block.as_chunks_mut::<4>().0.iter_mut().zip(state).zip(start) {
            *to = word.wrapping_add(from).to_le_bytes();
        }
        block
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.state.zeroize();
    }
}

#[expect(clippy::indexing_slicing, reason = "the positions are constants below 16")]
#[expect(clippy::inline_always, reason = "the positions have to be constants where it is called")]
#[inline(always)]
fn mix(state: &mut [u32; 16], [a, b, c, d]: [usize; 4]) {
    state[a] = state[a].wrapping_add(state[b]);
    state[d] = (state[d] ^ state[a]).rotate_left(16);
    state[c] = state[c].wrapping_add(state[d]);
    state[b] = (state[b] ^ state[c]).rotate_left(12);
    state[a] = state[a].wrapping_add(state[b]);
    state[d] = (state[d] ^ state[a]).rotate_left(8);
    state[c] = state[c].wrapping_add(state[d]);
    state[b] = (state[b] ^ state[c]).rotate_left(7);
}

#[cfg(test)]
mod tests {
    use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
    }

    #[test]
    fn a_block_and_a_text_are_those_of_rfc_8439() {
        let key: [u8; 32] = core::array::from_fn(|at| u8::try_from(at).unwrap());
        let segment = Segment::new(&key, hex("000000090000004a00000000").try_into().unwrap());
        let block = "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e\
                     d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e";
        assert_eq!(segment.block(1).to_vec(), hex(block), "section 2.3.2");

        let mut text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one \
                         tip for the future, sunscreen would be it."
            .to_vec();
        let segment = Segment::new(&key, hex("000000000000004a00000000").try_into().unwrap());
        segment.apply(0, &mut text);
        let sealed = "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b\
                      f91b65c5524733ab8f593dabcd62b3571639d624e65152ab8f530c359f0861d8\
                      07ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736\
                      5af90bbf74a35be6b40b8eedf2785e42874d";
        assert_eq!(text, hex(sealed), "section 2.4.2");
    }

    #[test]
    fn segments_are_sealed_as_the_reference_seals_them() {
        for len in [0, 1, 15, 16, 17, 63, 64, 65, 1000, 4096, 70_001] {
            let bytes: Vec<u8> =
                (0..len).map(|at: u32| at.wrapping_mul(91).to_le_bytes()[1]).collect();
            let (key, nonce) = ([u8::try_from(len % 251).unwrap(); 32], nonce(len, len % 2 == 1));
            let reference = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).unwrap());
            let mut expected = bytes.clone();
            let nonced = Nonce::assume_unique_for_key(nonce);
            let tag = reference.seal_in_place_separate_tag(nonced, Aad::empty(), &mut expected);

            let segment = Segment::new(&key, nonce);
            let mut sealed = bytes;
            let mut authenticator = segment.authenticator();
            for (at, piece) in sealed.chunks_mut(4096).enumerate() {
                segment.apply(at * 4096, piece);
                authenticator.update(piece);
            }
            assert!(sealed == expected, "{len} bytes");
            assert_eq!(authenticator.finish().as_slice(), tag.unwrap().as_ref(), "{len} bytes");
        }
    }
}
