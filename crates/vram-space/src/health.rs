//! Whether a GPU takes calls, and which calls are running on it.

use std::sync::Arc;
use std::thread;
use std::thread::ThreadId;
use std::time::Instant;

use vram_gpu::GpuError;

use crate::block::Block;
use crate::staging::at_work::on_a_worker;
use crate::sync::{Condvar, Mutex, MutexGuard, lock, wait_until};

/// The state of one GPU's device, as its manager knows it.
///
/// The device's memory has lives: each reset begins a new one, and memory of an earlier life is
/// never written to or handed out. A call that takes memory holds a [`DeviceCall`] until a shard
/// lies there, so that a reset, or the end of the manager, can wait for it.
#[derive(Debug, Default)]
pub struct Health {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lost: Option<GpuError>,
    /// Set while a planned reset is the only reason why the device refuses calls.
    given_up: Option<GivenUp>,
    closed: bool,
    life: u64,
    /// One entry for each running call: the thread that began it.
    under_way: Vec<ThreadId>,
    /// Places of the GPU that are taken: by shards, reservations and running calls.
    places: usize,
    /// The thread that resets the device.
    resetting: Option<ThreadId>,
    /// Blocks of a lost device. They are dropped after the reset, so that no free is sent before
    /// it.
    buried: Vec<Arc<Block>>,
}

/// How far the reset of a working device has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GivenUp {
    /// The reset waits for running calls and may still be refused. Memory that those calls release
    /// is wiped and freed as usual.
    Waiting,
    /// The reset has begun. No other call is sent to the device.
    Begun,
}

/// Why a call may not begin.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refused {
    Lost(GpuError),
    Closed,
}

/// A running call that takes or returns memory of a GPU. Dropping this value ends the call.
#[derive(Debug)]
pub struct DeviceCall {
    health: Arc<Health>,
    thread: ThreadId,
}

/// The right to reset a device, until dropped. Only one thread holds it at a time.
#[derive(Debug)]
pub struct Claim {
    health: Arc<Health>,
}

impl Health {
    /// Why the device is lost, or `None`.
    pub fn lost(&self) -> Option<GpuError> {
        lock(&self.state).lost
    }

    /// The number of the present life of the device's memory, from 0.
    pub(crate) fn life(&self) -> u64 {
        lock(&self.state).life
    }

    /// Records a loss, unless the error is from an earlier life or the loss is already known.
    /// Returns true if it was recorded.
    pub fn lose(&self, error: GpuError, life: Option<u64>) -> bool {
        let mut state = lock(&self.state);
        let outdated = life.is_some_and(|life| life != state.life);
        let known = state.lost.is_some() && state.given_up.is_none();
        if outdated || known {
            return false;
        }
        state.lost = Some(error);
        state.given_up = None;
        true
    }

    /// Refuses new calls, for a planned reset of a working device. Returns false if the device is
    /// lost.
    pub fn give_up(&self, error: GpuError) -> bool {
        let mut state = lock(&self.state);
        if state.lost.is_some() {
            return false;
        }
        state.lost = Some(error);
        state.given_up = Some(GivenUp::Waiting);
        true
    }

    /// Reverts [`give_up`](Self::give_up). A device that was lost meanwhile stays lost.
    pub fn keep_on(&self) {
        let mut state = lock(&self.state);
        if state.given_up.take().is_some() {
            state.lost = None;
        }
    }

    /// Returns true if the device takes calls, or still takes cleanup calls because a reset waits
    /// for them. Both conditions are read under one lock: between two reads a reset could begin to
    /// wait, or be refused.
    pub fn allows_cleanup(&self) -> bool {
        let state = lock(&self.state);
        state.lost.is_none() || state.given_up == Some(GivenUp::Waiting)
    }

    /// Marks the device as usable again.
    pub fn recover(&self) {
        let mut state = lock(&self.state);
        (state.lost, state.given_up) = (None, None);
    }

    /// Waits until no call is running. From then on no call but the reset is sent to the device.
    ///
    /// # Errors
    ///
    /// As [`settled_until`](Self::settled_until).
    pub fn begin_until(&self, deadline: Option<Instant>, inside: bool) -> Result<(), usize> {
        let mut state = self.wait(deadline, inside, |state| state.under_way.len(), None)?;
        if state.given_up.is_some() {
            state.given_up = Some(GivenUp::Begun);
        }
        Ok(())
    }

    /// Registers a call that takes memory.
    ///
    /// # Errors
    ///
    /// [`Refused`] where the device is lost or its owner closed it.
    pub(crate) fn begin_call(self: &Arc<Self>) -> Result<DeviceCall, Refused> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(Refused::Closed);
        }
        if let Some(error) = state.lost {
            return Err(Refused::Lost(error));
        }
        let thread = thread::current().id();
        state.under_way.push(thread);
        drop(state);
        Ok(DeviceCall { health: Arc::clone(self), thread })
    }

    /// Registers a call that returns memory. Never refused, not even after close or device loss.
    pub fn begin_return(self: &Arc<Self>) -> DeviceCall {
        let thread = thread::current().id();
        lock(&self.state).under_way.push(thread);
        DeviceCall { health: Arc::clone(self), thread }
    }

    /// Counts a place that was taken.
    pub(crate) fn count_place(&self) {
        let mut state = lock(&self.state);
        state.places = state.places.saturating_add(1);
    }

    /// Uncounts a place that was released.
    pub(crate) fn uncount_place(&self) {
        let mut state = lock(&self.state);
        state.places = state.places.saturating_sub(1);
        drop(state);
        self.changed.notify_all();
    }

    /// Refuses all further calls that take memory.
    pub fn close(&self) {
        lock(&self.state).closed = true;
    }

    /// Waits until no call is running.
    ///
    /// # Errors
    ///
    /// As [`settled_until`](Self::settled_until).
    pub fn quiet_until(&self, deadline: Option<Instant>, inside: bool) -> Result<(), usize> {
        self.wait(deadline, inside, |state| state.under_way.len(), None).map(drop)
    }

    /// Waits until no call is running, no thread resets the device, and at most `places` places are
    /// taken. Returns at once on a thread that has a running call itself: waiting would never end.
    ///
    /// # Errors
    ///
    /// How many calls and places are left.
    pub fn settled_until(
        &self,
        deadline: Option<Instant>,
        inside: bool,
        places: usize,
    ) -> Result<(), usize> {
        let left = |state: &State| {
            let resetting = usize::from(state.resetting.is_some());
            let more = state.places.saturating_sub(places);
            // A call that releases a place is running and holds that place, so it is counted once.
            state.under_way.len().max(more).saturating_add(resetting)
        };
        let own = thread::current().id();
        self.wait(deadline, inside, left, Some(own)).map(drop)
    }

    fn wait(
        &self,
        deadline: Option<Instant>,
        inside: bool,
        left: impl Fn(&State) -> usize,
        resetter: Option<ThreadId>,
    ) -> Result<MutexGuard<'_, State>, usize> {
        let own = thread::current().id();
        let mut state = lock(&self.state);
        loop {
            let left = left(&state);
            if left == 0 {
                return Ok(state);
            }
            let own_call = state.under_way.contains(&own)
                || (resetter.is_some() && state.resetting == resetter);
            if own_call || inside || on_a_worker() {
                return Err(left);
            }
            match wait_until(&self.changed, state, deadline) {
                Ok(woken) => state = woken,
                Err(_late) => return Err(left),
            }
        }
    }

    /// The right to reset the device, unless another thread holds it.
    pub fn claim(self: &Arc<Self>) -> Option<Claim> {
        let mut state = lock(&self.state);
        if state.resetting.is_some() {
            return None;
        }
        state.resetting = Some(thread::current().id());
        drop(state);
        Some(Claim { health: Arc::clone(self) })
    }

    /// Keeps a block of a lost device from being dropped before the reset. Returns the block if it
    /// is of an earlier life: then the caller can drop it at once.
    pub(crate) fn bury(&self, block: Arc<Block>) -> Option<Arc<Block>> {
        let mut state = lock(&self.state);
        if block.life() != state.life {
            return Some(block);
        }
        state.buried.push(block);
        None
    }

    /// Begins the next life of the device's memory. Returns its number, and the blocks kept from
    /// the last life.
    pub fn renew(&self) -> (u64, Vec<Arc<Block>>) {
        let mut state = lock(&self.state);
        state.life = state.life.saturating_add(1);
        (state.life, core::mem::take(&mut state.buried))
    }
}

impl Drop for DeviceCall {
    fn drop(&mut self) {
        let mut state = lock(&self.health.state);
        if let Some(position) = state.under_way.iter().position(|thread| *thread == self.thread) {
            state.under_way.swap_remove(position);
        }
        drop(state);
        self.health.changed.notify_all();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.health.state).resetting = None;
        self.health.changed.notify_all();
    }
}
