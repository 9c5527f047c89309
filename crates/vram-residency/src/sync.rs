//! The locks of this crate, in one place, and what a panic does to them.
//!
//! Order in which they are taken, outermost first: a shard's [`Gate`](crate::gate::Gate), its state,
//! a GPU's arena, a GPU's list of bytes that were not returned. The capacity ledger takes no lock.
//! No device is called while any of them but the gate is held.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};

use std::sync::PoisonError;

/// Locks, also after a panic in another holder.
///
/// Every critical section of this crate either makes one assignment or moves between states that
/// are each valid, and calls no foreign code, so what a panicking holder left is sound.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits on `condvar`, with the same view of panics as [`lock`].
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Locks for reading, with the same view of panics as [`lock`].
pub(crate) fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}
