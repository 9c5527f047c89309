//! The locks of this crate, and how a panic affects them.
//!
//! The lock of the next event number is the outer one, and a sink's queue the inner one. Neither is
//! held while a sink's code runs or a clock is read. A log's lock is taken alone.

use std::time::Instant;

// Notifying nobody is no call of the operating system there.
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};

/// Locks, also after another holder panicked.
///
/// Every critical section of this crate moves between states that are each valid, and calls no
/// foreign code. The state that a panicking holder leaves is therefore valid.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

/// Waits on `condvar` until `deadline`, or without a limit if there is none. May wake up without a reason.
///
/// # Errors
///
/// The lock guard, if the deadline has passed.
pub(crate) fn wait_until<'a, T>(
    condvar: &Condvar,
    mut guard: MutexGuard<'a, T>,
    deadline: Option<Instant>,
) -> Result<MutexGuard<'a, T>, MutexGuard<'a, T>> {
    let Some(end) = deadline else {
        condvar.wait(&mut guard);
        return Ok(guard);
    };
    if end <= Instant::now() {
        return Err(guard);
    }
    let _timed_out = condvar.wait_until(&mut guard, end);
    Ok(guard)
}
