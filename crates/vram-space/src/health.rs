//! Whether a GPU takes calls, and which calls are under way on it.

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
/// Its memory has lives: each reset begins a new one, and nothing of an earlier life is ever
/// written to or handed out. Whoever takes memory holds an [`UnderWay`] until a shard lies there,
/// so that a reset, or the manager's end, can wait for them.
#[derive(Debug, Default)]
pub struct Health {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lost: Option<GpuError>,
    /// Set while nothing but a reset keeps the device from taking calls.
    given_up: Option<GivenUp>,
    closed: bool,
    life: u64,
    /// One for each call that is under way: the thread that began it.
    under_way: Vec<ThreadId>,
    /// Places of the GPU that anybody holds: shards, reservations, and calls under way.
    places: usize,
    /// Who is resetting the device.
    resetting: Option<ThreadId>,
    /// Blocks of a lost device: dropped once it was reset, so that nothing is sent to it before.
    buried: Vec<Arc<Block>>,
}

/// How far the reset of a device that works has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GivenUp {
    /// It waits for the calls under way, and may be refused yet: what they leave is wiped and given
    /// back as ever.
    Waiting,
    /// Nothing is sent to the device any more.
    Begun,
}

/// Why nobody may begin.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refused {
    Lost(GpuError),
    Closed,
}

/// A call that is taking memory of a GPU, until dropped.
#[derive(Debug)]
pub struct UnderWay {
    health: Arc<Health>,
    thread: ThreadId,
}

/// The right to reset a device, until dropped. One at a time has it.
#[derive(Debug)]
pub struct Claim {
    health: Arc<Health>,
}

impl Health {
    /// Why the device is lost, if it is.
    pub fn lost(&self) -> Option<GpuError> {
        lock(&self.state).lost
    }

    /// Counts the lives of the device's memory, from 0.
    pub(crate) fn life(&self) -> u64 {
        lock(&self.state).life
    }

    /// Notes a loss, unless it was met in an earlier life. Says whether it is news.
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

    /// Lets nobody begin, for a reset of a device that works. False if it is lost.
    pub fn give_up(&self, error: GpuError) -> bool {
        let mut state = lock(&self.state);
        if state.lost.is_some() {
            return false;
        }
        state.lost = Some(error);
        state.given_up = Some(GivenUp::Waiting);
        true
    }

    /// Takes that back. A device that was lost meanwhile stays so.
    pub fn keep_on(&self) {
        let mut state = lock(&self.state);
        if state.given_up.take().is_some() {
            state.lost = None;
        }
    }

    /// Whether the device takes calls, or takes them from those that a reset waits for. One look:
    /// between two, a reset may begin to wait, or be refused.
    pub fn winds_up(&self) -> bool {
        let state = lock(&self.state);
        state.lost.is_none() || state.given_up == Some(GivenUp::Waiting)
    }

    /// The device takes calls again.
    pub fn recover(&self) {
        let mut state = lock(&self.state);
        (state.lost, state.given_up) = (None, None);
    }

    /// Waits until nobody is under way, and from that moment on sends nothing to the device.
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

    /// Begins to take memory.
    ///
    /// # Errors
    ///
    /// [`Refused`] where the device is lost or its owner closed it.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<UnderWay, Refused> {
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
        Ok(UnderWay { health: Arc::clone(self), thread })
    }

    /// Begins to give memory back, which is always allowed.
    pub fn leave(self: &Arc<Self>) -> UnderWay {
        let thread = thread::current().id();
        lock(&self.state).under_way.push(thread);
        UnderWay { health: Arc::clone(self), thread }
    }

    /// Counts a place that was taken.
    pub(crate) fn count_place(&self) {
        let mut state = lock(&self.state);
        state.places = state.places.saturating_add(1);
    }

    /// Counts a place that went back.
    pub(crate) fn uncount_place(&self) {
        let mut state = lock(&self.state);
        state.places = state.places.saturating_sub(1);
        drop(state);
        self.changed.notify_all();
    }

    /// Nobody begins any more.
    pub fn close(&self) {
        lock(&self.state).closed = true;
    }

    /// Waits until nobody is under way.
    ///
    /// # Errors
    ///
    /// As [`settled_until`](Self::settled_until).
    pub fn quiet_until(&self, deadline: Option<Instant>, inside: bool) -> Result<(), usize> {
        self.wait(deadline, inside, |state| state.under_way.len(), None).map(drop)
    }

    /// Waits until nobody is under way or resetting the device, and no more than so many places are
    /// held. A thread that is itself under way does not wait: it would never end.
    ///
    /// # Errors
    ///
    /// How many are left.
    pub fn settled_until(
        &self,
        deadline: Option<Instant>,
        inside: bool,
        places: usize,
    ) -> Result<(), usize> {
        let left = |state: &State| {
            let resetting = usize::from(state.resetting.is_some());
            let more = state.places.saturating_sub(places);
            // Whoever gives a place back is under way and holds it.
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

    /// The right to reset the device, unless somebody has it.
    pub fn claim(self: &Arc<Self>) -> Option<Claim> {
        let mut state = lock(&self.state);
        if state.resetting.is_some() {
            return None;
        }
        state.resetting = Some(thread::current().id());
        drop(state);
        Some(Claim { health: Arc::clone(self) })
    }

    /// Keeps a block of a lost device from being dropped before it was reset. Handed back if it is
    /// of an earlier life: it can go at once.
    pub(crate) fn bury(&self, block: Arc<Block>) -> Option<Arc<Block>> {
        let mut state = lock(&self.state);
        if block.life() != state.life {
            return Some(block);
        }
        state.buried.push(block);
        None
    }

    /// Begins the next life of the device's memory. Its number, and what was buried in the last one.
    pub fn renew(&self) -> (u64, Vec<Arc<Block>>) {
        let mut state = lock(&self.state);
        state.life = state.life.saturating_add(1);
        (state.life, core::mem::take(&mut state.buried))
    }
}

impl Drop for UnderWay {
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
