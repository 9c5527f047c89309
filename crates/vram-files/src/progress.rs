//! Reporting the progress of a long call to its caller, and checking whether the caller cancelled
//! it.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use vram_alloc::ByteLen;

use crate::cancel::CancelToken;
use crate::error::FileError;
use crate::sync::{Mutex, lock};

/// How far a call has come, counted in plaintext bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes that are done: sealed, opened or verified.
    pub done: u64,
    /// Bytes in all. 0 for an empty source.
    pub total: u64,
}

/// The callback with which a caller receives progress.
pub type ProgressFn<'a> = dyn FnMut(Progress) + Send + 'a;

/// The progress callback and the cancel token of a call: one part of its options.
#[derive(Default)]
pub struct WatchOptions<'a> {
    /// Called from worker threads, one at a time.
    pub progress: Option<Box<ProgressFn<'a>>>,
    /// The token with which the caller can end the call early.
    pub cancel: Option<CancelToken>,
}

impl<'a> WatchOptions<'a> {
    /// Watches over a call that handles `total` bytes.
    ///
    /// # Errors
    ///
    /// [`FileError::Cancelled`] if the token was cancelled before the call began.
    pub fn begin(self, total: ByteLen) -> Result<Watch<'a>, FileError> {
        let watch = Watch::new(total, self.progress, self.cancel);
        watch.go_on()?;
        Ok(watch)
    }
}

impl fmt::Debug for WatchOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchOptions")
            .field("progress", &self.progress.is_some())
            .field("cancel", &self.cancel)
            .finish()
    }
}

/// Passes counts of many worker threads to one callback, and a request to stop to all of them.
///
/// One thread at a time runs the callback, with rising figures, and a last time with
/// `done == total` when the call succeeds. A worker that finds another worker inside the callback
/// does not wait for it, so a slow callback delays at most one thread. If the callback panics, the
/// call releases everything that it took, and the panic goes on to the caller.
pub struct Watch<'a> {
    done: AtomicU64,
    total: u64,
    cancel: Option<CancelToken>,
    sink: Option<Mutex<Sink<'a>>>,
}

struct Sink<'a> {
    callback: Box<ProgressFn<'a>>,
    told: u64,
}

impl<'a> Watch<'a> {
    /// Makes the watch of a call that handles `total` bytes. Without a callback, each segment costs
    /// one atomic addition.
    #[must_use]
    pub fn new(
        total: ByteLen,
        callback: Option<Box<ProgressFn<'a>>>,
        cancel: Option<CancelToken>,
    ) -> Self {
        Self {
            done: AtomicU64::new(0),
            total: total.get(),
            cancel,
            sink: callback.map(|callback| Mutex::new(Sink { callback, told: 0 })),
        }
    }

    /// Checks for cancellation. The call asks this before each segment.
    ///
    /// # Errors
    ///
    /// [`FileError::Cancelled`] if the caller cancelled the call.
    pub fn go_on(&self) -> Result<(), FileError> {
        match &self.cancel {
            Some(token) if token.is_cancelled() => Err(FileError::Cancelled {
                done: ByteLen::new(self.done.load(Ordering::Relaxed)),
                total: ByteLen::new(self.total),
            }),
            _ => Ok(()),
        }
    }

    /// Adds `bytes` to the figure of bytes done.
    pub fn advance(&self, bytes: ByteLen) {
        self.done.fetch_add(bytes.get(), Ordering::Relaxed);
        let Some(sink) = &self.sink else { return };
        // Another worker runs the callback, or panicked in it: that panic reaches the caller by
        // itself.
        let Ok(mut sink) = sink.try_lock() else { return };
        // Read the figure under the lock, so that figures never fall. `finish` reports the last
        // figure.
        let done = self.done.load(Ordering::Relaxed);
        if done > sink.told && done < self.total {
            sink.told = done;
            (sink.callback)(Progress { done, total: self.total });
        }
    }

    /// Reports the last figure to the callback. The call makes this once, after success.
    pub fn finish(&self) {
        let Some(sink) = &self.sink else { return };
        let mut sink = lock(sink);
        sink.told = self.total;
        (sink.callback)(Progress { done: self.total, total: self.total });
    }
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("done", &self.done)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(count: u64) -> ByteLen {
        ByteLen::new(count)
    }

    #[test]
    fn figures_rise_and_end_at_the_total_whatever_the_threads_do() {
        let mut told = Vec::new();
        let watch = Watch::new(bytes(4000), Some(Box::new(|progress| told.push(progress))), None);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| watch.advance(bytes(1))));
            }
        });
        watch.finish();
        drop(watch);
        assert!(told.windows(2).all(|pair| pair[0].done < pair[1].done), "{told:?}");
        assert_eq!(told.last(), Some(&Progress { done: 4000, total: 4000 }));
        assert_eq!(told.iter().filter(|progress| progress.done == 4000).count(), 1);
    }

    #[test]
    fn an_empty_source_is_reported_once() {
        let mut told = Vec::new();
        let watch = Watch::new(bytes(0), Some(Box::new(|progress| told.push(progress))), None);
        watch.advance(bytes(0));
        watch.finish();
        drop(watch);
        assert_eq!(told, [Progress { done: 0, total: 0 }]);
    }

    #[test]
    fn a_cancelled_call_says_how_far_it_came() {
        let token = CancelToken::new();
        let watch = Watch::new(bytes(10), None, Some(token.clone()));
        watch.advance(bytes(4));
        assert!(watch.go_on().is_ok());
        token.cancel();
        match watch.go_on() {
            Err(FileError::Cancelled { done, total }) => {
                assert_eq!((done.get(), total.get()), (4, 10));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_panicking_callback_stops_no_other_thread() {
        let watch = Watch::new(bytes(10), Some(Box::new(|_| panic!("callback"))), None);
        let outcome = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
            watch.advance(bytes(1));
        }));
        assert!(outcome.is_err());
        watch.advance(bytes(1));
    }
}
