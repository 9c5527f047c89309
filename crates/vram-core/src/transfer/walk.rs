//! Visiting every window of a shard.

use core::ops::Range;

use vram_alloc::ByteLen;
use vram_id::SplitMix;
use vram_seal::parallel::for_each_segment;
use vram_seal::{SealError, SegmentHash};
use vram_space::{Lanes, Worker, locate};

use crate::error::VramError;
use crate::shard::View;
use crate::sync::{Mutex, lock};
use crate::transfer::{Window, Windows};

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

    pub(crate) fn windows(self, windows: &Windows) -> Box<dyn Iterator<Item = Window> + Send> {
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
        Ok(lanes.finish()?)
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
