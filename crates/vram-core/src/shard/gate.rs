//! Who may do what to one shard at the same time: many readers, one mover, and leases.

use core::cell::RefCell;
use core::marker::PhantomData;
use std::collections::VecDeque;

use crate::sync::{Condvar, Deadline, Mutex, MutexGuard, lock, wait_until};

/// Orders the users of one shard.
///
/// Shared users (read, verify, unseal) run together; an exclusive one (free, migrate, open, close)
/// runs alone. Both wait for each other in the order in which they came, so neither starves. A lease
/// is held by the caller for as long as they like: an exclusive user is refused while one is out,
/// or waits for it outside the queue, in nobody's way, until a deadline of their own.
///
/// A callback of the caller can call back into the manager from inside a shared use. So that no
/// two such threads wait for each other in a circle, a thread that already uses some shard waits
/// only for an exclusive user who is at work (who waits for nobody), never in the queue, and is
/// refused where it asks to be exclusive and cannot be at once.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    shared: usize,
    exclusive: bool,
    leases: usize,
    next_ticket: u64,
    queue: VecDeque<u64>,
}

/// Why exclusive use, or use from inside one's own exclusive use, was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy {
    /// Leases that are out; 0 if the calling thread is in its own way.
    pub(crate) leases: usize,
}

/// Why a user who brought a deadline did not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Leases are out, or the calling thread is in its own way.
    Busy(Busy),
    /// Others were inside until the deadline.
    TimedOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Shared,
    Exclusive,
}

thread_local! {
    /// The gates that this thread is inside of, by address, innermost last.
    static HELD: RefCell<Vec<(usize, Use)>> = const { RefCell::new(Vec::new()) };
}

/// Whether the calling thread uses some shard: it is in a callback of a call of this crate.
pub(crate) fn is_inside_any() -> bool {
    // While the thread ends there is nothing to ask, and no callback.
    HELD.try_with(|held| !held.borrow().is_empty()).unwrap_or(false)
}

impl Gate {
    fn address(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    /// How the calling thread uses this gate already, and whether it uses any.
    fn held(&self) -> (Option<Use>, bool) {
        HELD.with_borrow(|held| {
            let mine = held.iter().rev().find(|(gate, _)| *gate == self.address());
            (mine.map(|(_, kind)| *kind), !held.is_empty())
        })
    }

    /// Enters as one of many; waits while somebody is exclusive or waits to be.
    ///
    /// # Errors
    ///
    /// [`Busy`] if the calling thread is inside its own exclusive use.
    pub(crate) fn shared(&self) -> Result<SharedPass<'_>, Busy> {
        self.shared_until(Deadline::NEVER).map_err(Refusal::for_ever)
    }

    /// As [`shared`](Self::shared), until a deadline.
    ///
    /// # Errors
    ///
    /// [`Refusal::Busy`] as there, [`Refusal::TimedOut`].
    pub(crate) fn shared_until(&self, deadline: Deadline) -> Result<SharedPass<'_>, Refusal> {
        let mut state = lock(&self.state);
        match self.held() {
            (Some(Use::Exclusive), _) => return Err(Refusal::Busy(Busy { leases: 0 })),
            // Nobody can be exclusive now, and waiting behind one who wants to be would never end.
            (Some(Use::Shared), _) => {}
            (None, true) => {
                while state.exclusive {
                    state = wait_until(&self.changed, state, deadline)
                        .map_err(|_state| Refusal::TimedOut)?;
                }
            }
            (None, false) => state = self.queued(state, deadline, |state| !state.exclusive)?,
        }
        state.shared = state.shared.saturating_add(1);
        drop(state);
        Ok(SharedPass { inside: Inside::new(self, Use::Shared) })
    }

    /// Enters alone; waits for all who are inside or came before.
    ///
    /// # Errors
    ///
    /// [`Busy`] if a lease is out, or if the calling thread uses some shard already and would have
    /// to wait.
    pub(crate) fn exclusive(&self) -> Result<ExclusivePass<'_>, Busy> {
        let state = lock(&self.state);
        if state.leases > 0 {
            return Err(Busy { leases: state.leases });
        }
        let state = self.alone(state, Deadline::NEVER).map_err(Refusal::for_ever)?;
        // One may have been taken out during the wait.
        if state.leases > 0 {
            return Err(Busy { leases: state.leases });
        }
        Ok(self.enter_alone(state))
    }

    /// As [`exclusive`](Self::exclusive), but waits for leases to end too, until a deadline. Others
    /// come and go meanwhile, and may take out more leases.
    ///
    /// # Errors
    ///
    /// [`Refusal::Busy`] if a lease is still out then, or as there; [`Refusal::TimedOut`].
    pub(crate) fn exclusive_until(&self, deadline: Deadline) -> Result<ExclusivePass<'_>, Refusal> {
        let mut state = lock(&self.state);
        loop {
            let (mine, any) = self.held();
            while state.leases > 0 {
                let busy = Busy { leases: state.leases };
                // Whoever it waits for may be waiting for this very thread.
                if mine.is_some() || any {
                    return Err(Refusal::Busy(busy));
                }
                state = wait_until(&self.changed, state, deadline)
                    .map_err(|state| Refusal::Busy(Busy { leases: state.leases }))?;
            }
            state = self.alone(state, deadline)?;
            if state.leases == 0 {
                return Ok(self.enter_alone(state));
            }
        }
    }

    /// Waits until all who are inside, or came before, have left; leases stay. For a shard whose
    /// device takes no calls any more, so that whoever comes later leaves at once.
    ///
    /// # Errors
    ///
    /// [`Refusal::TimedOut`]; [`Refusal::Busy`] if the calling thread uses some shard already and
    /// would have to wait.
    pub(crate) fn drained_until(&self, deadline: Deadline) -> Result<(), Refusal> {
        let state = lock(&self.state);
        self.alone(state, deadline).map(drop)
    }

    /// Waits until nobody else is inside.
    fn alone<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        deadline: Deadline,
    ) -> Result<MutexGuard<'a, State>, Refusal> {
        match self.held() {
            (None, false) => self.queued(state, deadline, |state| !state.occupied()),
            (None, true) if !state.occupied() => Ok(state),
            (_, true) | (Some(_), _) => Err(Refusal::Busy(Busy { leases: state.leases })),
        }
    }

    fn enter_alone<'a>(&'a self, mut state: MutexGuard<'a, State>) -> ExclusivePass<'a> {
        state.exclusive = true;
        drop(state);
        ExclusivePass { inside: Inside::new(self, Use::Exclusive) }
    }

    /// Queues up, and waits until it is its turn and `open` says so.
    fn queued<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        deadline: Deadline,
        open: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'a, State>, Refusal> {
        let ticket = state.draw();
        while !open(&state) || state.queue.front() != Some(&ticket) {
            state = wait_until(&self.changed, state, deadline).map_err(|mut state| {
                state.queue.retain(|waiting| *waiting != ticket);
                drop(state);
                // Whoever stood behind it may come in.
                self.changed.notify_all();
                Refusal::TimedOut
            })?;
        }
        state.queue.pop_front();
        // The next in the queue may come in as well.
        self.changed.notify_all();
        Ok(state)
    }

    /// Leases that are out.
    pub(crate) fn leases(&self) -> usize {
        lock(&self.state).leases
    }

    /// Counts one more lease. The caller is inside, so that nobody is exclusive.
    pub(crate) fn lease(&self, _inside: &SharedPass<'_>) {
        let mut state = lock(&self.state);
        state.leases = state.leases.saturating_add(1);
    }

    /// Counts one lease less.
    pub(crate) fn end_lease(&self) {
        let mut state = lock(&self.state);
        state.leases = state.leases.saturating_sub(1);
        drop(state);
        self.changed.notify_all();
    }
}

impl Refusal {
    /// What the refusal means to a caller without a deadline.
    fn for_ever(self) -> Busy {
        match self {
            Self::Busy(busy) => busy,
            // Never: their deadline does not pass.
            Self::TimedOut => Busy { leases: 0 },
        }
    }
}

impl State {
    /// A place at the end of the queue.
    fn draw(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket = ticket.wrapping_add(1);
        self.queue.push_back(ticket);
        ticket
    }

    const fn occupied(&self) -> bool {
        self.exclusive || self.shared > 0
    }
}

/// Shared use, until dropped. Bound to its thread, which the re-entrance rule is about.
#[derive(Debug)]
pub(crate) struct SharedPass<'a> {
    #[expect(dead_code, reason = "held for its drop")]
    inside: Inside<'a>,
}

/// Exclusive use, until dropped. Bound to its thread.
#[derive(Debug)]
pub(crate) struct ExclusivePass<'a> {
    #[expect(dead_code, reason = "held for its drop")]
    inside: Inside<'a>,
}

#[derive(Debug)]
struct Inside<'a> {
    gate: &'a Gate,
    kind: Use,
    bound_to_thread: PhantomData<*const ()>,
}

impl<'a> Inside<'a> {
    fn new(gate: &'a Gate, kind: Use) -> Self {
        HELD.with_borrow_mut(|held| held.push((gate.address(), kind)));
        Self { gate, kind, bound_to_thread: PhantomData }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let entry = (self.gate.address(), self.kind);
        // While the thread ends its list may be gone already; then nobody asks it any more.
        let _gone = HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            if let Some(position) = held.iter().rposition(|one| *one == entry) {
                held.remove(position);
            }
        });
        let mut state = lock(&self.gate.state);
        match self.kind {
            Use::Shared => state.shared = state.shared.saturating_sub(1),
            Use::Exclusive => state.exclusive = false,
        }
        drop(state);
        self.gate.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
