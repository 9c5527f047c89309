//! Reads back what was written to a device.

use vram_seal::AlteredSegments;

use crate::error::VramError;
use crate::shard::{Seal, View};
use crate::transfer::Selection;

/// How much of a shard is read back from the device before it counts as resident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReadBack {
    /// An Authenticated shard in full, since kernels read it unchecked; an Encrypted shard by
    /// sample, since every later read authenticates the segments that it reads.
    #[default]
    Default,
    /// Every segment.
    Full,
    /// The first and the last segment, and a few between.
    Sample,
    /// Nothing.
    None,
}

impl View {
    /// Reads back what was just written. Returns true if every segment was read.
    pub(crate) fn read_back(&self, policy: ReadBack) -> Result<bool, VramError> {
        let count = self.seal.opener.layout().count();
        let full = match policy {
            ReadBack::None => return Ok(false),
            ReadBack::Full => true,
            ReadBack::Sample => false,
            ReadBack::Default => self.seal.protection() == vram_seal::Protection::Authenticated,
        };
        let selection = if full {
            Selection::Run(0..count)
        } else {
            // The selection depends only on the record, so that a run is repeatable.
            Selection::sample(count, SAMPLED, seed_of(&self.seal))
        };
        let segments = self.altered_segments(selection)?;
        if segments.is_empty() {
            return Ok(full);
        }
        let (gpu, segments) = (self.gpu.index, AlteredSegments::from(segments));
        tracing::error!(gpu, %segments, "written bytes read back differently");
        Err(VramError::WriteNotKept { gpu, segments })
    }
}

/// Segments of a sample besides the first and the last.
const SAMPLED: u64 = 4;

fn seed_of(seal: &Seal) -> u64 {
    let mac = seal.record.mac();
    mac.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
