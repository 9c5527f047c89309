//! Which shards would go to make room.

use core::fmt;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::OnEviction;
use vram_id::ShardId;
use vram_space::RoomAfter;

/// What would have to go so that something fits, and what there would be then. A dry run: nothing
/// has happened. Exact, as long as nothing else changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[must_use = "a plan does nothing until it is carried out"]
pub struct EvictionPlan {
    /// The shards that would go, in this order. None if there is room already.
    pub evictions: Vec<Eviction>,
    /// Bytes that would come back.
    pub bytes: ByteLen,
    /// What there would be on each GPU that was looked at.
    pub after: Vec<RoomAfter>,
}

/// A shard that goes to make room.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct Eviction {
    pub shard_id: ShardId,
    pub model_id: Arc<str>,
    /// Who it belongs to, if the request said so.
    pub owner: Option<Arc<str>>,
    pub gpu: u32,
    /// Bytes that come back; in a report zero, if they could not be wiped or given back.
    pub bytes: ByteLen,
    pub how: OnEviction,
}

impl fmt::Display for EvictionPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.evictions.as_slice() {
            [] => f.write_str("nothing has to go"),
            [one] => write!(
                f,
                "evicting {} of {} makes {} of room",
                one.shard_id, one.model_id, self.bytes
            ),
            many => write!(f, "evicting {} shards makes {} of room", many.len(), self.bytes),
        }
    }
}
