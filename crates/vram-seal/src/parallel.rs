//! One loop over segments, on one or many threads, with the same result.

use core::cell::Cell;
use core::num::NonZeroUsize;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::panic::resume_unwind;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use vram_alloc::ByteLen;

/// How many threads a call may use, including the calling thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Threads(Option<NonZeroUsize>);

impl Threads {
    /// One for each processor that this process may use.
    pub const AUTO: Self = Self(None);
    /// Only the calling thread.
    pub const ONE: Self = Self(Some(NonZeroUsize::MIN));

    /// The most threads of one call, whatever the caller asks for; on a machine with more
    /// processors, as many as those.
    pub const MAX: usize = 256;

    /// Exactly `count`, but at most [`MAX`](Self::MAX); 0 means 1.
    #[must_use]
    pub const fn exactly(count: usize) -> Self {
        match NonZeroUsize::new(count) {
            Some(count) => Self(Some(count)),
            None => Self::ONE,
        }
    }

    /// The number of threads for a number of jobs: never more than jobs, nor than
    /// [`MAX`](Self::MAX). Without that bound, a number that a caller took from a setting could
    /// start a thread for every segment at once. On a thread that is one of several at work in
    /// [`for_each_segment`] it is 1, since all others are busy already.
    #[must_use]
    pub fn for_jobs(self, jobs: u64) -> usize {
        if SHARING.get() {
            return 1;
        }
        let most = processors().get().max(Self::MAX);
        let allowed = self.0.unwrap_or_else(processors).get().min(most);
        allowed.min(usize::try_from(jobs).unwrap_or(usize::MAX)).max(1)
    }
}

thread_local! {
    /// Whether this thread is one of several at work in a loop.
    static SHARING: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as one of several at work in a loop, until it is dropped.
struct Sharing {
    before: bool,
}

impl Sharing {
    fn begin(with_others: bool) -> Self {
        Self { before: SHARING.replace(SHARING.get() || with_others) }
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        SHARING.set(self.before);
    }
}

impl Default for Threads {
    fn default() -> Self {
        Self::AUTO
    }
}

/// Determined once: the query costs several file reads on some systems.
fn processors() -> NonZeroUsize {
    static COUNT: OnceLock<NonZeroUsize> = OnceLock::new();
    *COUNT.get_or_init(|| thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
}

/// Calls `work` for every segment from 0 to `count - 1`, each once, on up to `threads` threads.
/// Each thread first creates its working space with `init`.
///
/// Segments are distributed in rising order. After the first error no more segments are
/// distributed; those already distributed are finished. The returned error is that of the lowest
/// segment that failed, so it is the same for any number of threads. With one thread, or one
/// segment, all calls run on the calling thread.
///
/// # Errors
///
/// The error of `work` or `init`; an error of `work` has priority.
///
/// # Panics
///
/// If `work` or `init` panics: after all threads have ended, with that panic's payload.
pub fn for_each_segment<W, E: Send>(
    threads: Threads,
    count: u64,
    init: impl Fn() -> Result<W, E> + Sync,
    work: impl Fn(&mut W, u64) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let next = AtomicU64::new(0);
    let take = || {
        next.try_update(Ordering::Relaxed, Ordering::Relaxed, |segment| {
            if segment < count { segment.checked_add(1) } else { None }
        })
        .ok()
    };
    run(threads.for_jobs(count), take, init, |space, segment| {
        work(space, segment).map_err(|error| (segment, error))
    })
}

/// A thread takes this many items of [`map_each`] at once: each takes about a microsecond, and to begin
/// a thread takes fifty.
const RUN: usize = 256;

/// Calls `work` for every item, each once, and returns the results in the order of the items. For short
/// work on many items: threads take runs of them, and the calling thread alone does a few.
///
/// # Errors
///
/// The error of `work` for the first item that failed. Items that are left are dropped.
///
/// # Panics
///
/// As [`for_each_segment`].
pub fn map_each<I: Send, T: Send, E: Send>(
    threads: Threads,
    items: Vec<I>,
    work: impl Fn(I) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let count = items.len();
    if count < RUN.saturating_mul(2) || threads.for_jobs(2) < 2 {
        return items.into_iter().map(work).collect();
    }
    let mut items = items.into_iter();
    let mut runs = Vec::new();
    while items.len() > 0 {
        let run: Vec<I> = items.by_ref().take(RUN).collect();
        runs.push(Mutex::new((run, Vec::new())));
    }
    let jobs = ByteLen::from_usize(runs.len()).get();
    for_each_segment(
        threads,
        jobs,
        || Ok(()),
        |(), at| {
            let Some(run) = usize::try_from(at).ok().and_then(|at| runs.get(at)) else {
                return Ok(());
            };
            let mut run = run.lock().unwrap_or_else(PoisonError::into_inner);
            let (items, done) = &mut *run;
            done.reserve_exact(items.len());
            for item in core::mem::take(items) {
                done.push(work(item)?);
            }
            Ok(())
        },
    )?;
    let mut all = Vec::with_capacity(count);
    for run in runs {
        let (_, done) = run.into_inner().unwrap_or_else(PoisonError::into_inner);
        all.extend(done);
    }
    Ok(all)
}

/// The loop itself, over jobs of any kind. `take` returns the next job; `work` returns an error
/// together with the segment that it belongs to.
pub(crate) fn run<J, W, E: Send>(
    threads: usize,
    take: impl Fn() -> Option<J> + Sync,
    init: impl Fn() -> Result<W, E> + Sync,
    work: impl Fn(&mut W, J) -> Result<(), (u64, E)> + Sync,
) -> Result<(), E> {
    let stop = AtomicBool::new(false);
    let failure: Mutex<Option<(u64, E)>> = Mutex::new(None);
    let fail = |segment: u64, error: E| {
        stop.store(true, Ordering::Relaxed);
        let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.as_ref().is_none_or(|(lowest, _)| segment < *lowest) {
            *failure = Some((segment, error));
        }
    };
    let worker = || {
        let _stop_all = StopOnPanic(&stop);
        let _sharing = Sharing::begin(threads > 1);
        let mut space = match init() {
            Ok(space) => space,
            Err(error) => return fail(u64::MAX, error),
        };
        while !stop.load(Ordering::Relaxed) {
            let Some(job) = take() else { return };
            if let Err((segment, error)) = work(&mut space, job) {
                return fail(segment, error);
            }
        }
    };
    if threads <= 1 {
        worker();
    } else {
        thread::scope(|scope| {
            // If the system cannot start more threads, the existing ones do all the work.
            let helpers: Vec<_> = (1..threads)
                .map_while(|_| thread::Builder::new().spawn_scoped(scope, worker).ok())
                .collect();
            worker();
            let panics: Vec<_> =
                helpers.into_iter().filter_map(|helper| helper.join().err()).collect();
            if let Some(payload) = panics.into_iter().next() {
                resume_unwind(payload);
            }
        });
    }
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
