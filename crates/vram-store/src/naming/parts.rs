//! The digests of an image's parts: what finds a wrong byte without the key.
//!
//! A part is 8 MiB of the image file. Its digest is the chaining value of that part in the BLAKE3
//! tree over the file, so the digests of all parts merge to the image's id and need no other trust.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use vram_alloc::ByteLen;
use vram_seal::{SealError, SegmentHash, SegmentLayout, SegmentSize, merge_digest};

use crate::naming::id::ImageId;

/// The binary logarithm of a part's length.
const PART_LOG2: u8 = 23;
/// Bytes of a part; the last one may be shorter.
pub const PART_LEN: u64 = 1 << PART_LOG2;
/// Bytes of a part's digest.
const DIGEST_LEN: usize = 32;

/// The digests of all parts of an image, whose id is known to be theirs.
#[derive(Clone)]
pub struct Parts {
    layout: SegmentLayout,
    digests: Vec<SegmentHash>,
    id: ImageId,
}

impl Parts {
    /// Reads an image file and computes the digests of its parts.
    pub(crate) fn of_file(file: &File, len: u64) -> Result<Self, std::io::Error> {
        let wrong = |error: SealError| std::io::Error::other(error);
        let layout = layout(len).map_err(wrong)?;
        let mut buffer = vec![0; usize::try_from(len.min(PART_LEN)).unwrap_or(0)];
        let mut digests = Vec::new();
        for part in 0..layout.count() {
            let Some(range) = layout.range(part) else { continue };
            let target = range.len().to_usize().and_then(|len| buffer.get_mut(..len));
            let target = target.unwrap_or_default();
            file.read_exact_at(target, range.start().get())?;
            digests.push(SegmentHash::of(&layout, part, target).map_err(wrong)?);
        }
        Self::merged(layout, digests).map_err(wrong)
    }

    fn merged(layout: SegmentLayout, digests: Vec<SegmentHash>) -> Result<Self, SealError> {
        let id = ImageId::from_bytes(*merge_digest(&digests, &layout)?.as_bytes());
        Ok(Self { layout, digests, id })
    }

    /// Reads the object that [`to_bytes`](Self::to_bytes) makes, for an image of `image_len` bytes.
    ///
    /// # Errors
    ///
    /// [`SealError::WrongHashCount`] if it has not one digest for each part. Compare
    /// [`id`](Self::id) with the image's.
    pub fn from_bytes(bytes: &[u8], image_len: u64) -> Result<Self, SealError> {
        let (digests, rest) = bytes.as_chunks::<DIGEST_LEN>();
        let layout = layout(image_len)?;
        let found = u64::try_from(digests.len()).unwrap_or(u64::MAX);
        if !rest.is_empty() || found != layout.count() {
            return Err(SealError::WrongHashCount { expected: layout.count(), found });
        }
        Self::merged(layout, digests.iter().map(|one| SegmentHash::from_bytes(*one)).collect())
    }

    /// The object that the store holds beside the image: 32 bytes for each part, in order.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.digests.iter().flat_map(|digest| *digest.as_bytes()).collect()
    }

    /// Bytes that the object of an image of this length has.
    pub(crate) fn object_len(image_len: u64) -> u64 {
        image_len.div_ceil(PART_LEN).max(1).saturating_mul(32)
    }

    /// The id of the image whose parts these are: the digests merge to it.
    #[must_use]
    pub const fn id(&self) -> &ImageId {
        &self.id
    }

    pub(crate) const fn layout(&self) -> &SegmentLayout {
        &self.layout
    }

    /// The number of parts.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.layout.count()
    }

    /// The bytes of a part in the image.
    pub(crate) fn range(&self, part: u64) -> Option<core::ops::Range<u64>> {
        let range = self.layout.range(part)?;
        Some(range.start().get()..range.end().get())
    }

    /// Returns true if these are the bytes of the part.
    #[must_use]
    pub fn holds(&self, part: u64, bytes: &[u8]) -> bool {
        let expected = usize::try_from(part).ok().and_then(|part| self.digests.get(part));
        match (expected, SegmentHash::of(&self.layout, part, bytes)) {
            (Some(expected), Ok(found)) => *expected == found,
            _ => false,
        }
    }
}

impl core::fmt::Debug for Parts {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Parts({} of {})", self.count(), self.id)
    }
}

fn layout(image_len: u64) -> Result<SegmentLayout, SealError> {
    SegmentLayout::new(ByteLen::new(image_len), SegmentSize::from_log2(PART_LOG2)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_digests_of_parts_merge_to_the_id_and_find_a_flipped_bit() {
        let part = usize::try_from(PART_LEN).unwrap();
        for len in [0, 1, part, part + 1, 2 * part + 77] {
            let bytes: Vec<u8> = (0..len).map(|at| (at % 251).to_le_bytes()[0]).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            let len = u64::try_from(len).unwrap();
            let parts = Parts::of_file(&file, len).unwrap();
            assert_eq!(*parts.id(), ImageId::of(&bytes), "{len}");
            let object = parts.to_bytes();
            assert_eq!(Parts::object_len(len), u64::try_from(object.len()).unwrap());
            let again = Parts::from_bytes(&object, len).unwrap();
            assert_eq!(again.id(), parts.id());
            for part in 0..parts.count() {
                let range = again.range(part).unwrap();
                let at = |end: u64| usize::try_from(end).unwrap();
                let mut here = bytes[at(range.start)..at(range.end)].to_vec();
                assert!(again.holds(part, &here));
                assert!(!again.holds(part + 1, &here));
                if let Some(byte) = here.last_mut() {
                    *byte ^= 1;
                    assert!(!again.holds(part, &here));
                }
            }
            assert!(Parts::from_bytes(&object[1..], len).is_err());
        }
    }
}
