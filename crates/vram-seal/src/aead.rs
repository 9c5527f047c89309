//! The cipher of one segment, in a slot that is overwritten after use.

use core::hint::black_box;

use ring::aead;
use zeroize::Zeroizing;

use crate::params::Suite;
use crate::wipe::scrub_stack;

/// Length of a segment's tag, in bytes.
pub(crate) const TAG_LEN: usize = 16;

/// Holds ring's form of the current segment's key, one segment after the other.
///
/// ring does not wipe its keys. Every key of a worker is built in this one place by one function,
/// so that each overwrites the one before; the last is overwritten by a key of zeros. That also
/// reuses the stack frames through which ring moves a key while building it. Best effort: what the
/// compiler spills elsewhere is out of reach of safe code.
pub(crate) struct Slot {
    suite: Suite,
    key: Option<aead::LessSafeKey>,
}

impl Slot {
    pub(crate) const fn new(suite: Suite) -> Self {
        Self { suite, key: None }
    }

    #[inline(never)]
    fn set(&mut self, key: &[u8; 32]) {
        let algorithm = match self.suite {
            Suite::Aes256Gcm => &aead::AES_256_GCM,
            Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        self.key = aead::UnboundKey::new(algorithm, key).ok().map(aead::LessSafeKey::new);
        black_box(&self.key);
    }

    /// Encrypts `buffer` in place; `None`, with `buffer` unspecified, if the cipher refuses.
    pub(crate) fn seal(
        &mut self,
        key: &Zeroizing<[u8; 32]>,
        nonce: [u8; 12],
        buffer: &mut [u8],
    ) -> Option<[u8; TAG_LEN]> {
        self.set(key);
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        // The associated data stays empty: everything is bound through the key already, and ring
        // hashes it slowly.
        let tag = self
            .key
            .as_ref()?
            .seal_in_place_separate_tag(nonce, aead::Aad::empty(), buffer)
            .ok()?;
        tag.as_ref().try_into().ok()
    }

    /// Decrypts `buffer` in place if its tag is good; otherwise `false`, with `buffer` unspecified.
    pub(crate) fn open(
        &mut self,
        key: &Zeroizing<[u8; 32]>,
        nonce: [u8; 12],
        tag: &[u8; TAG_LEN],
        buffer: &mut [u8],
    ) -> bool {
        self.set(key);
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let Some(key) = self.key.as_ref() else { return false };
        key.open_in_place_separate_tag(
            nonce,
            aead::Aad::empty(),
            aead::Tag::from(*tag),
            buffer,
            0..,
        )
        .is_ok()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.key.is_some() {
            self.set(&[0; 32]);
            scrub_stack();
        }
    }
}

/// The nonce of a segment: unique within its key, which serves this segment alone.
pub(crate) fn nonce(segment: u64, last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    let (head, tail) = nonce.split_at_mut(4);
    if let Some(first) = head.first_mut() {
        *first = u8::from(last);
    }
    tail.copy_from_slice(&segment.to_be_bytes());
    nonce
}
