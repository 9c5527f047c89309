//! Keys of codes, in the form in which they are used.

use core::fmt;
use core::hint::black_box;

use ring::hmac;

use crate::key::id::KeyError;
use crate::key::secret::Secret;
use crate::wipe::{scrub_stack, scrub_stack_of_hash};

/// A key of HMAC-SHA256, prepared once for many codes: as secret as the 32 bytes that it was made of.
///
/// It is in one heap allocation, so that moving it leaves no copy behind. ring does not wipe its keys:
/// when it is dropped, a key of zeros takes its place in that allocation.
pub(crate) struct MacKey(Box<hmac::Key>);

impl MacKey {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let mac = Self(boxed(key));
        scrub_stack();
        mac
    }

    pub(crate) fn sign(&self, statement: &[u8]) -> [u8; 32] {
        let mut signature = [0; 32];
        let code = hmac::sign(&self.0, statement);
        for (target, source) in signature.iter_mut().zip(code.as_ref()) {
            *target = *source;
        }
        scrub_stack_of_hash();
        signature
    }

    /// Constant in time over the signature's content.
    pub(crate) fn verify(&self, statement: &[u8], signature: &[u8; 32]) -> bool {
        let sound = hmac::verify(&self.0, statement, signature).is_ok();
        scrub_stack_of_hash();
        sound
    }
}

/// Apart, so that the frame in which ring builds the key lies below the caller's, which wipes it.
#[inline(never)]
fn boxed(key: &[u8; 32]) -> Box<hmac::Key> {
    Box::new(hmac::Key::new(hmac::HMAC_SHA256, key))
}

impl Drop for MacKey {
    fn drop(&mut self) {
        *self.0 = hmac::Key::new(hmac::HMAC_SHA256, &[0; 32]);
        black_box(&*self.0);
    }
}

/// A random key of keyed BLAKE3, for the marks by which a process recognises what it made itself. A mark
/// takes a sixth of the time of HMAC-SHA256, with the same strength; nobody else computes one, so it
/// needs no standard.
///
/// It is of no format, and no other key follows from it. Wiped when dropped.
///
/// ```
/// let key = vram_seal::MarkKey::random()?;
/// let mark = key.mark(b"statement");
/// assert!(key.is_mark(b"statement", &mark) && !key.is_mark(b"Statement", &mark));
/// # Ok::<(), vram_seal::KeyError>(())
/// ```
pub struct MarkKey(Secret);

impl MarkKey {
    /// Creates a key from the operating system's random source.
    ///
    /// # Errors
    ///
    /// [`KeyError::Random`] if that source fails.
    pub fn random() -> Result<Self, KeyError> {
        Secret::random().map(Self)
    }

    /// The mark of a statement. The caller must use a fixed layout. It takes the least time for up to 64
    /// bytes, which are one block.
    #[must_use]
    pub fn mark(&self, statement: &[u8]) -> [u8; 32] {
        let mark = blake3::keyed_hash(&self.0, statement);
        scrub_stack_of_hash();
        *mark.as_bytes()
    }

    /// Whether this is the mark of the statement. Constant in time over the mark's content.
    #[must_use]
    pub fn is_mark(&self, statement: &[u8], mark: &[u8; 32]) -> bool {
        blake3::Hash::from_bytes(self.mark(statement)) == *mark
    }
}

impl fmt::Debug for MarkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MarkKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_holds_for_its_statement_under_its_key_alone() {
        let [key, other] = [(); 2].map(|()| MarkKey::random().expect("random"));
        let mark = key.mark(b"statement");
        assert!(key.is_mark(b"statement", &mark));
        assert!(!key.is_mark(b"Statement", &mark) && !other.is_mark(b"statement", &mark));
        for bit in 0..256 {
            let mut altered = mark;
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.is_mark(b"statement", &altered), "bit {bit}");
        }
        assert_eq!(format!("{key:?}"), "MarkKey(..)");
    }
}
