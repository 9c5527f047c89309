//! Looks at device bytes by the kernels of the device, where the bytes lie.
//!
//! A kernel only computes. Results are compared here, and what seems altered is read and judged on
//! the host before anybody hears of it.

pub(crate) mod encrypt;
pub(crate) mod launch;
pub(crate) mod lent;

use core::ops::Range;
use std::sync::Arc;

use vram_alloc::Site;
use vram_gpu::kernels::{Fingerprint, Fingerprints, Kernels};
use vram_seal::{Checked, Evidence, Protection, SegmentHash, SegmentLayout, Suite};
use vram_space::Compute;

use crate::error::VramError;
use crate::shard::View;
use crate::shard::seal::prints;
use crate::transfer::Selection;
use crate::transfer::kernels::launch::{Bytes, Told};
use crate::transfer::walk::is_altered;

/// What a look at segments found.
#[derive(Debug)]
pub(crate) struct Looked {
    /// The altered segments, in order.
    pub(crate) altered: Vec<u64>,
    pub(crate) checked: Checked,
}

impl Looked {
    const fn by_host(altered: Vec<u64>) -> Self {
        Self { altered, checked: Checked::BY_HOST }
    }
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
            return on_host(selection).map(Looked::by_host);
        };
        let look = Look { view: self, kernels: &*kernels, on_host };
        match selection {
            Selection::Run(run) if wanted == Evidence::Fingerprint => look.by_fingerprint(run),
            selection => look.by_proof(selection),
        }
    }

    /// Looks at all bytes of a copy that has just arrived here.
    pub(crate) fn look_at_arrival(&self) -> Result<Looked, VramError> {
        let all = Selection::Run(0..self.seal.opener.layout().count());
        // Without fingerprints, the seal itself tells.
        let kept = self.seal.prints.are_kept();
        self.look(all, if kept { Evidence::Fingerprint } else { Evidence::Proof })
    }

    /// The hashes of all segments, computed by the kernels, and where; `None` if they cannot tell.
    pub(crate) fn hashes_by_kernels(&self) -> Result<Option<(Vec<SegmentHash>, Site)>, VramError> {
        if self.seal.protection() != Protection::Authenticated {
            return Ok(None);
        }
        let Some(kernels) = self.kernels() else { return Ok(None) };
        let mut hashes = Vec::new();
        let bytes = Bytes::of(self)?;
        let told = bytes.hashes(&*kernels, 0..bytes.layout.count(), |_segment, hash| {
            hashes.push(hash);
            Ok(())
        })?;
        Ok((told == Told::All).then(|| (hashes, kernels.site())))
    }

    /// The kernels of the device, if they may be used.
    pub(crate) fn kernels(&self) -> Option<Arc<dyn Kernels>> {
        // An empty shard is the host's.
        if self.range.is_empty() { None } else { self.gpu.kernels() }
    }

    /// Whether the kernels may have the keys of this shard's segments, and know its cipher.
    pub(crate) fn lends_keys(&self) -> bool {
        let suite = self.seal.opener.fields().suite();
        self.gpu.compute == Compute::Card && suite == Some(Suite::ChaCha20Poly1305)
    }
}

/// One look at a shard by kernels.
struct Look<'a, H> {
    view: &'a View,
    kernels: &'a dyn Kernels,
    /// Looks at segments on the host.
    on_host: H,
}

impl<H: Fn(Selection) -> Result<Vec<u64>, VramError>> Look<'_, H> {
    fn by_proof(&self, selection: Selection) -> Result<Looked, VramError> {
        let (view, opener) = (self.view, &self.view.seal.opener);
        let bytes = Bytes::of(view)?;
        let mut suspects = Vec::new();
        let told = if view.seal.protection() == Protection::Authenticated {
            bytes.hashes(self.kernels, selection.segments(), |segment, hash| {
                if is_altered(opener.check_hash(segment, &hash))? {
                    suspects.push(segment);
                }
                Ok(())
            })?
        } else if view.lends_keys() {
            bytes.lent(
                selection.segments(),
                |lent, segment| {
                    let Some((key, tag)) = opener.segment_key(segment)? else { return Ok(()) };
                    lent.tags.push(tag);
                    lent.push(&bytes.layout, [view.range; 2], &key)
                },
                |memory, lent| self.kernels.tags(memory, &lent.spans, &lent.keys),
                |lent, at, tag| {
                    if lent.tags.get(at) != Some(&tag) {
                        suspects.extend(lent.spans.get(at).map(|span| u64::from(span.index)));
                    }
                    Ok(())
                },
            )?
        } else {
            Told::Nothing(None)
        };
        match told {
            Told::All => self.judged(suspects, Evidence::Proof),
            Told::Nothing(_) => (self.on_host)(selection).map(Looked::by_host),
        }
    }

    /// Compares fingerprints and keeps new ones. Without any to compare with, the bytes are looked
    /// at by proof, after their fingerprints were taken: what was verified is what has them.
    fn by_fingerprint(&self, run: Range<u64>) -> Result<Looked, VramError> {
        let (bytes, prints) = (Bytes::of(self.view)?, &self.view.seal.prints);
        let turn = prints.turn(&bytes.layout, &run)?;
        let (key, renewed) = match (&turn.kept, &turn.renewed) {
            (Some((kept, _)), renewed) => (kept, renewed.as_ref()),
            (None, Some(renewed)) => (renewed, None),
            (None, None) => return self.by_proof(Selection::Run(run)),
        };
        let mut found = Vec::new();
        let told = bytes.pieces(&run, |memory, spans| {
            found.extend(self.kernels.fingerprint(memory, spans, key, renewed)?);
            Ok(())
        })?;
        if told != Told::All {
            return self.by_proof(Selection::Run(run));
        }
        let (looked, values) = if let Some((_, kept)) = &turn.kept {
            let suspects = differing(&bytes.layout, &run, kept, &found);
            let looked = self.judged(suspects, Evidence::Fingerprint)?;
            (looked, found.iter().filter_map(|both| both.renewed).collect::<Vec<_>>())
        } else {
            let looked = self.by_proof(Selection::Run(run.clone()))?;
            (looked, found.iter().map(|both| both.value).collect())
        };
        if looked.altered.is_empty() {
            prints.keep(&bytes.layout, turn, &run, &values);
        }
        Ok(looked)
    }

    /// Reads what kernels called altered, and judges it on the host.
    fn judged(&self, suspects: Vec<u64>, evidence: Evidence) -> Result<Looked, VramError> {
        let checked = Checked { evidence, site: self.kernels.site() };
        if suspects.is_empty() {
            return Ok(Looked { altered: suspects, checked });
        }
        let altered = (self.on_host)(Selection::Each(suspects.clone()))?;
        let sound = suspects.iter().filter(|segment| altered.binary_search(segment).is_err());
        let sound = u64::try_from(sound.count()).unwrap_or(u64::MAX);
        if sound > 0 {
            self.view.gpu.kernels_disagreed(sound);
        }
        Ok(Looked { altered, checked })
    }
}

/// The segments of a run with a piece whose fingerprint differs from the one that was kept.
fn differing(
    layout: &SegmentLayout,
    run: &Range<u64>,
    kept: &[Fingerprint],
    found: &[Fingerprints],
) -> Vec<u64> {
    let (mut kept, mut found) = (kept.iter(), found.iter());
    let differs = |segment: &u64| {
        // Each piece is taken, and a missing value differs.
        let pieces = prints::pieces(layout, *segment);
        let differing = pieces.filter(|_| match (kept.next(), found.next()) {
            (Some(kept), Some(found)) => *kept != found.value,
            _ => true,
        });
        differing.count() > 0
    };
    run.clone().filter(differs).collect()
}
