//! The last events, in memory: for tests, and to look at after something went wrong.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::events::Event;
use crate::sink::EventSink;
use crate::sync::{Mutex, lock};

/// Keeps the last events of a manager in memory. Clones share them: give one to the builder and
/// keep the other.
///
/// ```
/// use core::time::Duration;
/// use vram_residency::{ByteLen, EventLog, VramManager};
///
/// let log = EventLog::new(1000);
/// let manager =
///     VramManager::builder().host_device(ByteLen::MIB).event_sink(log.clone()).build()?;
/// let shard = manager.seal_model("llama-3-8b", 0, b"weights")?;
/// manager.free_shard(&shard)?;
///
/// assert!(manager.flush_events(Duration::from_secs(5)));
/// let names: Vec<_> = log.take().iter().map(|event| event.kind.name()).collect();
/// assert_eq!(names, ["sealed", "freed"]);
/// # Ok::<(), vram_residency::VramError>(())
/// ```
#[derive(Clone, Debug)]
pub struct EventLog {
    len_max: usize,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    /// Events that were dropped before they came here, and those that newer ones pushed out.
    missing: u64,
}

impl EventLog {
    /// A log of so many events: newer ones push out the oldest.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self { len_max: len, kept: Arc::default() }
    }

    /// The events that are kept, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        lock(&self.kept).events.iter().cloned().collect()
    }

    /// Takes the events that are kept, oldest first.
    #[must_use]
    pub fn take(&self) -> Vec<Event> {
        core::mem::take(&mut lock(&self.kept).events).into()
    }

    /// Events that are not here any more, or never were: pushed out by newer ones, or dropped on
    /// the way. What was taken does not count.
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
