//! How one call divides a shard into work: windows of whole segments, threads, staging buffers.

use core::ops::Range;

use vram_alloc::{ByteLen, ByteRange};
use vram_gpu::{DeviceInfo, DeviceKind};
use vram_seal::SegmentLayout;
use vram_seal::parallel::{Threads, for_each_segment};
use vram_space::{Gpu, Lanes, SMALLEST, Wanted, Worker};

use crate::error::VramError;
use crate::shard::View;
use crate::sync::{Mutex, lock};

/// The smallest window: below this size, passing work to another thread costs more than it saves.
const WINDOW_MIN: u64 = 256 << 10;

/// Buffers per worker if memory allows: the worker fills one while the device copies the other.
const BUFFERS: u64 = 2;

/// The division of one call's work on one shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    layout: SegmentLayout,
    segments: u64,
    threads: usize,
    buffers: u64,
}

/// A run of segments that is copied as one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) segments: Range<u64>,
    pub(crate) bytes: ByteRange,
}

impl Windows {
    /// Divides a shard into work for this GPU.
    pub(crate) fn on(gpu: &Gpu, layout: SegmentLayout) -> Result<Self, VramError> {
        let threads = Threads::exactly(gpu.means.workers);
        Self::plan(layout, gpu.device.info(), threads, gpu.means.staging_bytes)
    }

    /// Divides a shard into work for `device`. Windows are as large as the device copies well, as
    /// small as keeps all threads busy, and within `staging_max` host bytes for all workers
    /// together: windows shrink before threads are left out.
    ///
    /// # Errors
    ///
    /// [`VramError::LimitExceeded`] if not even one segment fits into `staging_max`.
    pub(crate) fn plan(
        layout: SegmentLayout,
        device: &DeviceInfo,
        threads: Threads,
        staging_max: ByteLen,
    ) -> Result<Self, VramError> {
        let (len, max) = (layout.plaintext_len().get(), staging_max.get());
        // Buffer sizes are powers of two, so that buffers can be reused.
        let whole = len.max(SMALLEST).checked_next_power_of_two().unwrap_or(len);
        let segment = layout.segment_size().bytes().get().min(whole);
        if segment > max {
            return Err(VramError::LimitExceeded {
                what: "staging bytes of one call",
                limit: max,
                wanted: segment,
            });
        }
        let threads = u64::try_from(threads.for_jobs(layout.count())).unwrap_or(u64::MAX);
        // At least two windows for each thread, so that no thread idles while another works on its
        // last.
        let fair = len.div_ceil(threads.saturating_mul(2).max(1));
        // A host device copies from the cache: windows that fit in it are fastest.
        let quick = if device.kind == DeviceKind::Host { 0 } else { device.copy_window.get() };
        let wanted = quick.min(fair).max(WINDOW_MIN);
        let share = max.checked_div(threads.saturating_mul(BUFFERS)).unwrap_or(max).max(WINDOW_MIN);
        let allowed = max.checked_div(BUFFERS).unwrap_or(max).min(share);
        let segments = wanted.min(allowed).checked_div(segment).unwrap_or(1).max(1);
        let segments = 1_u64 << segments.ilog2();
        let window = segments.saturating_mul(segment);
        let buffers = if window.saturating_mul(BUFFERS) <= max { BUFFERS } else { 1 };
        let workers = max.checked_div(window.saturating_mul(buffers)).unwrap_or(1).max(1);
        let count = layout.count().div_ceil(segments);
        let threads = threads.min(workers).min(count).max(1);
        Ok(Self { layout, segments, threads: usize::try_from(threads).unwrap_or(1), buffers })
    }

    pub(crate) const fn layout(&self) -> &SegmentLayout {
        &self.layout
    }

    pub(crate) const fn threads(&self) -> Threads {
        Threads::exactly(self.threads)
    }

    /// The number of buffers that a worker may hold.
    pub(crate) const fn buffers(&self) -> u64 {
        self.buffers
    }

    /// The number of windows in the whole shard: at least one.
    pub(crate) const fn count(&self) -> u64 {
        self.layout.count().div_ceil(if self.segments == 0 { 1 } else { self.segments })
    }

    /// The length of the longest window.
    pub(crate) fn window_len(&self) -> ByteLen {
        let len = self.segments.saturating_mul(self.layout.segment_size().bytes().get());
        ByteLen::new(len.min(self.layout.plaintext_len().get()))
    }

    /// Window `index` of the whole shard.
    pub(crate) fn get(&self, index: u64) -> Option<Window> {
        let first = index.checked_mul(self.segments)?;
        let end = first.saturating_add(self.segments).min(self.layout.count());
        self.over(first..end)
    }

    /// The window that covers these segments.
    pub(crate) fn over(&self, segments: Range<u64>) -> Option<Window> {
        let bytes = self.layout.span(&segments)?;
        Some(Window { segments, bytes })
    }

    /// Lanes for `count` jobs over windows: each worker holds at least `least` buffers, and up to
    /// `most`. The call holds no other lanes.
    pub(crate) fn lanes<'g>(
        &self,
        gpu: &'g Gpu,
        [least, most]: [u64; 2],
        count: u64,
    ) -> Result<Lanes<'g>, VramError> {
        let workers = self.threads().for_jobs(count);
        Ok(Lanes::take(gpu, Wanted { buffer_len: self.window_len(), least, most, workers })?)
    }

    /// Runs jobs `0..count` on all threads, each with a worker that holds up to `buffers` buffers,
    /// and waits until the device has all bytes.
    pub(crate) fn run(
        &self,
        gpu: &Gpu,
        buffers: u64,
        count: u64,
        work: impl Fn(&mut Worker<'_>, u64) -> Result<(), VramError> + Sync,
    ) -> Result<(), VramError> {
        if count == 0 {
            return Ok(());
        }
        run_on(&self.lanes(gpu, [1, buffers], count)?, count, work)
    }

    /// Like [`run`](Self::run), for `count` jobs that carry their own data, with one buffer per
    /// worker.
    pub(crate) fn run_each<J: Send>(
        &self,
        gpu: &Gpu,
        count: u64,
        jobs: impl Iterator<Item = J> + Send,
        work: impl Fn(&mut Worker<'_>, J) -> Result<(), VramError> + Sync,
    ) -> Result<(), VramError> {
        let jobs = Mutex::new(jobs);
        self.run(gpu, 1, count, |worker, _index| {
            let Some(job) = lock(&jobs).next() else { return Ok(()) };
            work(worker, job)
        })
    }

    /// Cuts a run of segments into windows.
    pub(crate) fn cut(&self, run: Range<u64>) -> impl Iterator<Item = Window> + use<> {
        let this = *self;
        let mut next = run.start;
        core::iter::from_fn(move || {
            let end = next.saturating_add(this.segments).min(run.end);
            let window = if next < end { this.over(next..end) } else { None };
            next = end;
            window
        })
    }
}

/// Runs jobs `0..count` on the workers of `lanes`, and waits until the device has all bytes.
pub(crate) fn run_on(
    lanes: &Lanes<'_>,
    count: u64,
    work: impl Fn(&mut Worker<'_>, u64) -> Result<(), VramError> + Sync,
) -> Result<(), VramError> {
    for_each_segment(Threads::exactly(lanes.workers()), count, || Ok(lanes.worker()), work)?;
    Ok(lanes.finish()?)
}

impl View {
    /// Divides the shard into work for the GPU on which it lies.
    pub(crate) fn windows(&self) -> Result<Windows, VramError> {
        Windows::on(&self.gpu, *self.seal.opener.layout())
    }
}

impl Window {
    /// Calls `work` for each segment with its part of `bytes`, which holds the whole window.
    pub(crate) fn each<E>(
        &self,
        layout: &SegmentLayout,
        mut bytes: &mut [u8],
        mut work: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for segment in self.segments.clone() {
            let len = layout.range(segment).and_then(|range| range.len().to_usize()).unwrap_or(0);
            // If the buffer is too short, `work` sees a segment of the wrong length.
            let (part, rest) = bytes.split_at_mut(len.min(bytes.len()));
            work(segment, part)?;
            bytes = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vram_alloc::GpuIndex;
    use vram_gpu::DeviceUuid;
    use vram_seal::SegmentSize;

    use super::*;

    fn plan(len: u64, log2: u8, threads: usize, window: u64, max: u64) -> Windows {
        let layout =
            SegmentLayout::new(ByteLen::new(len), SegmentSize::from_log2(log2).unwrap()).unwrap();
        let index = GpuIndex::new(0);
        let mut info = DeviceInfo::new(
            index,
            DeviceUuid::for_host(index),
            "test".into(),
            DeviceKind::Cuda,
            ByteLen::GIB,
        );
        info.copy_window = ByteLen::new(window);
        Windows::plan(layout, &info, Threads::exactly(threads), ByteLen::new(max)).unwrap()
    }

    #[test]
    fn windows_tile_the_shard_within_the_staging_limit() {
        for len in [0, 1, 4095, 4096, 4097, 1 << 20, (3 << 20) + 5, 100 << 20] {
            for log2 in [12, 18, 20] {
                for (threads, window, max) in
                    [(1, 1 << 18, 64 << 20), (8, 4 << 20, 64 << 20), (8, 4 << 20, 1 << 20)]
                {
                    let windows = plan(len, log2, threads, window, max);
                    let (mut at, mut segment) = (0, 0);
                    for index in 0..windows.count() {
                        let window = windows.get(index).unwrap();
                        assert_eq!(
                            (window.bytes.start().get(), window.segments.start),
                            (at, segment)
                        );
                        assert!(window.bytes.len() <= windows.window_len());
                        (at, segment) = (window.bytes.end().get(), window.segments.end);
                    }
                    assert_eq!((at, segment), (len, windows.layout().count()));
                    assert_eq!(windows.get(windows.count()), None);
                    let buffer = windows.window_len().get().max(SMALLEST).next_power_of_two();
                    let held = buffer * windows.buffers() * u64::try_from(windows.threads).unwrap();
                    assert!(held <= max, "{held} of {max} for {len}");
                    let cut: Vec<_> = windows.cut(0..windows.layout().count()).collect();
                    assert_eq!(ByteLen::from_usize(cut.len()).get(), windows.count());
                }
            }
        }
    }

    #[test]
    fn windows_shrink_before_threads_are_left_out() {
        const MIB: u64 = 1 << 20;
        for (threads, staging, window, workers) in [
            (8, 64 * MIB, 4 * MIB, 8),
            (16, 64 * MIB, 2 * MIB, 16),
            (64, 64 * MIB, MIB / 2, 64),
            // No smaller than is worth passing on.
            (256, 64 * MIB, MIB / 4, 128),
            // A segment is never cut.
            (16, 4 * MIB, MIB / 4, 8),
        ] {
            let windows = plan(1 << 30, 18, threads, 4 * MIB, staging);
            let found = (windows.window_len().get(), windows.threads, windows.buffers());
            assert_eq!(found, (window, workers, 2), "{threads} threads, {staging} bytes");
        }
        let large = plan(1 << 30, 22, 16, 4 * MIB, 64 * MIB);
        assert_eq!((large.window_len().get(), large.threads), (4 * MIB, 8), "segments of 4 MiB");
    }

    #[test]
    fn a_segment_beyond_the_staging_limit_is_refused() {
        let layout = SegmentLayout::new(ByteLen::GIB, SegmentSize::MAX).unwrap();
        let index = GpuIndex::new(0);
        let uuid = DeviceUuid::for_host(index);
        let info = DeviceInfo::new(index, uuid, String::new(), DeviceKind::Host, ByteLen::GIB);
        let refused = Windows::plan(layout, &info, Threads::AUTO, ByteLen::MIB);
        assert!(matches!(refused, Err(VramError::LimitExceeded { limit: 1_048_576, .. })));
    }

    #[test]
    fn an_empty_shard_is_one_window_of_one_empty_segment() {
        let windows = plan(0, 18, 4, 1 << 20, 1 << 20);
        assert_eq!(windows.count(), 1);
        let window = windows.get(0).unwrap();
        assert_eq!(window.segments, 0..1);
        let mut seen = Vec::new();
        window
            .each(windows.layout(), &mut [], |segment, bytes| {
                seen.push((segment, bytes.len()));
                Ok::<(), ()>(())
            })
            .unwrap();
        assert_eq!(seen, [(0, 0)]);
    }
}
