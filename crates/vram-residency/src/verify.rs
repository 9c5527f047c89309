//! Checking that device bytes are still those that were sealed.

use core::fmt;
use core::ops::Range;

use vram_alloc::{ByteLen, ByteOffset, ByteRange};
use vram_seal::parallel::for_each_segment;
use vram_seal::{SealError, SegmentHash, SegmentSpan};

use crate::age::Moment;
use crate::clock::Timestamp;
use crate::error::VramError;
use crate::events::EventKind;
use crate::id::{ShardId, SplitMix};
use crate::lanes::{Lanes, Worker};
use crate::manager::Core;
use crate::registry::{Entry, View};
use crate::shard::SealedShard;
use crate::space::locate;
use crate::sync::{Mutex, lock};
use crate::windows::{Window, Windows};

/// How thoroughly to verify. Each level includes the checks of the handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verify {
    /// The handle and its record alone: no device byte is read.
    Record,
    /// The first segment, the last, and some between, picked by `seed`.
    Sample {
        /// How many segments to pick besides the first and the last.
        segments: u64,
        /// The same seed picks the same segments.
        seed: u64,
    },
    /// Every segment that holds a byte of a range.
    Range {
        /// First byte of the range, from the start of the shard.
        offset: u64,
        /// Bytes in the range.
        length: u64,
    },
    /// Every segment, each against its own tag: finds any change by whoever lacks the key.
    Segments,
    /// Every segment, and the digest of the whole plaintext: finds even a change by someone who
    /// holds the key.
    Full,
}

/// What a verification found. It proves the moment of the check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[must_use = "an altered shard is reported here, not as an error"]
pub struct Verdict {
    /// The shard.
    pub shard_id: ShardId,
    /// Whether everything that was checked is as it was sealed, and nothing was found altered
    /// before.
    pub sound: bool,
    /// The altered segments: those found now, and those that the shard is in quarantine for.
    pub altered: Vec<SegmentSpan>,
    /// Device bytes that were checked.
    pub checked_bytes: ByteLen,
    /// Whether the digest of the whole plaintext was checked and does not match, though each
    /// segment does.
    pub content_differs: bool,
    /// When the check ended.
    pub at: Timestamp,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sound {
            return write!(f, "{}: sound, {} checked", self.shard_id, self.checked_bytes);
        }
        write!(f, "{}: altered", self.shard_id)?;
        for (position, span) in self.altered.iter().enumerate() {
            write!(f, "{} {span}", if position == 0 { ":" } else { "," })?;
        }
        if self.content_differs {
            f.write_str("; the content as a whole is another")?;
        }
        Ok(())
    }
}

/// Which segments to look at.
#[derive(Clone, Debug)]
pub(crate) enum Selection {
    Run(Range<u64>),
    Each(Vec<u64>),
}

impl Selection {
    /// The first and the last of `count` segments, and `between` others; everything if that is
    /// nearly everything.
    pub(crate) fn sample(count: u64, between: u64, seed: u64) -> Self {
        if count <= between.saturating_add(2) {
            return Self::Run(0..count);
        }
        let mut random = SplitMix::new(seed);
        let mut picked = vec![0, count.saturating_sub(1)];
        for _ in 0..between {
            picked.push(random.below(count));
        }
        picked.sort_unstable();
        picked.dedup();
        Self::Each(picked)
    }

    fn windows(self, windows: &Windows) -> Box<dyn Iterator<Item = Window> + Send> {
        match self {
            Self::Run(run) => Box::new(windows.cut(run)),
            Self::Each(segments) => {
                let windows = *windows;
                Box::new(
                    segments.into_iter().filter_map(move |segment| {
                        windows.over(segment..segment.saturating_add(1))
                    }),
                )
            }
        }
    }

    /// Jobs that [`windows`](Self::windows) gives.
    fn jobs(&self, windows: &Windows) -> u64 {
        match self {
            Self::Run(run) => u64::try_from(windows.cut(run.clone()).count()).unwrap_or(u64::MAX),
            Self::Each(segments) => u64::try_from(segments.len()).unwrap_or(u64::MAX),
        }
    }
}

impl View {
    /// The segments of a selection whose device bytes are not those that were sealed, in order.
    pub(crate) fn altered_segments(&self, selection: Selection) -> Result<Vec<u64>, VramError> {
        let opener = &self.seal.opener;
        let altered = Mutex::new(Vec::new());
        self.each_window(selection, |window, buffer| {
            window.each(opener.layout(), buffer, |segment, bytes| {
                match opener.open_segment(segment, bytes) {
                    Ok(()) => Ok(()),
                    Err(SealError::SegmentMismatch { segment }) => {
                        lock(&altered).push(segment);
                        Ok(())
                    }
                    Err(error) => Err(error.into()),
                }
            })
        })?;
        let mut altered = altered.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        altered.sort_unstable();
        Ok(altered)
    }

    /// As [`altered_segments`](Self::altered_segments) for all of them; and if there are none,
    /// whether the content as a whole is another than the record's.
    pub(crate) fn altered_content(&self) -> Result<(Vec<u64>, bool), VramError> {
        let opener = &self.seal.opener;
        let hashes = self.content_on()?;
        let altered: Vec<u64> =
            (0_u64..).zip(&hashes).filter(|(_, hash)| hash.is_none()).map(|(i, _)| i).collect();
        if !altered.is_empty() {
            return Ok((altered, false));
        }
        let hashes: Vec<SegmentHash> = hashes.into_iter().flatten().collect();
        match opener.check_digest(&hashes) {
            Ok(digest) => Ok((altered, digest != self.seal.digest)),
            Err(SealError::DigestMismatch) => Ok((altered, true)),
            Err(SealError::SegmentMismatch { segment }) => Ok((vec![segment], false)),
            Err(error) => Err(error.into()),
        }
    }

    /// The hashes of all segments as they lie on the device; none where one is not what was sealed.
    pub(crate) fn content_on(&self) -> Result<Vec<Option<SegmentHash>>, VramError> {
        let opener = &self.seal.opener;
        let layout = *opener.layout();
        let count = usize::try_from(layout.count()).unwrap_or(usize::MAX);
        let mut hashes: Vec<Option<SegmentHash>> = Vec::new();
        let wanted = ByteLen::new(layout.count().saturating_mul(32));
        hashes.try_reserve_exact(count).map_err(|_no_room| VramError::HostMemory { wanted })?;
        hashes.resize(count, None);
        let hashes = Mutex::new(hashes);
        self.each_window(Selection::Run(0..layout.count()), |window, buffer| {
            window.each(&layout, buffer, |segment, bytes| {
                match opener.open_segment(segment, bytes) {
                    Ok(()) => {}
                    Err(SealError::SegmentMismatch { .. }) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
                let hash = opener.hash_segment(segment, bytes)?;
                let index = usize::try_from(segment).unwrap_or(usize::MAX);
                if let Some(slot) = lock(&hashes).get_mut(index) {
                    *slot = Some(hash);
                }
                Ok(())
            })
        })?;
        Ok(hashes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Copies each window of a selection to staging and calls `work` with it.
    pub(crate) fn each_window(
        &self,
        selection: Selection,
        work: impl Fn(&Window, &mut [u8]) -> Result<(), VramError> + Sync,
    ) -> Result<(), VramError> {
        let windows = self.windows()?;
        let jobs = selection.jobs(&windows);
        let next = Mutex::new(selection.windows(&windows));
        let lanes = Lanes::new(&self.gpu, windows.window_len(), 1);
        for_each_segment(
            windows.threads(),
            jobs,
            || Ok(lanes.worker()),
            |worker, _job| {
                let Some(window) = lock(&next).next() else { return Ok(()) };
                with_window(worker, self, &window, |buffer| work(&window, buffer))
            },
        )?;
        lanes.finish()
    }
}

impl Core {
    /// Verifies a shard and says what was found. Altered bytes put the shard into quarantine.
    pub(crate) fn verify(&self, handle: &SealedShard, level: Verify) -> Result<Verdict, VramError> {
        self.shared(handle, |entry| self.verify_entry(entry, level))
    }

    pub(crate) fn verify_entry(&self, entry: &Entry, level: Verify) -> Result<Verdict, VramError> {
        let view = entry.view()?;
        view.gpu.ready()?;
        let began = Moment::now(&*self.clock);
        let layout = *view.seal.opener.layout();
        let count = layout.count();
        let selection = match level {
            Verify::Record => Selection::Each(Vec::new()),
            Verify::Sample { segments, seed } => Selection::sample(count, segments, seed),
            Verify::Range { offset, length } => {
                let range = in_shard(entry, offset, length)?;
                Selection::Run(layout.covering(range)?)
            }
            Verify::Segments | Verify::Full => Selection::Run(0..count),
        };
        let mut content_differs = false;
        let mut checked_bytes = ByteLen::ZERO;
        let altered = if level == Verify::Full {
            let (altered, differs) = view.altered_content()?;
            (content_differs, checked_bytes) = (differs, layout.plaintext_len());
            altered
        } else {
            for window in selection.clone().windows(&view.gpu.windows(layout)?) {
                checked_bytes = checked_bytes.saturating_add(window.bytes.len());
            }
            view.altered_segments(selection)?
        };
        if !altered.is_empty() || content_differs {
            entry.quarantine(&altered);
        }

        let at = self.clock.now();
        let mut state = entry.state();
        let sound = state.quarantine.is_none();
        if sound && matches!(level, Verify::Segments | Verify::Full) {
            state.ages.verified(began);
        }
        let known = state.quarantine.clone().unwrap_or_default();
        drop(state);
        if sound && level != Verify::Record {
            let (shard, gpu) = (entry.id.clone(), view.gpu.index);
            self.events.emit(EventKind::Verified { shard, gpu, bytes: checked_bytes });
        }
        let span = |segment| Some(SegmentSpan::new(segment, layout.range(segment)?));
        let altered = known.into_iter().filter_map(span).collect();
        let shard_id = entry.id.clone();
        Ok(Verdict { shard_id, sound, altered, checked_bytes, content_differs, at })
    }
}

/// Copies one window to a buffer of the worker's, and calls `work` with exactly its bytes.
pub(crate) fn with_window<T>(
    worker: &mut Worker<'_>,
    view: &View,
    window: &Window,
    work: impl FnOnce(&mut [u8]) -> Result<T, VramError>,
) -> Result<T, VramError> {
    if window.bytes.is_empty() {
        return work(&mut []);
    }
    let from = locate(view.range, window.bytes)?;
    let mut staging = worker.read(&**view.memory()?, from)?;
    let buffer = from.len().to_usize().and_then(|len| staging.as_mut_slice().get_mut(..len));
    let outcome = buffer.map_or(Err(VramError::HostMemory { wanted: from.len() }), work);
    worker.put(staging);
    outcome
}

/// The one bounds check of everything that names a range of a shard.
pub(crate) fn in_shard(entry: &Entry, offset: u64, length: u64) -> Result<ByteRange, VramError> {
    let len = entry.plaintext_len;
    ByteRange::checked(ByteOffset::new(offset), ByteLen::new(length), len)
        .map_err(|_outside| VramError::OutOfBounds { shard: entry.id.clone(), offset, length, len })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_holds_both_ends_and_repeats() {
        let picked = |count, between, seed| match Selection::sample(count, between, seed) {
            Selection::Run(run) => run.collect::<Vec<_>>(),
            Selection::Each(each) => each,
        };
        assert_eq!(picked(1, 4, 0), [0]);
        assert_eq!(picked(6, 4, 0), [0, 1, 2, 3, 4, 5]);
        for seed in 0..50 {
            let sample = picked(1000, 4, seed);
            assert_eq!(sample, picked(1000, 4, seed));
            assert!(sample.contains(&0) && sample.contains(&999));
            assert!(sample.is_sorted() && (2..=6).contains(&sample.len()));
        }
    }
}
