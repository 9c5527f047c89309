//! The slots of a device, and the order in which callers get them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Slots that nobody uses. Who waits gets the next one in the order of asking; nobody waits with a
/// slot in hand, so each wait ends with a launch that was there before.
pub(super) struct Pool<S> {
    state: Mutex<State<S>>,
    returned: Condvar,
}

struct State<S> {
    slots: Vec<S>,
    /// The number that the next caller draws, and that of the caller whose turn it is.
    drawn: u64,
    turn: u64,
}

impl<S> Pool<S> {
    /// A pool without slots.
    pub(super) const fn new() -> Self {
        let state = State { slots: Vec::new(), drawn: 0, turn: 0 };
        Self { state: Mutex::new(state), returned: Condvar::new() }
    }

    /// A slot, after those who asked before. The caller has none.
    pub(super) fn take(&self) -> S {
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
    pub(super) fn try_take(&self) -> Option<S> {
        let mut state = self.lock();
        if state.turn == state.drawn { state.slots.pop() } else { None }
    }

    /// Returns a slot whose work was waited for, or of a device that is lost.
    pub(super) fn put(&self, slot: S) {
        self.lock().slots.push(slot);
        self.returned.notify_all();
    }

    /// All slots, at the end.
    pub(super) fn drain(&mut self) -> Vec<S> {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        core::mem::take(&mut state.slots)
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn who_waits_is_served_in_the_order_of_asking_and_before_who_does_not_wait() {
        let pool = Pool::new();
        pool.put(0);
        let first = pool.take();
        assert_eq!(pool.try_take(), None);
        let (told, served) = mpsc::channel();
        thread::scope(|scope| {
            for number in 1..=5_u64 {
                let (pool, told) = (&pool, told.clone());
                scope.spawn(move || {
                    let slot = pool.take();
                    told.send(number).unwrap();
                    pool.put(slot);
                });
                // Until it has drawn its number.
                while pool.lock().drawn <= number {
                    thread::yield_now();
                }
            }
            pool.put(first);
            assert_eq!(served.iter().take(5).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        });
        assert_eq!(pool.try_take(), Some(0));
    }

    #[test]
    fn a_slot_that_somebody_waits_for_is_not_taken_by_the_way() {
        let pool = Pool::new();
        pool.put('a');
        let slot = pool.take();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| pool.take());
            while pool.lock().drawn < 2 {
                thread::yield_now();
            }
            // Under its lock, so that the waiting one cannot be there first.
            let mut state = pool.lock();
            state.slots.push(slot);
            assert_ne!(state.turn, state.drawn);
            drop(state);
            let by_the_way = pool.try_take();
            pool.returned.notify_all();
            assert_eq!((by_the_way, waiting.join().unwrap()), (None, 'a'));
        });
    }
}
