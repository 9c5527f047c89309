//! The hashes of all segments of a shard, gathered from many threads.

use vram_alloc::ByteLen;
use vram_seal::{Opener, Protection, SealError, SegmentHash, SegmentLayout};

use crate::error::VramError;
use crate::sync::{Mutex, lock};

/// One place for each segment's hash, 32 bytes each. Hashes identify content; they are wiped when
/// dropped.
pub(crate) struct Hashes {
    by_segment: Mutex<Vec<SegmentHash>>,
}

impl Hashes {
    /// # Errors
    ///
    /// [`VramError::HostMemory`] if the host has no room for so many.
    pub(crate) fn new(layout: &SegmentLayout) -> Result<Self, VramError> {
        let wanted = ByteLen::new(layout.count().saturating_mul(32));
        let refused = || VramError::HostMemory { wanted };
        let count = usize::try_from(layout.count()).map_err(|_too_many| refused())?;
        let mut hashes = Vec::new();
        hashes.try_reserve_exact(count).map_err(|_no_room| refused())?;
        hashes.resize(count, SegmentHash::from_bytes([0; 32]));
        Ok(Self { by_segment: Mutex::new(hashes) })
    }

    /// Keeps the hash of one segment.
    pub(crate) fn put(&self, segment: u64, hash: SegmentHash) {
        let index = usize::try_from(segment).unwrap_or(usize::MAX);
        if let Some(slot) = lock(&self.by_segment).get_mut(index) {
            *slot = hash;
        }
    }

    /// The hashes, in order.
    pub(crate) fn into_vec(self) -> Vec<SegmentHash> {
        self.by_segment.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Opens a segment in place and hashes its plaintext, hashing once where that is all there is to
/// opening it.
///
/// # Errors
///
/// [`SealError::SegmentMismatch`] if it is not what was sealed. What `bytes` holds then is not to
/// be used.
pub(crate) fn open_and_hash(
    opener: &Opener,
    segment: u64,
    bytes: &mut [u8],
) -> Result<SegmentHash, SealError> {
    if opener.protection() == Protection::Authenticated {
        let hash = opener.hash_segment(segment, bytes)?;
        opener.check_hash(segment, &hash)?;
        return Ok(hash);
    }
    opener.open_segment(segment, bytes)?;
    opener.hash_segment(segment, bytes)
}
