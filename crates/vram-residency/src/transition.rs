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

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicBool, Ordering};
use std::panic::{catch_unwind, resume_unwind};
use std::sync::Arc;

use vram_alloc::DeviceRange;
use vram_gpu::{DeviceMemory, GpuError};
use vram_seal::parallel::for_each_segment;
use vram_seal::{
    Expected, OpenLimits, Opener, Protection, SealError, SealParams, Sealed, Sealer,
    SegmentCollector, SegmentHash, open_record_in,
};

use crate::error::VramError;
use crate::gpu::Gpu;
use crate::hashes::Hashes;
use crate::lanes::{Lanes, Worker};
use crate::manager::{Core, VramManager};
use crate::registry::{Entry, Seal, View};
use crate::shard::SealedShard;
use crate::space::{Space, locate};
use crate::sync::{Mutex, lock, read};
use crate::verify::Selection;
use crate::windows::{Window, Windows};

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
        self.core.change_protection(shard, Protection::Authenticated)
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
        self.core.change_protection(shard, Protection::Encrypted)
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
            let params = old.seal.params.with_protection(to);
            match old.gpu.place(entry.plaintext_len) {
                Ok(space) => self.seal_beside(entry, &old, params, space),
                Err(VramError::InsufficientVram(_)) => self.seal_in_place(entry, &old, params),
                Err(error) => Err(error),
            }?;
            tracing::info!(shard = %entry.id, gpu = old.gpu.index, ?to, "sealed anew");
            Ok(self.handle(entry))
        })
    }

    /// Seals a shard anew into a second place, and gives up the first.
    fn seal_beside(
        &self,
        entry: &Entry,
        old: &View,
        params: SealParams,
        mut space: Space,
    ) -> Result<(), VramError> {
        let hashes =
            if needs_digest_first(params) { Some(self.content_hashes(entry, old)?) } else { None };
        let sealer = self.sealer(entry, old, params, hashes.as_deref())?;
        space.written();
        let seal = self.write_beside(old, &space, sealer, hashes.as_deref(), params);
        let seal = seal.map_err(|error| altered(entry, error))?;
        let new = View { gpu: Arc::clone(&old.gpu), range: space.range(), seal: Arc::new(seal) };
        let verified = self.read_back(&new, self.read_back)?;

        space.commit();
        let at = verified.then(|| self.clock.now());
        let mut state = entry.state();
        let before = state.space.replace(space);
        state.seal = new.seal;
        state.generation = state.generation.saturating_add(1);
        state.last_verified = at;
        drop(state);
        // The new copy counts; what becomes of the old place changes nothing about that.
        if let Some(Err((bytes, error))) = before.map(Space::give_back) {
            tracing::error!(
                shard = %entry.id,
                bytes = bytes.get(),
                %error,
                "sealed anew, but the old copy could not be wiped and stays counted"
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
        let windows = self.windows(gpu, *sealer.layout())?;
        let collector = SegmentCollector::new(&sealer)?;
        let found = Hashes::new(sealer.layout())?;
        let convert = Convert { from: &old.seal.opener, to: &sealer, hashes };
        let keep = |segment, done: vram_seal::SealedSegment| {
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
                let mut staging = worker.read(gpu.memory()?, from)?;
                let bytes = part(staging.as_mut_slice(), from);
                let done = bytes.and_then(|bytes| convert.window(&windows, &window, bytes, &keep));
                match done.and_then(|()| gpu.memory()) {
                    Ok(memory) => {
                        worker.queue_write(memory, to.start(), staging, to.len());
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

    /// Seals a shard anew where it lies.
    fn seal_in_place(
        &self,
        entry: &Entry,
        old: &View,
        params: SealParams,
    ) -> Result<(), VramError> {
        let hashes = self.content_hashes(entry, old)?;
        let seal = self.trial(entry, old, params, &hashes);
        let seal = seal.map_err(|error| altered(entry, error))?;
        let forth = self.sealer(entry, old, params, Some(&hashes))?;
        let back = self.sealer(entry, old, old.seal.params, Some(&hashes))?;
        let windows = self.windows(&old.gpu, *forth.layout())?;
        let rewrite = Rewrite {
            gpu: &old.gpu,
            shard: old.range,
            windows: &windows,
            old: Side { opener: &old.seal.opener, sealer: &back },
            new: Side { opener: &seal.opener, sealer: &forth },
            hashes: &hashes,
            done: (0..windows.count()).map(|_| AtomicBool::new(false)).collect(),
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| rewrite.run()));
        if !matches!(outcome, Ok(Ok(()))) {
            self.go_back(entry, old, &rewrite);
        }
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                // The way back may have failed as well; then that is the news.
                entry.not_quarantined()?;
                return Err(altered(entry, error));
            }
            Err(panic) => resume_unwind(panic),
        }
        let mut state = entry.state();
        state.seal = Arc::new(seal);
        state.generation = state.generation.saturating_add(1);
        // Every window was read back as it was written.
        state.last_verified = Some(self.clock.now());
        Ok(())
    }

    /// Undoes what was rewritten in place, and closes the shard to readers if that fails.
    fn go_back(&self, entry: &Entry, old: &View, rewrite: &Rewrite<'_>) {
        let undone = catch_unwind(AssertUnwindSafe(|| rewrite.undo()));
        // What lies on a lost device is out of reach for everybody.
        if old.gpu.ready().is_err() {
            return;
        }
        // Whatever was answered on the way: what lies there now is what counts.
        let count = rewrite.windows.layout().count();
        let looked =
            catch_unwind(AssertUnwindSafe(|| self.altered_segments(old, Selection::Run(0..count))));
        match looked {
            Ok(Ok(segments)) if segments.is_empty() => {}
            Ok(Ok(segments)) => entry.quarantine(&segments),
            // It cannot be looked at now. If the way back went well, a reader will see.
            _ if matches!(undone, Ok(Ok(()))) => {}
            _ => entry.quarantine(&[]),
        }
    }

    /// Goes through all of the work but the writing, to learn the record that it will have.
    pub(crate) fn trial(
        &self,
        entry: &Entry,
        old: &View,
        params: SealParams,
        hashes: &[SegmentHash],
    ) -> Result<Seal, VramError> {
        let sealer = self.sealer(entry, old, params, Some(hashes))?;
        let collector = SegmentCollector::new(&sealer)?;
        let windows = self.windows(&old.gpu, *sealer.layout())?;
        let convert = Convert { from: &old.seal.opener, to: &sealer, hashes: Some(hashes) };
        let keep = |segment, done| collector.put(segment, done);
        self.each_window(old, Selection::Run(0..windows.layout().count()), |window, bytes| {
            convert.window(&windows, window, bytes, &keep)
        })?;
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
        self.each_window(view, Selection::Run(0..layout.count()), |window, bytes| {
            window.each(&layout, bytes, |segment, bytes| {
                match opener.open_segment(segment, bytes) {
                    Ok(()) => hashes.put(segment, opener.hash_segment(segment, bytes)?),
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

    /// A sealer for the same content under the same key, with other choices.
    pub(crate) fn sealer(
        &self,
        entry: &Entry,
        old: &View,
        params: SealParams,
        hashes: Option<&[SegmentHash]>,
    ) -> Result<Sealer, VramError> {
        let context = entry.sealed_as.context()?;
        let id = old.seal.opener.fields().key_id();
        let keys = read(&self.keys);
        let key = keys.get(&id).ok_or(SealError::UnknownKey { id })?;
        let mut sealer = Sealer::new(key, &context, params, entry.plaintext_len)?;
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
        let Sealed { record, tags, digest, .. } = sealed;
        if digest != old.seal.digest {
            return Err(SealError::DigestMismatch.into());
        }
        // The context was stated by this manager a moment ago; key and code are checked all the same.
        let opened = open_record_in(
            &read(&self.keys),
            &record,
            &Expected::anything(),
            OpenLimits::default(),
        )?;
        Ok(Seal { record, opener: opened.with_table(tags)?, params, digest })
    }
}

/// Whether sealing with these choices needs all hashes before the first segment.
fn needs_digest_first(params: SealParams) -> bool {
    params.protection() != Protection::Authenticated && params.scope() == vram_seal::SivScope::Shard
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

/// The part of a staging buffer that holds a range of the device.
fn part(buffer: &mut [u8], range: DeviceRange) -> Result<&mut [u8], VramError> {
    let len = range.len().to_usize();
    len.and_then(|len| buffer.get_mut(..len)).ok_or(VramError::HostMemory { wanted: range.len() })
}

/// Segments of one seal into segments of another.
pub(crate) struct Convert<'a> {
    pub(crate) from: &'a Opener,
    pub(crate) to: &'a Sealer,
    /// What each segment must hash to, where that is known.
    pub(crate) hashes: Option<&'a [SegmentHash]>,
}

impl Convert<'_> {
    pub(crate) fn window(
        &self,
        windows: &Windows,
        window: &Window,
        bytes: &mut [u8],
        keep: &impl Fn(u64, vram_seal::SealedSegment) -> Result<(), SealError>,
    ) -> Result<(), VramError> {
        window.each(windows.layout(), bytes, |segment, bytes| {
            self.from.open_segment(segment, bytes)?;
            let hash = self.hashes.and_then(|hashes| hashes.get(usize::try_from(segment).ok()?));
            let done = match hash {
                // Device memory can change under the seal like any other source.
                Some(hash) => self.to.seal_segment_checked(segment, bytes, hash),
                None => self.to.seal_segment(segment, bytes),
            }?;
            keep(segment, done)?;
            Ok(())
        })
    }
}

/// One of the two seals of a shard that is being rewritten.
struct Side<'a> {
    opener: &'a Opener,
    sealer: &'a Sealer,
}

/// A shard that is rewritten where it lies.
struct Rewrite<'a> {
    gpu: &'a Gpu,
    shard: DeviceRange,
    windows: &'a Windows,
    old: Side<'a>,
    new: Side<'a>,
    hashes: &'a [SegmentHash],
    /// Which windows lie there under the new seal.
    done: Vec<AtomicBool>,
}

impl Rewrite<'_> {
    /// From the old seal to the new one, everywhere.
    fn run(&self) -> Result<(), VramError> {
        self.each(|worker, index| self.rewrite(worker, index, &self.old, &self.new))
    }

    /// Back to the old seal, wherever the new one is.
    fn undo(&self) -> Result<(), VramError> {
        self.each(|worker, index| {
            if self.flag(index).is_some_and(|done| done.load(Ordering::Acquire)) {
                self.rewrite(worker, index, &self.new, &self.old)
            } else {
                Ok(())
            }
        })
    }

    fn each(
        &self,
        work: impl Fn(&mut Worker<'_>, u64) -> Result<(), VramError> + Sync,
    ) -> Result<(), VramError> {
        let lanes = Lanes::new(self.gpu, self.windows.window_len(), 2);
        for_each_segment(
            self.windows.threads(),
            self.windows.count(),
            || Ok(lanes.worker()),
            |worker, index| work(worker, index),
        )?;
        lanes.finish()
    }

    fn flag(&self, index: u64) -> Option<&AtomicBool> {
        usize::try_from(index).ok().and_then(|index| self.done.get(index))
    }

    /// Rewrites one window. Unless it fails twice, the window lies there whole under one seal or
    /// the other, and `done` says which.
    fn rewrite(
        &self,
        worker: &mut Worker<'_>,
        index: u64,
        from: &Side<'_>,
        to: &Side<'_>,
    ) -> Result<(), VramError> {
        let Some(window) = self.windows.get(index).filter(|window| !window.bytes.is_empty()) else {
            return Ok(());
        };
        let range = locate(self.shard, window.bytes)?;
        let memory = self.gpu.memory()?;
        // Before anything is written: the buffer that will be needed to look at what was.
        let mut seen = worker.buffer()?;
        let mut staging = match worker.read(memory, range) {
            Ok(staging) => staging,
            Err(error) => {
                worker.put(seen);
                return Err(error);
            }
        };
        let outcome = part(staging.as_mut_slice(), range).and_then(|bytes| {
            let seen = part(seen.as_mut_slice(), range)?;
            self.convert(&window, bytes, from, to)?;
            let Err(error) = self.write_kept(memory, &window, bytes, seen) else {
                return Ok(());
            };
            // The bytes are still here: once more as they were. A lost device is sent nothing.
            self.gpu.ready()?;
            self.convert(&window, bytes, to, from)?;
            self.write_kept(memory, &window, bytes, seen)?;
            Err(error)
        });
        worker.put(staging);
        worker.put(seen);
        outcome?;
        if let Some(done) = self.flag(index) {
            done.store(core::ptr::eq(to, &raw const self.new), Ordering::Release);
        }
        Ok(())
    }

    fn convert(
        &self,
        window: &Window,
        bytes: &mut [u8],
        from: &Side<'_>,
        to: &Side<'_>,
    ) -> Result<(), VramError> {
        let convert = Convert { from: from.opener, to: to.sealer, hashes: Some(self.hashes) };
        convert.window(self.windows, window, bytes, &|_segment, _done| Ok(()))
    }

    /// Writes, and looks whether it is there: a copy that reports success can still be wrong, and
    /// here no other copy is left.
    fn write_kept(
        &self,
        memory: &dyn DeviceMemory,
        window: &Window,
        bytes: &mut [u8],
        seen: &mut [u8],
    ) -> Result<(), VramError> {
        let range = locate(self.shard, window.bytes)?;
        let written = catch_unwind(AssertUnwindSafe(|| {
            memory.write(range, bytes)?;
            memory.read(range, seen)
        }));
        let written = written.unwrap_or_else(|_panic| {
            let (gpu, name) = (memory.gpu(), "the device panicked");
            Err(GpuError::Driver { gpu, code: u32::MAX, name, sticky: false })
        });
        written.map_err(|error| self.gpu.failed(error))?;
        if *bytes == *seen {
            return Ok(());
        }
        let mut segments = Vec::new();
        let mut rest = &*seen;
        window.each(self.windows.layout(), bytes, |segment, bytes| {
            let (part, behind) = rest.split_at(bytes.len().min(rest.len()));
            if part != bytes {
                segments.push(segment);
            }
            rest = behind;
            Ok::<_, VramError>(())
        })?;
        Err(VramError::WriteNotKept { gpu: self.gpu.index, segments })
    }
}
