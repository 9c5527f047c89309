//! Writes segments of a shard again: byte for byte what was sealed, or nothing.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_seal::{SealError, SegmentHash};
use vram_space::{Lanes, Wanted, Worker, locate};

use crate::error::VramError;
use crate::repair::content::fill_from;
use crate::repair::survey::Altered;
use crate::repair::{Kept, Repair};
use crate::shard::View;
use crate::sync::{Mutex, into_inner, lock};
use crate::transfer::Windows;
use crate::transfer::convert::part;
use crate::transfer::windows::run_on;

/// The origin of a segment's bytes.
#[derive(Clone, Copy)]
enum From<'a> {
    /// Plaintext that was kept, sealed again.
    Kept(&'a Kept),
    /// The plaintext of the source, kept or read again, and sealed again.
    Source,
    /// The shard's present place, where these bytes are sound.
    Device,
}

impl Repair<'_, '_> {
    /// Writes altered segments in place. The caller is exclusive at the gate: the source is not
    /// called. Returns the number of bytes written.
    pub(crate) fn rewrite(&self, found: &Altered, kept: &Kept) -> Result<ByteLen, VramError> {
        let segments: Vec<u64> = kept.keys().copied().collect();
        self.write(&found.view, found, &segments, |_segment| From::Kept(kept))
    }

    /// Writes all segments to another placement: the altered ones from the source, the others from
    /// the device. The caller is inside the gate, beside other readers. Returns the number of bytes
    /// written.
    pub(crate) fn copy_to(&self, target: &View, found: &Altered) -> Result<ByteLen, VramError> {
        let all: Vec<u64> = (0..target.seal.opener.layout().count()).collect();
        self.write(target, found, &all, |segment| {
            if found.segments.binary_search(&segment).is_ok() { From::Source } else { From::Device }
        })
    }

    fn write<'v>(
        &self,
        target: &View,
        found: &Altered,
        segments: &[u64],
        from: impl Fn(u64) -> From<'v> + Sync,
    ) -> Result<ByteLen, VramError> {
        let gpu = &target.gpu;
        let layout = *target.seal.opener.layout();
        let windows = Windows::on(gpu, layout)?;
        let longest = layout.segment_size().bytes().min(layout.plaintext_len());
        // Two buffers, even if the limit on staging has room for only one: one for the bytes to
        // write, one for the bytes that are read back.
        let count = ByteLen::from_usize(segments.len()).get();
        let workers = windows.threads().for_jobs(count);
        let lanes = Lanes::take(gpu, Wanted { buffer_len: longest, least: 2, most: 2, workers })?;
        let (lost, written) = (Mutex::new(Vec::new()), Mutex::new(ByteLen::ZERO));
        run_on(&lanes, count, |worker, index| {
            self.watch.go_on()?;
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            let Some(segment) = segments.get(index).copied() else { return Ok(()) };
            let one = Segment { repair: self, target, found, index: segment };
            let (len, kept) = one.write(worker, from(segment))?;
            let mut written = lock(&written);
            *written = written.saturating_add(len);
            drop(written);
            if !kept {
                lock(&lost).push(segment);
            }
            Ok(())
        })?;
        drop(lanes);
        let mut segments = into_inner(lost);
        if segments.is_empty() {
            return Ok(*lock(&written));
        }
        segments.sort_unstable();
        Err(VramError::WriteNotKept { gpu: gpu.index, segments: segments.into() })
    }
}

/// One segment that is being written.
struct Segment<'a, 'w> {
    repair: &'a Repair<'a, 'w>,
    target: &'a View,
    found: &'a Altered,
    index: u64,
}

impl Segment<'_, '_> {
    /// Writes the segment. Returns its length, and whether it read back unaltered.
    fn write(&self, worker: &mut Worker<'_>, from: From<'_>) -> Result<(ByteLen, bool), VramError> {
        let range = self.target.seal.opener.layout().range(self.index);
        let range = range.ok_or(VramError::HostMemory { wanted: ByteLen::ZERO })?;
        if range.is_empty() {
            return Ok((ByteLen::ZERO, true));
        }
        let len = range.len();
        let (mut staging, mut other) = (worker.buffer()?, worker.buffer()?);
        let outcome = part(staging.as_mut_slice(), len).and_then(|bytes| {
            let other = part(other.as_mut_slice(), len)?;
            self.make(from, bytes, other)?;
            let to = locate(self.target.range, range)?;
            let memory = self.target.memory()?;
            let failed = |error| self.target.gpu.failed(error);
            memory.write(to, bytes).map_err(failed)?;
            memory.read(to, other).map_err(failed)?;
            Ok(*bytes == *other)
        });
        worker.put(staging);
        worker.put(other);
        outcome.map(|kept| (len, kept))
    }

    /// Fills `bytes` with the sealed segment. Every byte in it matches the record.
    fn make(&self, from: From<'_>, bytes: &mut [u8], scratch: &mut [u8]) -> Result<(), VramError> {
        let (opener, segment) = (&self.target.seal.opener, self.index);
        let model_id = &self.repair.shard.model_id;
        let changed = || VramError::SourceChanged { model_id: Arc::clone(model_id), segment };
        let Altered { view, content, .. } = self.found;
        let hash = content.hash(segment).ok_or_else(changed)?;
        match from {
            From::Device => {
                let range = view.seal.opener.layout().range(segment);
                let range = range.ok_or_else(changed)?;
                let memory = view.memory()?;
                memory
                    .read(locate(view.range, range)?, bytes)
                    .map_err(|error| view.gpu.failed(error))?;
            }
            From::Kept(kept) if fill_from(kept, segment, bytes) => self.seal(bytes, hash)?,
            // Cannot happen: only what was kept is written.
            From::Kept(_) => return Err(changed()),
            From::Source => {
                content.fill(self.repair, view, segment, bytes)?;
                self.seal(bytes, hash)?;
            }
        }
        // A segment opens only if it is byte for byte what was sealed.
        opener.open_segment_to(segment, bytes, scratch)?;
        if opener.hash_segment(segment, scratch)? == *hash { Ok(()) } else { Err(changed()) }
    }

    /// Seals plaintext in place, if it is what was read the first time.
    fn seal(&self, bytes: &mut [u8], hash: &SegmentHash) -> Result<(), VramError> {
        let segment = self.index;
        let changed = || {
            let model_id = Arc::clone(&self.repair.shard.model_id);
            VramError::SourceChanged { model_id, segment }
        };
        let Some(sealer) = &self.found.sealer else {
            let layout = self.target.seal.opener.layout();
            let same = SegmentHash::of(layout, segment, bytes)? == *hash;
            return if same { Ok(()) } else { Err(changed()) };
        };
        match sealer.seal_segment(segment, bytes) {
            Ok(_sealed) => Ok(()),
            Err(SealError::SourceChanged { .. }) => Err(changed()),
            Err(error) => Err(error.into()),
        }
    }
}
