//! Who hears of the changes of a shard.

use std::sync::Arc;

use vram_events::{EventKind, Events, Whose};
use vram_id::Timestamp;

use crate::shard::{Census, Of};

/// Who hears of the changes of all shards of a manager.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) events: Arc<Events>,
    pub(crate) census: Arc<Census>,
    /// Whether an eviction of a shard is one of its whole model.
    pub(crate) evicts_models: bool,
}

/// Who hears of the changes of one shard, and whose it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told<'a> {
    pub(crate) listeners: &'a Listeners,
    pub(crate) of: &'a Of,
}

impl Told<'_> {
    /// Appends an event to every sink's queue, in the critical section of what it tells.
    pub(crate) fn tell(self, at: Timestamp, kind: EventKind) {
        let (events, of) = (&self.listeners.events, self.whose());
        if self.is_step(&kind) {
            events.append_step(at, of, kind);
        } else {
            events.append(at, of, kind);
        }
    }

    /// Emits an event about the shard now. The caller holds no lock: a clock is foreign code.
    pub(crate) fn emit(self, kind: EventKind) {
        let (events, of) = (&self.listeners.events, self.whose());
        if self.is_step(&kind) {
            events.emit_step(of, kind);
        } else {
            events.emit_of(of, kind);
        }
    }

    /// Appends an event about the whole model of the shard.
    pub(crate) fn tell_model(self, at: Timestamp, kind: EventKind) {
        let model = self.listeners.events.is_heard().then(|| Arc::new(self.of.whose().model()));
        self.listeners.events.append(at, model, kind);
    }

    /// Whose the shard is, if somebody is told.
    pub(crate) fn whose(self) -> Option<Arc<Whose>> {
        self.listeners.events.is_heard().then(|| Arc::new(self.of.whose()))
    }

    /// Whether an event of the whole model follows, which tells sinks of models the same.
    fn is_step(self, kind: &EventKind) -> bool {
        let as_one = self.of.member().is_some_and(|member| member.model.is_told_as_one());
        as_one && (self.listeners.evicts_models || !matches!(kind, EventKind::Evicted { .. }))
    }
}
