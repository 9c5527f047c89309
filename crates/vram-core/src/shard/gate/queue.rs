//! The tickets of those who wait for one shard, in the order of their arrival.

use std::collections::VecDeque;

/// The queue. Where nobody waits, as for most shards always, it takes no memory of its own.
#[derive(Debug, Default)]
pub(super) struct Queue(Option<Box<Tickets>>);

#[derive(Debug, Default)]
struct Tickets {
    next: u64,
    waiting: VecDeque<u64>,
}

impl Queue {
    /// Takes a ticket at the end, unlike all that wait.
    pub(super) fn draw(&mut self) -> u64 {
        let tickets = self.0.get_or_insert_default();
        let ticket = tickets.next;
        tickets.next = ticket.wrapping_add(1);
        tickets.waiting.push_back(ticket);
        ticket
    }

    /// Takes a ticket out, wherever it stands.
    pub(super) fn give_up(&mut self, ticket: u64) {
        let Some(tickets) = &mut self.0 else { return };
        if tickets.waiting.front() == Some(&ticket) {
            tickets.waiting.pop_front();
        } else {
            tickets.waiting.retain(|waiting| *waiting != ticket);
        }
        if tickets.waiting.is_empty() {
            self.0 = None;
        }
    }

    /// Whether this ticket is the next.
    pub(super) fn is_first(&self, ticket: u64) -> bool {
        self.0.as_ref().is_some_and(|tickets| tickets.waiting.front() == Some(&ticket))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |tickets| tickets.waiting.len())
    }
}
