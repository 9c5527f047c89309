//! The lock of this crate, and what a panic does to it.

pub(crate) use std::sync::Mutex;

use std::sync::{MutexGuard, PoisonError};

/// Locks, also after a panic in another holder.
///
/// Every critical section of this crate moves between states that are each valid, and calls no
/// foreign code, so the state that a panicking holder left is sound.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
