//! Distributes the segments of a source to worker threads, in an order in which the source can be
//! read.

use vram_seal::SegmentLayout;

use crate::source::{Access, HashInOrder, Source, SourceError};
use crate::sync::{Mutex, lock};

/// A source, cut into segments that several threads read.
pub(super) struct SegmentFeed<'s> {
    source: &'s dyn Source,
    layout: SegmentLayout,
    /// The next segment of a source that can only be read in order. A thread chooses and reads it
    /// in one step under this lock, so no thread waits for a segment that another thread has
    /// chosen.
    next: Option<Mutex<u64>>,
    /// Takes the bytes of this pass, in order.
    hash: Option<&'s HashInOrder>,
}

impl<'s> SegmentFeed<'s> {
    /// One pass over the source: in order if the source needs it, or a hash.
    pub(super) fn new(
        source: &'s dyn Source,
        layout: SegmentLayout,
        hash: Option<&'s HashInOrder>,
    ) -> Self {
        let hash = hash.filter(|hash| hash.is_wanted());
        let next = match source.access() {
            Access::Positional if hash.is_none() => None,
            _ => Some(Mutex::new(0)),
        };
        Self { source, layout, next, hash }
    }

    /// Reads a segment into the start of `target`.
    ///
    /// # Arguments
    ///
    /// * `queued`: the segment that the work queue assigned. A sequential source reads its own next
    ///   segment instead; over a whole run each segment is still read exactly once.
    /// * `target`: at least one segment long.
    ///
    /// # Returns
    ///
    /// The number of the segment that was read, and its length.
    pub(super) fn fill(&self, queued: u64, target: &mut [u8]) -> Result<(u64, usize), SourceError> {
        let Some(next) = &self.next else {
            return self.read(queued, target).map(|len| (queued, len));
        };
        let mut next = lock(next);
        let segment = *next;
        let len = self.read(segment, target)?;
        *next = segment.saturating_add(1);
        Ok((segment, len))
    }

    fn read(&self, segment: u64, target: &mut [u8]) -> Result<usize, SourceError> {
        let range = self.layout.range(segment);
        let len = range.and_then(|range| range.len().to_usize()).unwrap_or(0);
        let (Some(range), Some(target)) = (range, target.get_mut(..len)) else {
            // Callers size their buffers by this layout and ask only for its segments.
            return Err(SourceError::from(std::io::Error::other("a segment out of its layout")));
        };
        if len > 0 {
            self.source.read_at(range.start().get(), target)?;
        }
        if let Some(hash) = self.hash {
            hash.take(range.start().get(), target);
        }
        Ok(len)
    }
}
