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
mod in_place;

use std::sync::Arc;

use vram_seal::parallel::for_each_segment;
use vram_seal::{
    Expected, KeyId, Protection, SealError, SealParams, Sealed, SealedSegment, Sealer,
    SegmentCollector, SegmentHash, SivScope,
};

use crate::age::Moment;
use crate::call::Call;
use crate::error::VramError;
use crate::events::EventKind;
use crate::hashes::{Hashes, open_and_hash};
use crate::lanes::Lanes;
use crate::manager::{Core, VramManager};
use crate::registry::{Entry, Seal, View};
use crate::shard::SealedShard;
use crate::space::{Space, locate};
use crate::sync::{Mutex, lock, read};
use crate::verify::Selection;
pub(crate) use convert::Convert;
use convert::part;

impl VramManager {
    /// Turns an Encrypted shard into an Authenticated one on the same GPU: its plaintext lies in
    /// device memory from then on, watched over. All or nothing. The shard is sealed anew: handles
    /// from before are answered with [`VramError::StaleHandle`]. An Authenticated shard stays as
    /// it is.
    ///
    /// Done beside the old copy where there is room for a second one, in place otherwise.
    ///
    /// # Errors
    ///
    /// Those of a bad handle; [`VramError::InUse`]; [`VramError::Quarantined`];
    /// [`VramError::ShardAltered`] if the device bytes are not those that were sealed (the shard is
    /// in quarantine then); [`VramError::WriteNotKept`]; [`VramError::Seal`] if the shard's key is
    /// no longer in the ring; [`VramError::HostMemory`], [`VramError::Device`],
    /// [`VramError::DeviceLost`]. The shard is then as it was.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn open_resident(&self, shard: &SealedShard) -> Result<SealedShard, VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        self.core.watched(Call::Open, id, None, len, || {
            self.core.change_protection(shard, Protection::Authenticated)
        })
    }

    /// Turns an Authenticated shard into an Encrypted one on the same GPU, the reverse of
    /// [`open_resident`](Self::open_resident): with the cipher and scope that it was sealed with,
    /// or would have been. Its record is then byte for byte what it was before it was opened. The
    /// plaintext in device memory is overwritten.
    ///
    /// # Errors
    ///
    /// As [`open_resident`](Self::open_resident). The shard is then as it was.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn close_resident(&self, shard: &SealedShard) -> Result<SealedShard, VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        self.core.watched(Call::CloseResident, id, None, len, || {
            self.core.change_protection(shard, Protection::Encrypted)
        })
    }
}

impl Core {
    fn change_protection(
        &self,
        handle: &SealedShard,
        to: Protection,
    ) -> Result<SealedShard, VramError> {
        self.exclusive(handle, |entry| {
            entry.not_quarantined()?;
            let old = entry.view()?;
            old.gpu.ready()?;
            if old.seal.protection() == to {
                return Ok(self.handle(entry));
            }
            let key = old.seal.key_id();
            self.seal_anew(entry, &old, Anew { params: old.seal.params.with_protection(to), key })?;
            tracing::info!(shard = %entry.id, gpu = old.gpu.index, ?to, "sealed anew");
            Ok(self.handle(entry))
        })
    }

    /// Seals a shard anew on its GPU. The caller is exclusive at its gate.
    pub(crate) fn seal_anew(&self, entry: &Entry, old: &View, anew: Anew) -> Result<(), VramError> {
        self.seal_anew_untold(entry, old, anew)?;
        self.events.emit(EventKind::SealedAnew {
            shard: entry.id.clone(),
            gpu: old.gpu.index,
            protection: anew.params.protection(),
        });
        Ok(())
    }

    /// As [`seal_anew`](Self::seal_anew), for a shard that nobody knows of yet.
    pub(crate) fn seal_anew_untold(
        &self,
        entry: &Entry,
        old: &View,
        anew: Anew,
    ) -> Result<(), VramError> {
        match old.gpu.place(entry.plaintext_len) {
            Ok(space) => self.seal_beside(entry, old, anew, space),
            Err(VramError::InsufficientVram(_)) => self.seal_in_place(entry, old, anew),
            Err(error) => Err(error),
        }
    }

    /// Seals a shard anew into a second place, and gives up the first.
    fn seal_beside(
        &self,
        entry: &Entry,
        old: &View,
        anew: Anew,
        mut space: Space,
    ) -> Result<(), VramError> {
        let hashes = if needs_digest_first(anew.params) {
            Some(self.content_hashes(entry, old)?)
        } else {
            None
        };
        let sealer = self.sealer(entry, anew, hashes.as_deref())?;
        space.written()?;
        let seal = self.write_beside(old, &space, sealer, hashes.as_deref(), anew.params);
        let seal = seal.map_err(|error| altered(entry, error))?;
        let new = space.view(Arc::new(seal));
        let began = Moment::now(&*self.clock);
        let verified = new.read_back(self.read_back)?.then_some(began);

        space.commit();
        let now = Moment::now(&*self.clock);
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
        &self,
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
        self.finish_seal(old, params, collector.finish(sealer)?)
    }

    /// Opens every segment of a shard and hashes it, and compares the whole with the record.
    ///
    /// # Errors
    ///
    /// [`VramError::ShardAltered`] naming every altered segment; the shard is in quarantine then.
    pub(crate) fn content_hashes(
        &self,
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
        &self,
        entry: &Entry,
        anew: Anew,
        hashes: Option<&[SegmentHash]>,
    ) -> Result<Sealer, VramError> {
        let context = entry.sealed_as.context()?;
        let id = anew.key;
        let keys = read(&self.keys);
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
        &self,
        old: &View,
        params: SealParams,
        sealed: Sealed,
    ) -> Result<Seal, VramError> {
        if sealed.digest != old.seal.digest {
            return Err(SealError::DigestMismatch.into());
        }
        // The context was stated by this manager a moment ago; key and code are checked all the same.
        self.open_seal(sealed, params, &Expected::anything())
    }
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
