//! Seals a shard anew in place; every step can be undone.

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicBool, Ordering};
use std::panic::{catch_unwind, resume_unwind};
use std::sync::Arc;

use vram_alloc::DeviceRange;
use vram_gpu::DeviceMemory;
use vram_seal::{Opener, Sealer, SegmentCollector, SegmentHash};
use vram_space::{Gpu, Lanes, Worker, locate};

use crate::error::VramError;
use crate::parts::Core;
use crate::resident::contents::altered;
use crate::resident::{Anew, contents};
use crate::shard::{Entry, Moment, Seal, View};
use crate::transfer::convert::part;
use crate::transfer::windows::run_on;
use crate::transfer::{Convert, Selection, Window, Windows};

/// Seals the bytes at `old` anew in place. Returns their seal, and when writing them began: every
/// window was read back as it was written.
pub(crate) fn rewrite(
    core: &Core,
    entry: &Entry,
    old: &View,
    anew: Anew,
) -> Result<(Arc<Seal>, Moment), VramError> {
    let hashes = Arc::new(contents::content_hashes(entry, old)?);
    let seal = trial(core, entry, old, anew, &hashes);
    let seal = seal.map_err(|error| altered(entry, error))?;
    let forth = contents::sealer(core, entry, anew, &hashes)?;
    let before = Anew { params: old.seal.params, key: old.seal.key_id() };
    let back = contents::sealer(core, entry, before, &hashes)?;
    let windows = Windows::on(&old.gpu, *forth.layout())?;
    // Two buffers, even if the limit on staging has room for only one: one for the bytes to write,
    // one for the bytes that are read back. The same lanes for both directions: what was begun can
    // be undone without a wait for staging.
    let lanes = windows.lanes(&old.gpu, [2, 2], windows.count())?;
    let rewrite = Rewrite {
        gpu: &old.gpu,
        lanes: &lanes,
        view: old,
        shard: old.range,
        windows: &windows,
        old: Side { opener: &old.seal.opener, sealer: &back },
        new: Side { opener: &seal.opener, sealer: &forth },
        done: (0..windows.count()).map(|_| AtomicBool::new(false)).collect(),
    };
    let began = Moment::now(&*core.clock);
    let outcome = catch_unwind(AssertUnwindSafe(|| rewrite.run()));
    if !matches!(outcome, Ok(Ok(()))) {
        let undone = catch_unwind(AssertUnwindSafe(|| rewrite.undo()));
        // Looking at the bytes takes lanes of its own.
        drop(lanes);
        look(entry, old, matches!(undone, Ok(Ok(()))));
    }
    match outcome {
        Ok(Ok(())) => Ok((Arc::new(seal), began)),
        Ok(Err(error)) => {
            // If undoing failed as well, the quarantine is the error to return.
            entry.not_quarantined()?;
            Err(altered(entry, error))
        }
        Err(panic) => resume_unwind(panic),
    }
}

/// Looks at what lies on the device after an attempt to undo, and puts the shard into quarantine if
/// that is not what lay there before.
fn look(entry: &Entry, old: &View, undone: bool) {
    // The bytes on a lost device cannot be reached by any call.
    if old.gpu.ready().is_err() {
        return;
    }
    // The bytes on the device now decide, not the errors on the way.
    let looked = catch_unwind(AssertUnwindSafe(|| old.altered()));
    match looked {
        Ok(Ok(segments)) if segments.is_empty() => {}
        Ok(Ok(segments)) => entry.quarantine(&segments),
        // The device cannot be read now. If undoing succeeded, the next reader will check the
        // bytes.
        _ if undone => {}
        _ => entry.quarantine(&[]),
    }
}

/// Does all of the work except the writing, to compute the record that it will result in.
pub(crate) fn trial(
    core: &Core,
    entry: &Entry,
    old: &View,
    anew: Anew,
    hashes: &Arc<Vec<SegmentHash>>,
) -> Result<Seal, VramError> {
    let collector = SegmentCollector::new(contents::sealer(core, entry, anew, hashes)?)?;
    let sealer = collector.sealer();
    let windows = Windows::on(&old.gpu, *sealer.layout())?;
    let convert = Convert { from: &old.seal.opener, to: sealer };
    let keep = |segment, done| collector.put(segment, done);
    old.each_window(&windows, Selection::Run(0..windows.layout().count()), |window, bytes| {
        convert.window(&windows, window, bytes, &keep)
    })?;
    contents::finish_seal(core, entry, old, anew.params, collector.finish()?)
}

/// One of the two seals of a shard that is being rewritten.
struct Side<'a> {
    opener: &'a Opener,
    sealer: &'a Sealer,
}

/// A shard that is rewritten in place.
struct Rewrite<'a> {
    gpu: &'a Gpu,
    lanes: &'a Lanes<'a>,
    view: &'a View,
    shard: DeviceRange,
    windows: &'a Windows,
    old: Side<'a>,
    new: Side<'a>,
    /// The windows that lie on the device under the new seal.
    done: Vec<AtomicBool>,
}

impl Rewrite<'_> {
    /// Rewrites every window from the old seal to the new one.
    fn run(&self) -> Result<(), VramError> {
        self.each(|worker, index| self.rewrite(worker, index, &self.old, &self.new))
    }

    /// Rewrites every window that is under the new seal back to the old one.
    fn undo(&self) -> Result<(), VramError> {
        self.each(|worker, index| {
            if self.flag(index).is_some_and(|done| done.load(Ordering::Acquire)) {
                self.rewrite(worker, index, &self.new, &self.old)
            } else {
                Ok(())
            }
        })
    }

    fn each(
        &self,
        work: impl Fn(&mut Worker<'_>, u64) -> Result<(), VramError> + Sync,
    ) -> Result<(), VramError> {
        run_on(self.lanes, self.windows.count(), work)
    }

    fn flag(&self, index: u64) -> Option<&AtomicBool> {
        usize::try_from(index).ok().and_then(|index| self.done.get(index))
    }

    /// Rewrites one window. Unless it fails twice, the whole window is under one of the two seals,
    /// and `done` says which.
    fn rewrite(
        &self,
        worker: &mut Worker<'_>,
        index: u64,
        from: &Side<'_>,
        to: &Side<'_>,
    ) -> Result<(), VramError> {
        let Some(window) = self.windows.get(index).filter(|window| !window.bytes.is_empty()) else {
            return Ok(());
        };
        let range = locate(self.shard, window.bytes)?;
        let memory = self.view.memory()?;
        let memory = &**memory;
        // Taken before anything is written: this buffer is needed to read back what was written.
        let mut seen = worker.buffer()?;
        let mut staging = match worker.read(memory, range) {
            Ok(staging) => staging,
            Err(error) => {
                worker.put(seen);
                return Err(error.into());
            }
        };
        let outcome = part(staging.as_mut_slice(), range.len()).and_then(|bytes| {
            let seen = part(seen.as_mut_slice(), range.len())?;
            self.convert(&window, bytes, from, to)?;
            let Err(error) = self.write_kept(memory, &window, bytes, seen) else {
                return Ok(());
            };
            // The host buffer still holds the bytes: write them once more under the old seal. A
            // lost device is sent nothing.
            self.gpu.ready()?;
            self.convert(&window, bytes, to, from)?;
            self.write_kept(memory, &window, bytes, seen)?;
            Err(error)
        });
        worker.put(staging);
        worker.put(seen);
        outcome?;
        if let Some(done) = self.flag(index) {
            done.store(core::ptr::eq(to, &raw const self.new), Ordering::Release);
        }
        Ok(())
    }

    fn convert(
        &self,
        window: &Window,
        bytes: &mut [u8],
        from: &Side<'_>,
        to: &Side<'_>,
    ) -> Result<(), VramError> {
        let convert = Convert { from: from.opener, to: to.sealer };
        convert.window(self.windows, window, bytes, &|_segment, _done| Ok(()))
    }

    /// Writes the bytes and reads them back: a copy that reports success can still be wrong, and
    /// here no other copy exists.
    fn write_kept(
        &self,
        memory: &dyn DeviceMemory,
        window: &Window,
        bytes: &mut [u8],
        seen: &mut [u8],
    ) -> Result<(), VramError> {
        let range = locate(self.shard, window.bytes)?;
        let written = self.gpu.caught(|| {
            memory.write(range, bytes)?;
            memory.read(range, seen)
        });
        written.map_err(|error| self.gpu.failed(error))?;
        if *bytes == *seen {
            return Ok(());
        }
        let mut segments = Vec::new();
        let mut rest = &*seen;
        window.each(self.windows.layout(), bytes, |segment, bytes| {
            let (part, behind) = rest.split_at(bytes.len().min(rest.len()));
            if part != bytes {
                segments.push(segment);
            }
            rest = behind;
            Ok::<_, VramError>(())
        })?;
        Err(VramError::WriteNotKept { gpu: self.gpu.index, segments: segments.into() })
    }
}
