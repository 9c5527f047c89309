//! Looks at device bytes by the kernels of the device, where the bytes lie.
//!
//! A kernel only computes. Results are compared here, and what seems altered is read and judged on
//! the host before anybody hears of it.

pub(crate) mod encrypt;
pub(crate) mod launch;
pub(crate) mod lent;

use core::ops::Range;
use std::collections::BTreeMap;
use std::sync::Arc;

use vram_alloc::Site;
use vram_gpu::kernels::{Fingerprint, Kernels};
use vram_seal::{Checked, Evidence, Protection, SealParams, SegmentHash, Suite};
use vram_space::{Compute, Gpu, WipePolicy};
use zeroize::Zeroizing;

use crate::error::VramError;
use crate::shard::View;
use crate::shard::seal::prints::{self, Turn, many, room_for};
use crate::sync::{Mutex, into_inner, lock};
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

/// Shown each segment as it lies on the device, before it is opened.
pub(crate) type See<'a> = dyn Fn(u64, &[u8]) + Sync + 'a;

impl View {
    /// Looks at segments: by their tags or hashes, or by their fingerprints if `wanted` is no more
    /// and there are any. By the kernels of the device where they can tell, else on the host.
    pub(crate) fn look(&self, selection: Selection, wanted: Evidence) -> Result<Looked, VramError> {
        self.look_with(selection, wanted, |selection, see| {
            self.altered_seen(&self.windows()?, selection, see)
        })
    }

    /// As [`look`](Self::look); `on_host` looks at segments on the host.
    pub(crate) fn look_with(
        &self,
        selection: Selection,
        wanted: Evidence,
        on_host: impl Fn(Selection, &See<'_>) -> Result<Vec<u64>, VramError>,
    ) -> Result<Looked, VramError> {
        let Some(kernels) = self.kernels() else {
            return on_host(selection, &|_segment, _bytes| ()).map(Looked::by_host);
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
        self.look(all, self.best_evidence())
    }

    /// What a look at all bytes rests on that moves none of them to the host: the seal itself where
    /// the device can compare with it, else fingerprints if there are any, else the seal.
    pub(crate) fn best_evidence(&self) -> Evidence {
        if self.is_proven_there() || !self.seal.prints.are_kept() {
            Evidence::Proof
        } else {
            Evidence::Fingerprint
        }
    }

    /// Whether the kernels of a device can compare the bytes with the seal itself.
    pub(crate) fn is_proven_there(&self) -> bool {
        self.seal.protection() == Protection::Authenticated || self.lends_keys()
    }

    /// The hashes of all segments, computed by the kernels, and where; `None` if they cannot tell.
    pub(crate) fn hashes_by_kernels(&self) -> Result<Option<(Vec<SegmentHash>, Site)>, VramError> {
        if self.seal.protection() != Protection::Authenticated {
            return Ok(None);
        }
        let Some(kernels) = self.kernels() else { return Ok(None) };
        let bytes = Bytes::of(self)?;
        let mut hashes = room_for(bytes.layout.count())?;
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

/// Whether the kernels of a GPU seal with these parameters.
pub(crate) fn seals(gpu: &Gpu, params: SealParams) -> bool {
    let known = params.protection() == Protection::Authenticated
        || params.suite() == Suite::ChaCha20Poly1305;
    // What fails on the way has to be wiped: it may be plaintext.
    gpu.compute == Compute::Card && gpu.wipe == WipePolicy::Always && known
}

/// One look at a shard by kernels.
struct Look<'a, H> {
    view: &'a View,
    kernels: &'a dyn Kernels,
    /// Looks at segments on the host.
    on_host: H,
}

impl<H: Fn(Selection, &See<'_>) -> Result<Vec<u64>, VramError>> Look<'_, H> {
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
            Told::Nothing { error: None, untouched: true }
        };
        match told {
            Told::All => self.judged(suspects, selection, Evidence::Proof),
            Told::Nothing { .. } => self.host(selection).map(Looked::by_host),
        }
    }

    fn host(&self, selection: Selection) -> Result<Vec<u64>, VramError> {
        (self.on_host)(selection, &|_segment, _bytes| ())
    }

    /// Compares fingerprints, and keeps those under the new key if all were as they were.
    fn by_fingerprint(&self, run: Range<u64>) -> Result<Looked, VramError> {
        let (bytes, prints) = (Bytes::of(self.view)?, &self.view.seal.prints);
        let turn = prints.turn(&bytes.layout, &run)?;
        let Some((key, kept)) = &turn.kept else { return self.first(turn, run) };
        let per_segment = prints::per_segment(&bytes.layout);
        let mut piece = prints::position(&bytes.layout, run.start);
        let (mut suspects, mut wrong) = (Vec::new(), false);
        // At most as many as the shard has pieces; wiped with the rest.
        let len = prints::position(&bytes.layout, run.end).saturating_sub(piece);
        let mut renewed = Zeroizing::new(room_for(many(len))?);
        let told = bytes.pieces(&run, |memory, spans| {
            let computed = self.kernels.fingerprint(memory, spans, key, turn.renewed.as_ref())?;
            wrong |= computed.len() != spans.len();
            for one in &computed {
                if kept.get(piece) != Some(&one.value) {
                    let segment = many(piece);
                    let segment = segment.checked_div(per_segment).unwrap_or(segment);
                    if suspects.last() != Some(&segment) {
                        suspects.push(segment);
                    }
                }
                renewed.extend(one.renewed);
                piece = piece.saturating_add(1);
            }
            Ok(())
        })?;
        if wrong {
            self.view.gpu.distrust_kernels();
        }
        if wrong || told != Told::All {
            return self.by_proof(Selection::Run(run));
        }
        // The new values are of the bytes that were just compared. Where any looked altered they are
        // not kept, whatever the host finds: that is another reading.
        let keeps = suspects.is_empty();
        let all = Selection::Run(run.clone());
        let looked = self.judged(suspects, all, Evidence::Fingerprint)?;
        if keeps {
            prints.keep(&bytes.layout, turn, &run, &renewed);
        }
        Ok(looked)
    }

    /// A look at bytes that have no fingerprints yet: on the host, which takes them of the bytes that
    /// it opens.
    fn first(&self, turn: Turn, run: Range<u64>) -> Result<Looked, VramError> {
        let layout = *self.view.seal.opener.layout();
        let Some(key) = &turn.renewed else { return self.by_proof(Selection::Run(run)) };
        let found = Mutex::new(BTreeMap::new());
        let altered = (self.on_host)(Selection::Run(run.clone()), &|segment, bytes| {
            lock(&found).insert(segment, prints::values_of(key, bytes));
        })?;
        let found = into_inner(found);
        if altered.is_empty() {
            let mut values = Zeroizing::new(room_for(prints_of(&found))?);
            values.extend(found.values().flat_map(|of| of.iter().copied()));
            self.view.seal.prints.keep(&layout, turn, &run, &values);
        }
        Ok(Looked::by_host(altered))
    }

    /// Reads what kernels called altered of a selection, and judges it on the host. Where the host
    /// finds any of it sound, kernels are believed nothing of this look: it looks at all of it.
    fn judged(
        &self,
        suspects: Vec<u64>,
        selection: Selection,
        evidence: Evidence,
    ) -> Result<Looked, VramError> {
        if suspects.is_empty() {
            let checked = Checked { evidence, site: self.kernels.site() };
            return Ok(Looked { altered: suspects, checked });
        }
        let altered = self.host(Selection::Each(suspects.clone()))?;
        if altered == suspects {
            return Ok(Looked::by_host(altered));
        }
        let sound = suspects.len().saturating_sub(altered.len());
        self.view.gpu.kernels_disagreed(many(sound));
        self.host(selection).map(Looked::by_host)
    }
}

/// The number of fingerprints.
fn prints_of(found: &BTreeMap<u64, Zeroizing<Vec<Fingerprint>>>) -> u64 {
    let count = found.values().map(|of| of.len()).fold(0_usize, usize::saturating_add);
    many(count)
}
