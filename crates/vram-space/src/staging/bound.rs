//! One bound for the staging memory of all calls of a manager.
//!
//! A call takes its whole share before its first buffer, and waits only while it holds nothing, so
//! calls cannot wait for each other in a circle. A share is at least what the call cannot do
//! without, and shrinks as the memory becomes scarce.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use vram_alloc::ByteLen;
use vram_gpu::Staging;

use crate::error::SpaceError;
use crate::staging::at_work::on_a_worker;
use crate::sync::{Condvar, Mutex, lock, wait_until};

/// A call takes at most this part of what is left, so that the last calls that fit are many small
/// ones.
const PART: u64 = 4;

/// The staging memory of a manager: a bound in bytes for everything that its calls hold and its
/// GPUs keep for reuse. Clones share it.
#[derive(Clone, Debug)]
pub struct StagingBound {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    max: u64,
    patience: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes that running calls may hold.
    granted: u64,
    /// Bytes of idle buffers.
    idle_bytes: u64,
    /// Idle buffers by GPU and length, all wiped.
    idle: BTreeMap<(u32, u64), Vec<Staging>>,
    /// The calls that wait, in the order in which they are served.
    queue: VecDeque<u64>,
    tickets: u64,
}

/// The buffers that a call wants: `least` of them, better `most`, each of `len` bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) gpu: u32,
    pub(crate) len: u64,
    pub(crate) least: u64,
    pub(crate) most: u64,
    /// Whether the call waits while too little is left.
    pub(crate) waits: bool,
}

/// A call's share of the staging memory.
#[derive(Debug)]
pub(crate) struct Share {
    /// How many buffers the call may hold.
    pub(crate) buffers: u64,
    /// Idle buffers of that length; the call makes the others itself.
    pub(crate) idle: Vec<Staging>,
}

impl StagingBound {
    /// At most `max` bytes; a call for which nothing is left waits up to `patience`.
    #[must_use]
    pub fn new(max: ByteLen, patience: Duration) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Self { shared: Arc::new(Shared { max: max.get(), patience, state, changed }) }
    }

    /// Sixteen times what one call may hold; a call waits up to ten seconds.
    #[must_use]
    pub fn for_calls_of(staging_bytes: ByteLen) -> Self {
        let max = staging_bytes.get().saturating_mul(16);
        Self::new(ByteLen::new(max), Duration::from_secs(10))
    }

    /// Bytes that calls hold or may still take, and bytes that are kept for reuse.
    #[must_use]
    pub fn taken(&self) -> (ByteLen, ByteLen) {
        let state = lock(&self.shared.state);
        (ByteLen::new(state.granted), ByteLen::new(state.idle_bytes))
    }

    /// Takes a share for a call.
    ///
    /// # Errors
    ///
    /// [`SpaceError::Staging`] if nothing was left until the deadline, or if the bound is less than
    /// the call needs.
    pub(crate) fn take(&self, wish: Wish) -> Result<Share, SpaceError> {
        let needed = wish.len.saturating_mul(wish.least);
        let refused = |taken: u64| SpaceError::Staging {
            needed: ByteLen::new(needed),
            taken: ByteLen::new(taken),
            limit: ByteLen::new(self.shared.max),
        };
        let mut state = lock(&self.shared.state);
        if needed > self.shared.max {
            return Err(refused(state.granted));
        }
        if !(state.queue.is_empty() && state.left(self.shared.max) >= needed) {
            if !wish.waits {
                return Err(refused(state.granted));
            }
            state = self.wait(state, needed).map_err(refused)?;
        }
        let (share, evicted) = state.grant(self.shared.max, wish);
        drop(state);
        // Counted in the share already, which makes no buffer before this is done. Outside the
        // lock: freeing page-locked memory calls the driver.
        drop(evicted);
        Ok(share)
    }

    /// Waits until it is this call's turn and `needed` bytes are left. On time-out, returns the
    /// bytes that are taken.
    fn wait<'s>(
        &'s self,
        mut state: crate::sync::MutexGuard<'s, State>,
        needed: u64,
    ) -> Result<crate::sync::MutexGuard<'s, State>, u64> {
        let deadline = Instant::now().checked_add(self.shared.patience);
        let ticket = state.tickets;
        state.tickets = ticket.wrapping_add(1);
        // A call made by another call's callback goes first: what it waits for may wait for it.
        if on_a_worker() {
            state.queue.push_front(ticket);
        } else {
            state.queue.push_back(ticket);
        }
        loop {
            if state.queue.front() == Some(&ticket) && state.left(self.shared.max) >= needed {
                state.queue.pop_front();
                // There may be enough for the next one as well.
                self.shared.changed.notify_all();
                return Ok(state);
            }
            match wait_until(&self.shared.changed, state, deadline) {
                Ok(woken) => state = woken,
                Err(mut late) => {
                    late.queue.retain(|other| *other != ticket);
                    self.shared.changed.notify_all();
                    return Err(late.granted);
                }
            }
        }
    }

    /// Ends a share of `granted` bytes. Keeps the wiped `buffers` for reuse, at most `idle_max`
    /// bytes of this GPU.
    pub(crate) fn give(&self, gpu: u32, granted: u64, buffers: Vec<Staging>, idle_max: ByteLen) {
        let mut dropped = Vec::new();
        let (mut state, mut kept) = (lock(&self.shared.state), 0_u64);
        let mut idle = state.idle_of(gpu);
        for staging in buffers {
            let len = staging.len().get();
            idle = idle.saturating_add(len);
            kept = kept.saturating_add(len);
            if idle > idle_max.get() || kept > granted {
                idle = idle.saturating_sub(len);
                kept = kept.saturating_sub(len);
                dropped.push(staging);
            } else {
                state.idle.entry((gpu, len)).or_default().push(staging);
            }
        }
        state.idle_bytes = state.idle_bytes.saturating_add(kept);
        // What is dropped stays counted until it is gone; the rest was never made.
        let left = if dropped.is_empty() { 0 } else { granted.saturating_sub(kept) };
        state.granted = state.granted.saturating_sub(granted.saturating_sub(left));
        drop(state);
        if dropped.is_empty() {
            self.shared.changed.notify_all();
        } else {
            self.forget(dropped, left);
        }
    }

    /// Frees all idle buffers of one GPU to the host.
    pub(crate) fn clear(&self, gpu: u32) {
        let mut state = lock(&self.shared.state);
        let mut gone = Vec::new();
        let lens: Vec<_> =
            state.idle.range((gpu, 0)..=(gpu, u64::MAX)).map(|(key, _)| *key).collect();
        for key in lens {
            gone.extend(state.idle.remove(&key).unwrap_or_default());
        }
        let bytes = gone.iter().fold(0_u64, |sum, one| sum.saturating_add(one.len().get()));
        state.idle_bytes = state.idle_bytes.saturating_sub(bytes);
        // Counted until they are gone.
        state.granted = state.granted.saturating_add(bytes);
        drop(state);
        self.forget(gone, bytes);
    }

    /// Drops buffers, and then uncounts `bytes`.
    fn forget(&self, buffers: Vec<Staging>, bytes: u64) {
        // Outside the lock: freeing page-locked memory calls the driver.
        drop(buffers);
        let mut state = lock(&self.shared.state);
        state.granted = state.granted.saturating_sub(bytes);
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl State {
    /// Bytes that could be granted; idle buffers are freed for it where necessary.
    const fn left(&self, max: u64) -> u64 {
        max.saturating_sub(self.granted)
    }

    fn idle_of(&self, gpu: u32) -> u64 {
        let of_gpu = self.idle.range((gpu, 0)..=(gpu, u64::MAX));
        of_gpu.fold(0, |sum, ((_, len), held)| {
            let count = ByteLen::from_usize(held.len()).get();
            sum.saturating_add(len.saturating_mul(count))
        })
    }

    /// Grants a share. The caller has found room for its least. Also returns the idle buffers that
    /// have to go for it.
    fn grant(&mut self, max: u64, wish: Wish) -> (Share, Vec<Staging>) {
        let left = self.left(max);
        let fair = left.checked_div(PART.saturating_mul(wish.len)).unwrap_or(wish.most);
        let buffers = wish.most.min(fair).max(wish.least);
        let mut idle = Vec::new();
        if let Some(held) = self.idle.get_mut(&(wish.gpu, wish.len)) {
            let wanted = usize::try_from(buffers).unwrap_or(usize::MAX);
            idle = held.split_off(held.len().saturating_sub(wanted));
        }
        let taken = ByteLen::from_usize(idle.len()).get().saturating_mul(wish.len);
        self.idle_bytes = self.idle_bytes.saturating_sub(taken);
        self.granted = self.granted.saturating_add(buffers.saturating_mul(wish.len));
        let mut evicted = Vec::new();
        while self.granted.saturating_add(self.idle_bytes) > max {
            let Some(mut held) = self.idle.first_entry() else { break };
            let (_, len) = *held.key();
            match held.get_mut().pop() {
                Some(staging) => {
                    self.idle_bytes = self.idle_bytes.saturating_sub(len);
                    evicted.push(staging);
                }
                None => drop(held.remove()),
            }
        }
        (Share { buffers, idle }, evicted)
    }
}

#[cfg(all(test, shuttle))]
mod models;

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    const LEN: u64 = 4096;
    const LONG: Duration = Duration::from_mins(1);
    const BRIEF: Duration = Duration::from_millis(20);

    fn bound(buffers: u64, patience: Duration) -> StagingBound {
        StagingBound::new(ByteLen::new(buffers.saturating_mul(LEN)), patience)
    }

    fn wish(gpu: u32, least: u64, most: u64) -> Wish {
        Wish { gpu, len: LEN, least, most, waits: true }
    }

    /// Makes all buffers of a share.
    fn made(share: Share) -> Vec<Staging> {
        let mut buffers = share.idle;
        while buffers.len() < usize::try_from(share.buffers).unwrap() {
            buffers.push(Staging::unpinned(ByteLen::new(LEN)).unwrap());
        }
        buffers
    }

    fn figures(bound: &StagingBound) -> [u64; 2] {
        let (granted, idle) = bound.taken();
        [granted.get() / LEN, idle.get() / LEN]
    }

    #[test]
    fn what_is_kept_for_reuse_counts_and_goes_when_another_call_needs_the_room() {
        let bound = bound(8, BRIEF);
        let keep = ByteLen::new(3 * LEN);
        let share = bound.take(wish(0, 4, 4)).unwrap();
        let buffers = made(share);
        assert_eq!(figures(&bound), [4, 0]);
        bound.give(0, 4 * LEN, buffers, keep);
        assert_eq!(figures(&bound), [0, 3], "as many as may be idle");

        let again = bound.take(wish(0, 2, 2)).unwrap();
        assert_eq!((again.idle.len(), figures(&bound)), (2, [2, 1]));
        bound.give(0, 2 * LEN, made(again), keep);
        // Another GPU cannot use them, and gets all the room there is.
        let all = bound.take(wish(1, 8, 8)).unwrap();
        assert_eq!((all.idle.len(), figures(&bound)), (0, [8, 0]));
        bound.give(1, 8 * LEN, Vec::new(), keep);
        bound.give(0, 0, made(Share { buffers: 0, idle: Vec::new() }), keep);
        let share = bound.take(wish(0, 3, 3)).unwrap();
        bound.give(0, 3 * LEN, made(share), keep);
        bound.clear(1);
        assert_eq!(figures(&bound), [0, 3]);
        bound.clear(0);
        assert_eq!(figures(&bound), [0, 0]);
    }

    #[test]
    fn a_call_that_does_not_wait_is_refused_at_once_and_passes_nobody() {
        let bound = bound(4, LONG);
        let hasty = |least| bound.take(Wish { waits: false, ..wish(0, least, least) }).map(|_| ());
        bound.take(wish(0, 3, 3)).unwrap();
        assert!(matches!(hasty(2), Err(SpaceError::Staging { .. })));
        assert_eq!(figures(&bound), [3, 0], "nothing is left of it");
        lock(&bound.shared.state).queue.push_back(7);
        assert!(hasty(1).is_err(), "somebody waits for what is left");
        lock(&bound.shared.state).queue.clear();
        hasty(1).unwrap();
    }

    #[test]
    fn shares_shrink_as_the_memory_becomes_scarce_down_to_what_a_call_cannot_do_without() {
        let bound = bound(64, BRIEF);
        let mut shares = Vec::new();
        while let Ok(share) = bound.take(wish(0, 1, 16)) {
            shares.push(share.buffers);
        }
        assert_eq!(shares.iter().sum::<u64>(), 64);
        assert_eq!(shares.first(), Some(&16));
        assert!(shares.is_sorted_by(|one, next| one >= next), "{shares:?}");
        assert!(shares.len() > 12, "{shares:?}");
        match bound.take(wish(0, 1, 1)) {
            Err(SpaceError::Staging { needed, taken, limit }) => {
                let all = ByteLen::new(64 * LEN);
                assert_eq!((needed, taken, limit), (ByteLen::new(LEN), all, all));
            }
            other => panic!("{other:?}"),
        }
        assert!(bound.take(wish(0, 65, 65)).is_err(), "no wait helps");
    }

    #[test]
    fn those_who_wait_are_served_in_the_order_in_which_they_came() {
        let bound = bound(2, LONG);
        drop(bound.take(wish(0, 2, 2)).unwrap());
        let (served, order) = channel();
        for (number, least) in [(1, 2), (2, 1), (3, 1)] {
            let (ours, served) = (bound.clone(), served.clone());
            thread::spawn(move || {
                let share = ours.take(wish(0, least, least)).unwrap();
                served.send(number).unwrap();
                ours.give(0, share.buffers * LEN, Vec::new(), ByteLen::ZERO);
            });
            let deadline = Instant::now() + LONG;
            while lock(&bound.shared.state).queue.len() < number {
                assert!(Instant::now() < deadline, "{number} does not wait");
                thread::yield_now();
            }
        }
        // One buffer would do for the second and the third, and the first came before them.
        bound.give(0, LEN, Vec::new(), ByteLen::ZERO);
        assert!(order.recv_timeout(BRIEF).is_err(), "somebody was served out of turn");
        bound.give(0, LEN, Vec::new(), ByteLen::ZERO);
        assert_eq!(order.recv_timeout(LONG), Ok(1));
        let mut others = [order.recv_timeout(LONG).unwrap(), order.recv_timeout(LONG).unwrap()];
        others.sort_unstable();
        assert_eq!(others, [2, 3]);
    }
}
