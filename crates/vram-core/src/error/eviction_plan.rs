//! Which models and shards would be evicted to make room.

use core::fmt;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::OnEviction;
use vram_id::ShardId;
use vram_space::RoomAfter;

/// The models and shards that would be evicted so that a request fits, and the room there would be then. This
/// is a dry run: nothing was evicted. It is exact as long as nothing else changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[must_use = "a plan does nothing until it is carried out"]
pub struct EvictionPlan {
    /// The models and shards that would be evicted, in this order. Empty if there is room already.
    pub evictions: Vec<Eviction>,
    /// Bytes that would be freed.
    pub bytes: ByteLen,
    /// The room there would be on each GPU that was considered.
    pub after: Vec<RoomAfter>,
}

/// A model, or a shard, that is evicted to make room.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct Eviction {
    /// The shard; of a model, its first.
    pub shard_id: ShardId,
    /// The number of shards that go together: all of a model that lie on GPUs.
    pub shard_count: u64,
    pub model_id: Arc<str>,
    /// The owner that the request named, if any.
    pub owner: Option<Arc<str>>,
    /// The GPU that the first shard lies on.
    pub gpu: u32,
    /// The bytes that the shards hold on each GPU, in ascending order of the GPUs.
    pub by_gpu: Vec<(u32, ByteLen)>,
    /// Bytes that are freed; zero in a report if they could not be wiped or returned.
    pub bytes: ByteLen,
    pub how: OnEviction,
}

impl fmt::Display for Eviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shard_count {
            0 | 1 => write!(f, "{} of {}", self.shard_id, self.model_id)?,
            count => write!(f, "{} ({count} shards)", self.model_id)?,
        }
        self.owner.as_ref().map_or(Ok(()), |owner| write!(f, " of {owner}"))
    }
}

impl fmt::Display for EvictionPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes;
        match self.evictions.as_slice() {
            [] => f.write_str("nothing has to go"),
            [one] => write!(f, "evicting {one} makes {bytes} of room"),
            [one, rest @ ..] => {
                write!(f, "evicting {one} and {} more makes {bytes} of room", rest.len())
            }
        }
    }
}
