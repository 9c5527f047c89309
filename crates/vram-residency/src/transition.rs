//! Opening and closing a resident shard: Encrypted to Authenticated and back, all or nothing.
//!
//! No transition turns altered bytes into a valid record: every segment is opened under the old
//! record, and the content as a whole is compared with it, before a new record counts.
//!
//! ```text
//!  with room for a second copy             without
//!   1 scope Shard: hash all segments        1 hash all segments, compare with the old record
//!   2 read, open, seal, write beside        2 a trial: read, open, seal, write nothing → new record
//!   3 compare with the old record           3 for each window, where it lies:
//!   4 read back                                 read, open, seal, write, read back
//!   5 the new copy counts                   4 the new record counts
//!   6 wipe and give back the old copy
//! ```
//!
//! Beside, a failure drops the new copy. In place, the way back is to do the same in the other
//! direction: sealing is deterministic, so the old bytes come out again to the bit. A window whose
//! write fails is rewritten from the host buffer that still holds it. Only if the device refuses the
//! way back as well is the shard lost; it is in quarantine then.

pub(crate) mod convert;
pub(crate) mod in_place;

use std::sync::Arc;

use vram_seal::parallel::for_each_segment;
use vram_seal::{
    Expected, KeyId, Protection, SealError, SealParams, Sealed, SealedSegment, Sealer,
    SegmentCollector, SegmentHash, SivScope,
};

use crate::age::Moment;
use crate::error::VramError;
use crate::events::EventKind;
use crate::hashes::{Hashes, open_and_hash};
use crate::key_uses;
use crate::lanes::Lanes;
use crate::manager::parts::Core;
use crate::registry::{Entry, Seal, View};
use crate::shard::SealedShard;
use crate::space::{Space, locate};
use crate::sync::{Mutex, lock, read};
pub(crate) use crate::transition::convert::Convert;
use crate::transition::convert::part;
use crate::verify::Selection;

pub(crate) fn change_protection(
    core: &Core,
    handle: &SealedShard,
    to: Protection,
) -> Result<SealedShard, VramError> {
    core.exclusive(handle, |entry| {
        entry.not_quarantined()?;
        let old = entry.view()?;
        old.gpu.ready()?;
        if old.seal.protection() == to {
            return Ok(core.handle(entry));
        }
        let key = old.seal.key_id();
        seal_anew(core, entry, &old, Anew { params: old.seal.params.with_protection(to), key })?;
        tracing::info!(shard = %entry.id, gpu = old.gpu.index, ?to, "sealed anew");
        Ok(core.handle(entry))
    })
}

/// Seals a shard anew on its GPU. The caller is exclusive at its gate.
pub(crate) fn seal_anew(
    core: &Core,
    entry: &Entry,
    old: &View,
    anew: Anew,
) -> Result<(), VramError> {
    seal_anew_untold(core, entry, old, anew)?;
    core.events.emit(EventKind::SealedAnew {
        shard: entry.id.clone(),
        gpu: old.gpu.index,
        protection: anew.params.protection(),
    });
    Ok(())
}

/// As [`seal_anew`](Self::seal_anew), for a shard that nobody knows of yet.
pub(crate) fn seal_anew_untold(
    core: &Core,
    entry: &Entry,
    old: &View,
    anew: Anew,
) -> Result<(), VramError> {
    match old.gpu.place(entry.plaintext_len) {
        Ok(space) => seal_beside(core, entry, old, anew, space),
        Err(VramError::InsufficientVram(_)) => in_place::seal_in_place(core, entry, old, anew),
        Err(error) => Err(error),
    }
}

/// Seals a shard anew into a second place, and gives up the first.
fn seal_beside(
    core: &Core,
    entry: &Entry,
    old: &View,
    anew: Anew,
    mut space: Space,
) -> Result<(), VramError> {
    let hashes = if needs_digest_first(anew.params) {
        Some(content_hashes(core, entry, old)?)
    } else {
        None
    };
    let sealer = sealer(core, entry, anew, hashes.as_deref())?;
    space.written()?;
    let seal = write_beside(core, old, &space, sealer, hashes.as_deref(), anew.params);
    let seal = seal.map_err(|error| altered(entry, error))?;
    let new = space.view(Arc::new(seal));
    let began = Moment::now(&*core.clock);
    let verified = new.read_back(core.read_back)?.then_some(began);

    space.commit();
    let now = Moment::now(&*core.clock);
    let mut state = entry.state();
    space.rest();
    let before = state.space.replace(space);
    state.seal_anew(new.seal);
    state.ages.arrived(now, verified);
    drop(state);
    // The new copy counts; what becomes of the old place changes nothing about that.
    if let Some(Err((bytes, error))) = before.map(Space::give_back) {
        tracing::error!(
            shard = %entry.id,
            bytes = bytes.get(),
            %error,
            "sealed anew, but the old copy could not be given back and stays counted"
        );
    }
    Ok(())
}

/// Reads every window of the old copy, seals it anew and writes it to `space`.
fn write_beside(
    core: &Core,
    old: &View,
    space: &Space,
    sealer: Sealer,
    hashes: Option<&[SegmentHash]>,
    params: SealParams,
) -> Result<Seal, VramError> {
    let (gpu, target) = (&*old.gpu, space.range());
    let windows = gpu.windows(*sealer.layout())?;
    let collector = SegmentCollector::new(&sealer)?;
    let found = Hashes::new(sealer.layout())?;
    let convert = Convert { from: &old.seal.opener, to: &sealer, hashes };
    let keep = |segment, done: SealedSegment| {
        if let Some(hash) = done.hash() {
            found.put(segment, hash.clone());
        }
        collector.put(segment, done)
    };
    let lanes = Lanes::new(gpu, windows.window_len(), windows.buffers());
    for_each_segment(
        windows.threads(),
        windows.count(),
        || Ok(lanes.worker()),
        |worker, index| {
            let Some(window) = windows.get(index) else { return Ok(()) };
            if window.bytes.is_empty() {
                return convert.window(&windows, &window, &mut [], &keep);
            }
            let (from, to) = (locate(old.range, window.bytes)?, locate(target, window.bytes)?);
            let mut staging = worker.read(&**old.memory()?, from)?;
            let bytes = part(staging.as_mut_slice(), from);
            let done = bytes.and_then(|bytes| convert.window(&windows, &window, bytes, &keep));
            match done.and_then(|()| space.memory()) {
                Ok(memory) => {
                    worker.queue_write(&**memory, to.start(), staging, to.len());
                    Ok(())
                }
                Err(error) => {
                    worker.put(staging);
                    Err(error)
                }
            }
        },
    )?;
    lanes.finish()?;
    if hashes.is_none() {
        // With hashes, they were compared before, and each segment with its own just now.
        old.seal.opener.check_digest(&found.into_vec())?;
    }
    finish_seal(core, old, params, collector.finish(sealer)?)
}

/// Opens every segment of a shard and hashes it, and compares the whole with the record.
///
/// # Errors
///
/// [`VramError::ShardAltered`] naming every altered segment; the shard is in quarantine then.
pub(crate) fn content_hashes(
    _core: &Core,
    entry: &Entry,
    view: &View,
) -> Result<Vec<SegmentHash>, VramError> {
    let opener = &view.seal.opener;
    let layout = *opener.layout();
    let hashes = Hashes::new(&layout)?;
    let segments = Mutex::new(Vec::new());
    view.each_window(Selection::Run(0..layout.count()), |window, bytes| {
        window.each(&layout, bytes, |segment, bytes| {
            match open_and_hash(opener, segment, bytes) {
                Ok(hash) => hashes.put(segment, hash),
                Err(SealError::SegmentMismatch { segment }) => lock(&segments).push(segment),
                Err(error) => return Err(error.into()),
            }
            Ok(())
        })
    })?;
    let mut segments = segments.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !segments.is_empty() {
        segments.sort_unstable();
        entry.quarantine(&segments);
        return Err(VramError::ShardAltered { shard: entry.id.clone(), segments });
    }
    let hashes = hashes.into_vec();
    opener.check_digest(&hashes).map_err(|error| altered(entry, error.into()))?;
    Ok(hashes)
}

/// A sealer for the content of a shard.
pub(crate) fn sealer(
    core: &Core,
    entry: &Entry,
    anew: Anew,
    hashes: Option<&[SegmentHash]>,
) -> Result<Sealer, VramError> {
    let context = entry.sealed_as.context()?;
    let id = anew.key;
    let keys = read(&core.keys);
    let key = keys.get(&id).ok_or(SealError::UnknownKey { id })?;
    let mut sealer = Sealer::new(key, &context, anew.params, entry.plaintext_len)?;
    drop(keys);
    if let Some(hashes) = hashes.filter(|_| sealer.needs_digest_first()) {
        sealer.fix(hashes)?;
    }
    Ok(sealer)
}

/// Opens a record that was just made, as every reader will.
pub(crate) fn finish_seal(
    core: &Core,
    old: &View,
    params: SealParams,
    sealed: Sealed,
) -> Result<Seal, VramError> {
    if sealed.digest != old.seal.digest {
        return Err(SealError::DigestMismatch.into());
    }
    // The context was stated by this manager a moment ago; key and code are checked all the same.
    key_uses::open_seal(core, sealed, params, &Expected::anything())
}

/// How a shard is to be sealed anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anew {
    pub(crate) params: SealParams,
    pub(crate) key: KeyId,
}

/// Whether sealing with these choices needs all hashes before the first segment.
fn needs_digest_first(params: SealParams) -> bool {
    params.protection() != Protection::Authenticated && params.scope() == SivScope::Shard
}

/// An error of the seal while device bytes are being read means that they are not what was sealed:
/// the shard goes into quarantine.
pub(crate) fn altered(entry: &Entry, error: VramError) -> VramError {
    let segments = match error {
        VramError::Seal(
            SealError::SegmentMismatch { segment } | SealError::SourceChanged { segment },
        ) => vec![segment],
        VramError::Seal(SealError::DigestMismatch) => Vec::new(),
        other => return other,
    };
    entry.quarantine(&segments);
    VramError::ShardAltered { shard: entry.id.clone(), segments }
}
