//! The lock of this crate, and how a panic affects it.

pub(crate) use std::sync::Mutex;

use std::sync::{MutexGuard, PoisonError};

/// Locks, also after another holder panicked.
///
/// Every critical section of this crate moves between states that are each valid, and calls no
/// foreign code. The state that a panicking holder leaves is therefore valid.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
