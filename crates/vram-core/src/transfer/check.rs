//! Reads back what was written to a device.

use vram_seal::{AlteredSegments, Checked, Evidence, Protection, SegmentLayout};
use vram_space::Gpu;

use crate::error::VramError;
use crate::shard::seal::prints::Arming;
use crate::shard::{Seal, View};
use crate::transfer::Selection;
use crate::transfer::kernels::Looked;

/// How much of a shard is read back from the device before it counts as resident.
///
/// Small shards of a model that lie side by side are written by one copy and read back by one:
/// the host then opens each by its tags or hashes, which proves more than a fingerprint and costs less
/// than a launch of kernels for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReadBack {
    /// Where the device has kernels, every byte: [`Fingerprint`](Self::Fingerprint). Elsewhere an
    /// Authenticated shard in full, since kernels read it unchecked; and an Encrypted shard by
    /// sample, since every later read authenticates the segments that it reads.
    #[default]
    Default,
    /// Every segment, by its tag or hash.
    Full,
    /// Every byte, where the device has kernels: an Authenticated shard by the hashes of its
    /// segments, an Encrypted shard by a secret fingerprint that is taken while it is sealed.
    /// Elsewhere as [`Full`](Self::Full).
    Fingerprint,
    /// The first and the last segment, and a few between.
    Sample,
    /// Nothing.
    None,
}

impl ReadBack {
    /// Fingerprints to take while bytes are written, if they will be read back by them.
    ///
    /// # Errors
    ///
    /// No random bytes, or no host memory.
    pub(crate) fn arming(
        self,
        gpu: &Gpu,
        layout: &SegmentLayout,
        protection: Protection,
    ) -> Result<Option<Arming>, VramError> {
        let wanted = matches!(self, Self::Default | Self::Fingerprint)
            && protection == Protection::Encrypted
            && !layout.plaintext_len().is_zero();
        if wanted && gpu.kernels().is_some() { Arming::new(layout).map(Some) } else { Ok(None) }
    }
}

impl View {
    /// Reads back what was just written. If every byte was looked at, returns what that rests on.
    pub(crate) fn read_back(&self, policy: ReadBack) -> Result<Option<Checked>, VramError> {
        let Some((selection, full)) = self.to_read_back(policy) else { return Ok(None) };
        let evidence = match policy {
            ReadBack::Default | ReadBack::Fingerprint => self.best_evidence(),
            _ => Evidence::Proof,
        };
        self.kept(self.look(selection, evidence)?, full)
    }

    /// As [`read_back`](Self::read_back), of all bytes of a shard of one window, which were read from
    /// the device to `bytes`: each segment is judged on the host, by its tag or hash.
    pub(crate) fn read_back_from(
        &self,
        policy: ReadBack,
        bytes: &mut [u8],
    ) -> Result<Option<Checked>, VramError> {
        let Some((_all, full)) = self.to_read_back(policy) else { return Ok(None) };
        let (altered, _differs) = self.altered_in(bytes, false)?;
        self.kept(Looked { altered, checked: Checked::BY_HOST }, full)
    }

    /// Whether the policy looks at all segments, whatever it takes that for.
    pub(crate) fn reads_all_back(&self, policy: ReadBack) -> bool {
        matches!(self.to_read_back(policy), Some((Selection::Run(_), _)))
    }

    /// The segments that are read back, and whether they count as all; `None` for none.
    fn to_read_back(&self, policy: ReadBack) -> Option<(Selection, bool)> {
        let count = self.seal.opener.layout().count();
        let full = match policy {
            ReadBack::None => return None,
            ReadBack::Full | ReadBack::Fingerprint => true,
            ReadBack::Sample => false,
            ReadBack::Default => {
                self.seal.protection() == Protection::Authenticated
                    || self.seal.prints.are_kept()
                    || self.lends_keys() && self.kernels().is_some()
            }
        };
        let selection = if full {
            Selection::Run(0..count)
        } else {
            // The selection depends only on the record, so that a run is repeatable.
            Selection::sample(count, SAMPLED, seed_of(&self.seal))
        };
        Some((selection, full))
    }

    /// What a read-back rests on, if all was looked at and nothing is altered.
    fn kept(&self, looked: Looked, full: bool) -> Result<Option<Checked>, VramError> {
        let Looked { altered: segments, checked } = looked;
        if segments.is_empty() {
            return Ok(full.then_some(checked));
        }
        let (gpu, segments) = (self.gpu.index, AlteredSegments::from(segments));
        tracing::error!(gpu, %segments, "written bytes read back differently");
        Err(VramError::WriteNotKept { gpu, segments })
    }
}

/// Segments of a sample besides the first and the last.
const SAMPLED: u64 = 4;

fn seed_of(seal: &Seal) -> u64 {
    let mac = seal.opener.record_mac();
    mac.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
