//! The fingerprints of sealed bytes as they lie on a device, and the seeds of their keys.
//!
//! A key that was on a device once is known to whoever read the device meanwhile. So each pass over
//! all of the bytes computes two fingerprints of each piece: one to compare, under the key of the
//! last pass, and one to keep, under a new key.

use core::fmt;
use core::ops::Range;
use std::sync::Arc;

use vram_alloc::{ByteLen, ByteOffset, ByteRange};
use vram_gpu::kernels::{FINGERPRINT_SPAN_MAX, Fingerprint, FingerprintKey};
use vram_seal::{KeyError, Seed, SegmentLayout};
use zeroize::{Zeroize, Zeroizing};

use crate::error::VramError;
use crate::sync::{Mutex, into_inner, lock};

/// The fingerprints of one seal. They belong to the bytes, not to the place: a copy that arrived
/// has the same. A shard that no look has begun on has none, and they take no memory.
#[derive(Default)]
pub(crate) struct Prints(Mutex<Option<Box<Known>>>);

#[derive(Default)]
struct Known {
    /// All pieces, under one key.
    kept: Option<Arc<Set>>,
    /// The first pieces under the next key, from a pass that reads the bytes in parts.
    coming: Option<Set>,
    /// Counts the passes that began.
    passes: u64,
}

/// Fingerprints of the first pieces of a shard, under one key. Wiped when dropped: they are as secret
/// as the key.
pub(crate) struct Set {
    seed: Seed,
    /// Never grows beyond the room that it was made with, which would leave copies behind.
    values: Vec<Fingerprint>,
    /// The segment after the last one whose pieces are all there.
    next: u64,
    /// Which pass it is of.
    pass: u64,
}

impl Set {
    /// The value of a piece.
    pub(crate) fn get(&self, piece: usize) -> Option<&Fingerprint> {
        self.values.get(piece)
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        self.values.zeroize();
    }
}

/// What a look at a run of segments needs.
pub(crate) struct Turn {
    /// The values to compare with, and their key; `None` if there are none yet.
    pub(crate) kept: Option<(FingerprintKey, Arc<Set>)>,
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
pub(crate) fn per_segment(layout: &SegmentLayout) -> u64 {
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

/// Room for all fingerprints of a shard, under a new key.
fn fresh(layout: &SegmentLayout, pass: u64) -> Result<Set, VramError> {
    let seed = Seed::random().map_err(|error: KeyError| VramError::from(error))?;
    Ok(Set { seed, values: room_for(many(count(layout)))?, next: 0, pass })
}

impl Prints {
    /// Whether all bytes have a fingerprint.
    pub(crate) fn are_kept(&self) -> bool {
        lock(&self.0).as_ref().is_some_and(|known| known.kept.is_some())
    }

    /// What a look at these segments needs.
    ///
    /// # Errors
    ///
    /// No random bytes, or no host memory.
    pub(crate) fn turn(&self, layout: &SegmentLayout, run: &Range<u64>) -> Result<Turn, VramError> {
        let (kept, coming, pass) = {
            let mut known = lock(&self.0);
            let known = known.get_or_insert_default();
            // Taken out: of several looks at once, one continues the pass.
            let goes_on = known.coming.take_if(|coming| coming.next == run.start);
            let coming = goes_on.filter(|_| run.start > 0);
            if run.start == 0 {
                known.passes = known.passes.saturating_add(1);
            }
            (known.kept.clone(), coming, known.passes)
        };
        let coming = match coming {
            None if run.start == 0 => Some(fresh(layout, pass)?),
            other => other,
        };
        let kept = kept.map(|kept| Ok::<_, VramError>((key_of(&kept.seed)?, kept))).transpose()?;
        let renewed = coming.as_ref().map(|coming| key_of(&coming.seed)).transpose()?;
        Ok(Turn { kept, renewed, coming })
    }

    /// Keeps fingerprints under the new key, of bytes that were found sound in the same reading.
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
        let all = count(layout);
        if coming.values.len().saturating_add(values.len()) > all {
            return;
        }
        coming.values.extend_from_slice(values);
        coming.next = run.end;
        let mut known = lock(&self.0);
        let known = known.get_or_insert_default();
        if run.end < layout.count() {
            known.coming = Some(coming);
        } else if coming.values.len() == all
            // A pass that began earlier and ends later would bring an older key back.
            && known.kept.as_ref().is_none_or(|kept| kept.pass <= coming.pass)
        {
            known.kept = Some(Arc::new(coming));
        }
    }

    /// Keeps fingerprints of all bytes, computed while they were sealed.
    pub(crate) fn keep_all(&self, arming: Arming) {
        if let Some(set) = arming.into_set() {
            lock(&self.0).get_or_insert_default().kept = Some(Arc::new(set));
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
    set: Set,
    key: FingerprintKey,
    values: Mutex<Slots>,
}

/// Whether each fingerprint is there, and its value.
struct Slots(Vec<(bool, Fingerprint)>);

impl Arming {
    /// # Errors
    ///
    /// No random bytes, or no host memory.
    pub(crate) fn new(layout: &SegmentLayout) -> Result<Self, VramError> {
        let set = fresh(layout, 0)?;
        let (key, len) = (key_of(&set.seed)?, count(layout));
        let mut values = room_for(many(len))?;
        values.resize(len, (false, Fingerprint::default()));
        Ok(Self { set, key, values: Mutex::new(Slots(values)) })
    }

    /// The values, if all are there.
    fn into_set(self) -> Option<Set> {
        let Self { mut set, values, .. } = self;
        let slots = into_inner(values);
        if !slots.0.iter().all(|(put, _)| *put) {
            return None;
        }
        set.values.extend(slots.0.iter().map(|(_, value)| *value));
        Some(set)
    }

    /// The key of the fingerprints.
    pub(crate) const fn key(&self) -> &FingerprintKey {
        &self.key
    }

    /// Whether these bytes of a segment have the fingerprints that were put.
    pub(crate) fn knows(&self, layout: &SegmentLayout, segment: u64, bytes: &[u8]) -> bool {
        let computed = values_of(&self.key, bytes);
        let values = lock(&self.values);
        let put = values.0.iter().skip(position(layout, segment));
        let same = put.zip(computed.iter()).filter(|(put, found)| put.0 && put.1 == **found);
        same.count() == computed.len()
    }

    /// Whether a piece has this fingerprint.
    pub(crate) fn is_at(&self, piece: usize, found: &Fingerprint) -> bool {
        lock(&self.values).0.get(piece).is_some_and(|(put, value)| *put && value == found)
    }

    /// Computes the fingerprints of one segment.
    pub(crate) fn put(&self, layout: &SegmentLayout, segment: u64, bytes: &[u8]) {
        let computed = values_of(&self.key, bytes);
        let mut values = lock(&self.values);
        let slots = values.0.iter_mut().skip(position(layout, segment));
        for (slot, value) in slots.zip(computed.iter()) {
            *slot = (true, *value);
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        for (_, value) in &mut self.0 {
            value.zeroize();
        }
    }
}

/// The fingerprints of the pieces of a segment, computed on the host.
pub(crate) fn values_of(key: &FingerprintKey, bytes: &[u8]) -> Zeroizing<Vec<Fingerprint>> {
    let len = FINGERPRINT_SPAN_MAX.to_usize().unwrap_or(usize::MAX);
    // A piece that is neither empty nor too long has one.
    let values = bytes.chunks(len).map(|piece| key.fingerprint(piece).unwrap_or_default());
    Zeroizing::new(values.collect())
}

/// An empty list with room for so many: one that grows leaves copies of secrets behind.
///
/// # Errors
///
/// [`VramError::HostMemory`].
pub(crate) fn room_for<T>(count: u64) -> Result<Vec<T>, VramError> {
    let size = many(size_of::<T>());
    let refused = || VramError::HostMemory { wanted: ByteLen::new(count.saturating_mul(size)) };
    let count = usize::try_from(count).map_err(|_beyond| refused())?;
    let mut list = Vec::new();
    list.try_reserve_exact(count).map_err(|_no_room| refused())?;
    Ok(list)
}

/// A number of things, as 64 bits.
pub(crate) fn many(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
