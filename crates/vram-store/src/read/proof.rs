//! What the ranges of an image are held against: segments under the key, or parts without it.

use std::sync::{Mutex, PoisonError};

use vram_alloc::{ByteLen, ByteRange};
use vram_files::FileError;
use vram_seal::parallel::for_each_segment;
use vram_seal::{Hashes, Opener, Scratch, SealError, SegmentLayout, Threads, open_and_hash};

use super::head::Head;
use crate::error::{Part, StoreError};
use crate::fetch::{Body, Step};
use crate::naming::parts::Parts;
use crate::options::StoreOptions;

/// Most threads that open the segments of one range.
const THREADS_MAX: u64 = 8;

/// What the bytes of an image are held against.
pub(crate) enum Proof {
    Keyed { opener: Box<Opener>, hashes: Box<Hashes>, data_offset: u64 },
    Parts(Parts),
}

impl Proof {
    pub(crate) fn keyed(head: Head) -> Result<(Self, Vec<u8>), StoreError> {
        let Head { bytes, opener, layout } = head;
        let hashes = Box::new(Hashes::new(opener.layout())?);
        let data_offset = layout.data_offset();
        Ok((Self::Keyed { opener: Box::new(opener), hashes, data_offset }, bytes))
    }

    /// The ranges of the image, from the one that begins with unit `from` on.
    pub(crate) fn steps(&self, from: u64, options: &StoreOptions<'_>) -> Steps {
        let (layout, offset) = match self {
            Self::Keyed { opener, data_offset, .. } => (*opener.layout(), *data_offset),
            Self::Parts(parts) => (*parts.layout(), 0),
        };
        Steps::new(layout, offset, from, options)
    }

    /// The ranges of the data behind a head.
    pub(crate) fn keyed_steps(head: &Head, options: &StoreOptions<'_>) -> Steps {
        Steps::new(*head.opener.layout(), head.layout.data_offset(), 0, options)
    }

    /// Checks the bytes of a range.
    ///
    /// # Returns
    ///
    /// The outer error is the host's. The inner one names the first part that is wrong.
    pub(crate) fn check(&self, step: &Step, bytes: &Body) -> Result<Result<(), Part>, StoreError> {
        match self {
            Self::Keyed { opener, hashes, .. } => check_segments(opener, hashes, step, bytes),
            Self::Parts(parts) => {
                let (mut at, mut joined) = (0_usize, Vec::new());
                for part in units(step) {
                    let len = unit_len(parts.layout(), part);
                    let end = at.saturating_add(len);
                    // Hashed in one piece; a range that is too short is too short here as well.
                    let here = if let Some(here) = bytes.slice(at..end) {
                        here
                    } else {
                        joined.resize(len, 0);
                        let found = bytes.copy_to(at, &mut joined);
                        joined.get(..found).unwrap_or_default()
                    };
                    if !parts.holds(part, here) {
                        return Ok(Err(Part::FilePart(part)));
                    }
                    at = end;
                }
                Ok(Ok(()))
            }
        }
    }

    /// Checks what only the whole shows, after each range was checked once.
    pub(crate) fn finish(&self) -> Result<(), Part> {
        match self {
            Self::Keyed { opener, hashes, .. } => {
                hashes.check_digest(opener).map(|_digest| ()).map_err(|_wrong| Part::Content)
            }
            Self::Parts(_) => Ok(()),
        }
    }
}

fn units(step: &Step) -> core::ops::Range<u64> {
    step.first..step.first.saturating_add(step.count)
}

fn unit_len(layout: &SegmentLayout, unit: u64) -> usize {
    layout.range(unit).and_then(|range| range.len().to_usize()).unwrap_or(0)
}

fn check_segments(
    opener: &Opener,
    hashes: &Hashes,
    step: &Step,
    bytes: &Body,
) -> Result<Result<(), Part>, StoreError> {
    let layout = opener.layout();
    let unit = layout.segment_size().bytes().to_usize().unwrap_or(usize::MAX);
    let first_wrong = Mutex::new(None::<u64>);
    let threads = Threads::AUTO.for_jobs(step.count.min(THREADS_MAX));
    let work = |scratch: &mut Scratch, at: u64| -> Result<(), StoreError> {
        let segment = step.first.saturating_add(at);
        let len = unit_len(layout, segment);
        let start = usize::try_from(at).unwrap_or(usize::MAX).saturating_mul(unit);
        // Out of the pieces in which it came, and opened where it lies then.
        let sealed = scratch.get_mut(..len).unwrap_or_default();
        let outcome = if bytes.copy_to(start, sealed) == len {
            open_and_hash(opener, segment, sealed)
        } else {
            Err(SealError::SegmentMismatch { segment })
        };
        match outcome {
            Ok(hash) => hashes.put(segment, hash),
            Err(_altered) => {
                let mut first = first_wrong.lock().unwrap_or_else(PoisonError::into_inner);
                *first = Some(first.map_or(segment, |other| other.min(segment)));
            }
        }
        Ok(())
    };
    let longest = unit.min(layout.plaintext_len().to_usize().unwrap_or(usize::MAX));
    // Plaintext passes through these buffers, so they are wiped.
    let wanted = ByteLen::from_usize(longest);
    let scratch = || Scratch::zeroed(longest).ok_or(FileError::HostMemory { wanted }.into());
    for_each_segment(Threads::exactly(threads), step.count, scratch, work)?;
    let first = first_wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(match first {
        Some(segment) => Err(Part::Segment(segment)),
        None => Ok(()),
    })
}

/// The ranges of an image, in order: as many whole units as a range has room for.
#[derive(Clone, Debug)]
pub(crate) struct Steps {
    layout: SegmentLayout,
    offset: u64,
    per: u64,
    next: u64,
}

impl Steps {
    fn new(layout: SegmentLayout, offset: u64, next: u64, options: &StoreOptions<'_>) -> Self {
        let unit = layout.segment_size().bytes().get();
        let per = options.limits.range_len.checked_div(unit).unwrap_or(1).max(1);
        Self { layout, offset, per, next }
    }
}

impl Iterator for Steps {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let left = self.layout.count().checked_sub(self.next).filter(|left| *left > 0)?;
        let (first, count) = (self.next, left.min(self.per));
        let begins = |range: ByteRange| self.offset.saturating_add(range.start().get());
        let ends = |range: ByteRange| self.offset.saturating_add(range.end().get());
        let last = first.saturating_add(count).saturating_sub(1);
        let start = self.layout.range(first).map(begins)?;
        let end = self.layout.range(last).map(ends)?;
        self.next = first.saturating_add(count);
        Some(Step { first, count, range: start..end })
    }
}
