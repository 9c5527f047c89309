//! The lock of one shard: many readers or one exclusive user at a time, and leases.

use core::cell::RefCell;
use core::marker::PhantomData;
use std::collections::VecDeque;

use crate::sync::{Condvar, Deadline, Mutex, MutexGuard, lock, wait_until};

/// Orders the calls that use one shard.
///
/// Shared users (read, verify, unseal) run together; an exclusive user (free, migrate, open, close)
/// runs alone. All of them wait in one queue, in the order of arrival, so neither kind starves. A
/// lease is held by the program for as long as it likes. While a lease exists, an exclusive user is
/// refused, or waits outside the queue until its own deadline, so that it blocks no other user.
///
/// A callback of the program can call the manager from inside a shared use. So that no two such
/// threads wait for each other in a circle, a thread that already uses some shard never waits in
/// the queue. It waits only while another thread is exclusive, since an exclusive thread waits for
/// no other. If it asks to be exclusive and cannot be at once, it is refused.
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

/// Why exclusive use, or use from inside the caller's own exclusive use, was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy {
    /// Leases that exist; 0 if the calling thread itself uses a shard.
    pub(crate) leases: usize,
}

/// Who keeps a thread out that does not wait. See [`Gate::try_exclusive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occupied {
    /// The calling thread itself is inside this gate.
    Own,
    /// So many leases exist.
    Leases(usize),
    /// So many shared users are inside.
    Readers(usize),
    /// Another thread is exclusive.
    Exclusive,
    /// The gate is free, but so many calls wait in the queue and come first.
    Queue(usize),
}

/// Why a call with a deadline did not enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Leases exist, or the calling thread itself uses a shard.
    Busy(Busy),
    /// Other threads were inside until the deadline.
    TimedOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Shared,
    Exclusive,
}

thread_local! {
    /// The gates that this thread is inside, by address, innermost last.
    static HELD: RefCell<Vec<(usize, Use)>> = const { RefCell::new(Vec::new()) };
}

/// Whether the calling thread uses some shard, which means that it runs a callback of a call of
/// this crate.
pub(crate) fn is_inside_any() -> bool {
    // A thread that is ending has lost its list, and runs no callback.
    HELD.try_with(|held| !held.borrow().is_empty()).unwrap_or(false)
}

impl Gate {
    fn address(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    /// How the calling thread uses this gate already, and whether it uses any gate.
    fn held(&self) -> (Option<Use>, bool) {
        HELD.with_borrow(|held| {
            let mine = held.iter().rev().find(|(gate, _)| *gate == self.address());
            (mine.map(|(_, kind)| *kind), !held.is_empty())
        })
    }

    /// Enters as a shared user. Waits while another thread is exclusive or stands before it in the
    /// queue.
    ///
    /// # Errors
    ///
    /// [`Busy`] if the calling thread is inside its own exclusive use.
    pub(crate) fn shared(&self) -> Result<SharedPass<'_>, Busy> {
        self.shared_until(Deadline::NEVER).map_err(Refusal::for_ever)
    }

    /// Like [`shared`](Self::shared), until a deadline.
    ///
    /// # Errors
    ///
    /// [`Refusal::Busy`] as above, [`Refusal::TimedOut`].
    pub(crate) fn shared_until(&self, deadline: Deadline) -> Result<SharedPass<'_>, Refusal> {
        let mut state = lock(&self.state);
        match self.held() {
            (Some(Use::Exclusive), _) => return Err(Refusal::Busy(Busy { leases: 0 })),
            // This thread is inside, so no other is exclusive. Waiting behind a queued exclusive
            // user would never end, since that one waits for this thread.
            (Some(Use::Shared), _) => {}
            (None, true) => {
                while state.exclusive {
                    state = wait_until(&self.changed, state, deadline)
                        .map_err(|_state| Refusal::TimedOut)?;
                }
            }
            (None, false) => state = self.queued(state, deadline, |state| !state.exclusive)?,
        }
        Ok(self.enter_shared(state))
    }

    fn enter_shared<'a>(&'a self, mut state: MutexGuard<'a, State>) -> SharedPass<'a> {
        state.shared = state.shared.saturating_add(1);
        drop(state);
        SharedPass { inside: Inside::new(self, Use::Shared) }
    }

    /// Enters as the exclusive user. Waits for all threads that are inside or stand before it in
    /// the queue.
    ///
    /// # Errors
    ///
    /// [`Busy`] if a lease exists, or if the calling thread uses some shard already and would have
    /// to wait.
    pub(crate) fn exclusive(&self) -> Result<ExclusivePass<'_>, Busy> {
        let state = lock(&self.state);
        if state.leases > 0 {
            return Err(Busy { leases: state.leases });
        }
        let state = self.alone(state, Deadline::NEVER).map_err(Refusal::for_ever)?;
        // Another call may have taken out a lease during the wait.
        if state.leases > 0 {
            return Err(Busy { leases: state.leases });
        }
        Ok(self.enter_alone(state))
    }

    /// Enters as the exclusive user if the gate is free now: no lease, no other user, no call in the
    /// queue. Never waits, so an implicit operation, such as making room, can use it on any shard.
    ///
    /// # Errors
    ///
    /// [`Occupied`] names the first reason, in the order of its variants.
    pub(crate) fn try_exclusive(&self) -> Result<ExclusivePass<'_>, Occupied> {
        let state = lock(&self.state);
        match self.kept_out_by(&state) {
            Some(who) => Err(who),
            None => Ok(self.enter_alone(state)),
        }
    }

    /// Who would keep [`try_exclusive`](Self::try_exclusive) out now; for choosing among shards,
    /// before any gate is taken.
    pub(crate) fn occupant(&self) -> Option<Occupied> {
        self.kept_out_by(&lock(&self.state))
    }

    fn kept_out_by(&self, state: &State) -> Option<Occupied> {
        match *state {
            _ if self.held().0.is_some() => Some(Occupied::Own),
            State { leases: 1.., .. } => Some(Occupied::Leases(state.leases)),
            State { shared: 1.., .. } => Some(Occupied::Readers(state.shared)),
            State { exclusive: true, .. } => Some(Occupied::Exclusive),
            _ if !state.queue.is_empty() => Some(Occupied::Queue(state.queue.len())),
            _ => None,
        }
    }

    /// Enters as a shared user if that is possible without waiting. A thread that already uses some
    /// shard passes the queue, as in [`shared`](Self::shared).
    ///
    /// # Errors
    ///
    /// [`Occupied::Own`] if the calling thread is exclusive here, [`Occupied::Exclusive`],
    /// [`Occupied::Queue`].
    #[cfg_attr(not(test), allow(dead_code, reason = "the companion of `try_exclusive`"))]
    pub(crate) fn try_shared(&self) -> Result<SharedPass<'_>, Occupied> {
        let state = lock(&self.state);
        match self.held() {
            (Some(Use::Exclusive), _) => Err(Occupied::Own),
            (None, _) if state.exclusive => Err(Occupied::Exclusive),
            (None, false) if !state.queue.is_empty() => Err(Occupied::Queue(state.queue.len())),
            (Some(Use::Shared) | None, _) => Ok(self.enter_shared(state)),
        }
    }

    /// Like [`exclusive`](Self::exclusive), but also waits for leases to end, until a deadline.
    /// Other calls enter and leave during this wait, and may take out more leases.
    ///
    /// # Errors
    ///
    /// [`Refusal::Busy`] if a lease still exists at the deadline, or as above;
    /// [`Refusal::TimedOut`].
    pub(crate) fn exclusive_until(&self, deadline: Deadline) -> Result<ExclusivePass<'_>, Refusal> {
        let mut state = lock(&self.state);
        loop {
            let (mine, any) = self.held();
            while state.leases > 0 {
                let busy = Busy { leases: state.leases };
                // The holder of the lease may be waiting for this thread.
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

    /// Waits until all threads that are inside, or stand before it in the queue, have left; leases
    /// stay. For a shard whose device takes no more calls, so that a thread that enters later
    /// leaves at once.
    ///
    /// # Errors
    ///
    /// [`Refusal::TimedOut`]; [`Refusal::Busy`] if the calling thread uses some shard already and
    /// would have to wait.
    pub(crate) fn drained_until(&self, deadline: Deadline) -> Result<(), Refusal> {
        let state = lock(&self.state);
        self.alone(state, deadline).map(drop)
    }

    /// Waits until no other thread is inside.
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

    /// Joins the queue, and waits until this ticket is first and `open` returns true.
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
                // Threads behind this ticket may be able to enter now.
                self.changed.notify_all();
                Refusal::TimedOut
            })?;
        }
        state.queue.pop_front();
        // The next thread in the queue may be able to enter too.
        self.changed.notify_all();
        Ok(state)
    }

    /// The number of leases.
    pub(crate) fn leases(&self) -> usize {
        lock(&self.state).leases
    }

    /// Counts one more lease. The caller holds a shared pass, so no thread is exclusive.
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

impl From<Occupied> for Busy {
    fn from(occupied: Occupied) -> Self {
        let leases = if let Occupied::Leases(leases) = occupied { leases } else { 0 };
        Self { leases }
    }
}

impl Refusal {
    /// Converts the refusal for a caller without a deadline.
    fn for_ever(self) -> Busy {
        match self {
            Self::Busy(busy) => busy,
            // Cannot happen: a caller without a deadline does not time out.
            Self::TimedOut => Busy { leases: 0 },
        }
    }
}

impl State {
    /// Takes a ticket at the end of the queue.
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

/// Shared use, until dropped. Bound to its thread, because the rule on re-entrance is about
/// threads.
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
        // The list of a thread that is ending may be gone already; no call reads it any more.
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
