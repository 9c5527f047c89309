//! The locks of this crate, in one place, and how they treat a panic. No thread takes a lock while
//! it holds another one, but the hash of a source inside the turn of its readers, and a callback runs under the lock of its [`Watch`](crate::Watch).

pub(crate) use std::sync::{Mutex, MutexGuard};

use std::sync::PoisonError;

/// Takes the lock, also after another holder panicked.
///
/// Every critical section of this crate makes one assignment or calls a callback, so the value is
/// sound after a panic.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
