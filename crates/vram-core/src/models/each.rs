//! The same work on every piece of a model: small pieces in parallel, a run of neighbours a thread, then
//! large pieces one after the other, all threads inside each.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_files::CancelToken;
use vram_seal::parallel::for_each_segment;

use crate::error::VramError;
use crate::parts::Core;
use crate::resident::verify_run::Progress;
use crate::shard::Entry;
use crate::sync::{Mutex, lock};

/// The length up to which one thread handles a whole piece: below it, passing parts to other threads
/// costs more than it saves.
const SMALL_LEN_MAX: ByteLen = ByteLen::new(4 << 20);

/// A thread takes runs of consecutive small pieces, of at most this many bytes and pieces. Neighbours in
/// a plan are neighbours in memory: threads that take them in turns write to the same lines of the
/// cache, and wait for each other in the same part of a host device.
const RUN_LEN: ByteLen = ByteLen::MIB;
const RUN_COUNT: usize = 64;

/// A run that is worked on as a whole grows up to this length even if other threads get none: one copy
/// to a device costs as much as sealing tens of KiB.
const WHOLE_RUN_LEN: ByteLen = ByteLen::new(256 << 10);

/// A thread takes at least this many runs, if there are as many pieces: at the end one thread works on
/// its last run while the others are done.
const RUNS_PER_THREAD: usize = 16;

/// Where one piece is.
enum Slot<I, T> {
    Waiting(I),
    AtWork,
    Done(T),
}

/// A run: the index of its first piece, and the pieces, until a thread takes them.
type Run<'a, I, T> = Mutex<Option<(usize, &'a mut [Slot<I, T>])>>;

/// What ends work on pieces before its time, and how far it came.
pub(crate) struct Stop<'a> {
    lens: &'a [ByteLen],
    cancel: Option<&'a CancelToken>,
    bytes_done: AtomicU64,
}

impl<'a> Stop<'a> {
    pub(crate) const fn new(lens: &'a [ByteLen], cancel: Option<&'a CancelToken>) -> Self {
        Self { lens, cancel, bytes_done: AtomicU64::new(0) }
    }

    /// # Errors
    ///
    /// [`VramError::Cancelled`].
    pub(crate) fn go_on(&self) -> Result<(), VramError> {
        if !self.cancel.is_some_and(CancelToken::is_cancelled) {
            return Ok(());
        }
        let total = self.lens.iter().fold(ByteLen::ZERO, |sum, len| sum.saturating_add(*len));
        let done = ByteLen::new(self.bytes_done.load(Ordering::Relaxed));
        Err(VramError::Cancelled { done, total })
    }

    /// The piece with this index is done.
    pub(crate) fn done(&self, index: usize) {
        let len = self.lens.get(index).copied().unwrap_or_default();
        // Cannot overflow: these bytes lie in memory.
        self.bytes_done.fetch_add(len.get(), Ordering::Relaxed);
    }
}

/// One run of such work.
pub(crate) struct StopRun<'a> {
    stop: &'a Stop<'a>,
    /// The index of its first piece.
    first: usize,
    failed: &'a AtomicBool,
}

impl<'a> Stop<'a> {
    /// A run that begins with this piece; once `failed` is set, it begins no more pieces.
    pub(crate) const fn run(&'a self, first: usize, failed: &'a AtomicBool) -> StopRun<'a> {
        StopRun { stop: self, first, failed }
    }
}

impl Progress for StopRun<'_> {
    fn go_on(&self) -> Result<bool, VramError> {
        self.stop.go_on()?;
        Ok(!self.failed.load(Ordering::Relaxed))
    }

    fn done(&self, position: usize) {
        self.stop.done(self.first.saturating_add(position));
    }
}

/// Calls `work` with every item and its index, each at most once, and returns the results in the order
/// of the items. After the first error, or once `cancel` is cancelled, it begins no more of them; the
/// results so far, and the items that are left, are dropped.
///
/// # Errors
///
/// The error of `work`, of the first small piece that failed if several did; [`VramError::Cancelled`].
pub(crate) fn each_piece<I: Send, T: Send>(
    core: &Core,
    lens: &[ByteLen],
    items: impl IntoIterator<Item = I>,
    cancel: Option<&CancelToken>,
    work: impl Fn(usize, I) -> Result<T, VramError> + Sync,
) -> Result<Vec<T>, VramError> {
    let stop = Stop::new(lens, cancel);
    let one = |index: usize, slot: &mut Slot<I, T>| {
        stop.go_on()?;
        if let Slot::Waiting(item) = core::mem::replace(slot, Slot::AtWork) {
            *slot = Slot::Done(work(index, item)?);
        }
        stop.done(index);
        Ok::<_, VramError>(())
    };
    over_runs(core, lens, ByteLen::ZERO, items, |first, slots, failed| {
        for (index, slot) in (first..).zip(slots) {
            if failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            one(index, slot)?;
        }
        Ok(())
    })
}

/// As [`each_piece`], for work on a whole run of small pieces, or on one large piece. It gets the index
/// of the first and the items, and returns a result for each. Once the flag that it gets is set, another
/// run has failed, and it may return before it is done.
///
/// # Errors
///
/// The error of `work`, of the first run that failed if several did.
pub(crate) fn each_run<I: Send, T: Send>(
    core: &Core,
    lens: &[ByteLen],
    items: impl IntoIterator<Item = I>,
    work: impl Fn(usize, Vec<I>, &AtomicBool) -> Result<Vec<T>, VramError> + Sync,
) -> Result<Vec<T>, VramError> {
    over_runs(core, lens, WHOLE_RUN_LEN, items, |first, slots, failed| {
        if failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let taken =
            slots.iter_mut().filter_map(|slot| match core::mem::replace(slot, Slot::AtWork) {
                Slot::Waiting(item) => Some(item),
                Slot::AtWork | Slot::Done(_) => None,
            });
        let taken = taken.collect();
        for (slot, result) in slots.iter_mut().zip(work(first, taken, failed)?) {
            *slot = Slot::Done(result);
        }
        Ok(())
    })
}

/// Calls `work` with every run, and with every large piece as a run of its own: with the index of the
/// first piece, the pieces, and whether another run has failed.
fn over_runs<I: Send, T: Send>(
    core: &Core,
    lens: &[ByteLen],
    least: ByteLen,
    items: impl IntoIterator<Item = I>,
    work: impl Fn(usize, &mut [Slot<I, T>], &AtomicBool) -> Result<(), VramError> + Sync,
) -> Result<Vec<T>, VramError> {
    let mut slots: Vec<_> = items.into_iter().map(Slot::Waiting).collect();
    let lens = lens.get(..slots.len()).unwrap_or(lens);
    let failed = AtomicBool::new(false);
    let small = lens.iter().filter(|len| is_small(**len)).count();
    let threads = core.threads.for_jobs(ByteLen::from_usize(small).get());
    let runs = taken_apart(&mut slots, runs(lens, small, threads, least));
    for_each_segment(
        core.threads,
        ByteLen::from_usize(runs.len()).get(),
        || Ok::<_, VramError>(()),
        |(), position| {
            let run = usize::try_from(position).ok().and_then(|at| runs.get(at));
            let Some((first, slots)) = run.and_then(|run| lock(run).take()) else { return Ok(()) };
            work(first, slots, &failed).inspect_err(|_error| failed.store(true, Ordering::Relaxed))
        },
    )?;
    drop(runs);
    let large = slots.iter_mut().enumerate().zip(lens).filter(|(_, len)| !is_small(**len));
    for ((index, slot), _len) in large {
        work(index, core::slice::from_mut(slot), &failed)?;
    }
    let done = slots.into_iter().filter_map(|slot| match slot {
        Slot::Done(result) => Some(result),
        Slot::Waiting(_) | Slot::AtWork => None,
    });
    Ok(done.collect())
}

fn is_small(len: ByteLen) -> bool {
    len <= SMALL_LEN_MAX
}

/// Divides the small pieces, of which there are `small`, into runs of neighbours, in order. Each run has
/// `least` bytes, if its bounds and neighbours allow, also where threads get none.
fn runs(lens: &[ByteLen], small: usize, threads: usize, least: ByteLen) -> Vec<Range<usize>> {
    let fair = small.checked_div(threads.saturating_mul(RUNS_PER_THREAD)).unwrap_or(1);
    let count_max = fair.clamp(1, RUN_COUNT);
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut bytes = ByteLen::ZERO;
    for (index, len) in lens.iter().enumerate().filter(|(_, len)| is_small(**len)) {
        let count_max = if bytes < least { RUN_COUNT } else { count_max };
        bytes = bytes.saturating_add(*len);
        match runs.last_mut() {
            Some(run) if run.end == index && run.len() < count_max && bytes <= RUN_LEN => {
                run.end = index.saturating_add(1);
            }
            _ => {
                runs.push(index..index.saturating_add(1));
                bytes = *len;
            }
        }
    }
    runs
}

/// Lends each run its slots.
fn taken_apart<I, T>(mut slots: &mut [Slot<I, T>], runs: Vec<Range<usize>>) -> Vec<Run<'_, I, T>> {
    let (mut at, mut parts) = (0_usize, Vec::with_capacity(runs.len()));
    for run in runs {
        let (_large, rest) = slots.split_at_mut(run.start.saturating_sub(at).min(slots.len()));
        let (part, rest) = rest.split_at_mut(run.len().min(rest.len()));
        parts.push(Mutex::new(Some((run.start, part))));
        (at, slots) = (run.end, rest);
    }
    parts
}

/// The lengths of shards, in their order.
pub(crate) fn lens_of(entries: &[Arc<Entry>]) -> Vec<ByteLen> {
    entries.iter().map(|entry| entry.plaintext_len).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every small piece is in one run, in order; a large piece is in none, and no run goes over one.
    #[test]
    fn runs_are_of_neighbours_and_within_their_bounds() {
        let large = ByteLen::new(5 << 20);
        for len in [0, 1, 16 << 10, 300 << 10, 4 << 20].map(ByteLen::new) {
            for (count, threads) in [(0, 2), (1, 2), (5, 2), (1000, 1), (1000, 4), (10_000, 2)] {
                let lens: Vec<_> =
                    (0..count).map(|at| if at % 301 == 7 { large } else { len }).collect();
                let small: Vec<_> = (0..count).filter(|at| at % 301 != 7).collect();
                let runs = runs(&lens, small.len(), threads, ByteLen::ZERO);
                assert_eq!(runs.iter().cloned().flatten().collect::<Vec<_>>(), small);
                for run in &runs {
                    assert!(run.len() <= RUN_COUNT);
                    let bytes = len.checked_mul(ByteLen::from_usize(run.len()).get()).unwrap();
                    assert!(run.len() == 1 || bytes <= RUN_LEN, "{run:?} of {len}");
                }
                assert!(runs.len() >= small.len().min(threads * RUNS_PER_THREAD));
            }
        }
        let runs_of = |len, count, threads, least| {
            runs(&vec![ByteLen::new(len); count], count, threads, least).len()
        };
        assert_eq!(runs_of(16 << 10, 10_000, 2, ByteLen::ZERO), 157);
        assert_eq!(runs_of(4 << 10, 1000, 16, ByteLen::ZERO), 334);
        assert_eq!(runs_of(4 << 10, 1000, 16, WHOLE_RUN_LEN), 16, "64 at once");
        assert_eq!(runs_of(64 << 10, 160, 16, WHOLE_RUN_LEN), 40, "4 at once");
        assert_eq!(runs_of(2 << 20, 10, 1, WHOLE_RUN_LEN), 10);
    }
}
