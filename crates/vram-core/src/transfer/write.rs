//! The pass over a source that seals and copies; and the one before it that hashes, in scope Shard.
//!
//! Each window is copied into staging once, hashed there and encrypted there: the source may be memory
//! that others write, such as a mapping of a file.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_files::Feed;
use vram_seal::{
    ContentDigest, Hashes, Protection, SealParams, SegmentCollector, SegmentHash, SivScope,
    hash_all,
};
use vram_space::{Gpu, Space, Worker, locate};

use crate::error::VramError;
use crate::shard::seal::prints::Arming;
use crate::transfer::feed::{read_window, with_source};
use crate::transfer::walk::send;
use crate::transfer::{Window, Windows};

/// The settings for writing one shard that are not part of its request.
#[derive(Clone, Copy)]
pub(crate) struct WriteOptions<'a> {
    /// Called with the digest of what was sealed, before it is read back: refuses other content than
    /// the caller expects.
    pub(crate) check: &'a (dyn Fn(ContentDigest) -> Result<(), VramError> + Sync),
    /// Called with the number of bytes just done, from any thread: reports progress and checks for
    /// cancellation.
    pub(crate) watch: &'a (dyn Fn(ByteLen) -> Result<(), VramError> + Sync),
}

impl WriteOptions<'_> {
    /// The settings for a slice: no progress, no cancellation.
    pub(crate) const SLICE: Self = Self { check: &|_any| Ok(()), watch: &|_done| Ok(()) };
}

/// Whether sealing with these parameters needs the hashes of all segments before the first is
/// sealed.
pub(crate) fn needs_digest_first(params: SealParams) -> bool {
    params.protection() != Protection::Authenticated && params.scope() == SivScope::Shard
}

/// The pass that seals and copies.
pub(crate) struct Pass<'a> {
    pub(crate) collector: &'a SegmentCollector,
    pub(crate) windows: &'a Windows,
    pub(crate) feed: &'a dyn Feed,
    /// Takes fingerprints of the sealed bytes, if they are wanted.
    pub(crate) arming: Option<&'a Arming>,
}

impl Pass<'_> {
    pub(crate) fn write_all(
        &self,
        space: &mut Space,
        options: &WriteOptions<'_>,
    ) -> Result<(), VramError> {
        space.written()?;
        let space = &*space;
        let gpu = Arc::clone(space.gpu());
        // After a first pass, the bytes that were hashed last are still in the cache: a slice is
        // sealed from its end.
        let backwards = self.collector.sealer().is_fixed() && self.feed.slice().is_some();
        let count = self.windows.count();
        self.windows.run(&gpu, self.windows.buffers(), count, |worker, index| {
            let index =
                if backwards { count.saturating_sub(index).saturating_sub(1) } else { index };
            let done = self.write_window(worker, space, index)?;
            (options.watch)(done)
        })
    }

    /// Reads, seals and copies one window, and returns its length.
    fn write_window(
        &self,
        worker: &mut Worker<'_>,
        space: &Space,
        index: u64,
    ) -> Result<ByteLen, VramError> {
        let (staging, mut len) = (worker.buffer()?, ByteLen::ZERO);
        send(worker, staging, |buffer| {
            let window = self.fill_window(index, buffer)?;
            len = window.bytes.len();
            if len.is_zero() {
                return Ok(None);
            }
            let to = locate(space.range(), window.bytes)?;
            Ok(Some((space.memory()?, to)))
        })?;
        Ok(len)
    }

    /// Reads one window to the start of `buffer`, and seals it there.
    pub(crate) fn fill_window(&self, index: u64, buffer: &mut [u8]) -> Result<Window, VramError> {
        let (window, bytes) = read_window(self.feed, self.windows, index, buffer)?;
        self.seal_window(bytes, &window)?;
        Ok(window)
    }

    /// Seals one window in place.
    fn seal_window(&self, buffer: &mut [u8], window: &Window) -> Result<(), VramError> {
        window.each(self.windows.layout(), buffer, |segment, bytes| {
            let sealed = self.collector.sealer().seal_segment(segment, bytes)?;
            self.collector.put(segment, sealed)?;
            if let Some(arming) = self.arming {
                arming.put(self.windows.layout(), segment, bytes);
            }
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
    let hashes = Hashes::new(layout)?;
    windows.run(gpu, windows.buffers(), windows.count(), |worker, index| {
        with_source(worker, feed, windows, index, |window, bytes| {
            window.each(layout, bytes, |segment, bytes| {
                hashes.put(segment, SegmentHash::of(layout, segment, bytes)?);
                Ok::<_, VramError>(())
            })
        })?;
        // No byte is done yet, but the caller may have cancelled already.
        (options.watch)(ByteLen::ZERO)
    })?;
    Ok(hashes.into_vec())
}
