//! Looks at device bytes by the kernels of the device, where the bytes lie.
//!
//! A kernel only computes. Results are compared here, and what seems altered is read and judged on
//! the host before anybody hears of it.

use core::ops::Range;
use std::sync::Arc;

use vram_alloc::{ByteLen, Site};
use vram_gpu::kernels::{Fingerprints, HashSpan, KernelError, Kernels};
use vram_seal::{Checked, Evidence, Protection, SegmentHash, SegmentLayout};
use vram_space::{Compute, KernelWork, locate};

use crate::error::VramError;
use crate::shard::View;
use crate::shard::seal::prints;
use crate::transfer::Selection;
use crate::transfer::walk::is_altered;

/// Bytes of one launch: at the speed of a card a fraction of a millisecond, after which a loss or a
/// close is noticed.
const SLICE: u64 = 256 << 20;

/// Chunks of BLAKE3 in the longest segment: canaries are hashed at a multiple of it.
const CHUNKS_MAX: u64 = 1 << 14;

/// What a look at segments found.
#[derive(Debug)]
pub(crate) struct Looked {
    /// The altered segments, in order.
    pub(crate) altered: Vec<u64>,
    pub(crate) checked: Checked,
}

/// What kernels found: segments that seem altered.
struct Suspects {
    segments: Vec<u64>,
    checked: Checked,
}

impl View {
    /// Looks at segments: by their tags or hashes, or by their fingerprints if `wanted` is no more
    /// and there are any. By the kernels of the device where they can tell, else on the host.
    pub(crate) fn look(&self, selection: Selection, wanted: Evidence) -> Result<Looked, VramError> {
        self.look_with(selection, wanted, |selection| self.altered_segments(selection))
    }

    /// As [`look`](Self::look); `on_host` looks at segments on the host.
    pub(crate) fn look_with(
        &self,
        selection: Selection,
        wanted: Evidence,
        on_host: impl Fn(Selection) -> Result<Vec<u64>, VramError>,
    ) -> Result<Looked, VramError> {
        let Some(kernels) = self.kernels() else {
            return Ok(Looked { altered: on_host(selection)?, checked: Checked::BY_HOST });
        };
        if wanted == Evidence::Fingerprint
            && let Selection::Run(run) = &selection
        {
            return self.look_by_fingerprint(&*kernels, run.clone(), on_host);
        }
        self.look_by_proof(&*kernels, selection, on_host)
    }

    /// Looks at all bytes of a copy that has just arrived here.
    pub(crate) fn look_at_arrival(&self) -> Result<Looked, VramError> {
        let all = Selection::Run(0..self.seal.opener.layout().count());
        // Without fingerprints, the seal itself tells.
        let kept = self.seal.prints.are_kept();
        self.look(all, if kept { Evidence::Fingerprint } else { Evidence::Proof })
    }

    fn look_by_proof(
        &self,
        kernels: &dyn Kernels,
        selection: Selection,
        on_host: impl Fn(Selection) -> Result<Vec<u64>, VramError>,
    ) -> Result<Looked, VramError> {
        if self.seal.protection() != Protection::Authenticated {
            return Ok(Looked { altered: on_host(selection)?, checked: Checked::BY_HOST });
        }
        let opener = &self.seal.opener;
        let mut segments = Vec::new();
        let compared = self.hashes(kernels, selection.segments(), |segment, hash| {
            if is_altered(opener.check_hash(segment, &hash))? {
                segments.push(segment);
            }
            Ok(())
        })?;
        match compared {
            Some(site) => {
                let checked = Checked { evidence: Evidence::Proof, site };
                self.judged(Suspects { segments, checked }, on_host)
            }
            None => Ok(Looked { altered: on_host(selection)?, checked: Checked::BY_HOST }),
        }
    }

    /// Compares fingerprints and keeps new ones. Without any to compare with, the bytes are looked
    /// at by proof, after their fingerprints were taken: what was verified is what has them.
    fn look_by_fingerprint(
        &self,
        kernels: &dyn Kernels,
        run: Range<u64>,
        on_host: impl Fn(Selection) -> Result<Vec<u64>, VramError>,
    ) -> Result<Looked, VramError> {
        let layout = *self.seal.opener.layout();
        let turn = self.seal.prints.turn(&layout, &run)?;
        let (key, renewed) = match (&turn.kept, &turn.renewed) {
            (Some((kept, _)), renewed) => (kept, renewed.as_ref()),
            (None, Some(renewed)) => (renewed, None),
            (None, None) => return self.look_by_proof(kernels, Selection::Run(run), on_host),
        };
        let mut found = Vec::new();
        let whole = self.fingerprints(&layout, &run, |memory, spans| {
            let computed = kernels.fingerprint(memory, spans, key, renewed)?;
            found.extend(computed);
            Ok(())
        })?;
        if !whole {
            return self.look_by_proof(kernels, Selection::Run(run), on_host);
        }
        let (looked, values) = if let Some((_, kept)) = &turn.kept {
            let segments = differing(&layout, &run, kept, &found);
            let checked = Checked { evidence: Evidence::Fingerprint, site: kernels.site() };
            let looked = self.judged(Suspects { segments, checked }, on_host)?;
            (looked, found.iter().filter_map(|both| both.renewed).collect::<Vec<_>>())
        } else {
            let looked = self.look_by_proof(kernels, Selection::Run(run.clone()), on_host)?;
            (looked, found.iter().map(|both| both.value).collect())
        };
        if looked.altered.is_empty() {
            self.seal.prints.keep(&layout, turn, &run, &values);
        }
        Ok(looked)
    }

    /// The hashes of all segments, computed by the kernels, and where; `None` if they cannot tell.
    pub(crate) fn hashes_by_kernels(&self) -> Result<Option<(Vec<SegmentHash>, Site)>, VramError> {
        if self.seal.protection() != Protection::Authenticated {
            return Ok(None);
        }
        let Some(kernels) = self.kernels() else { return Ok(None) };
        let mut hashes = Vec::new();
        let all = 0..self.seal.opener.layout().count();
        let site = self.hashes(&*kernels, all, |_segment, hash| {
            hashes.push(hash);
            Ok(())
        })?;
        Ok(site.map(|site| (hashes, site)))
    }

    fn kernels(&self) -> Option<Arc<dyn Kernels>> {
        // An empty shard is the host's.
        if self.range.is_empty() || self.gpu.compute == Compute::Host {
            return None;
        }
        self.gpu.kernels()
    }

    /// Reads what kernels called altered, and judges it on the host.
    fn judged(
        &self,
        suspects: Suspects,
        on_host: impl Fn(Selection) -> Result<Vec<u64>, VramError>,
    ) -> Result<Looked, VramError> {
        let Suspects { segments, checked } = suspects;
        if segments.is_empty() {
            return Ok(Looked { altered: segments, checked });
        }
        let altered = on_host(Selection::Each(segments.clone()))?;
        let sound: Vec<u64> = segments
            .into_iter()
            .filter(|segment| altered.binary_search(segment).is_err())
            .collect();
        if !sound.is_empty() {
            self.gpu.kernels_disagreed(u64::try_from(sound.len()).unwrap_or(u64::MAX));
        }
        Ok(Looked { altered, checked })
    }

    /// Hashes segments by kernels, slice by slice, and shows each hash in order. Returns where they
    /// were computed, or `None` if the kernels could not tell.
    fn hashes(
        &self,
        kernels: &dyn Kernels,
        segments: impl IntoIterator<Item = u64>,
        mut show: impl FnMut(u64, SegmentHash) -> Result<(), VramError>,
    ) -> Result<Option<Site>, VramError> {
        let layout = *self.seal.opener.layout();
        let chunks = layout.segment_size().bytes().get() >> 10;
        let mut segments = segments.into_iter().peekable();
        while segments.peek().is_some() {
            self.gpu.ready()?;
            let (mut spans, mut numbers, mut bytes) = (Vec::new(), Vec::new(), 0_u64);
            while bytes < SLICE
                && let Some(segment) = segments.next()
            {
                let Some(range) = layout.range(segment) else { continue };
                let range = locate(self.range, range)?;
                let first_chunk = segment.saturating_mul(chunks);
                spans.push(HashSpan { range, first_chunk, root: layout.count() == 1 });
                numbers.push(segment);
                bytes = bytes.saturating_add(range.len().get());
            }
            let Some(first) = spans.first().copied() else { continue };
            // One span once more, at another place in the tree: its hash has to differ from that
            // of the span, and no launch before had it.
            let first_chunk = self.gpu.kernel_turn().saturating_add(1).saturating_mul(CHUNKS_MAX);
            spans.push(HashSpan { first_chunk, root: false, ..first });
            let memory = self.memory()?;
            let mut values = match kernels.hash(&**memory, &spans) {
                Ok(values) => values,
                Err(error) => {
                    self.gpu.fell_back(error)?;
                    return Ok(None);
                }
            };
            let canary = values.pop();
            if values.len() != numbers.len()
                || canary.is_none()
                || canary == values.first().copied()
            {
                self.gpu.distrust_kernels();
                return Ok(None);
            }
            self.gpu.kernels_did(KernelWork::Hash, ByteLen::new(bytes));
            for (segment, value) in numbers.into_iter().zip(values) {
                show(segment, SegmentHash::from_bytes(value))?;
            }
        }
        Ok(Some(kernels.site()))
    }

    /// Calls `compute` with the pieces of a run of segments, slice by slice. Returns false if the
    /// kernels could not tell.
    fn fingerprints(
        &self,
        layout: &SegmentLayout,
        run: &Range<u64>,
        mut compute: impl FnMut(
            &dyn vram_gpu::DeviceMemory,
            &[vram_alloc::DeviceRange],
        ) -> Result<(), KernelError>,
    ) -> Result<bool, VramError> {
        let mut pieces = run.clone().flat_map(|segment| prints::pieces(layout, segment)).peekable();
        while pieces.peek().is_some() {
            self.gpu.ready()?;
            let (mut spans, mut bytes) = (Vec::new(), 0_u64);
            while bytes < SLICE
                && let Some(piece) = pieces.next()
            {
                spans.push(locate(self.range, piece)?);
                bytes = bytes.saturating_add(piece.len().get());
            }
            let memory = self.memory()?;
            if let Err(error) = compute(&**memory, &spans) {
                self.gpu.fell_back(error)?;
                return Ok(false);
            }
            self.gpu.kernels_did(KernelWork::Fingerprint, ByteLen::new(bytes));
        }
        Ok(true)
    }
}

/// The segments of a run with a piece whose fingerprint differs from the one that was kept.
fn differing(
    layout: &SegmentLayout,
    run: &Range<u64>,
    kept: &[vram_gpu::kernels::Fingerprint],
    found: &[Fingerprints],
) -> Vec<u64> {
    let (mut kept, mut found) = (kept.iter(), found.iter());
    let mut segments = Vec::new();
    for segment in run.clone() {
        let mut differs = false;
        for _piece in prints::pieces(layout, segment) {
            // Missing values differ too.
            differs |=
                kept.next() != found.next().map(|both| &both.value) || kept.len() != found.len();
        }
        if differs {
            segments.push(segment);
        }
    }
    segments
}
