//! Marks threads that work for a call of this crate's users: a callback on such a thread must not
//! wait.

use core::cell::Cell;
use core::marker::PhantomData;

use crate::sync::thread_local;

thread_local! {
    /// The number of workers that the current thread is at the moment.
    static WORKERS: Cell<usize> = const { Cell::new(0) };
}

/// Returns true if the calling thread works for a call, which means that it runs a callback of that
/// call.
#[must_use]
pub fn on_a_worker() -> bool {
    // A thread that is ending runs no callback.
    WORKERS.try_with(|workers| workers.get() > 0).unwrap_or(false)
}

/// Marks the current thread as a worker until this value is dropped.
#[derive(Debug)]
pub(crate) struct AtWork {
    // The count belongs to the thread that created this value.
    bound_to_thread: PhantomData<*const ()>,
}

impl AtWork {
    pub(crate) fn begin() -> Self {
        let _ending = WORKERS.try_with(|workers| workers.set(workers.get().saturating_add(1)));
        Self { bound_to_thread: PhantomData }
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let _ending = WORKERS.try_with(|workers| workers.set(workers.get().saturating_sub(1)));
    }
}
