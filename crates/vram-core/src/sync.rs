//! The locks of this crate, in one place, and what a panic does to them.
//!
//! Order in which they are taken, outermost first: a shard's [`Gate`](crate::shard::Gate), its state,
//! a GPU's arena, the contents of a promise, a GPU's list of bytes that were not returned. A GPU's
//! health, its region and its count of blocks are taken inside any of them, and nothing inside them.
//! The list of promises is held alone. The key ring is outermost of all but the gate, and its count of
//! uses is taken inside it. The number of the next event and, inside it, a sink's queue are taken with
//! none of the others held but a gate, and neither is held while a sink works. The scrubber's locks
//! are held with none of these. The capacity ledger takes no lock.
//! No device is called while any of them but the gate is held.

use core::time::Duration;
use std::sync::PoisonError;
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};
use std::time::Instant;

/// Locks, also after a panic in another holder.
///
/// Every critical section of this crate either makes one assignment or moves between states that
/// are each valid, and calls no foreign code, so what a panicking holder left is sound.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When a wait ends at the latest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// Whatever is waited for happens.
    pub(crate) const NEVER: Self = Self(None);

    /// A deadline that far from now; never, if that is further than the clock can count.
    pub(crate) fn within(timeout: Duration) -> Self {
        Self(Instant::now().checked_add(timeout))
    }

    /// This one, or that far from now if that is sooner.
    pub(crate) fn or_within(self, timeout: Duration) -> Self {
        let Self(other) = Self::within(timeout);
        Self(self.0.into_iter().chain(other).min())
    }

    /// The moment, for crates that take one; none for [`NEVER`](Self::NEVER).
    pub(crate) const fn instant(self) -> Option<Instant> {
        self.0
    }

    pub(crate) fn has_passed(self) -> bool {
        self.0.is_some_and(|end| end <= Instant::now())
    }
}

/// Waits on `condvar`, with the same view of panics as [`lock`]. May wake without a reason.
///
/// # Errors
///
/// The lock, if the deadline has passed.
pub(crate) fn wait_until<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Deadline,
) -> Result<MutexGuard<'a, T>, MutexGuard<'a, T>> {
    let Some(end) = deadline.0 else {
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

/// Locks for reading, with the same view of panics as [`lock`].
pub(crate) fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}
