//! The fingerprints of sealed bytes as they lie on a device, and the seeds of their keys.
//!
//! A key that was on a device once is known to whoever read the device meanwhile. So each pass over
//! all of the bytes computes two fingerprints of each piece: one to compare, under the key of the
//! last pass, and one to keep, under a new key.

use core::fmt;
use core::ops::Range;

use vram_alloc::{ByteLen, ByteOffset, ByteRange};
use vram_gpu::kernels::{FINGERPRINT_SPAN_MAX, Fingerprint, FingerprintKey};
use vram_seal::{KeyError, Seed, SegmentLayout};

use crate::error::VramError;
use crate::sync::{Mutex, lock};

/// The fingerprints of one seal. They belong to the bytes, not to the place: a copy that arrived
/// has the same.
#[derive(Default)]
pub(crate) struct Prints(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// All pieces, under one key.
    kept: Option<Set>,
    /// The first pieces under the next key, from a pass that reads the bytes in parts.
    coming: Option<Set>,
}

/// Fingerprints of the first pieces of a shard, under one key.
pub(crate) struct Set {
    seed: Seed,
    values: Vec<Fingerprint>,
    /// The segment after the last one whose pieces are all there.
    next: u64,
}

/// What a look at a run of segments needs.
pub(crate) struct Turn {
    /// The values to compare with, and their key; `None` if there are none yet.
    pub(crate) kept: Option<(FingerprintKey, Vec<Fingerprint>)>,
    /// The key of the values to keep; `None` if this run does not continue a pass.
    pub(crate) renewed: Option<FingerprintKey>,
    coming: Option<Set>,
}

/// The pieces of a segment that have a fingerprint each, in the order of their bytes.
pub(crate) fn pieces(
    layout: &SegmentLayout,
    segment: u64,
) -> impl Iterator<Item = ByteRange> + use<> {
    let range = layout.range(segment);
    let (mut at, end) = range.map_or((0, 0), |range| (range.start().get(), range.end().get()));
    let total = layout.plaintext_len();
    core::iter::from_fn(move || {
        let len = end.saturating_sub(at).min(FINGERPRINT_SPAN_MAX.get());
        let start = at;
        at = at.saturating_add(len);
        let piece = || ByteRange::checked(ByteOffset::new(start), ByteLen::new(len), total).ok();
        if len == 0 { None } else { piece() }
    })
}

/// The number of pieces of a full segment: each but the last has as many.
fn per_segment(layout: &SegmentLayout) -> u64 {
    layout.segment_size().bytes().get().div_ceil(FINGERPRINT_SPAN_MAX.get()).max(1)
}

/// The position of a segment's first piece among all.
pub(crate) fn position(layout: &SegmentLayout, segment: u64) -> usize {
    usize::try_from(segment.saturating_mul(per_segment(layout))).unwrap_or(usize::MAX)
}

/// The number of pieces of a shard.
pub(crate) fn count(layout: &SegmentLayout) -> usize {
    let last = layout.count().saturating_sub(1);
    position(layout, last).saturating_add(pieces(layout, last).count())
}

fn key_of(seed: &Seed) -> Result<FingerprintKey, VramError> {
    let refused = || VramError::HostMemory { wanted: ByteLen::from_usize(FingerprintKey::LEN) };
    let mut material: Box<[u8; FingerprintKey::LEN]> = vec![0; FingerprintKey::LEN]
        .into_boxed_slice()
        .try_into()
        .map_err(|_other_len| refused())?;
    seed.expand(&mut *material);
    Ok(FingerprintKey::from_random(material))
}

fn fresh(next: u64) -> Result<Set, VramError> {
    let seed = Seed::random().map_err(|error: KeyError| VramError::from(error))?;
    Ok(Set { seed, values: Vec::new(), next })
}

impl Prints {
    /// Whether all bytes have a fingerprint.
    pub(crate) fn are_kept(&self) -> bool {
        lock(&self.0).kept.is_some()
    }

    /// What a look at these segments needs. `all` segments have `count` pieces.
    ///
    /// # Errors
    ///
    /// No random bytes, or no host memory.
    pub(crate) fn turn(&self, layout: &SegmentLayout, run: &Range<u64>) -> Result<Turn, VramError> {
        let mut known = lock(&self.0);
        // Taken out: of several looks at once, one continues the pass.
        let coming = known.coming.take_if(|coming| run.start == 0 || coming.next == run.start);
        let coming = coming.filter(|_| run.start > 0);
        let at = position(layout, run.start)..position(layout, run.end).min(count(layout));
        let kept = known
            .kept
            .as_ref()
            .map(|kept| (key_of(&kept.seed), kept.values.get(at).unwrap_or_default().to_vec()));
        drop(known);
        let coming = match coming {
            None if run.start == 0 => Some(fresh(0)?),
            other => other,
        };
        let kept = match kept {
            None => None,
            Some((key, values)) => Some((key?, values)),
        };
        let renewed = coming.as_ref().map(|coming| key_of(&coming.seed)).transpose()?;
        Ok(Turn { kept, renewed, coming })
    }

    /// Keeps what a look at sound bytes computed under the new key.
    ///
    /// # Arguments
    ///
    /// * `values`: of the pieces of the run, in order.
    pub(crate) fn keep(
        &self,
        layout: &SegmentLayout,
        turn: Turn,
        run: &Range<u64>,
        values: &[Fingerprint],
    ) {
        let Some(mut coming) = turn.coming else { return };
        coming.values.extend_from_slice(values);
        coming.next = run.end;
        let mut known = lock(&self.0);
        if run.end < layout.count() {
            known.coming = Some(coming);
        } else if coming.values.len() == count(layout) {
            known.kept = Some(coming);
        }
    }

    /// Keeps fingerprints of all bytes, computed while they were sealed.
    pub(crate) fn keep_all(&self, arming: Arming) {
        let Arming { seed, values, .. } = arming;
        let values = values.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(values) = values.into_iter().collect::<Option<Vec<_>>>() {
            lock(&self.0).kept = Some(Set { seed, values, next: 0 });
        }
    }
}

impl fmt::Debug for Prints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prints").field("kept", &self.are_kept()).finish_non_exhaustive()
    }
}

/// Fingerprints that are computed while a shard is sealed, from many threads.
pub(crate) struct Arming {
    seed: Seed,
    key: FingerprintKey,
    values: Mutex<Vec<Option<Fingerprint>>>,
}

impl Arming {
    /// # Errors
    ///
    /// No random bytes, or no host memory.
    pub(crate) fn new(layout: &SegmentLayout) -> Result<Self, VramError> {
        let Set { seed, .. } = fresh(0)?;
        let (key, len) = (key_of(&seed)?, count(layout));
        let mut values = Vec::new();
        values.try_reserve_exact(len).map_err(|_no_room| VramError::HostMemory {
            wanted: ByteLen::from_usize(len.saturating_mul(17)),
        })?;
        values.resize(len, None);
        Ok(Self { seed, key, values: Mutex::new(values) })
    }

    /// The key of the fingerprints.
    pub(crate) const fn key(&self) -> &FingerprintKey {
        &self.key
    }

    /// Whether these bytes of a segment have the fingerprints that were put.
    pub(crate) fn knows(&self, layout: &SegmentLayout, segment: u64, bytes: &[u8]) -> bool {
        let computed = self.compute(bytes);
        let values = lock(&self.values);
        let at = position(layout, segment);
        values.get(at..at.saturating_add(computed.len())) == Some(&computed)
    }

    /// The segments whose fingerprints, in order of the pieces, are not those that were put.
    pub(crate) fn differing(&self, layout: &SegmentLayout, found: &[Fingerprint]) -> Vec<u64> {
        let values = lock(&self.values);
        let differs = |segment: &u64| {
            let at = position(layout, *segment);
            let at = at..at.saturating_add(pieces(layout, *segment).count());
            let (Some(put), Some(found)) = (values.get(at.clone()), found.get(at)) else {
                return true;
            };
            put.iter().zip(found).any(|(put, found)| *put != Some(*found))
        };
        (0..layout.count()).filter(differs).collect()
    }

    fn compute(&self, bytes: &[u8]) -> Vec<Option<Fingerprint>> {
        let len = FINGERPRINT_SPAN_MAX.to_usize().unwrap_or(usize::MAX);
        bytes.chunks(len).map(|piece| self.key.fingerprint(piece)).collect()
    }

    /// Computes the fingerprints of one segment.
    pub(crate) fn put(&self, layout: &SegmentLayout, segment: u64, bytes: &[u8]) {
        let computed = self.compute(bytes);
        let mut values = lock(&self.values);
        let slots = values.iter_mut().skip(position(layout, segment));
        for (slot, value) in slots.zip(computed) {
            *slot = value;
        }
    }
}
