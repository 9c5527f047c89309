//! How much a sink is told.

use crate::event::{Event, EventKind};

/// Which events a sink receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventLevel {
    /// All events.
    #[default]
    Shards,
    /// All but the steps of single shards of admitted models (sealed, verified, sealed anew, moved,
    /// parked, dropped, woken, freed, exported): calls on a whole model are told in one event each,
    /// whatever the number of its shards. What is found altered, evicted, refused or lost is told,
    /// and every step of a shard that was sealed by itself.
    Models,
}

impl EventLevel {
    pub(crate) fn takes(self, event: &Event) -> bool {
        let of_a_model = || event.of.as_ref().is_some_and(|of| of.admission.is_some());
        self == Self::Shards || !(is_step_of_a_shard(&event.kind) && of_a_model())
    }
}

const fn is_step_of_a_shard(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::Sealed { .. }
            | EventKind::Verified { .. }
            | EventKind::SealedAnew { .. }
            | EventKind::Moved { .. }
            | EventKind::Parked { .. }
            | EventKind::Dropped { .. }
            | EventKind::Woken { .. }
            | EventKind::Freed { .. }
            | EventKind::Exported { .. }
    )
}
