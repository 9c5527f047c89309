//! The locks of this crate, and how a panic affects them.
//!
//! Lock order, outermost first: the GPU's arena, its list of unreturned bytes, its life. The locks
//! of its region and its count of blocks may be taken while any of these is held; no lock of this
//! crate is taken while one of these two is held. What the [`Tenants`](crate::Tenants) are told
//! under the lock of a life takes no lock of this crate. The bound of staging is taken alone. No
//! device is called while any of these locks is held.
//!
//! Under `cfg(shuttle)` the primitives are those of the model checker, and a deadline passes at any
//! time, but for one that had passed from the start.

#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard},
    thread::ThreadId,
    thread_local,
};
// Notifying nobody is no call of the operating system there, which every call here does often.
#[cfg(not(shuttle))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
#[cfg(not(shuttle))]
pub(crate) use std::{thread::ThreadId, thread_local};

#[cfg(shuttle)]
use std::sync::PoisonError;
use std::time::Instant;

/// The calling thread.
pub(crate) fn current_thread() -> ThreadId {
    #[cfg(shuttle)]
    return shuttle::thread::current().id();
    #[cfg(not(shuttle))]
    return std::thread::current().id();
}

/// Locks, also after another holder panicked.
///
/// Every critical section of this crate either makes one assignment or moves between states that
/// are each valid, and calls no foreign code. The state that a panicking holder leaves is therefore
/// valid.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(shuttle)]
    return mutex.lock().unwrap_or_else(PoisonError::into_inner);
    #[cfg(not(shuttle))]
    return mutex.lock();
}

/// Waits on `condvar` until `deadline`, or without a limit if there is none. Ignores poisoning like
/// [`lock`]. May wake up without a reason.
///
/// # Errors
///
/// The lock guard, if the deadline has passed.
pub(crate) fn wait_until<'a, T>(
    condvar: &Condvar,
    mut guard: MutexGuard<'a, T>,
    deadline: Option<Instant>,
) -> Result<MutexGuard<'a, T>, MutexGuard<'a, T>> {
    #[cfg(shuttle)]
    {
        use shuttle::rand::Rng;
        // A deadline passes when the schedule says, but for one that had passed from the start.
        let passed = deadline
            .is_some_and(|end| end <= Instant::now() || shuttle::rand::thread_rng().r#gen());
        if passed {
            return Err(guard);
        }
        guard = condvar.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
    #[cfg(not(shuttle))]
    match deadline {
        None => condvar.wait(&mut guard),
        Some(end) if end <= Instant::now() => return Err(guard),
        Some(end) => drop(condvar.wait_until(&mut guard, end)),
    }
    Ok(guard)
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
