//! Who listens to events: each sink behind a bounded queue and a thread of its own.
//!
//! ```text
//!  a call ── emit ──► queue of sink 0 ──► its thread ──► event(..)
//!                └──► queue of sink 1 ──► its thread ──► event(..)
//!             never waits: a full queue counts a drop
//! ```

use core::fmt;
use core::panic::AssertUnwindSafe;
use std::collections::VecDeque;
use std::panic::catch_unwind;
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;

use crate::builder::VramManagerBuilder;
use crate::events::Event;
use crate::sync::{Condvar, Deadline, Mutex, lock, wait_until};

/// Events that wait for one sink at most, where the builder was not told otherwise.
const QUEUE_LEN: usize = 8192;

/// Is told what happens to what a manager holds, in order, on a thread of its own.
///
/// A sink may be slow, may block and may call back into the manager (through a
/// [`Weak`](std::sync::Weak): one that owns its manager keeps it from ever being dropped): no call
/// waits for it. What finds its queue full is dropped and counted. One that panics is taken out of
/// service, and the manager goes on without it. A manager that is dropped lets its sinks finish what
/// is queued, and waits for that up to five seconds.
///
/// A closure will do, and so does an [`EventLog`](crate::EventLog):
///
/// ```
/// use core::time::Duration;
/// use vram_residency::{ByteLen, Event, VramManager};
///
/// let manager = VramManager::builder()
///     .host_device(ByteLen::MIB)
///     .event_sink(|event: &Event| eprintln!("{}: {}", event.seq, event.kind.name()))
///     .build()?;
/// let _shard = manager.seal_model("llama-3-8b", 0, b"weights")?;
/// assert!(manager.flush_events(Duration::from_secs(5)));
/// assert_eq!(manager.event_counts()[0].delivered, 1);
/// # Ok::<(), vram_residency::VramError>(())
/// ```
pub trait EventSink: Send {
    /// Something happened.
    fn event(&mut self, event: &Event);

    /// So many events were dropped, after the last one that was delivered and before the next.
    fn dropped(&mut self, count: u64) {
        let _ = count;
    }

    /// Everything that was queued when a flush was asked for has been delivered, and what was dropped
    /// by then has been told. Called once more when the manager goes.
    fn flush(&mut self) {}

    /// Events that it was given and could not keep, so far. Asked after each delivery; the largest
    /// answer counts.
    fn failed(&self) -> u64 {
        0
    }
}

impl<F: FnMut(&Event) + Send> EventSink for F {
    fn event(&mut self, event: &Event) {
        self(event);
    }
}

/// What became of the events for one sink:
/// `emitted == delivered + dropped + what waits + the one that it panicked on`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SinkCounts {
    /// Events that were to be delivered.
    pub emitted: u64,
    /// Events that the sink was given.
    pub delivered: u64,
    /// Events that found the queue full, or the sink out of service.
    pub dropped: u64,
    /// Events that the sink could not keep, by its own account, and the one that it panicked on.
    pub failed: u64,
    /// Whether it panicked, and is told nothing any more.
    pub out_of_service: bool,
}

impl VramManagerBuilder {
    /// Adds a sink for events, with a queue of 8192. Any number may be added.
    pub fn event_sink(self, sink: impl EventSink + 'static) -> Self {
        self.event_sink_with(QUEUE_LEN, sink)
    }

    /// As [`event_sink`](Self::event_sink), with a queue of so many events: those that find it full
    /// are dropped and counted. Host memory is taken as they come, not before.
    pub fn event_sink_with(mut self, queue_len: usize, sink: impl EventSink + 'static) -> Self {
        self.sinks.0.push((queue_len, Box::new(sink)));
        self
    }
}

/// The sinks of a manager that is being put together, each with the length of its queue.
#[derive(Default)]
pub(crate) struct Sinks(pub(crate) Vec<(usize, Box<dyn EventSink>)>);

impl fmt::Debug for Sinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sinks", self.0.len())
    }
}

/// The queue of one sink. Its lock is never held while the sink works.
pub(crate) struct Queue {
    len_max: usize,
    state: Mutex<State>,
    /// There is something to do for the sink's thread.
    ready: Condvar,
    /// A flush was done, or the thread has ended.
    done: Condvar,
    thread: OnceLock<ThreadId>,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    /// Events among the items.
    events: usize,
    /// Events dropped since the last that was queued.
    lost: u64,
    counts: SinkCounts,
    flushes_asked: u64,
    flushes_done: u64,
    closed: bool,
    ended: bool,
}

enum Item {
    Event {
        /// Events that were dropped just before it.
        lost: u64,
        event: Arc<Event>,
    },
    /// Everything before it was to be flushed.
    Flush {
        /// Events that were dropped just before it.
        lost: u64,
        number: u64,
    },
}

/// What the sink's thread does next.
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

    /// Asks for a flush of everything that is queued now. Says which one to wait for.
    pub(crate) fn ask_flush(&self) -> u64 {
        let mut state = lock(&self.state);
        // What was dropped before is told before: it belongs to what is flushed.
        let missed = core::mem::take(&mut state.lost);
        // One that nothing came after is as good as another.
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

    /// Waits for a flush that was asked for. False if it was not done in time, or cannot be: the
    /// calling thread is the sink's own.
    pub(crate) fn flushed(&self, number: u64, deadline: Deadline) -> bool {
        self.wait(deadline, |state| state.ended || state.flushes_done >= number)
    }

    /// Takes no more events. The thread ends once it has delivered what is queued.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.ready.notify_one();
    }

    /// Waits for the thread to end. False if it did not in time, or is the calling one.
    pub(crate) fn ended(&self, deadline: Deadline) -> bool {
        self.wait(deadline, |state| state.ended)
    }

    fn wait(&self, deadline: Deadline, what: impl Fn(&State) -> bool) -> bool {
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

    /// Delivers everything that is queued until the queue is closed: the whole life of the sink's
    /// thread.
    pub(crate) fn serve(&self, mut sink: Box<dyn EventSink>) {
        let _known = self.thread.set(std::thread::current().id());
        // However this ends: nobody waits for it any more.
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
                    // Dropping it could panic once more.
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
        // What it holds may be worth waiting for, and may panic as well.
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
                None => match wait_until(&self.ready, state, Deadline::NEVER) {
                    Ok(again) | Err(again) => state = again,
                },
            }
        }
    }

    fn told(&self, step: &Step, failed: u64) {
        let mut state = lock(&self.state);
        // A counter: it never goes down, whatever the sink says.
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

/// Ends a queue when its thread does: what still waits is dropped, and counted so.
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
