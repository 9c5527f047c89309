//! Which shards would be evicted to make room.

use core::fmt;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::OnEviction;
use vram_id::ShardId;
use vram_space::RoomAfter;

/// The shards that would be evicted so that a request fits, and the room there would be then. This
/// is a dry run: nothing was evicted. It is exact as long as nothing else changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[must_use = "a plan does nothing until it is carried out"]
pub struct EvictionPlan {
    /// The shards that would be evicted, in this order. Empty if there is room already.
    pub evictions: Vec<Eviction>,
    /// Bytes that would be freed.
    pub bytes: ByteLen,
    /// The room there would be on each GPU that was considered.
    pub after: Vec<RoomAfter>,
}

/// A shard that is evicted to make room.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct Eviction {
    pub shard_id: ShardId,
    pub model_id: Arc<str>,
    /// The owner that the request named, if any.
    pub owner: Option<Arc<str>>,
    pub gpu: u32,
    /// Bytes that are freed; zero in a report if they could not be wiped or returned.
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
