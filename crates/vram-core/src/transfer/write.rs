//! The passes over a source: one that hashes, where the scope asks for it, and one that seals and
//! copies.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_files::Feed;
use vram_seal::parallel::for_each_segment;
use vram_seal::{ContentDigest, Sealer, SegmentCollector, SegmentHash, SivScope, hash_all};
use vram_space::{Gpu, Lanes, Space, Worker, locate};

use crate::error::VramError;
use crate::sync::{Mutex, lock};
use crate::transfer::{Window, Windows};

/// How one shard is written, besides what the request says.
#[derive(Clone, Copy)]
pub(crate) struct WriteOptions<'a> {
    /// The scope where the request names none.
    pub(crate) scope: SivScope,
    /// The content that must come out, if the caller named one.
    pub(crate) expected_digest: Option<&'a ContentDigest>,
    /// Called with the bytes just done, from any thread: progress and cancellation.
    pub(crate) watch: &'a (dyn Fn(ByteLen) -> Result<(), VramError> + Sync),
}

impl WriteOptions<'_> {
    /// For a slice: nobody watches.
    pub(crate) const SLICE: Self =
        Self { scope: SivScope::Shard, expected_digest: None, watch: &|_done| Ok(()) };
}

/// The pass that seals and copies.
pub(crate) struct Pass<'a> {
    pub(crate) sealer: &'a Sealer,
    pub(crate) collector: &'a SegmentCollector,
    pub(crate) windows: &'a Windows,
    pub(crate) feed: &'a dyn Feed,
}

impl Pass<'_> {
    pub(crate) fn write_all(
        &self,
        space: &mut Space,
        hashes: Option<&[SegmentHash]>,
        options: &WriteOptions<'_>,
    ) -> Result<(), VramError> {
        space.written()?;
        let space = &*space;
        let gpu = Arc::clone(space.gpu());
        let lanes = Lanes::new(&gpu, self.windows.window_len(), self.windows.buffers());
        // What was hashed last is still in cache, so a repeatable source is sealed from its end.
        let backwards = hashes.is_some() && self.feed.slice().is_some();
        let count = self.windows.count();
        for_each_segment(
            self.windows.threads(),
            count,
            || Ok(lanes.worker()),
            |worker, index| {
                let index =
                    if backwards { count.saturating_sub(index).saturating_sub(1) } else { index };
                let done = self.write_window(worker, space, index, hashes)?;
                (options.watch)(done)
            },
        )?;
        Ok(lanes.finish()?)
    }

    /// Reads, seals and copies one window, and says how long it was. A source that can only be
    /// read in order gives its own next window instead of `index`: over the whole pass each window
    /// is written once all the same.
    fn write_window(
        &self,
        worker: &mut Worker<'_>,
        space: &Space,
        index: u64,
        hashes: Option<&[SegmentHash]>,
    ) -> Result<ByteLen, VramError> {
        let mut staging = worker.buffer()?;
        let window = match self.read_window(staging.as_mut_slice(), index) {
            Ok(window) => window,
            Err(error) => {
                worker.put(staging);
                return Err(error);
            }
        };
        let len = window.bytes.len();
        let outcome = self.seal_window(staging.as_mut_slice(), &window, hashes);
        if outcome.is_err() || len.is_zero() {
            worker.put(staging);
            return outcome.map(|()| len);
        }
        let to = locate(space.range(), window.bytes)?;
        match space.memory() {
            Ok(memory) => {
                worker.queue_write(&**memory, to.start(), staging, to.len());
                Ok(len)
            }
            Err(error) => {
                worker.put(staging);
                Err(error.into())
            }
        }
    }

    /// Fills the start of `buffer` with the bytes of a window.
    fn read_window(&self, buffer: &mut [u8], index: u64) -> Result<Window, VramError> {
        let Some(turn) = self.feed.turn() else { return self.fill(buffer, index) };
        let mut turn = lock(turn);
        let window = self.fill(buffer, *turn)?;
        *turn = turn.saturating_add(1);
        Ok(window)
    }

    fn fill(&self, buffer: &mut [u8], index: u64) -> Result<Window, VramError> {
        // The queue gives out the windows there are.
        let window =
            self.windows.get(index).ok_or(VramError::HostMemory { wanted: ByteLen::ZERO })?;
        let len = window.bytes.len();
        let target = len.to_usize().and_then(|len| buffer.get_mut(..len));
        self.feed.fill(window.bytes, target.ok_or(VramError::HostMemory { wanted: len })?)?;
        Ok(window)
    }

    /// Seals one window where it lies.
    fn seal_window(
        &self,
        buffer: &mut [u8],
        window: &Window,
        hashes: Option<&[SegmentHash]>,
    ) -> Result<(), VramError> {
        let len = window.bytes.len();
        let buffer = len
            .to_usize()
            .and_then(|len| buffer.get_mut(..len))
            .ok_or(VramError::HostMemory { wanted: len })?;
        // A slice cannot have changed since it was hashed; anything else is hashed again.
        let hashes = hashes.filter(|_| self.feed.slice().is_none());
        window.each(self.windows.layout(), buffer, |segment, bytes| {
            let hash = hashes.and_then(|hashes| hashes.get(usize::try_from(segment).ok()?));
            let sealed = match hash {
                Some(hash) => self.sealer.seal_segment_checked(segment, bytes, hash),
                None => self.sealer.seal_segment(segment, bytes),
            }?;
            self.collector.put(segment, sealed)?;
            Ok(())
        })
    }
}

/// The pass that hashes every segment, for scope Shard.
pub(crate) fn hash_feed(
    gpu: &Gpu,
    windows: &Windows,
    feed: &dyn Feed,
    options: &WriteOptions<'_>,
) -> Result<Vec<SegmentHash>, VramError> {
    let layout = windows.layout();
    if let Some(slice) = feed.slice() {
        return Ok(hash_all(layout, windows.threads(), slice)?);
    }
    let count = usize::try_from(layout.count()).unwrap_or(usize::MAX);
    let mut hashes = Vec::new();
    let wanted = ByteLen::new(layout.count().saturating_mul(32));
    hashes.try_reserve_exact(count).map_err(|_no_room| VramError::HostMemory { wanted })?;
    hashes.resize(count, None);
    let hashes = Mutex::new(hashes);
    let lanes = Lanes::new(gpu, windows.window_len(), windows.buffers());
    for_each_segment(
        windows.threads(),
        windows.count(),
        || Ok(lanes.worker()),
        |worker, index| {
            let Some(window) = windows.get(index) else { return Ok(()) };
            let mut staging = worker.buffer()?;
            let len = window.bytes.len();
            let buffer = len.to_usize().and_then(|len| staging.as_mut_slice().get_mut(..len));
            let outcome = buffer.ok_or(VramError::HostMemory { wanted: len }).and_then(|buffer| {
                feed.fill(window.bytes, buffer)?;
                window.each(layout, buffer, |segment, bytes| {
                    let hash = SegmentHash::of(layout, segment, bytes)?;
                    let index = usize::try_from(segment).unwrap_or(usize::MAX);
                    if let Some(slot) = lock(&hashes).get_mut(index) {
                        *slot = Some(hash);
                    }
                    Ok(())
                })
            });
            worker.put(staging);
            outcome?;
            // Nothing is done yet, but the caller may have had enough.
            (options.watch)(ByteLen::ZERO)
        },
    )?;
    lanes.finish()?;
    let hashes = hashes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(hashes.into_iter().flatten().collect())
}
