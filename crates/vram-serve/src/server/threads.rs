//! The threads of a server, all of which run before it serves. A runtime that has too few of them panics where
//! it misses the first, and waits for ever for any other.

use core::time::Duration;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

use tokio::runtime::{Builder, Runtime};

/// Threads that render figures. Calls of the engine have threads of their own.
const BLOCKING: usize = 8;
/// How long threads that the system has granted may take to run.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an idle thread is kept: one that ended might not be granted again.
const KEPT: Duration = Duration::from_hours(24 * 365);

/// A runtime whose threads all run already.
///
/// # Errors
///
/// The system's, if it refuses a thread or a descriptor. No thread is left then.
pub(super) fn runtime() -> io::Result<Runtime> {
    let workers = thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4));
    let all = workers.saturating_add(BLOCKING);
    may_start(all)?;
    let running = Arc::new(Running::default());
    let one_more = Arc::clone(&running);
    let runtime = Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(BLOCKING)
        .thread_keep_alive(KEPT)
        .thread_name("vram-serve")
        .on_thread_start(move || one_more.add())
        .enable_all()
        .build()?;
    // Each of them keeps its thread until all run, so that each has one of its own.
    for _ in 0..BLOCKING {
        let running = Arc::clone(&running);
        runtime.spawn_blocking(move || running.wait(all));
    }
    if running.wait(all) {
        return Ok(runtime);
    }
    // Somebody else took what was there a moment ago. A drop would wait for threads that never came.
    runtime.shutdown_background();
    Err(io::ErrorKind::WouldBlock.into())
}

/// Starts so many threads, and ends them.
fn may_start(count: usize) -> io::Result<()> {
    let (end, ended) = sync_channel::<()>(0);
    let waits = Arc::new(Mutex::new(ended));
    let mut started = Vec::new();
    let refused = (0..count).find_map(|_| {
        let waits = Arc::clone(&waits);
        match thread::Builder::new().spawn(move || wait(&waits)) {
            Ok(thread) => {
                started.push(thread);
                None
            }
            Err(error) => Some(error),
        }
    });
    drop(end);
    for thread in started {
        // It does nothing that could fail.
        let _ = thread.join();
    }
    refused.map_or(Ok(()), Err)
}

/// Waits until the sender has gone.
fn wait(ended: &Mutex<Receiver<()>>) {
    let _ = ended.lock().unwrap_or_else(PoisonError::into_inner).recv();
}

/// How many threads of a runtime run.
#[derive(Debug, Default)]
struct Running {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Running {
    fn count(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self) {
        let mut count = self.count();
        *count = count.saturating_add(1);
        drop(count);
        self.changed.notify_all();
    }

    /// Waits until so many run; false if they do not in time.
    fn wait(&self, all: usize) -> bool {
        let waited = self.changed.wait_timeout_while(self.count(), PATIENCE, |count| *count < all);
        let (count, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *count >= all
    }
}
