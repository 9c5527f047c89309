//! The trait of a sink, what is counted for it, and the list of sinks that events begin with.

use core::fmt;

use crate::event::Event;

/// Events that wait for one sink at most, where no other length is given.
const QUEUE_LEN: usize = 8192;

/// Is told what happens, in order, on a thread of its own.
///
/// A sink may be slow, may block and may call back into what emits the events (through a
/// [`Weak`](std::sync::Weak): a sink that owns its emitter keeps it from ever being dropped): no
/// call waits for it. An event that finds the queue full is dropped and counted. A sink that panics
/// is taken out of service, and the others go on. When the emitter is dropped, it lets its sinks
/// finish what is queued, and waits for that up to five seconds.
///
/// A closure will do, and so does an [`EventLog`](crate::EventLog):
///
/// ```
/// use std::sync::Arc;
/// use vram_events::{Event, EventKind, Events, Sinks};
/// use vram_id::SystemClock;
///
/// let mut sinks = Sinks::new();
/// sinks.add(|event: &Event| eprintln!("{}: {}", event.seq, event.kind.name()));
/// let (events, _threads) = Events::start(Arc::new(SystemClock), sinks)?;
/// events.emit(EventKind::Closed { left: 0 });
/// assert!(events.flush(None));
/// assert_eq!(events.counts()[0].delivered, 1);
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait EventSink: Send {
    /// Something happened.
    fn event(&mut self, event: &Event);

    /// So many events were dropped, after the last one that was delivered and before the next.
    fn dropped(&mut self, count: u64) {
        let _ = count;
    }

    /// Everything that was queued when a flush was asked for has been delivered, and what was dropped
    /// by then has been told. Called once more when the emitter is dropped.
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

/// Sinks that no thread serves yet, each with the length of its queue.
#[derive(Default)]
pub struct Sinks(pub(crate) Vec<(usize, Box<dyn EventSink>)>);

impl Sinks {
    /// No sink: events are numbered, and nothing is told.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a sink, with a queue of 8192. Any number may be added.
    pub fn add(&mut self, sink: impl EventSink + 'static) {
        self.add_with(QUEUE_LEN, sink);
    }

    /// Adds a sink with a queue of so many events: those that find it full are dropped and counted.
    /// Host memory is taken as they come, not before.
    pub fn add_with(&mut self, queue_len: usize, sink: impl EventSink + 'static) {
        self.0.push((queue_len, Box::new(sink)));
    }
}

impl fmt::Debug for Sinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sinks", self.0.len())
    }
}
