//! The locks of this crate, and how a panic affects them.
//!
//! Lock order, outermost first: the GPU's arena, its list of unreturned bytes. The locks of its
//! health, its region and its count of blocks may be taken while either is held; no lock is taken
//! while one of these three is held. The bound of staging is taken alone. No device is called while
//! any of these locks is held.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

use std::sync::PoisonError;
use std::time::Instant;

/// Locks, also after another holder panicked.
///
/// Every critical section of this crate either makes one assignment or moves between states that
/// are each valid, and calls no foreign code. The state that a panicking holder leaves is therefore
/// valid.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits on `condvar` until `deadline`, or without a limit if there is none. Ignores poisoning like
/// [`lock`]. May wake up without a reason.
///
/// # Errors
///
/// The lock guard, if the deadline has passed.
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
