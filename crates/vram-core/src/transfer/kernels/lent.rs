//! Segments with their keys, for one launch.

use vram_alloc::DeviceRange;
use vram_gpu::kernels::CipherSpan;
use vram_seal::{SealError, SegmentKey, SegmentLayout};
use vram_space::locate;
use zeroize::Zeroizing;

use crate::error::VramError;

/// Takes the key and the tag of a segment.
pub(crate) type Lending<'a> = dyn FnMut(&SegmentKey, [u8; 16]) -> Result<(), VramError> + 'a;

/// Segments with their keys. The keys are wiped when it is dropped.
#[derive(Default)]
pub(crate) struct Lent {
    pub(crate) spans: Vec<CipherSpan>,
    pub(crate) keys: Zeroizing<Vec<[u8; 32]>>,
    pub(crate) tags: Vec<[u8; 16]>,
}

impl Lent {
    /// Adds a segment that lies in `from`; what is computed of it goes to its place in `to`.
    pub(crate) fn push(
        &mut self,
        layout: &SegmentLayout,
        [from, to]: [DeviceRange; 2],
        key: &SegmentKey,
    ) -> Result<(), VramError> {
        let (segment, count) = (key.segment(), layout.count());
        let missing = || VramError::from(SealError::NoSuchSegment { segment, count });
        let range = layout.range(segment).ok_or_else(missing)?;
        let (source, target) = (locate(from, range)?, locate(to, range)?.start());
        let index = u32::try_from(segment).map_err(|_beyond| missing())?;
        // A vector that grows leaves its old memory unwiped.
        if self.keys.len() == self.keys.capacity() {
            let len = self.keys.len().saturating_mul(2).max(64);
            let mut more = Zeroizing::new(Vec::with_capacity(len));
            more.extend_from_slice(&self.keys);
            self.keys = more;
        }
        self.keys.push(*key.as_bytes());
        self.spans.push(CipherSpan { source, target, index, last: key.is_last() });
        Ok(())
    }
}
