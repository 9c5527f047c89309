//! The hashes of all segments of a shard, collected from many threads.

use core::fmt;
use std::sync::{Mutex, PoisonError};

use vram_alloc::ByteLen;

use crate::digest::ContentDigest;
use crate::error::SealError;
use crate::open::Opener;
use crate::record::layout::SegmentLayout;
use crate::record::protection::Protection;
use crate::segment::chain::SegmentHash;

/// One slot of 32 bytes for each segment's hash. Hashes identify content, so they are wiped when
/// dropped.
pub struct Hashes {
    by_segment: Mutex<Vec<SegmentHash>>,
}

impl Hashes {
    /// A slot for each segment of a shard, all of them zero.
    ///
    /// # Errors
    ///
    /// [`SealError::HostMemory`] if the host does not have enough memory.
    pub fn new(layout: &SegmentLayout) -> Result<Self, SealError> {
        let wanted = ByteLen::new(layout.count().saturating_mul(32));
        let refused = || SealError::HostMemory { wanted };
        let count = usize::try_from(layout.count()).map_err(|_too_many| refused())?;
        let mut hashes = Vec::new();
        hashes.try_reserve_exact(count).map_err(|_no_room| refused())?;
        hashes.resize(count, SegmentHash::from_bytes([0; 32]));
        Ok(Self { by_segment: Mutex::new(hashes) })
    }

    /// Stores the hash of one segment.
    pub fn put(&self, segment: u64, hash: SegmentHash) {
        let index = usize::try_from(segment).unwrap_or(usize::MAX);
        // The critical section is one assignment, so the state that a panicking thread leaves is
        // valid.
        let mut hashes = self.by_segment.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = hashes.get_mut(index) {
            *slot = hash;
        }
    }

    /// As [`Opener::check_digest`] of the hashes stored so far, which is good only if all are.
    ///
    /// # Errors
    ///
    /// Those of [`Opener::check_digest`].
    pub fn check_digest(&self, opener: &Opener) -> Result<ContentDigest, SealError> {
        let hashes = self.by_segment.lock().unwrap_or_else(PoisonError::into_inner);
        opener.check_digest(&hashes)
    }

    /// The hashes, in order.
    #[must_use]
    pub fn into_vec(self) -> Vec<SegmentHash> {
        self.by_segment.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Hashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hashes").finish_non_exhaustive()
    }
}

/// Opens a segment in place and hashes its plaintext. Hashes only once where hashing is the whole
/// check.
///
/// # Errors
///
/// [`SealError::SegmentMismatch`] if it is not the sealed content. The content of `bytes` must not
/// be used then.
pub fn open_and_hash(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SealContext, SealKey, SealParams, SegmentSize, Threads, seal};

    #[test]
    fn hashes_put_by_many_threads_stand_in_order_and_merge_to_the_digest() {
        let plain: Vec<u8> = (0_u32..5000).flat_map(u32::to_le_bytes).collect();
        let params = SealParams::new().with_segment(SegmentSize::MIN);
        for protection in [Protection::Encrypted, Protection::Authenticated] {
            let params = params.with_protection(protection);
            let context = SealContext::new("m").unwrap();
            let key = SealKey::from_bytes(&[7; 32]);
            let mut data = vec![0; plain.len()];
            let sealed = seal(&key, &context, params, Threads::AUTO, &plain, &mut data).unwrap();
            let expected = crate::Expected::new("m").unwrap().params(params);
            let opener = Opener::open(&key, &sealed.record, sealed.tags, &expected).unwrap();
            let hashes = Hashes::new(opener.layout()).unwrap();
            std::thread::scope(|scope| {
                for (segment, bytes) in (0..).zip(data.chunks_mut(4096)) {
                    let (hashes, opener) = (&hashes, &opener);
                    scope.spawn(move || {
                        hashes.put(segment, open_and_hash(opener, segment, bytes).unwrap());
                    });
                }
            });
            assert!(data == plain);
            assert_eq!(opener.check_digest(&hashes.into_vec()).unwrap(), sealed.digest);
        }
    }
}
