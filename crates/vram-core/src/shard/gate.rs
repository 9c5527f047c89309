//! The lock of one shard: many readers or one exclusive user at a time, and leases.

mod held;
mod leases;
mod line;
mod pass;
mod queue;
mod refusal;

pub(crate) use self::held::is_inside_any;
use self::held::{Held, Use};
pub(crate) use self::leases::Leased;
use self::leases::Leases;
pub(crate) use self::line::{Patience, exclusive_all};
use self::pass::Inside;
pub(crate) use self::pass::{ExclusivePass, SharedPass};
use self::queue::Queue;
pub(crate) use self::refusal::{Busy, Occupied, Refusal};
use crate::sync::{Condvar, Deadline, Mutex, MutexGuard, lock, wait_until};

/// Orders the calls that use one shard.
///
/// Shared users (read, verify, unseal) run together; an exclusive user (free, migrate, open, close)
/// runs alone. All of them wait in one queue, in the order of arrival, so neither kind starves. A
/// lease is held by the program for as long as it likes. While a lease exists, an exclusive user is
/// refused, or waits outside the queue until its own deadline, so that it blocks no other user.
///
/// A callback of the program can call the manager from inside a use. No threads wait for each other
/// in a circle, because the gate keeps three kinds of threads apart:
///
/// 1. A thread that is exclusive at some gate waits at no other. If it would have to, it is refused.
/// 2. A thread that is inside some gate as a shared user never waits in a queue. It waits only while
///    a thread of the first kind is exclusive. If it asks to be exclusive and cannot be at once, it
///    is refused.
/// 3. A thread that is inside no gate waits for those inside and for the tickets before its own. It
///    holds a ticket at one gate, or, in [`exclusive_all`], the tickets at the head of the queues of
///    several gates, which it took in the one order of all gates.
///
/// A thread waits for another of its own kind only in the third case, for a ticket that is further
/// ahead: it belongs to a thread that waits further ahead in the same queue, at a later gate, or for
/// threads of the first two kinds. Every chain of waiting threads therefore ends.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    shared: u32,
    exclusive: bool,
    leases: Leases,
    queue: Queue,
}

impl Gate {
    fn address(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    /// What the calling thread holds already.
    fn held(&self) -> Held {
        held::by_this_thread(self.address())
    }

    /// Enters as a shared user. Waits while another thread is exclusive or stands before it in the
    /// queue.
    ///
    /// # Errors
    ///
    /// [`Busy`] if the calling thread is exclusive here, or if it is exclusive elsewhere and would
    /// have to wait.
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
        let held = self.held();
        match held.here {
            Some(Use::Exclusive) => return Err(Refusal::Busy(Busy { leases: 0 })),
            // This thread is inside, so no other is exclusive. Waiting behind a queued exclusive
            // user would never end, since that one waits for this thread.
            Some(Use::Shared) => {}
            None if held.exclusive && state.exclusive => {
                return Err(Refusal::Busy(Busy { leases: 0 }));
            }
            None if held.anywhere => {
                while state.exclusive {
                    state = wait_until(&self.changed, state, deadline)
                        .map_err(|_state| Refusal::TimedOut)?;
                }
            }
            None => state = self.queued(state, deadline, |state| !state.exclusive)?,
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
        if state.leases.count() > 0 {
            return Err(state.busy());
        }
        let state = self.alone(state, Deadline::NEVER).map_err(Refusal::for_ever)?;
        // Another call may have taken out a lease during the wait.
        if state.leases.count() > 0 {
            return Err(state.busy());
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
            _ if self.held().here.is_some() => Some(Occupied::Own),
            _ if state.leases.count() > 0 => Some(Occupied::Leases(state.leases.count())),
            State { shared: 1.., .. } => Some(Occupied::Readers(state.shared)),
            State { exclusive: true, .. } => Some(Occupied::Exclusive),
            _ if !state.queue.is_empty() => Some(Occupied::Queue(state.queue.len())),
            _ => None,
        }
    }

    /// Enters as a shared user if that is possible without waiting, and without passing the queue at a
    /// gate that the calling thread is not inside already. Never waits, so a call that is inside many
    /// gates at once holds nobody up who waits at one of them.
    ///
    /// # Errors
    ///
    /// [`Occupied::Own`] if the calling thread is exclusive here, [`Occupied::Exclusive`],
    /// [`Occupied::Queue`].
    pub(crate) fn try_shared(&self) -> Result<SharedPass<'_>, Occupied> {
        let state = lock(&self.state);
        let held = self.held();
        match held.here {
            Some(Use::Exclusive) => Err(Occupied::Own),
            None if state.exclusive => Err(Occupied::Exclusive),
            None if !state.queue.is_empty() => Err(Occupied::Queue(state.queue.len())),
            Some(Use::Shared) | None => Ok(self.enter_shared(state)),
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
        // The holder of a lease may be waiting for a thread that is inside some gate.
        let patience = if is_inside_any() { Patience::ForCalls } else { Patience::Until(deadline) };
        let mut state = lock(&self.state);
        loop {
            state = self.without_leases(state, patience)?;
            state = self.alone(state, deadline)?;
            if state.leases.count() == 0 {
                return Ok(self.enter_alone(state));
            }
        }
    }

    /// Waits until no lease exists, if the caller has the patience.
    fn without_leases<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        patience: Patience,
    ) -> Result<MutexGuard<'a, State>, Refusal> {
        while state.leases.count() > 0 {
            let Patience::Until(deadline) = patience else {
                return Err(Refusal::Busy(state.busy()));
            };
            state = wait_until(&self.changed, state, deadline)
                .map_err(|state| Refusal::Busy(state.busy()))?;
        }
        Ok(state)
    }

    /// Waits until no other thread is inside.
    fn alone<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        deadline: Deadline,
    ) -> Result<MutexGuard<'a, State>, Refusal> {
        match self.held() {
            Held { anywhere: false, .. } => self.queued(state, deadline, |state| !state.occupied()),
            Held { here: None, .. } if !state.occupied() => Ok(state),
            Held { .. } => Err(Refusal::Busy(state.busy())),
        }
    }

    fn enter_alone<'a>(&'a self, mut state: MutexGuard<'a, State>) -> ExclusivePass<'a> {
        state.exclusive = true;
        drop(state);
        ExclusivePass { inside: Inside::new(self, Use::Exclusive) }
    }

    /// Joins the queue, and waits until this ticket is first and `open` returns true; where nobody
    /// waits and it is true, at once.
    fn queued<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        deadline: Deadline,
        open: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'a, State>, Refusal> {
        if state.queue.is_empty() && open(&state) {
            return Ok(state);
        }
        let ticket = state.queue.draw();
        while !open(&state) || !state.queue.is_first(ticket) {
            state = wait_until(&self.changed, state, deadline).map_err(|mut state| {
                state.queue.give_up(ticket);
                drop(state);
                // Threads behind this ticket may be able to enter now.
                self.changed.notify_all();
                Refusal::TimedOut
            })?;
        }
        state.queue.give_up(ticket);
        // The next thread in the queue may be able to enter too.
        self.changed.notify_all();
        Ok(state)
    }

    /// The number of leases.
    pub(crate) fn leases(&self) -> usize {
        lock(&self.state).leases.count()
    }

    /// The number of leases, and the one that began first.
    pub(crate) fn lease_figures(&self) -> (usize, Option<Leased>) {
        let state = lock(&self.state);
        (state.leases.count(), state.leases.oldest().cloned())
    }

    /// The lease that began first.
    pub(crate) fn oldest_lease(&self) -> Option<Leased> {
        lock(&self.state).leases.oldest().cloned()
    }

    /// All leases, oldest first.
    pub(crate) fn all_leases(&self) -> Vec<Leased> {
        lock(&self.state).leases.iter().cloned().collect()
    }

    /// Notes one more lease, and returns their number. The caller holds a shared pass, so no thread
    /// is exclusive.
    pub(crate) fn lease(&self, _inside: &SharedPass<'_>, leased: Leased) -> usize {
        let mut state = lock(&self.state);
        state.leases.add(leased);
        state.leases.count()
    }

    /// Ends a lease, and returns how many are left.
    pub(crate) fn end_lease(&self, leased: &Leased) -> usize {
        let mut state = lock(&self.state);
        state.leases.remove(leased);
        let left = state.leases.count();
        drop(state);
        self.changed.notify_all();
        left
    }
}

impl State {
    const fn occupied(&self) -> bool {
        self.exclusive || self.shared > 0
    }

    fn busy(&self) -> Busy {
        Busy { leases: self.leases.count() }
    }
}

#[cfg(test)]
mod line_tests;
#[cfg(all(test, shuttle))]
mod models;
#[cfg(test)]
mod tests;
