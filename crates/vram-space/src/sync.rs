//! The locks of this crate, and what a panic does to them.
//!
//! Order, outermost first: a GPU's arena, its list of bytes that were not returned. Its health, its
//! region and its count of blocks are taken inside either, and nothing is taken inside them. No
//! device is called while any of them is held.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

use std::sync::PoisonError;
use std::time::Instant;

/// Locks, also after a panic in another holder.
///
/// Every critical section of this crate either makes one assignment or moves between states that
/// are each valid, and calls no foreign code, so what a panicking holder left is sound.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits on `condvar` until `deadline`, or for ever without one, with the same view of panics as
/// [`lock`]. May wake without a reason.
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
