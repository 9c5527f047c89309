//! Sinks for events, added to a manager before it is built.

use vram_events::{EventLevel, EventSink};

use crate::builder::VramManagerBuilder;

impl VramManagerBuilder {
    /// Adds a sink for events, with a queue of 8192. Any number may be added.
    ///
    /// # Examples
    ///
    /// A closure is a sink, and so is an [`EventLog`](crate::EventLog):
    ///
    /// ```
    /// use core::time::Duration;
    /// use vram_residency::{ByteLen, Event, EventLog, VramManager};
    ///
    /// let log = EventLog::new(1000);
    /// let manager = VramManager::builder()
    ///     .host_device(ByteLen::MIB)
    ///     .event_sink(|event: &Event| eprintln!("{}: {}", event.seq, event.kind.name()))
    ///     .event_sink(log.clone())
    ///     .build()?;
    /// let shard = manager.seal_model("llama-3-8b", 0, b"weights")?;
    /// assert!(manager.flush_events(Duration::from_secs(5)));
    /// assert_eq!(manager.event_counts()[0].delivered, 1);
    ///
    /// manager.free_shard(&shard)?;
    /// assert!(manager.flush_events(Duration::from_secs(5)));
    /// let names: Vec<_> = log.take().iter().map(|event| event.kind.name()).collect();
    /// assert_eq!(names, ["sealed", "freed"]);
    /// # Ok::<(), vram_residency::VramError>(())
    /// ```
    pub fn event_sink(mut self, sink: impl EventSink + 'static) -> Self {
        self.sinks.add(sink);
        self
    }

    /// As [`event_sink`](Self::event_sink), with a queue of `queue_len` events. Events that find
    /// the queue full are dropped and counted. The queue takes host memory as events arrive, not
    /// before.
    pub fn event_sink_with(mut self, queue_len: usize, sink: impl EventSink + 'static) -> Self {
        self.sinks.add_with(queue_len, sink);
        self
    }

    /// As [`event_sink`](Self::event_sink), for the events of a level: a sink of
    /// [`EventLevel::Models`] receives one event where a whole model with any number of shards is
    /// admitted, moved, parked, woken or freed.
    pub fn event_sink_at(mut self, level: EventLevel, sink: impl EventSink + 'static) -> Self {
        self.sinks.add_at(level, sink);
        self
    }
}
