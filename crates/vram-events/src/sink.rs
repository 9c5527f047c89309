//! The trait of a sink, its counts, and the list of sinks to start with.

use core::fmt;

use crate::event::Event;
use crate::level::EventLevel;

/// Default for the maximum number of events that wait for one sink.
const QUEUE_LEN: usize = 8192;

/// Receives events in order, on a thread of its own.
///
/// A sink may be slow, may block and may call the emitter of the events; no call waits for it. Use
/// a [`Weak`](std::sync::Weak) for that: a sink that owns its emitter keeps it alive forever. An
/// event for a full queue is dropped and counted. A sink that panics is taken out of service, and
/// the others go on. When the emitter is dropped, its sinks process what is queued; the drop waits
/// for that up to five seconds.
///
/// Closures and [`EventLog`](crate::EventLog) implement this trait:
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
    /// Receives one event.
    fn event(&mut self, event: &Event);

    /// Reports that `count` events were dropped between the last delivered one and the next.
    fn dropped(&mut self, count: u64) {
        let _ = count;
    }

    /// Called when everything that was queued at the request of a flush has been delivered, and
    /// earlier drops were reported. Called once more when the emitter is dropped.
    fn flush(&mut self) {}

    /// The number of received events that the sink could not store so far. Read after each
    /// delivery; the largest value counts.
    fn failed(&self) -> u64 {
        0
    }
}

impl<F: FnMut(&Event) + Send> EventSink for F {
    fn event(&mut self, event: &Event) {
        self(event);
    }
}

/// The counts of one sink: `emitted == delivered + dropped + waiting + the event on which it
/// panicked`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SinkCounts {
    /// Events that were emitted for this sink.
    pub emitted: u64,
    /// Events that the sink received.
    pub delivered: u64,
    /// Events for which the queue was full, or the sink out of service.
    pub dropped: u64,
    /// Events that the sink could not store, as it reports, plus the event on which it panicked.
    pub failed: u64,
    /// Whether it panicked and receives no more events.
    pub out_of_service: bool,
}

/// Sinks without a thread so far, each with the length of its queue.
#[derive(Default)]
pub struct Sinks(pub(crate) Vec<(EventLevel, usize, Box<dyn EventSink>)>);

impl Sinks {
    /// No sinks: events are numbered and not delivered.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a sink, with a queue of 8192. Any number may be added.
    pub fn add(&mut self, sink: impl EventSink + 'static) {
        self.add_with(QUEUE_LEN, sink);
    }

    /// Adds a sink with a queue of `queue_len` events: events for a full queue are dropped and
    /// counted. Host memory is allocated as events arrive.
    pub fn add_with(&mut self, queue_len: usize, sink: impl EventSink + 'static) {
        self.0.push((EventLevel::Shards, queue_len, Box::new(sink)));
    }

    /// Adds a sink that receives the events of a level, with a queue of 8192. Other events take no
    /// place in its queue, and are not counted for it.
    pub fn add_at(&mut self, level: EventLevel, sink: impl EventSink + 'static) {
        self.0.push((level, QUEUE_LEN, Box::new(sink)));
    }
}

impl fmt::Debug for Sinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sinks", self.0.len())
    }
}
