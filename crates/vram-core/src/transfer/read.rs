//! Opens a range of a shard into host memory.

use vram_alloc::{ByteLen, ByteRange};
use vram_seal::Scratch;
use vram_space::{Worker, locate};

use crate::error::VramError;
use crate::shard::View;
use crate::transfer::Window;
use crate::transfer::walk::with_window;

impl View {
    pub(crate) fn read_view(&self, range: ByteRange, out: &mut [u8]) -> Result<(), VramError> {
        let windows = self.windows()?;
        let mut out = WipeUnlessGood(Some(out));
        let jobs = jobs(&windows, range, out.bytes())?;
        let count = u64::try_from(jobs.len()).unwrap_or(u64::MAX);
        windows
            .run_each(&self.gpu, count, jobs.into_iter(), |worker, job| job.run(worker, self))?;
        out.good();
        Ok(())
    }
}

/// One job of a read: some whole segments, and the part of the target that they fill.
struct Job<'a> {
    window: Window,
    /// Bytes of the window before the first requested byte.
    skip: usize,
    target: &'a mut [u8],
}

/// Cuts a read into jobs. Segments that are requested whole are opened directly in the target. The
/// segments that are requested in part, at most two, go through staging.
///
/// ```text
///   segments  |....0....|....1....|....2....|....3..|
///   range          [wanted..............)
///   jobs           [part)[whole....)[part)
/// ```
fn jobs<'a>(
    windows: &crate::transfer::Windows,
    range: ByteRange,
    mut target: &'a mut [u8],
) -> Result<Vec<Job<'a>>, VramError> {
    let layout = *windows.layout();
    let segments = if layout.plaintext_len().is_zero() {
        // The one empty segment of an empty shard is opened like any other: its tag is checked.
        0..1
    } else {
        layout.covering(range)?
    };
    let mut jobs = Vec::new();
    let mut push = |window: Window| {
        let start = window.bytes.start().max(range.start());
        let end = window.bytes.end().min(range.end());
        let skip = start.get().saturating_sub(window.bytes.start().get());
        let len = end.get().saturating_sub(start.get());
        let (skip, len) = (
            usize::try_from(skip).unwrap_or(usize::MAX),
            usize::try_from(len).unwrap_or(usize::MAX),
        );
        let (part, rest) = core::mem::take(&mut target).split_at_mut_checked(len)?;
        target = rest;
        jobs.push(Job { window, skip, target: part });
        Some(())
    };
    let whole = |segment| {
        layout
            .range(segment)
            .is_some_and(|bytes| range.start() <= bytes.start() && bytes.end() <= range.end())
    };
    let head = u64::from(!whole(segments.start));
    let more = segments.end.saturating_sub(segments.start) > head;
    let tail = u64::from(more && !whole(segments.end.saturating_sub(1)));
    let body_start = segments.start.saturating_add(head).min(segments.end);
    let body_end = segments.end.saturating_sub(tail);
    let cut = [segments.start..body_start, body_start..body_end, body_end..segments.end];
    for run in cut {
        for window in windows.cut(run) {
            // The target is as long as the range, and the windows cover it exactly.
            push(window).ok_or(VramError::HostMemory { wanted: range.len() })?;
        }
    }
    Ok(jobs)
}

impl Job<'_> {
    fn run(self, worker: &mut Worker<'_>, view: &View) -> Result<(), VramError> {
        let opener = &view.seal.opener;
        let len = self.window.bytes.len();
        if len.to_usize() != Some(self.target.len()) {
            let (skip, target) = (self.skip, self.target);
            return with_window(worker, view, &self.window, |buffer| {
                self.window.each(opener.layout(), buffer, |segment, bytes| {
                    opener.open_segment(segment, bytes)
                })?;
                let wanted = buffer.get(skip..).and_then(|bytes| bytes.get(..target.len()));
                target.copy_from_slice(wanted.ok_or(VramError::HostMemory { wanted: len })?);
                Ok(())
            });
        }
        if !len.is_zero() {
            let from = locate(view.range, self.window.bytes)?;
            let memory = view.memory()?;
            memory.read(from, self.target).map_err(|error| view.gpu.failed(error))?;
        }
        self.window.each(opener.layout(), self.target, |segment, bytes| {
            opener.open_segment(segment, bytes)
        })?;
        Ok(())
    }
}

/// A target that unverified bytes are written to: set to zeros on drop unless every segment was
/// good.
struct WipeUnlessGood<'a>(Option<&'a mut [u8]>);

impl WipeUnlessGood<'_> {
    fn bytes(&mut self) -> &mut [u8] {
        self.0.as_deref_mut().unwrap_or_default()
    }

    fn good(mut self) {
        self.0 = None;
    }
}

impl Drop for WipeUnlessGood<'_> {
    fn drop(&mut self) {
        if let Some(bytes) = self.0.take() {
            bytes.fill(0);
            core::hint::black_box(bytes);
        }
    }
}

/// Zeroed host memory. Long memory comes fresh from the operating system, so that the thread that
/// fills a page is the first to touch it.
pub(crate) fn zeroed(len: ByteLen) -> Result<Vec<u8>, VramError> {
    let refused = VramError::HostMemory { wanted: len };
    let Some(count) = len.to_usize() else { return Err(refused) };
    bytemuck::allocation::try_zeroed_vec(count).map_err(|()| refused)
}

/// Zeroed host memory to work in, which is wiped when dropped.
pub(crate) fn scratch(len: ByteLen) -> Result<Scratch, VramError> {
    let refused = VramError::HostMemory { wanted: len };
    len.to_usize().and_then(Scratch::zeroed).ok_or(refused)
}
