//! The queue of one sink: bounded, filled without waiting, processed by one thread.
//!
//! ```text
//!  a call ── emit ──► queue of sink 0 ──► its thread ──► event(..)
//!                └──► queue of sink 1 ──► its thread ──► event(..)
//!             never waits: a full queue counts a drop
//! ```

use core::panic::AssertUnwindSafe;
use std::collections::VecDeque;
use std::panic::catch_unwind;
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;
use std::time::Instant;

use crate::event::Event;
use crate::sink::{EventSink, SinkCounts};
use crate::sync::{Condvar, Mutex, lock, wait_until};

/// The queue of one sink. Its lock is never held while the sink's code runs.
pub(crate) struct Queue {
    len_max: usize,
    state: Mutex<State>,
    /// Signals work for the sink's thread.
    ready: Condvar,
    /// Signals a finished flush, or the end of the thread.
    done: Condvar,
    thread: OnceLock<ThreadId>,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    /// The number of events among the items.
    events: usize,
    /// Events dropped since the last item was queued.
    lost: u64,
    counts: SinkCounts,
    flushes_asked: u64,
    flushes_done: u64,
    closed: bool,
    ended: bool,
}

enum Item {
    Event {
        /// Events that were dropped just before this one.
        lost: u64,
        event: Arc<Event>,
    },
    /// A request to flush everything before it.
    Flush {
        /// Events that were dropped just before it.
        lost: u64,
        number: u64,
    },
}

/// The next action of the sink's thread.
enum Step {
    Event { lost: u64, event: Arc<Event> },
    Lost(u64),
    Flush { lost: u64, number: u64 },
    End,
}

impl Queue {
    pub(crate) fn new(len_max: usize) -> Self {
        Self {
            len_max,
            state: Mutex::default(),
            ready: Condvar::new(),
            done: Condvar::new(),
            thread: OnceLock::new(),
        }
    }

    /// Queues an event, or counts it as dropped. Never waits for the sink.
    pub(crate) fn push(&self, event: &Arc<Event>) {
        let mut state = lock(&self.state);
        state.counts.emitted = state.counts.emitted.saturating_add(1);
        if state.closed || state.ended || state.events >= self.len_max {
            state.counts.dropped = state.counts.dropped.saturating_add(1);
            state.lost = state.lost.saturating_add(1);
        } else {
            let lost = core::mem::take(&mut state.lost);
            state.items.push_back(Item::Event { lost, event: Arc::clone(event) });
            state.events = state.events.saturating_add(1);
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Requests a flush of everything that is queued now. Returns the number to wait for.
    pub(crate) fn ask_flush(&self) -> u64 {
        let mut state = lock(&self.state);
        // Earlier drops are reported before the flush, since they belong to what it covers.
        let missed = core::mem::take(&mut state.lost);
        // Two requests without an event between them are one.
        if let Some(Item::Flush { lost, number }) = state.items.back_mut() {
            *lost = lost.saturating_add(missed);
            return *number;
        }
        let number = state.flushes_asked.saturating_add(1);
        state.flushes_asked = number;
        state.items.push_back(Item::Flush { lost: missed, number });
        drop(state);
        self.ready.notify_one();
        number
    }

    /// Waits for a requested flush. Returns false if it did not finish in time, or if the calling
    /// thread is the sink's own and cannot wait.
    pub(crate) fn flushed(&self, number: u64, deadline: Option<Instant>) -> bool {
        self.wait(deadline, |state| state.ended || state.flushes_done >= number)
    }

    /// Accepts no more events. The thread ends after it has delivered what is queued.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.ready.notify_one();
    }

    /// Waits for the thread to end. Returns false if it did not end in time, or is the calling
    /// thread.
    pub(crate) fn ended(&self, deadline: Option<Instant>) -> bool {
        self.wait(deadline, |state| state.ended)
    }

    fn wait(&self, deadline: Option<Instant>, what: impl Fn(&State) -> bool) -> bool {
        let own = self.thread.get() == Some(&std::thread::current().id());
        let mut state = lock(&self.state);
        while !what(&state) {
            if own {
                return false;
            }
            match wait_until(&self.done, state, deadline) {
                Ok(again) => state = again,
                Err(_too_late) => return false,
            }
        }
        true
    }

    pub(crate) fn counts(&self) -> SinkCounts {
        lock(&self.state).counts
    }

    /// Delivers items until the queue is closed and empty. The sink's thread runs only this
    /// function.
    pub(crate) fn serve(&self, mut sink: Box<dyn EventSink>) {
        let _known = self.thread.set(std::thread::current().id());
        // Whether it returns or panics, `Ended` lets waiting threads go on.
        let _ended = Ended(self);
        loop {
            let step = self.next();
            let told = catch_unwind(AssertUnwindSafe(|| {
                step.tell(&mut *sink);
                sink.failed()
            }));
            match told {
                Ok(failed) => self.told(&step, failed),
                Err(payload) => {
                    // Dropping the payload could panic again.
                    core::mem::forget(payload);
                    tracing::error!("an event sink panicked and is out of service");
                    let mut state = lock(&self.state);
                    state.counts.out_of_service = true;
                    state.counts.failed = state.counts.failed.saturating_add(1);
                    break;
                }
            }
            if matches!(step, Step::End) {
                break;
            }
        }
        // The sink is dropped before `_ended`. A thread that waits for the end of this thread
        // thereby also waits for that drop, which may panic.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(sink))) {
            core::mem::forget(payload);
        }
    }

    fn next(&self) -> Step {
        let mut state = lock(&self.state);
        loop {
            match state.items.pop_front() {
                Some(Item::Event { lost, event }) => {
                    state.events = state.events.saturating_sub(1);
                    return Step::Event { lost, event };
                }
                Some(Item::Flush { lost, number }) => return Step::Flush { lost, number },
                None if state.lost > 0 => return Step::Lost(core::mem::take(&mut state.lost)),
                None if state.closed => return Step::End,
                None => match wait_until(&self.ready, state, None) {
                    Ok(again) | Err(again) => state = again,
                },
            }
        }
    }

    fn told(&self, step: &Step, failed: u64) {
        let mut state = lock(&self.state);
        // The count never goes down, even if the sink returns a smaller value.
        state.counts.failed = state.counts.failed.max(failed);
        match step {
            Step::Event { .. } => {
                state.counts.delivered = state.counts.delivered.saturating_add(1);
            }
            Step::Flush { number, .. } => {
                state.flushes_done = *number;
                self.done.notify_all();
            }
            Step::Lost(_) | Step::End => {}
        }
    }
}

impl Step {
    fn tell(&self, sink: &mut dyn EventSink) {
        match self {
            Self::Event { lost, event } => {
                if *lost > 0 {
                    sink.dropped(*lost);
                }
                sink.event(event);
            }
            Self::Lost(lost) => sink.dropped(*lost),
            Self::Flush { lost, .. } => {
                if *lost > 0 {
                    sink.dropped(*lost);
                }
                sink.flush();
            }
            Self::End => sink.flush(),
        }
    }
}

/// Ends a queue when its thread ends: remaining events are dropped and counted as such.
struct Ended<'a>(&'a Queue);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        let waiting = u64::try_from(state.events).unwrap_or(u64::MAX);
        state.counts.dropped = state.counts.dropped.saturating_add(waiting);
        let items = core::mem::take(&mut state.items);
        state.events = 0;
        state.ended = true;
        drop(state);
        drop(items);
        self.0.done.notify_all();
    }
}
