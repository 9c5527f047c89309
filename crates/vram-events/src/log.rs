//! The last events, in memory: for tests, and for analysis after a failure.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::event::Event;
use crate::sink::EventSink;
use crate::sync::{Mutex, lock};

/// Keeps the last events in memory. Clones share them: add one as a sink and keep another to read.
///
/// ```
/// use std::sync::Arc;
/// use vram_events::{EventKind, EventLog, Events, Sinks};
/// use vram_id::SystemClock;
///
/// let log = EventLog::new(1000);
/// let mut sinks = Sinks::new();
/// sinks.add(log.clone());
/// let (events, _threads) = Events::start(Arc::new(SystemClock), sinks)?;
/// events.emit(EventKind::LinkDistrusted { from: 0, to: 1 });
/// events.emit(EventKind::Closed { left: 0 });
///
/// assert!(events.flush(None));
/// let names: Vec<_> = log.take().iter().map(|event| event.kind.name()).collect();
/// assert_eq!(names, ["link_distrusted", "closed"]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct EventLog {
    len_max: usize,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    /// Events that were dropped before they arrived, and events that newer ones displaced.
    missing: u64,
}

impl EventLog {
    /// A log of `len` events: newer events displace the oldest.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self { len_max: len, kept: Arc::default() }
    }

    /// The kept events, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        lock(&self.kept).events.iter().cloned().collect()
    }

    /// Removes and returns the kept events, oldest first.
    #[must_use]
    pub fn take(&self) -> Vec<Event> {
        core::mem::take(&mut lock(&self.kept).events).into()
    }

    /// The number of events that are missing: displaced by newer ones, or dropped before they
    /// arrived. Events removed by [`take`](Self::take) do not count.
    #[must_use]
    pub fn missing(&self) -> u64 {
        lock(&self.kept).missing
    }
}

impl EventSink for EventLog {
    fn event(&mut self, event: &Event) {
        let event = event.clone();
        let mut kept = lock(&self.kept);
        kept.events.push_back(event);
        let over = kept.events.len() > self.len_max;
        let oldest = if over { kept.events.pop_front() } else { None };
        if over {
            kept.missing = kept.missing.saturating_add(1);
        }
        drop(kept);
        drop(oldest);
    }

    fn dropped(&mut self, count: u64) {
        let mut kept = lock(&self.kept);
        kept.missing = kept.missing.saturating_add(count);
    }
}
