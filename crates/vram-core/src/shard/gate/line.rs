//! Exclusive use of many gates at once.

use crate::shard::gate::held::is_inside_any;
use crate::shard::gate::{Busy, ExclusivePass, Gate, Refusal, State};
use crate::sync::{Deadline, MutexGuard, lock, wait_until};

/// How long an exclusive user of many gates waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// For other calls without end, for leases never: as [`Gate::exclusive`].
    ForCalls,
    /// For other calls and for leases until a deadline: as [`Gate::exclusive_until`].
    Until(Deadline),
}

/// Enters all gates as their exclusive user. Each gate comes with a key that names it in a refusal.
/// The gates must be in an order that all callers agree on, such as that of the shards' ids.
///
/// The call joins the queue of each gate in this order, stays at its head, and enters all gates once
/// no thread is inside any of them. While it waits it is exclusive at none, so threads that are
/// inside a gate already can pass it, as the rule of [`Gate`] demands. While it waits for a lease it
/// also stands in no queue, so that it blocks no other call.
///
/// Readers that come later wait behind it at every gate. A reader inside that itself waits for one
/// of them, as through a pipe, therefore keeps it out until its deadline; so does a stream of
/// threads that enter from inside other gates.
///
/// # Errors
///
/// The key of the gate that could not be entered, and the reason: see [`Gate::exclusive`] and
/// [`Gate::exclusive_until`]. [`Refusal::Busy`] without leases also if a gate is named twice.
pub(crate) fn exclusive_all<'a, K: Copy>(
    gates: &[(K, &'a Gate)],
    patience: Patience,
) -> Result<Vec<ExclusivePass<'a>>, (K, Refusal)> {
    let twice = gates.windows(2).find_map(|pair| match pair {
        [(_, one), (key, next)] if core::ptr::eq(*one, *next) => Some(*key),
        _ => None,
    });
    if let Some(key) = twice {
        return Err((key, Refusal::Busy(Busy { leases: 0 })));
    }
    // A thread that is inside a gate already does not wait at any other.
    if is_inside_any() {
        let enter = |(key, gate): &(K, &'a Gate)| {
            gate.exclusive().map_err(|busy| (*key, Refusal::Busy(busy)))
        };
        return gates.iter().map(enter).collect();
    }
    loop {
        for (key, gate) in gates {
            let free = gate.without_leases(lock(&gate.state), patience);
            drop(free.map_err(|refusal| (*key, refusal))?);
        }
        let refused = match Line::join(gates, patience.deadline()).and_then(Line::enter) {
            Ok(passes) => return Ok(passes),
            Err(refused) => refused,
        };
        match (refused, patience) {
            // A lease was taken out meanwhile: wait for its end outside of the queues.
            ((_, Refusal::Busy(_)), Patience::Until(deadline)) if !deadline.has_passed() => {}
            (refused, _) => return Err(refused),
        }
    }
}

impl Patience {
    const fn deadline(self) -> Deadline {
        match self {
            Self::ForCalls => Deadline::NEVER,
            Self::Until(deadline) => deadline,
        }
    }
}

/// Tickets in the queues of several gates, each at the head of its queue once
/// [`join`](Self::join) has returned. Dropping a line takes the tickets out of the queues.
struct Line<'g, 'a, K> {
    gates: &'g [(K, &'a Gate)],
    /// The tickets at the first gates.
    tickets: Vec<u64>,
    deadline: Deadline,
}

impl<'g, 'a, K: Copy> Line<'g, 'a, K> {
    /// Joins the queue of each gate in turn, and waits until its ticket is at the head.
    fn join(gates: &'g [(K, &'a Gate)], deadline: Deadline) -> Result<Self, (K, Refusal)> {
        let mut line = Self { gates, tickets: Vec::with_capacity(gates.len()), deadline };
        for (key, gate) in gates {
            let mut state = lock(&gate.state);
            let ticket = state.queue.draw();
            line.tickets.push(ticket);
            while !state.queue.is_first(ticket) {
                state = wait_until(&gate.changed, state, deadline)
                    .map_err(|_state| (*key, Refusal::TimedOut))?;
            }
        }
        Ok(line)
    }

    /// Waits until all gates are free at one moment, and enters them.
    fn enter(self) -> Result<Vec<ExclusivePass<'a>>, (K, Refusal)> {
        for gate in self.gates {
            self.free(gate)?;
        }
        let mut passes = Vec::with_capacity(self.gates.len());
        let mut first = 0;
        loop {
            let (before, after) = self.gates.split_at(first);
            let mut occupied = None;
            for (at, gate) in (first..).zip(after).chain((0..).zip(before)) {
                match gate.1.enter_from_head() {
                    Ok(pass) => passes.push(pass),
                    Err(state) => {
                        drop(state);
                        occupied = Some((at, gate));
                        break;
                    }
                }
            }
            let Some((at, gate)) = occupied else { return Ok(passes) };
            // A thread that is inside another gate entered here. It may be about to enter one of
            // those that this call has: leave them before the wait. The tickets stay.
            passes.clear();
            self.free(gate)?;
            // Begin at this gate, so that a turn that fails again has come further.
            first = at;
        }
    }

    /// Waits until no thread is inside the gate.
    fn free(&self, (key, gate): &(K, &'a Gate)) -> Result<(), (K, Refusal)> {
        let mut state = lock(&gate.state);
        loop {
            if state.leases.count() > 0 {
                return Err((*key, Refusal::Busy(state.busy())));
            }
            if !state.occupied() {
                return Ok(());
            }
            state = wait_until(&gate.changed, state, self.deadline)
                .map_err(|_state| (*key, Refusal::TimedOut))?;
        }
    }
}

impl<K> Drop for Line<'_, '_, K> {
    fn drop(&mut self) {
        for ((_, gate), ticket) in self.gates.iter().zip(&self.tickets) {
            let mut state = lock(&gate.state);
            state.queue.give_up(*ticket);
            let others = !state.queue.is_empty();
            drop(state);
            if others {
                gate.changed.notify_all();
            }
        }
    }
}

impl Gate {
    /// Enters as the exclusive user if no thread is inside and no lease exists. The caller's ticket
    /// is at the head of the queue, and stays there.
    fn enter_from_head(&self) -> Result<ExclusivePass<'_>, MutexGuard<'_, State>> {
        let state = lock(&self.state);
        if state.occupied() || state.leases.count() > 0 {
            Err(state)
        } else {
            Ok(self.enter_alone(state))
        }
    }
}
