//! Writes segments of a shard again: byte for byte what was sealed, or nothing.

use vram_alloc::ByteLen;
use vram_seal::{SealError, Sealer, SegmentHash};
use vram_space::{Lanes, Wanted, Worker, locate};

use crate::error::VramError;
use crate::repair::{Content, Repair};
use crate::shard::View;
use crate::sync::{Mutex, lock};
use crate::transfer::Windows;
use crate::transfer::convert::part;
use crate::transfer::windows::run_on;

/// The origin of a segment's bytes.
#[derive(Clone, Copy)]
enum From<'a> {
    /// The plaintext of the source, sealed again.
    Source,
    /// The device, where these bytes lie and are sound.
    Device(&'a View),
}

impl Repair<'_, '_> {
    /// Writes the altered segments in place. Returns the number of bytes written.
    pub(crate) fn rewrite(
        &self,
        content: &Content<'_>,
        sealer: Option<&Sealer>,
        altered: &[u64],
    ) -> Result<ByteLen, VramError> {
        self.write(&self.view, content, sealer, altered, |_segment| From::Source)
    }

    /// Writes all segments to another placement: the altered ones from the source, the others from
    /// the device. Returns the number of bytes written.
    pub(crate) fn copy_to(
        &self,
        target: &View,
        content: &Content<'_>,
        sealer: Option<&Sealer>,
        altered: &[u64],
    ) -> Result<ByteLen, VramError> {
        let all: Vec<u64> = (0..target.seal.opener.layout().count()).collect();
        self.write(target, content, sealer, &all, |segment| {
            if altered.binary_search(&segment).is_ok() {
                From::Source
            } else {
                From::Device(&self.view)
            }
        })
    }

    fn write<'v>(
        &self,
        target: &View,
        content: &Content<'_>,
        sealer: Option<&Sealer>,
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
            let one = Segment { repair: self, target, content, sealer, index: segment };
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
        let mut segments = lost.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if segments.is_empty() {
            return Ok(*lock(&written));
        }
        segments.sort_unstable();
        Err(VramError::WriteNotKept { gpu: gpu.index, segments })
    }
}

/// One segment that is being written.
struct Segment<'a, 'w> {
    repair: &'a Repair<'a, 'w>,
    target: &'a View,
    content: &'a Content<'a>,
    sealer: Option<&'a Sealer>,
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
        let changed = || VramError::SourceChanged {
            model_id: self.repair.entry.sealed_as.model_id.clone(),
            segment,
        };
        let hash = self.content.hash(segment).ok_or_else(changed)?;
        match from {
            From::Source => {
                self.content.fill(self.repair, segment, bytes)?;
                match self.sealer {
                    // Hashed again: a source that is read twice may return different bytes.
                    Some(sealer) => match sealer.seal_segment_checked(segment, bytes, hash) {
                        Ok(_sealed) => {}
                        Err(SealError::SourceChanged { .. }) => return Err(changed()),
                        Err(error) => return Err(error.into()),
                    },
                    None if SegmentHash::of(opener.layout(), segment, bytes)? == *hash => {}
                    None => return Err(changed()),
                }
            }
            From::Device(view) => {
                let range = view.seal.opener.layout().range(segment);
                let range = range.ok_or_else(changed)?;
                let memory = view.memory()?;
                memory
                    .read(locate(view.range, range)?, bytes)
                    .map_err(|error| view.gpu.failed(error))?;
            }
        }
        // A segment opens only if it is byte for byte what was sealed.
        opener.open_segment_to(segment, bytes, scratch)?;
        if opener.hash_segment(segment, scratch)? == *hash { Ok(()) } else { Err(changed()) }
    }
}
