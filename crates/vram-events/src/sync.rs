//! The locks of this crate, in one place, and what a panic does to them.
//!
//! The number of the next event is the outer lock and a sink's queue the inner one. Neither is held
//! while a sink works or a clock is asked. A log's contents are locked alone.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

use std::sync::PoisonError;
use std::time::Instant;

/// Locks, also after a panic in another holder.
///
/// Every critical section of this crate moves between states that are each valid, and calls no
/// foreign code, so the state that a panicking holder left is sound.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits on `condvar` until `deadline`, or without end if there is none, with the same view of
/// panics as [`lock`]. May wake without a reason.
///
/// # Errors
///
/// The lock, if the deadline has passed.
pub(crate) fn wait_until<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Option<Instant>,
) -> Result<MutexGuard<'a, T>, MutexGuard<'a, T>> {
    let Some(end) = deadline else {
        return Ok(condvar.wait(guard).unwrap_or_else(PoisonError::into_inner));
    };
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(guard);
    }
    let (guard, _timed_out) =
        condvar.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner);
    Ok(guard)
}
