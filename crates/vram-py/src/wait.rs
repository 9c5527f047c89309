//! Waiting for a long call with the interpreter released: Ctrl-C ends it, and progress is told by the
//! thread that waits.

use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{self, ThreadId};
use std::time::Duration;

use pyo3::prelude::*;
use vram_residency::{CancelToken, Progress};

use crate::errors;
use crate::guard::end_if_forked;

/// How often the waiting thread looks for signals and progress.
const TICK: Duration = Duration::from_millis(50);

/// How far a call has come: written by its threads, read by the one that waits.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    done: AtomicU64,
    total: AtomicU64,
}

impl Figures {
    /// Notes what a call reports.
    pub(crate) fn note(&self, progress: Progress) {
        self.total.store(progress.total, Ordering::Relaxed);
        self.done.store(progress.done, Ordering::Relaxed);
    }

    fn read(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}

/// Runs `work` on a thread of its own, and waits for it with the interpreter released. A signal whose
/// handler raises, as Ctrl-C does, and an exception of `progress` cancel the token; the exception is
/// raised when the call has ended and given back what it took. What it returned is dropped then.
pub(crate) fn interruptible<T: Send>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(CancelToken, &Figures) -> T + Send,
) -> PyResult<T> {
    match attended(py, progress, work)? {
        (_dropped, Some(raised)) => Err(raised),
        (result, None) => Ok(result),
    }
}

/// As [`interruptible`], for a call whose result counts although an exception came meanwhile: returned
/// is what `work` returned, and that exception.
pub(crate) fn attended<T: Send>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(CancelToken, &Figures) -> T + Send,
) -> PyResult<(T, Option<PyErr>)> {
    let (token, figures, pid) = (CancelToken::new(), Figures::default(), process::id());
    let (ended, end) = channel();
    let (cancel, seen) = (token.clone(), &figures);
    thread::scope(|scope| {
        let worker =
            thread::Builder::new().name("vram-py".to_owned()).spawn_scoped(scope, move || {
                let result = work(cancel, seen);
                // The waiting thread may have stopped waiting: it joins.
                let _received = ended.send(());
                result
            })?;
        let mut end = end;
        let mut raised = None;
        let mut told = None;
        loop {
            // The receiver is given to the wait and back: it may not be shared with another thread.
            let (back, waited) = detach(py, move || {
                let waited = end.recv_timeout(TICK);
                (end, waited)
            });
            end = back;
            let over = !matches!(waited, Err(RecvTimeoutError::Timeout));
            if raised.is_none() {
                let looked =
                    py.check_signals().and_then(|()| tell(progress, figures.read(), &mut told));
                end_if_forked(pid);
                if let Err(error) = looked {
                    token.cancel();
                    raised = Some(error);
                }
            }
            if over {
                break;
            }
        }
        let joined = detach(py, || worker.join());
        let panicked = |_panic| errors::caller("panic", "a call panicked: please report it");
        Ok((joined.map_err(panicked)?, raised))
    })
}

/// Calls the callback if there is something new.
fn tell(
    progress: Option<&Bound<'_, PyAny>>,
    now: (u64, u64),
    told: &mut Option<(u64, u64)>,
) -> PyResult<()> {
    let Some(progress) = progress else { return Ok(()) };
    if now.1 > 0 && *told != Some(now) {
        *told = Some(now);
        progress.call1(now)?;
    }
    Ok(())
}

/// The thread that ends the interpreter, once it has begun to.
static ENDER: OnceLock<ThreadId> = OnceLock::new();

/// Does work with the interpreter released, as [`Python::detach`] does.
///
/// A daemon thread that comes back after the interpreter has begun to end stays here until the process
/// ends, as threads of Python 3.14 do. Older versions end such a thread in the middle of its frames, and
/// those of Rust then abort the process.
pub(crate) fn detach<T: Send>(py: Python<'_>, work: impl Send + FnOnce() -> T) -> T {
    py.detach(|| {
        let done = work();
        if ENDER.get().is_some_and(|ender| *ender != thread::current().id()) {
            loop {
                thread::park();
            }
        }
        done
    })
}

/// Called when the interpreter has begun to end: after the threads that it waits for, before it stops the
/// others, and before managers are closed under them.
#[pyfunction]
pub(crate) fn ending() {
    // Once is enough.
    let _earlier = ENDER.set(thread::current().id());
}
