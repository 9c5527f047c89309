//! The locks of this crate, in one place, and what a panic does to them. No lock is taken while
//! another one is held, but a callback runs under the lock of its [`Watch`](crate::Watch).

pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard};

use std::sync::PoisonError;

/// Locks, also after a panic in another holder.
///
/// Every critical section of this crate makes one assignment or calls a callback, so what a
/// panicking holder left is sound.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for reading, with the same view of panics as [`lock`].
pub(crate) fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}
