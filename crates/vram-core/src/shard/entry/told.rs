//! Who hears of the changes of a shard.

use std::sync::Arc;

use vram_events::{EventKind, Events, Whose};
use vram_id::Timestamp;

use crate::shard::{Admitted, Census};

/// Who hears of the changes of a shard.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) events: Arc<Events>,
    pub(crate) census: Arc<Census>,
    /// Whether an eviction of a shard is one of its whole model.
    pub(crate) evicts_models: bool,
    /// Whose the shard is, for its events.
    pub(crate) of: Option<Arc<Whose>>,
    /// The model that the shard was admitted with.
    pub(crate) model: Option<Arc<Admitted>>,
}

impl Told {
    /// Who hears of all shards of a manager.
    pub(crate) const fn new(events: Arc<Events>, census: Arc<Census>, evicts_models: bool) -> Self {
        Self { events, census, evicts_models, of: None, model: None }
    }

    /// Appends an event to every sink's queue, in the critical section of what it tells.
    pub(crate) fn tell(&self, at: Timestamp, kind: EventKind) {
        if self.is_step(&kind) {
            self.events.append_step(at, self.of.clone(), kind);
        } else {
            self.events.append(at, self.of.clone(), kind);
        }
    }

    /// Emits an event about the shard now. The caller holds no lock: a clock is foreign code.
    pub(crate) fn emit(&self, kind: EventKind) {
        if self.is_step(&kind) {
            self.events.emit_step(self.of.clone(), kind);
        } else {
            self.events.emit_of(self.of.clone(), kind);
        }
    }

    /// Appends an event about the whole model of the shard.
    pub(crate) fn tell_model(&self, at: Timestamp, kind: EventKind) {
        let model = self.of.as_ref().map(|of| Arc::new(of.model()));
        self.events.append(at, model, kind);
    }

    /// Whether an event of the whole model follows, which tells sinks of models the same.
    fn is_step(&self, kind: &EventKind) -> bool {
        let as_one = self.model.as_ref().is_some_and(|model| model.is_told_as_one());
        as_one && (self.evicts_models || !matches!(kind, EventKind::Evicted { .. }))
    }
}
