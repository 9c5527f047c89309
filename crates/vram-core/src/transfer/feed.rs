//! Reads a source as windows of bytes.

use std::sync::Mutex;

use vram_alloc::{ByteLen, ByteRange};
use vram_files::{Access, Feed, FileError, Source};
use vram_seal::SealParams;
use vram_space::Worker;

use crate::error::VramError;
use crate::sync::lock;
use crate::transfer::convert::part;
use crate::transfer::write::needs_digest_first;
use crate::transfer::{Window, Windows};

/// A source in the form that the sealing pass reads.
pub(crate) struct SourceFeed<'s> {
    source: &'s dyn Source,
    // Each is asked for once, so that a source that answers differently later has no effect.
    len: ByteLen,
    slice: Option<&'s [u8]>,
    /// The next window of a source that can only be read in order.
    turn: Option<Mutex<u64>>,
    model_id: &'s str,
}

impl<'s> SourceFeed<'s> {
    pub(crate) fn new(source: &'s dyn Source, model_id: &'s str) -> Self {
        let len = ByteLen::new(source.len());
        let slice =
            source.as_slice().filter(|slice| ByteLen::from_usize(<[u8]>::len(slice)) == len);
        let turn = match source.access() {
            Access::Sequential if slice.is_none() => Some(Mutex::new(0)),
            _ => None,
        };
        Self { source, len, slice, turn, model_id }
    }

    /// # Errors
    ///
    /// [`VramError::Config`] if a source that can be read only once would have to be read twice.
    pub(crate) fn check_scope(&self, params: SealParams) -> Result<(), VramError> {
        if needs_digest_first(params) && self.turn.is_some() {
            return Err(VramError::config(
                "scope Shard reads its source twice, and this one can be read only once: use \
                 scope Segment",
            ));
        }
        Ok(())
    }

    /// Called after the last byte has been read.
    pub(crate) fn finish(&self) -> Result<(), VramError> {
        Ok(self.source.finish().map_err(|error| error.while_sealing(self.model_id))?)
    }
}

impl Feed for SourceFeed<'_> {
    fn len(&self) -> ByteLen {
        self.len
    }

    fn fill(&self, range: ByteRange, target: &mut [u8]) -> Result<(), FileError> {
        match self.slice {
            Some(slice) => slice.fill(range, target),
            // The one empty window of an empty shard: no byte is requested from the source.
            None if target.is_empty() => Ok(()),
            None => self
                .source
                .read_at(range.start().get(), target)
                .map_err(|error| error.while_sealing(self.model_id)),
        }
    }

    fn slice(&self) -> Option<&[u8]> {
        self.slice
    }

    fn turn(&self) -> Option<&Mutex<u64>> {
        self.turn.as_ref()
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
    let mut turn = lock(turn);
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
