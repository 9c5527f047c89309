//! What became of events: asked at the facade.

use core::time::Duration;

use crate::manager::VramManager;
use crate::sink::SinkCounts;
use crate::sync::Deadline;

impl VramManager {
    /// Waits until every sink that is in service was given all events of before, and flushed. False
    /// if the time was up first, or if a sink's own thread asks. Whether a sink could keep them,
    /// [`event_counts`](Self::event_counts) says.
    #[must_use]
    pub fn flush_events(&self, timeout: Duration) -> bool {
        self.core.events.flush(Deadline::within(timeout).instant())
    }

    /// What became of all events, for each sink in the order in which they were added.
    #[must_use]
    pub fn event_counts(&self) -> Vec<SinkCounts> {
        self.core.events.counts()
    }
}
