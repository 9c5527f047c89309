//! Visits every window of a shard.

use core::ops::Range;
use std::sync::Arc;

use vram_alloc::{ByteLen, ByteRange, DeviceRange};
use vram_gpu::{DeviceKind, Staging};
use vram_id::SplitMix;
use vram_seal::{Checked, Evidence, Hashes, SealError, SegmentHash, SegmentLayout, open_and_hash};
use vram_space::{Block, Worker, locate};

use crate::error::VramError;
use crate::shard::View;
use crate::sync::{Mutex, into_inner, lock};
use crate::transfer::convert::part;
use crate::transfer::kernels::{Looked, See};
use crate::transfer::{Window, Windows};

/// The segments to visit.
#[derive(Clone, Debug)]
pub(crate) enum Selection {
    Run(Range<u64>),
    Each(Vec<u64>),
}

impl Selection {
    /// The first and the last of `count` segments, and `between` others; all segments if the sample
    /// would be nearly all of them.
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

    /// The segments, in order.
    pub(crate) fn segments(&self) -> Box<dyn Iterator<Item = u64> + '_> {
        match self {
            Self::Run(run) => Box::new(run.clone()),
            Self::Each(segments) => Box::new(segments.iter().copied()),
        }
    }

    /// The number of bytes in the segments.
    pub(crate) fn bytes(&self, layout: &SegmentLayout) -> ByteLen {
        let len = |range: Option<ByteRange>| range.map_or(ByteLen::ZERO, ByteRange::len);
        match self {
            Self::Run(run) => len(layout.span(run)),
            Self::Each(each) => {
                let lens = each.iter().map(|segment| len(layout.range(*segment)));
                lens.fold(ByteLen::ZERO, ByteLen::saturating_add)
            }
        }
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

    /// The number of jobs that [`windows`](Self::windows) yields.
    fn jobs(&self, windows: &Windows) -> u64 {
        match self {
            Self::Run(run) => u64::try_from(windows.cut(run.clone()).count()).unwrap_or(u64::MAX),
            Self::Each(segments) => u64::try_from(segments.len()).unwrap_or(u64::MAX),
        }
    }
}

impl View {
    /// The segments of a selection whose device bytes differ from what was sealed, in order.
    pub(crate) fn altered_segments(&self, selection: Selection) -> Result<Vec<u64>, VramError> {
        let opener = &self.seal.opener;
        let open = |segment, bytes: &mut [u8]| opener.open_segment(segment, bytes);
        self.altered_by(&self.windows()?, selection, open)
    }

    /// As [`altered_segments`](Self::altered_segments), in these windows; `see` is shown each segment
    /// before it is opened.
    pub(crate) fn altered_seen(
        &self,
        windows: &Windows,
        selection: Selection,
        see: &See<'_>,
    ) -> Result<Vec<u64>, VramError> {
        let opener = &self.seal.opener;
        self.altered_by(windows, selection, |segment, bytes| {
            see(segment, bytes);
            opener.open_segment(segment, bytes)
        })
    }

    /// The segments of a selection that `open` finds to differ from what was sealed, in order.
    pub(crate) fn altered_by(
        &self,
        windows: &Windows,
        selection: Selection,
        open: impl Fn(u64, &mut [u8]) -> Result<(), SealError> + Sync,
    ) -> Result<Vec<u64>, VramError> {
        let altered = Mutex::new(Vec::new());
        self.each_window(windows, selection, |window, buffer| {
            window.each(self.seal.opener.layout(), buffer, |segment, bytes| {
                if is_altered(open(segment, bytes))? {
                    lock(&altered).push(segment);
                }
                Ok(())
            })
        })?;
        let mut altered = into_inner(altered);
        altered.sort_unstable();
        Ok(altered)
    }

    /// Looks at the content as a whole: by the kernels of the device where they can tell, else on
    /// the host. If no segment is altered, the second value says whether the content as a whole
    /// differs from the record.
    pub(crate) fn look_at_content(&self) -> Result<(Looked, bool), VramError> {
        let by_kernels = self.hashes_by_kernels()?;
        if let Some((hashes, site)) = &by_kernels
            && self.seal.is_of(hashes)?
        {
            let checked = Checked { evidence: Evidence::Proof, site: *site };
            return Ok((Looked { altered: Vec::new(), checked }, false));
        }
        // The host says what is altered, also where kernels have found something.
        let (altered, differs) = self.altered_content()?;
        if by_kernels.is_some() && altered.is_empty() && !differs {
            self.gpu.kernels_disagreed(1);
        }
        Ok((Looked { altered, checked: Checked::BY_HOST }, differs))
    }

    /// Like [`altered_segments`](Self::altered_segments), for all segments. If none is altered, the
    /// second value says whether the content as a whole differs from the record.
    pub(crate) fn altered_content(&self) -> Result<(Vec<u64>, bool), VramError> {
        let (hashes, altered) = self.content_on()?;
        self.is_the_content(&hashes, altered)
    }

    /// As [`altered_content`](Self::altered_content), or as [`altered_segments`](Self::altered_segments)
    /// of all segments unless `content`, where the bytes of the whole shard are in `bytes`.
    pub(crate) fn altered_in(
        &self,
        bytes: &mut [u8],
        content: bool,
    ) -> Result<(Vec<u64>, bool), VramError> {
        let opener = &self.seal.opener;
        let (layout, mut altered) = (opener.layout(), Vec::new());
        let all = 0..layout.count();
        let hashes = if content { Some(Hashes::new(layout)?) } else { None };
        let span = layout.span(&all).ok_or(SealError::NoSuchSegment { segment: 0, count: 0 })?;
        Window { segments: all, bytes: span }.each(layout, bytes, |segment, bytes| {
            let outcome = match &hashes {
                Some(hashes) => {
                    open_and_hash(opener, segment, bytes).map(|hash| hashes.put(segment, hash))
                }
                None => opener.open_segment(segment, bytes),
            };
            if is_altered(outcome)? {
                altered.push(segment);
            }
            Ok::<_, VramError>(())
        })?;
        match hashes {
            Some(hashes) => self.is_the_content(&hashes.into_vec(), altered),
            None => Ok((altered, false)),
        }
    }

    /// The altered segments; if there are none, whether hashes of all segments are of another content.
    fn is_the_content(
        &self,
        hashes: &[SegmentHash],
        altered: Vec<u64>,
    ) -> Result<(Vec<u64>, bool), VramError> {
        if !altered.is_empty() {
            return Ok((altered, false));
        }
        match self.seal.opener.check_digest(hashes) {
            Ok(digest) => Ok((altered, digest != self.seal.digest)),
            Err(SealError::DigestMismatch) => Ok((altered, true)),
            Err(SealError::SegmentMismatch { segment }) => Ok((vec![segment], false)),
            Err(error) => Err(error.into()),
        }
    }

    /// The hashes of all segments as they lie on the device, and the segments that differ from what
    /// was sealed. The hash of an altered segment is zeros, which no content has.
    pub(crate) fn content_on(&self) -> Result<(Vec<SegmentHash>, Vec<u64>), VramError> {
        let opener = &self.seal.opener;
        let hashes = Hashes::new(opener.layout())?;
        let all = Selection::Run(0..opener.layout().count());
        let altered = self.altered_by(&self.windows()?, all, |segment, bytes| {
            hashes.put(segment, open_and_hash(opener, segment, bytes)?);
            Ok(())
        })?;
        Ok((hashes.into_vec(), altered))
    }

    /// Copies each window of a selection to staging and calls `work` with it.
    pub(crate) fn each_window(
        &self,
        windows: &Windows,
        selection: Selection,
        work: impl Fn(&Window, &mut [u8]) -> Result<(), VramError> + Sync,
    ) -> Result<(), VramError> {
        let count = selection.jobs(windows);
        if count == 1
            && let Selection::Run(run) = &selection
            && let Some(window) = windows.over(run.clone())
        {
            // Of a small shard, what divides work costs as much as the work.
            let lanes = windows.lanes(&self.gpu, [1, 1], 1)?;
            let seen = |buffer: &mut [u8]| work(&window, buffer);
            with_window(&mut lanes.worker(), self, &window, seen)?;
            return Ok(lanes.finish()?);
        }
        let jobs = Mutex::new(selection.windows(windows));
        // A host device copies while it is asked: a second buffer would lie idle.
        let ahead = self.gpu.device.info().kind != DeviceKind::Host && !self.range.is_empty();
        let buffers = if ahead { windows.buffers() } else { 1 };
        windows.run(&self.gpu, buffers, count, |worker, _index| {
            if ahead && worker.reads_ahead() {
                return self.rest_ahead(worker, &jobs, &work);
            }
            let Some(window) = lock(&jobs).next() else { return Ok(()) };
            with_window(worker, self, &window, |buffer| work(&window, buffer))
        })
    }

    /// Works on the windows that are left, each while the device copies the next.
    fn rest_ahead(
        &self,
        worker: &mut Worker<'_>,
        windows: &Mutex<impl Iterator<Item = Window>>,
        work: &(impl Fn(&Window, &mut [u8]) -> Result<(), VramError> + Sync),
    ) -> Result<(), VramError> {
        let memory = self.memory()?;
        let mut ahead: Option<Window> = None;
        loop {
            let next = lock(windows).next();
            if let Some(next) = &next {
                worker.begin_read(&**memory, locate(self.range, next.bytes)?)?;
            }
            if let Some(window) = ahead.take()
                && let Some(mut staging) = worker.landed()?
            {
                let outcome = part(staging.as_mut_slice(), window.bytes.len())
                    .and_then(|bytes| work(&window, bytes));
                worker.put(staging);
                if outcome.is_err() {
                    // The others find nothing more to do.
                    lock(windows).by_ref().for_each(drop);
                    return outcome;
                }
            }
            match next {
                Some(next) => ahead = Some(next),
                None => return Ok(()),
            }
        }
    }
}

/// Copies one window to a buffer of the worker, and calls `work` with exactly the bytes of the
/// window.
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
    let outcome = part(staging.as_mut_slice(), from.len()).and_then(work);
    worker.put(staging);
    outcome
}

/// Fills a buffer with `fill` and starts writing it to the memory that `fill` returns. If `fill`
/// returns none, the worker keeps the buffer.
pub(crate) fn send(
    worker: &mut Worker<'_>,
    mut staging: Staging,
    fill: impl FnOnce(&mut [u8]) -> Result<Option<(Arc<Block>, DeviceRange)>, VramError>,
) -> Result<(), VramError> {
    match fill(staging.as_mut_slice()) {
        Ok(Some((memory, to))) => {
            worker.queue_write(&**memory, to.start(), staging, to.len());
            Ok(())
        }
        other => {
            worker.put(staging);
            other.map(drop)
        }
    }
}

/// Whether an attempt to open a segment found it altered.
pub(crate) fn is_altered(opened: Result<(), SealError>) -> Result<bool, VramError> {
    match opened {
        Ok(()) => Ok(false),
        Err(SealError::SegmentMismatch { .. }) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
