//! Which threads work for a call of this crate's users: a callback on one of them must not wait.

use core::cell::Cell;
use core::marker::PhantomData;

thread_local! {
    /// How many workers of calls the current thread is.
    static WORKERS: Cell<usize> = const { Cell::new(0) };
}

/// Whether the calling thread works for a call: it is in a callback of that call.
#[must_use]
pub fn on_a_worker() -> bool {
    // A thread that is ending runs no callback.
    WORKERS.try_with(|workers| workers.get() > 0).unwrap_or(false)
}

/// The current thread is a worker until this is dropped.
#[derive(Debug)]
pub(crate) struct AtWork {
    // The count is of the thread that it was made on.
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
