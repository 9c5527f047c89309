//! Plaintext hashes: one BLAKE3 chaining value for each segment, merged into the content's digest.
//!
//! They are the inner nodes of the one BLAKE3 tree over the content. One pass therefore computes
//! both the hash that seals each segment and the digest that `b3sum` prints for the whole.

use core::fmt;

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use zeroize::{Zeroize, Zeroizing};

use crate::digest::ContentDigest;
use crate::error::SealError;
use crate::record::layout::SegmentLayout;
use crate::segment::ahead;

/// The BLAKE3 value of one segment's plaintext, at its position in the tree over the whole shard.
///
/// It is not keyed: a reader of it can confirm guesses of the plaintext. It is wiped when dropped,
/// compared in constant time, and its `Debug` output does not show the content.
#[derive(Clone)]
pub struct SegmentHash([u8; 32]);

impl SegmentHash {
    /// Wraps a chaining value that was computed elsewhere, such as on a device.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The value's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Hashes `plaintext` as segment `segment` of `layout`.
    ///
    /// # Errors
    ///
    /// [`SealError::NoSuchSegment`], or [`SealError::WrongLength`] if the plaintext does not have
    /// the segment's length.
    pub fn of(layout: &SegmentLayout, segment: u64, plaintext: &[u8]) -> Result<Self, SealError> {
        layout.check(segment, plaintext)?;
        Ok(Self::of_checked(layout, segment, plaintext, Place::Memory))
    }

    /// As [`of`](Self::of), with segment and length already checked.
    pub(crate) fn of_checked(
        layout: &SegmentLayout,
        segment: u64,
        plaintext: &[u8],
        place: Place,
    ) -> Self {
        let ahead = match place {
            Place::Cache => None,
            Place::Memory => ahead::for_content(layout.plaintext_len().get()),
        };
        if layout.count() == 1
            && let Some(mut root) = ahead::hash_short(plaintext, ahead)
        {
            let hash = Self(*root.as_bytes());
            root.zeroize();
            return hash;
        }
        let mut hasher = blake3::Hasher::new();
        if layout.count() > 1 {
            hasher.set_input_offset(layout.range(segment).map_or(0, |range| range.start().get()));
        }
        ahead::update(&mut hasher, plaintext, ahead);
        // Each copy of the value on the way is wiped: the plain hash of content confirms guesses.
        let value = if layout.count() > 1 {
            Zeroizing::new(hasher.finalize_non_root())
        } else {
            let mut root = hasher.finalize();
            let value = Zeroizing::new(*root.as_bytes());
            root.zeroize();
            value
        };
        hasher.zeroize();
        Self(*value)
    }
}

/// Where the bytes to hash are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In this thread's cache: it has just written or read them.
    Cache,
    /// Anywhere in memory.
    Memory,
}

impl PartialEq for SegmentHash {
    fn eq(&self, other: &Self) -> bool {
        blake3::Hash::from_bytes(self.0) == blake3::Hash::from_bytes(other.0)
    }
}

impl Eq for SegmentHash {}

impl Drop for SegmentHash {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

impl fmt::Debug for SegmentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SegmentHash(..)")
    }
}

/// Merges the hashes of all segments, in order, into the digest of the whole content.
///
/// # Errors
///
/// [`SealError::WrongHashCount`] if the number of hashes is not the number of segments.
pub fn merge_digest(
    hashes: &[SegmentHash],
    layout: &SegmentLayout,
) -> Result<ContentDigest, SealError> {
    merge(hashes.iter(), hashes.len(), layout)
}

pub(crate) fn merge<'a>(
    mut hashes: impl Iterator<Item = &'a SegmentHash>,
    count: usize,
    layout: &SegmentLayout,
) -> Result<ContentDigest, SealError> {
    let found = u64::try_from(count).unwrap_or(u64::MAX);
    let wrong = SealError::WrongHashCount { expected: layout.count(), found };
    if found != layout.count() {
        return Err(wrong);
    }
    if count == 1
        && let Some(only) = hashes.next()
    {
        return Ok(ContentDigest::from_bytes(only.0));
    }
    // The stack contains complete subtrees of the tree over the content, from left to right: one
    // for each set bit of the number of segments seen. The last segment is merged at the end,
    // because only then is it known which parent is the root.
    let mut stack: Zeroizing<Vec<[u8; 32]>> = Zeroizing::new(Vec::with_capacity(64));
    let mut seen: u64 = 0;
    let mut right: Option<Zeroizing<[u8; 32]>> = None;
    for hash in hashes {
        if let Some(before) = right.replace(Zeroizing::new(hash.0)) {
            let mut subtree = before;
            seen = seen.saturating_add(1);
            for _ in 0..seen.trailing_zeros() {
                let left = stack.pop().ok_or_else(|| wrong.clone())?;
                subtree = Zeroizing::new(merge_subtrees_non_root(&left, &subtree, Mode::Hash));
            }
            stack.push(*subtree);
        }
    }
    let mut right = right.ok_or_else(|| wrong.clone())?;
    while let Some(left) = stack.pop() {
        if stack.is_empty() {
            let mut root = merge_subtrees_root(&left, &right, Mode::Hash);
            let digest = ContentDigest::from_bytes(*root.as_bytes());
            root.zeroize();
            return Ok(digest);
        }
        right = Zeroizing::new(merge_subtrees_non_root(&left, &right, Mode::Hash));
    }
    Err(wrong)
}
