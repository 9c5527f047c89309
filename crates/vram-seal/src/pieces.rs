//! A whole shard divided into pieces of some segments, distributed to threads from either end.

use std::sync::{Mutex, PoisonError};

use vram_alloc::ByteLen;

use crate::error::SealError;
use crate::parallel::{self, Threads};
use crate::record::layout::SegmentLayout;

/// Several small segments form one piece of at least this many bytes.
const GROUP_LEN: u64 = 256 << 10;

/// A target, and optionally a source of the same length, divided at the same positions and
/// distributed piece by piece.
///
/// Used twice: first for groups of segments, so that small ones are not distributed one at a time,
/// then for the segments of a group. Empty bytes are one empty piece, as in the format.
pub(crate) struct Pieces<'a> {
    source: Option<&'a [u8]>,
    target: &'a mut [u8],
    piece_len: usize,
    segments_per_piece: u64,
    // Index of the next piece's first segment, and the number of remaining pieces.
    first: u64,
    left: u64,
}

pub(crate) struct Piece<'a> {
    first: u64,
    source: Option<&'a [u8]>,
    target: &'a mut [u8],
}

impl<'a> Pieces<'a> {
    pub(crate) fn groups(
        layout: &SegmentLayout,
        source: Option<&'a [u8]>,
        target: &'a mut [u8],
    ) -> Self {
        let segments = GROUP_LEN.div_ceil(layout.segment_size().bytes().get());
        let group_len = usize::try_from(segments)
            .map_or(usize::MAX, |count| layout.segment_usize().saturating_mul(count));
        Self::new(Piece { first: 0, source, target }, group_len, segments)
    }

    fn new(whole: Piece<'a>, piece_len: usize, segments_per_piece: u64) -> Self {
        let Piece { first, source, target } = whole;
        let left = ByteLen::from_usize(target.len().div_ceil(piece_len).max(1)).get();
        Self { source, target, piece_len, segments_per_piece, first, left }
    }

    pub(crate) fn front(&mut self) -> Option<Piece<'a>> {
        self.left = self.left.checked_sub(1)?;
        let first = self.first;
        self.first = first.saturating_add(self.segments_per_piece);
        let rest = self.split_off(self.piece_len.min(self.target.len()))?;
        Some(Piece {
            first,
            source: core::mem::replace(&mut self.source, rest.source),
            target: core::mem::replace(&mut self.target, rest.target),
        })
    }

    pub(crate) fn back(&mut self) -> Option<Piece<'a>> {
        self.left = self.left.checked_sub(1)?;
        let at = usize::try_from(self.left).ok()?.checked_mul(self.piece_len)?;
        let piece = self.split_off(at)?;
        let first = self.left.saturating_mul(self.segments_per_piece).saturating_add(self.first);
        Some(Piece { first, ..piece })
    }

    /// Keeps the bytes before `at`, and returns the rest.
    fn split_off(&mut self, at: usize) -> Option<Piece<'a>> {
        let source = match self.source {
            Some(source) => {
                let (kept, rest) = source.split_at_checked(at)?;
                self.source = Some(kept);
                Some(rest)
            }
            None => None,
        };
        let (kept, target) = core::mem::take(&mut self.target).split_at_mut_checked(at)?;
        self.target = kept;
        Some(Piece { first: 0, source, target })
    }

    /// Calls `work` for every segment, in parallel. `take` decides from which end pieces are
    /// distributed. If that is the front, the returned error is that of the lowest segment that
    /// failed.
    pub(crate) fn each_segment<W>(
        self,
        layout: &SegmentLayout,
        threads: Threads,
        take: impl Fn(&mut Self) -> Option<Piece<'a>> + Sync,
        init: impl Fn() -> W + Sync,
        work: impl Fn(&mut W, u64, Option<&'a [u8]>, &'a mut [u8]) -> Result<(), SealError> + Sync,
    ) -> Result<(), SealError> {
        let threads = threads.for_jobs(self.left);
        let pieces = Mutex::new(self);
        parallel::run(
            threads,
            || take(&mut pieces.lock().unwrap_or_else(PoisonError::into_inner)),
            || Ok(init()),
            |space, piece| {
                let mut segments = Pieces::new(piece, layout.segment_usize(), 1);
                while let Some(Piece { first, source, target }) = segments.front() {
                    work(space, first, source, target).map_err(|error| (first, error))?;
                }
                Ok(())
            },
        )
    }
}
