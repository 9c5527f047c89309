//! How much a sink is told.

use crate::event::{Event, EventKind};

/// Which events a sink receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventLevel {
    /// All events.
    #[default]
    Shards,
    /// One event for each call on a whole model, whatever the number of its shards: not the steps of
    /// its single shards (sealed, sealed anew, moved, parked, dropped, woken, evicted, freed,
    /// exported), about which an event of the model follows. Where none follows, the step itself is
    /// told: of a call on a single shard, of a parked model that is dropped, of a close. A check that
    /// finds a shard of a model sound is never told. What is found altered, refused or lost is told,
    /// and everything about a shard that was sealed by itself.
    Models,
}

impl EventLevel {
    /// Whether a sink receives an event; `step` if an event of the whole model follows.
    pub(crate) fn takes(self, event: &Event, step: bool) -> bool {
        let of_a_model = || event.of.as_ref().is_some_and(|of| of.admission.is_some());
        let left_out = match &event.kind {
            EventKind::Verified { .. } => true,
            kind => step && is_step_of_a_shard(kind),
        };
        self == Self::Shards || !(left_out && of_a_model())
    }
}

const fn is_step_of_a_shard(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::Sealed { .. }
            | EventKind::SealedAnew { .. }
            | EventKind::Moved { .. }
            | EventKind::Parked { .. }
            | EventKind::Dropped { .. }
            | EventKind::Woken { .. }
            | EventKind::Evicted { .. }
            | EventKind::Freed { .. }
            | EventKind::Exported { .. }
    )
}
