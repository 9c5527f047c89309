//! Reads a source as windows of bytes.

use std::sync::{Mutex, PoisonError};

use vram_alloc::{ByteLen, ByteRange};
use vram_files::{Access, Feed, FileError, HashInOrder, Source};
use vram_seal::{ContentDigest, ExpectedDigest, SealParams};
use vram_space::Worker;

use crate::error::VramError;
use crate::transfer::convert::part;
use crate::transfer::write::needs_digest_first;
use crate::transfer::{Window, Windows};

/// A source in the form that the sealing pass reads.
pub(crate) struct SourceFeed<'s> {
    source: &'s dyn Source,
    // Each is asked for once, so that a source that answers differently later has no effect.
    len: ByteLen,
    slice: Option<&'s [u8]>,
    /// True for a source that can only be read in order.
    sequential: bool,
    /// The next window of a pass in order.
    turn: Mutex<u64>,
    /// For an expected digest that needs the bytes in order: taken in the first pass.
    hash: Option<HashInOrder>,
    model_id: &'s str,
}

impl<'s> SourceFeed<'s> {
    pub(crate) fn new(source: &'s dyn Source, model_id: &'s str) -> Self {
        let len = ByteLen::new(source.len());
        let slice =
            source.as_slice().filter(|slice| ByteLen::from_usize(<[u8]>::len(slice)) == len);
        let sequential = source.access() == Access::Sequential && slice.is_none();
        Self { source, len, slice, sequential, turn: Mutex::new(0), hash: None, model_id }
    }

    /// As [`SourceFeed::new`], for content that must have this digest.
    pub(crate) fn of_digest(
        source: &'s dyn Source,
        model_id: &'s str,
        expected: Option<&ExpectedDigest>,
    ) -> Self {
        let feed = Self::new(source, model_id);
        Self { hash: HashInOrder::for_expected(expected, feed.len.get()), ..feed }
    }

    /// # Errors
    ///
    /// [`VramError::Config`] if a source that can be read only once would have to be read twice.
    pub(crate) fn check_scope(&self, params: SealParams) -> Result<(), VramError> {
        if needs_digest_first(params) && self.sequential {
            return Err(VramError::config(
                "scope Shard reads its source twice, and this one can be read only once: use \
                 scope Segment",
            ));
        }
        Ok(())
    }

    /// Compares what was read with the digest for which this feed was made.
    ///
    /// # Errors
    ///
    /// [`VramError::DigestMismatch`], or that the source changed meanwhile.
    pub(crate) fn check_digest(
        &self,
        expected: Option<&ExpectedDigest>,
        found: ContentDigest,
    ) -> Result<(), VramError> {
        match HashInOrder::difference(expected, found, self.hash.as_ref()) {
            None => Ok(()),
            Some((expected, found)) => {
                self.finish(false)?;
                Err(VramError::another_content(&self.model_id.into(), expected, found))
            }
        }
    }

    /// Called after the last byte has been read. `proven`: what was read has a digest that the caller
    /// expects, so a file that was written meanwhile does no harm.
    pub(crate) fn finish(&self, proven: bool) -> Result<(), VramError> {
        match self.source.finish() {
            Err(error) if proven && error.is_change() => Ok(()),
            answer => Ok(answer.map_err(|error| error.while_sealing(self.model_id))?),
        }
    }
}

impl Feed for SourceFeed<'_> {
    fn len(&self) -> ByteLen {
        self.len
    }

    fn fill(&self, range: ByteRange, target: &mut [u8]) -> Result<(), FileError> {
        match self.slice {
            Some(slice) => slice.fill(range, target)?,
            // The one empty window of an empty shard: no byte is requested from the source.
            None if target.is_empty() => {}
            None => self
                .source
                .read_at(range.start().get(), target)
                .map_err(|error| error.while_sealing(self.model_id))?,
        }
        if let Some(hash) = &self.hash {
            hash.take(range.start().get(), target);
        }
        Ok(())
    }

    fn slice(&self) -> Option<&[u8]> {
        // A hash sees each window as it is read.
        self.slice.filter(|_| self.hash.is_none())
    }

    fn turn(&self) -> Option<&Mutex<u64>> {
        let in_order = self.hash.as_ref().is_some_and(HashInOrder::is_wanted);
        (self.sequential || in_order).then_some(&self.turn)
    }
}

/// Fills the start of `buffer` with window `index`; for a source that can only be read in order,
/// with the next window. A whole pass still reads each window exactly once.
pub(crate) fn read_window<'b>(
    feed: &dyn Feed,
    windows: &Windows,
    index: u64,
    buffer: &'b mut [u8],
) -> Result<(Window, &'b mut [u8]), VramError> {
    let fill = |index, buffer: &'b mut [u8]| {
        // `index` comes from the job queue, which holds only windows that exist.
        let window = windows.get(index).ok_or(VramError::HostMemory { wanted: ByteLen::ZERO })?;
        let bytes = part(buffer, window.bytes.len())?;
        feed.fill(window.bytes, bytes)?;
        Ok((window, bytes))
    };
    let Some(turn) = feed.turn() else { return fill(index, buffer) };
    let mut turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
    let filled = fill(*turn, buffer)?;
    *turn = turn.saturating_add(1);
    Ok(filled)
}

/// Reads a window as [`read_window`] does, into a buffer of the worker, and calls `work` with it.
pub(crate) fn with_source<T>(
    worker: &mut Worker<'_>,
    feed: &dyn Feed,
    windows: &Windows,
    index: u64,
    work: impl FnOnce(&Window, &mut [u8]) -> Result<T, VramError>,
) -> Result<T, VramError> {
    let mut staging = worker.buffer()?;
    let read = read_window(feed, windows, index, staging.as_mut_slice());
    let outcome = read.and_then(|(window, bytes)| work(&window, bytes));
    worker.put(staging);
    outcome
}
