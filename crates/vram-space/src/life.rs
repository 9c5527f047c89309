//! The life of a GPU's memory: whether the device takes calls, and which calls run on it.
//!
//! The memory of a device has lives, counted by epochs: each reset begins a new one, and memory of
//! an earlier life is never written to or handed out. The states of a life and every transition
//! between them stand in [`table`]; this file holds one life under one lock. Transitions call
//! nothing foreign. What the owner of the memory has to be told about one, it is told under that
//! lock, so that it hears of changes in the order in which they happen.

mod by_number;
#[cfg(all(test, shuttle))]
mod models;
pub(crate) mod pass;
pub(crate) mod table;

use core::hash::BuildHasherDefault;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use vram_gpu::GpuError;

use crate::block::Block;
use crate::life::by_number::ByNumber;
use crate::life::pass::{Claim, LifePass};
use crate::life::table::{LifeCause, LifeState, LifeStep};
use crate::staging::at_work::on_a_worker;
use crate::sync::{Condvar, Mutex, MutexGuard, ThreadId, current_thread, lock, wait_until};

/// The life of one GPU's memory, as its owner knows it.
///
/// Every call that touches the device holds a [`LifePass`], so that a reset, or the end of the
/// owner, can wait for it.
#[derive(Debug, Default)]
pub struct Life {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    epoch: u64,
    state: State,
    /// Set for good when the owner begins to close: no new call begins.
    closing: bool,
    /// Running calls, by the thread that began them.
    passes: HashMap<ThreadId, usize, BuildHasherDefault<ByNumber>>,
    pass_count: usize,
    /// Places of the GPU that are taken: by shards, reservations and running calls.
    places: usize,
    /// The thread that resets the device.
    resetter: Option<ThreadId>,
    /// Blocks of a lost device. They are dropped after the reset, so that no free is sent before
    /// it.
    buried: Vec<Arc<Block>>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Serving,
    Draining,
    Resetting,
    Restoring,
    /// `told` is false while the owner has not heard of it: a loss in the middle of restoring is
    /// told after the reset that it ended.
    Lost {
        error: GpuError,
        told: bool,
    },
    Closed,
}

/// Why a call may not begin, or may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A reset of the working device waits, or has begun.
    InUse,
    Lost(GpuError),
    Closed,
}

impl State {
    const fn kind(&self) -> LifeState {
        match self {
            Self::Serving => LifeState::Serving,
            Self::Draining => LifeState::Draining,
            Self::Resetting => LifeState::Resetting,
            Self::Restoring => LifeState::Restoring,
            Self::Lost { .. } => LifeState::Lost,
            Self::Closed => LifeState::Closed,
        }
    }
}

impl Inner {
    /// What `cause` leads to.
    ///
    /// # Errors
    ///
    /// Why it is refused in this state.
    const fn look(&self, cause: LifeCause) -> Result<LifeState, Refused> {
        match (self.state.kind().step(cause), self.state) {
            (LifeStep::To(next), _) => Ok(next),
            (LifeStep::Lost, State::Lost { error, .. }) => Err(Refused::Lost(error)),
            (LifeStep::Closed, _) => Err(Refused::Closed),
            // `Never`: a caller that comes out of turn changes nothing.
            _ => Err(Refused::InUse),
        }
    }

    /// Makes the transition that `cause` leads to.
    ///
    /// # Errors
    ///
    /// Why it is refused; nothing changed.
    const fn step(&mut self, cause: LifeCause) -> Result<(), Refused> {
        match self.look(cause) {
            Ok(LifeState::Serving) => self.state = State::Serving,
            Ok(LifeState::Draining) => self.state = State::Draining,
            Ok(LifeState::Resetting) => self.state = State::Resetting,
            Ok(LifeState::Restoring) => self.state = State::Restoring,
            Ok(LifeState::Closed) => self.state = State::Closed,
            // Its error is recorded by `lose`, and stays.
            Ok(LifeState::Lost) => {}
            Err(refused) => return Err(refused),
        }
        Ok(())
    }
}

impl Life {
    /// The present state.
    pub fn state(&self) -> LifeState {
        lock(&self.inner).state.kind()
    }

    /// Why the device is lost, or `None`.
    pub fn lost(&self) -> Option<GpuError> {
        match lock(&self.inner).state {
            State::Lost { error, .. } => Some(error),
            _ => None,
        }
    }

    /// The number of the present life, from 0.
    pub fn epoch(&self) -> u64 {
        lock(&self.inner).epoch
    }

    /// Registers a call that touches the device.
    ///
    /// # Errors
    ///
    /// [`Refused`] where the device is lost or about to be reset, or its owner closes it.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<LifePass, Refused> {
        let mut inner = lock(&self.inner);
        inner.look(LifeCause::Enter)?;
        if inner.closing {
            return Err(Refused::Closed);
        }
        Ok(self.register(&mut inner))
    }

    /// Registers a call that returns memory. Never refused, not even after close or loss of the
    /// device; whether it may still send something there, `Gpu::ready` says.
    pub fn begin_return(self: &Arc<Self>) -> LifePass {
        self.register(&mut lock(&self.inner))
    }

    fn register(self: &Arc<Self>, inner: &mut Inner) -> LifePass {
        let thread = current_thread();
        let mine = inner.passes.entry(thread).or_default();
        *mine = mine.saturating_add(1);
        inner.pass_count = inner.pass_count.saturating_add(1);
        LifePass::new(Arc::clone(self), inner.epoch, thread)
    }

    /// Whether a call that runs already may go to the device.
    ///
    /// # Errors
    ///
    /// [`Refused`] where the device is lost, being reset, or closed.
    pub(crate) fn work(&self) -> Result<(), Refused> {
        lock(&self.inner).look(LifeCause::Work).map(drop)
    }

    /// Records a loss, unless the error is from an earlier life or the loss is already known.
    /// `told` runs under the lock if it was recorded, or, if the device was being restored, at the
    /// end of that reset.
    pub(crate) fn lose<T>(
        &self,
        error: GpuError,
        epoch: Option<u64>,
        told: impl FnOnce(GpuError) -> T,
    ) -> Option<T> {
        let mut inner = lock(&self.inner);
        let outdated = epoch.is_some_and(|epoch| epoch != inner.epoch);
        let before = inner.state.kind();
        if outdated || matches!(before, LifeState::Lost | LifeState::Closed) {
            return None;
        }
        let restoring = before == LifeState::Restoring;
        inner.state = State::Lost { error, told: !restoring };
        (!restoring).then(|| told(error))
    }

    /// Runs `commit` if memory of the life `epoch` can still become somebody's: the device is not
    /// lost. A loss comes before it or after it.
    ///
    /// `commit` runs under the lock: it only assigns, and tells.
    ///
    /// # Errors
    ///
    /// [`Refused`]; `commit` did not run.
    pub(crate) fn arrive<T>(&self, epoch: u64, commit: impl FnOnce() -> T) -> Result<T, Refused> {
        let inner = lock(&self.inner);
        inner.look(LifeCause::Work)?;
        if inner.epoch == epoch { Ok(commit()) } else { Err(Refused::InUse) }
    }

    /// Refuses new calls, for a planned reset of a working device.
    ///
    /// # Errors
    ///
    /// [`Refused`] where the device is lost, or already being reset or restored.
    pub(crate) fn drain(&self) -> Result<(), Refused> {
        lock(&self.inner).step(LifeCause::Drain)
    }

    /// Reverts a drain. A device that was lost meanwhile stays lost.
    pub fn stay(&self) {
        let _never = lock(&self.inner).step(LifeCause::Stay);
    }

    /// Waits until no call is running. From then on no call but the reset is sent to the device.
    ///
    /// # Errors
    ///
    /// As [`settled_until`](Self::settled_until).
    pub fn begin_until(&self, deadline: Option<Instant>, inside: bool) -> Result<(), usize> {
        let mut inner = self.wait(deadline, inside, |inner| inner.pass_count, None)?;
        inner.step(LifeCause::Begin).map_err(|_out_of_turn| 1)
    }

    /// Begins the next life of the device's memory, in which its shards are restored. `install` puts
    /// its memory in place under the lock, before any call enters; it is given the life's number.
    /// Returns what it answers, and the blocks kept from the last life.
    pub(crate) fn renew<T>(&self, install: impl FnOnce(u64) -> T) -> (T, Vec<Arc<Block>>) {
        let mut inner = lock(&self.inner);
        if inner.step(LifeCause::Renew).is_ok() {
            inner.epoch = inner.epoch.saturating_add(1);
        }
        (install(inner.epoch), core::mem::take(&mut inner.buried))
    }

    /// Ends the restoring: `told` first, under the lock, then of a loss in the meantime `lost`.
    /// Returns that error and what `lost` answered.
    pub(crate) fn recover<T>(
        &self,
        told: impl FnOnce(),
        lost: impl FnOnce(GpuError) -> T,
    ) -> Option<(GpuError, T)> {
        let mut inner = lock(&self.inner);
        if inner.step(LifeCause::Recover).is_err() {
            return None;
        }
        told();
        match &mut inner.state {
            State::Lost { error, told } if !*told => {
                *told = true;
                Some((*error, lost(*error)))
            }
            _ => None,
        }
    }

    /// Counts a place that was taken.
    pub(crate) fn count_place(&self) {
        let mut inner = lock(&self.inner);
        inner.places = inner.places.saturating_add(1);
    }

    /// Uncounts a place that was released.
    pub(crate) fn uncount_place(&self) {
        let mut inner = lock(&self.inner);
        inner.places = inner.places.saturating_sub(1);
        drop(inner);
        self.changed.notify_all();
    }

    /// Refuses all further calls but those that return memory.
    pub fn close(&self) {
        lock(&self.inner).closing = true;
    }

    /// Ends the life after the owner has given up everything there. Returns false while a reset is
    /// under way.
    pub fn closed(&self) -> bool {
        lock(&self.inner).step(LifeCause::Close).is_ok()
    }

    /// Waits until no call is running.
    ///
    /// # Errors
    ///
    /// As [`settled_until`](Self::settled_until).
    pub fn quiet_until(&self, deadline: Option<Instant>, inside: bool) -> Result<(), usize> {
        self.wait(deadline, inside, |inner| inner.pass_count, None).map(drop)
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
        let left = |inner: &Inner| {
            let resetting = usize::from(inner.resetter.is_some());
            let more = inner.places.saturating_sub(places);
            // A call that releases a place is running and holds that place, so it is counted once.
            inner.pass_count.max(more).saturating_add(resetting)
        };
        self.wait(deadline, inside, left, Some(current_thread())).map(drop)
    }

    fn wait(
        &self,
        deadline: Option<Instant>,
        inside: bool,
        left: impl Fn(&Inner) -> usize,
        resetter: Option<ThreadId>,
    ) -> Result<MutexGuard<'_, Inner>, usize> {
        let own = current_thread();
        let mut inner = lock(&self.inner);
        loop {
            let left = left(&inner);
            if left == 0 {
                return Ok(inner);
            }
            let own_call = inner.passes.contains_key(&own)
                || (resetter.is_some() && inner.resetter == resetter);
            if own_call || inside || on_a_worker() {
                return Err(left);
            }
            match wait_until(&self.changed, inner, deadline) {
                Ok(woken) => inner = woken,
                Err(_late) => return Err(left),
            }
        }
    }

    /// Ends a running call.
    fn end_call(&self, thread: ThreadId) {
        let mut inner = lock(&self.inner);
        if let Some(mine) = inner.passes.get_mut(&thread) {
            *mine = mine.saturating_sub(1);
            if *mine == 0 {
                inner.passes.remove(&thread);
            }
        }
        inner.pass_count = inner.pass_count.saturating_sub(1);
        drop(inner);
        self.changed.notify_all();
    }

    /// Ends a claim.
    fn end_claim(&self) {
        lock(&self.inner).resetter = None;
        self.changed.notify_all();
    }

    /// The right to reset the device, unless another thread holds it.
    pub fn claim(self: &Arc<Self>) -> Option<Claim> {
        let mut inner = lock(&self.inner);
        if inner.resetter.is_some() {
            return None;
        }
        inner.resetter = Some(current_thread());
        drop(inner);
        Some(Claim::new(Arc::clone(self)))
    }

    /// Keeps a block of a lost device from being dropped before the reset. Returns the block if it
    /// is of an earlier life: then the caller can drop it at once.
    pub(crate) fn bury(&self, block: Arc<Block>) -> Option<Arc<Block>> {
        let mut inner = lock(&self.inner);
        if block.epoch() != inner.epoch {
            return Some(block);
        }
        inner.buried.push(block);
        None
    }
}
