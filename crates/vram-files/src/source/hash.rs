//! A hash of the source that needs its bytes in order, computed while they are read.

use vram_seal::{ContentDigest, ContentHasher, ExpectedDigest, HashKind};

use crate::sync::{Mutex, lock};

/// The SHA-256 of bytes that one pass reads in order, so that no second pass is needed for it.
///
/// BLAKE3 needs none of this: sealing computes it from the hashes of the segments, in any order.
#[derive(Debug)]
pub struct HashInOrder {
    len: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Bytes that were hashed.
    position: u64,
    /// `None` once the digest was taken.
    hasher: Option<ContentHasher>,
}

impl HashInOrder {
    /// What is needed to compare `len` bytes with `expected`: `None` if sealing computes that digest
    /// by itself, or no digest is expected.
    #[must_use]
    pub fn for_expected(expected: Option<&ExpectedDigest>, len: u64) -> Option<Self> {
        let kind = expected?.kind();
        let hasher = || Some(ContentHasher::new(kind));
        (kind != HashKind::Blake3)
            .then(|| Self { len, state: Mutex::new(State { position: 0, hasher: hasher() }) })
    }

    /// Returns true if bytes are missing yet: they have to be read in order.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        lock(&self.state).position < self.len
    }

    /// Adds the bytes at `offset`, if they are the next ones. Others are those of a later pass.
    pub fn take(&self, offset: u64, bytes: &[u8]) {
        let mut state = lock(&self.state);
        let State { position, hasher } = &mut *state;
        if let Some(hasher) = hasher
            && *position == offset
        {
            hasher.update(bytes);
            *position = offset.saturating_add(super::wide(bytes.len()));
        }
    }

    /// The digest, once all bytes were taken; one time.
    fn digest(&self) -> Option<ContentDigest> {
        let mut state = lock(&self.state);
        if state.position != self.len {
            return None;
        }
        state.hasher.take().map(ContentHasher::finalize)
    }

    /// Compares content with the digest that the caller expects, if any.
    ///
    /// # Arguments
    ///
    /// * `found`: the BLAKE3 digest of the content.
    /// * `in_order`: what [`for_expected`](Self::for_expected) gave for `expected`, after the pass.
    ///
    /// # Returns
    ///
    /// The digest that was expected and that of the content, both of one kind, if they differ.
    #[must_use]
    pub fn difference(
        expected: Option<&ExpectedDigest>,
        found: ContentDigest,
        in_order: Option<&Self>,
    ) -> Option<(ContentDigest, ContentDigest)> {
        let expected = expected?.digest();
        let found = match in_order.map(Self::digest) {
            None => found,
            Some(Some(found)) => found,
            // Bytes are missing: no content is the expected one.
            Some(None) => return Some((expected, found)),
        };
        (expected != found).then_some((expected, found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_hashed_once_and_in_order_and_only_for_a_kind_that_needs_it() {
        let digest = ContentHasher::digest(HashKind::Sha256, b"weights");
        let expected = ExpectedDigest::sha256(digest);
        let hash = HashInOrder::for_expected(Some(&expected), 7).unwrap();
        hash.take(0, b"wei");
        hash.take(0, b"again");
        hash.take(5, b"too far");
        assert!(hash.is_wanted());
        hash.take(3, b"ghts");
        assert!(!hash.is_wanted());
        hash.take(0, b"weights");
        let found = ContentHasher::digest(HashKind::Blake3, b"weights");
        assert_eq!(HashInOrder::difference(Some(&expected), found, Some(&hash)), None);
        let again = HashInOrder::difference(Some(&expected), found, Some(&hash));
        assert!(again.is_some(), "the digest is taken once");

        let short = HashInOrder::for_expected(Some(&expected), 7).unwrap();
        short.take(0, b"weight");
        let missing = HashInOrder::difference(Some(&expected), found, Some(&short));
        assert_eq!(missing, Some((digest, found)));
        assert!(!HashInOrder::for_expected(Some(&expected), 0).unwrap().is_wanted());
        let blake3 = ExpectedDigest::blake3(digest);
        assert!(HashInOrder::for_expected(Some(&blake3), 7).is_none());
        assert!(HashInOrder::for_expected(None, 7).is_none());
        assert_eq!(HashInOrder::difference(None, found, None), None);
        let other = HashInOrder::difference(Some(&blake3), found, None);
        assert_eq!(other, Some((digest, found)));
    }
}
