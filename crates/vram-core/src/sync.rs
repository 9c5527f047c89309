//! The locks of this crate, in one place, and what a panic does to them.
//!
//! Lock order, outermost first: a shard's [`Gate`](crate::shard::Gate) (those of several shards in
//! ascending order of their ids), its state (those of several in the same order, in
//! [`arrive`](crate::shard::entry::arrive) alone), a GPU's arena, the contents of a promise, a GPU's
//! list of bytes that were not returned, a GPU's life (those of several in order of their indices).
//! A GPU's region and its count of blocks, a guard of the list of shards, the census of a GPU, the
//! counts of models, and the number of the next event with, inside it, a sink's queue may be locked inside any of these;
//! no other lock is taken inside them. None of them is held while a sink or other foreign code
//! works. The lock of the key ring is taken outside all others but the gate; the count of uses of
//! keys is locked inside it. The list of promises is locked while no other lock is held; the contents
//! of a promise may be locked inside it. The scrubber's locks are held with none of these. The capacity ledger takes no lock. No device is called while a lock other
//! than a gate is held.
//!
//! Under `--cfg shuttle`, locks, condition variables, atomics that decide, thread-locals and
//! deadlines come from the crate shuttle, which runs a model under many schedules. The models are named `shuttle_…`; no
//! other test can run in such a build:
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR=target/shuttle \
//!     cargo test -p vram-core --profile proptest --lib shuttle_
//! ```

use core::time::Duration;
#[cfg(shuttle)]
use std::sync::PoisonError;
use std::time::Instant;

// Notifying nobody is no call of the operating system there, which every call here does often.
#[cfg(not(shuttle))]
pub(crate) use parking_lot::{
    Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
#[cfg(not(shuttle))]
pub(crate) use std::{thread::ThreadId, thread_local};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{
    Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
#[cfg(shuttle)]
pub(crate) use shuttle::{thread::ThreadId, thread_local};

#[cfg(not(shuttle))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicU64};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64};

/// The calling thread.
pub(crate) fn current_thread() -> ThreadId {
    #[cfg(shuttle)]
    return shuttle::thread::current().id();
    #[cfg(not(shuttle))]
    return std::thread::current().id();
}

/// Locks `mutex`, also after a thread that held it has panicked.
///
/// Every critical section of this crate either makes one assignment or moves between states that
/// are each valid, and calls no foreign code. The data that a panicking thread leaves is therefore
/// sound.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(shuttle)]
    return mutex.lock().unwrap_or_else(PoisonError::into_inner);
    #[cfg(not(shuttle))]
    return mutex.lock();
}

/// What a mutex holds. A panic of another thread is handled as by [`lock`].
pub(crate) fn into_inner<T>(mutex: Mutex<T>) -> T {
    #[cfg(shuttle)]
    return mutex.into_inner().unwrap_or_else(PoisonError::into_inner);
    #[cfg(not(shuttle))]
    return mutex.into_inner();
}

/// The latest moment at which a wait ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// No deadline: the wait ends only when its condition holds.
    pub(crate) const NEVER: Self = Self(None);

    /// A deadline `timeout` from now; [`NEVER`](Self::NEVER) if that is further than the clock can
    /// count.
    pub(crate) fn within(timeout: Duration) -> Self {
        Self(Instant::now().checked_add(timeout))
    }

    /// The earlier of this deadline and `timeout` from now.
    pub(crate) fn or_within(self, timeout: Duration) -> Self {
        let Self(other) = Self::within(timeout);
        Self(self.0.into_iter().chain(other).min())
    }

    /// The deadline as an `Instant`, for crates that take one; `None` for [`NEVER`](Self::NEVER).
    pub(crate) const fn instant(self) -> Option<Instant> {
        self.0
    }

    pub(crate) fn has_passed(self) -> bool {
        self.0.is_some_and(|end| left(end).is_zero())
    }
}

/// The time until `end`.
#[cfg(not(shuttle))]
fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now())
}

/// A model has no clock. At each look, a deadline has passed or is far away, at random, but for one
/// that had passed from the start; a wait that has begun then ends by a notification only, so that a
/// notification that is missing is found.
#[cfg(shuttle)]
fn left(end: Instant) -> Duration {
    use shuttle::rand::Rng as _;
    let passed = end <= Instant::now() || shuttle::rand::thread_rng().gen_bool(0.5);
    if passed { Duration::ZERO } else { Duration::MAX }
}

/// Waits on `condvar`. A panic of another thread is handled as by [`lock`]. The wait may end
/// without a notification.
///
/// # Errors
///
/// The lock guard, if the deadline has passed.
pub(crate) fn wait_until<'a, T>(
    condvar: &Condvar,
    mut guard: MutexGuard<'a, T>,
    deadline: Deadline,
) -> Result<MutexGuard<'a, T>, MutexGuard<'a, T>> {
    let left = deadline.0.map(left);
    if left.is_some_and(|left| left.is_zero()) {
        return Err(guard);
    }
    #[cfg(shuttle)]
    match left {
        None => guard = condvar.wait(guard).unwrap_or_else(PoisonError::into_inner),
        Some(left) => {
            let waited = condvar.wait_timeout(guard, left);
            (guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
    #[cfg(not(shuttle))]
    match left {
        None => condvar.wait(&mut guard),
        Some(left) => drop(condvar.wait_for(&mut guard, left)),
    }
    Ok(guard)
}

/// Locks for reading. A panic of another thread is handled as by [`lock`].
pub(crate) fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    #[cfg(shuttle)]
    return lock.read().unwrap_or_else(PoisonError::into_inner);
    #[cfg(not(shuttle))]
    return lock.read();
}

/// Locks for writing. A panic of another thread is handled as by [`lock`].
pub(crate) fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    #[cfg(shuttle)]
    return lock.write().unwrap_or_else(PoisonError::into_inner);
    #[cfg(not(shuttle))]
    return lock.write();
}

#[cfg(all(test, shuttle))]
pub(crate) mod models {
    /// Runs a model under as many schedules of each kind as `VRAM_MODEL_SCHEDULES` asks for.
    pub(crate) fn under_all_schedules(model: fn()) {
        let schedules = std::env::var("VRAM_MODEL_SCHEDULES").ok();
        let schedules = schedules.map_or(2_000, |number| number.parse().unwrap());
        shuttle::check_random(model, schedules);
        shuttle::check_pct(model, schedules, 3);
    }
}
