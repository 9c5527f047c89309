//! Converts segments of one seal into segments of another, in a host buffer.

use vram_alloc::ByteLen;
use vram_seal::{Opener, Protection, SealError, SealedSegment, Sealer};

use crate::error::VramError;
use crate::transfer::{Window, Windows};

/// The first `len` bytes of a buffer.
pub(crate) fn part(buffer: &mut [u8], len: ByteLen) -> Result<&mut [u8], VramError> {
    let count = len.to_usize();
    count.and_then(|count| buffer.get_mut(..count)).ok_or(VramError::HostMemory { wanted: len })
}

/// Converts segments of one seal into segments of another.
pub(crate) struct Convert<'a> {
    pub(crate) from: &'a Opener,
    /// If its hashes are fixed, device memory that changed between two reads is refused, like any
    /// other source.
    pub(crate) to: &'a Sealer,
}

impl Convert<'_> {
    /// Converts one window in place, and passes the seal of each segment to `keep`.
    pub(crate) fn window(
        &self,
        windows: &Windows,
        window: &Window,
        bytes: &mut [u8],
        keep: &impl Fn(u64, SealedSegment) -> Result<(), SealError>,
    ) -> Result<(), VramError> {
        window.each(windows.layout(), bytes, |segment, bytes| {
            // Plaintext that is compared with a hash from the old record in the next step needs no
            // other check.
            if !self.to.is_fixed() || self.from.protection() != Protection::Authenticated {
                self.from.open_segment(segment, bytes)?;
            }
            keep(segment, self.to.seal_segment(segment, bytes)?)?;
            Ok(())
        })
    }
}
