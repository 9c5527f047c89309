//! Events about whole models.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::EventKind;

use crate::parts::Core;
use crate::shard::Entry;

/// Tells what happened to a whole model. The caller is exclusive at the gates of these shards, so
/// that no other event about the model comes between; without a shard, nothing happened.
pub(crate) fn tell(core: &Core, entries: &[Arc<Entry>], kind: EventKind) {
    if let Some(entry) = entries.first() {
        entry.told().tell_model(core.events.now(), kind);
    }
}

/// The number of shards, and their bytes together.
pub(crate) fn sum(lens: impl Iterator<Item = ByteLen>) -> (u64, ByteLen) {
    lens.fold((0, ByteLen::ZERO), |(count, sum), len| {
        (count.saturating_add(1), sum.saturating_add(len))
    })
}
