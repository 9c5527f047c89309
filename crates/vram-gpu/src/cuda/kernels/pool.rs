//! The slots of a device, and the order in which callers get them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::slot::Slot;

/// Slots that nobody uses. Who waits gets the next one in the order of asking; nobody waits with a
/// slot in hand, so each wait ends with a launch that was there before.
pub(super) struct Pool {
    state: Mutex<State>,
    returned: Condvar,
}

struct State {
    slots: Vec<Slot>,
    /// The number that the next caller draws, and that of the caller whose turn it is.
    drawn: u64,
    turn: u64,
}

impl Pool {
    /// A pool without slots.
    pub(super) const fn new() -> Self {
        let state = State { slots: Vec::new(), drawn: 0, turn: 0 };
        Self { state: Mutex::new(state), returned: Condvar::new() }
    }

    /// A slot, after those who asked before. The caller has none.
    pub(super) fn take(&self) -> Slot {
        let mut state = self.lock();
        let number = state.drawn;
        state.drawn = number.wrapping_add(1);
        loop {
            if state.turn == number
                && let Some(slot) = state.slots.pop()
            {
                state.turn = number.wrapping_add(1);
                drop(state);
                self.returned.notify_all();
                return slot;
            }
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A slot that is free and that nobody waits for.
    pub(super) fn try_take(&self) -> Option<Slot> {
        let mut state = self.lock();
        if state.turn == state.drawn { state.slots.pop() } else { None }
    }

    /// Returns a slot whose work was waited for, or of a device that is lost.
    pub(super) fn put(&self, slot: Slot) {
        self.lock().slots.push(slot);
        self.returned.notify_all();
    }

    /// All slots, at the end.
    pub(super) fn drain(&mut self) -> Vec<Slot> {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        core::mem::take(&mut state.slots)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
