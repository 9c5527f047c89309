//! What happened to a shard, a GPU or a call: the data of an event.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_id::{ShardId, Timestamp};
use vram_seal::Protection;

use crate::on_eviction::OnEviction;

/// Something that happened to what a manager holds. Events of one shard come in the order in which
/// they happened to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Event {
    /// Position among all events of the manager, from 0. A gap means that events were dropped.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
}

/// What happened. No kind carries content, keys, digests or pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(tag = "event", rename_all = "snake_case"))]
#[non_exhaustive]
pub enum EventKind {
    /// A shard became resident.
    Sealed {
        /// The shard.
        shard: ShardId,
        /// The model that it was sealed as.
        model_id: Arc<str>,
        /// Who it belongs to, if the request said so.
        owner: Option<Arc<str>>,
        /// The GPU that holds it.
        gpu: u32,
        /// Bytes of plaintext.
        bytes: ByteLen,
    },
    /// A shard's device bytes were looked at, and are those that were sealed.
    Verified {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
        /// Device bytes that were checked.
        bytes: ByteLen,
    },
    /// Device bytes were found that are not those that were sealed. The shard is in quarantine.
    Altered {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
        /// The altered segments that were found now, in ascending order; none if they are sound one
        /// by one and the content as a whole is not.
        segments: Vec<u64>,
    },
    /// A shard was closed to readers. Follows the first [`Altered`](Self::Altered).
    Quarantined {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
    },
    /// A quarantined shard was made whole from a source, and is open again.
    Repaired {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
        /// The segments that were written again, in ascending order.
        segments: Vec<u64>,
    },
    /// A shard was sealed anew: opened, closed, or moved to another key.
    SealedAnew {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
        /// What lies in device memory now.
        protection: Protection,
    },
    /// A shard moved: to another GPU, or to another place on the same one.
    Moved {
        /// The shard.
        shard: ShardId,
        /// The GPU that held it.
        from: u32,
        /// The GPU that holds it.
        to: u32,
        /// Bytes of plaintext.
        bytes: ByteLen,
    },
    /// A shard left its GPU for host memory.
    Parked {
        /// The shard.
        shard: ShardId,
        /// The GPU that held it.
        gpu: u32,
        /// Host bytes that it takes.
        bytes: ByteLen,
    },
    /// A shard came back from host memory.
    Woken {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
        /// Bytes of plaintext.
        bytes: ByteLen,
    },
    /// A shard had to make room. What became of it follows in an event of its own.
    Evicted {
        /// The shard.
        shard: ShardId,
        /// The GPU that held it.
        gpu: u32,
        /// Bytes that came back.
        bytes: ByteLen,
        /// What became of it.
        how: OnEviction,
    },
    /// A shard was freed.
    Freed {
        /// The shard.
        shard: ShardId,
        /// The GPU that held it.
        gpu: u32,
        /// Bytes that can be handed out again; none if they could not be given back, as an event
        /// before this one says.
        bytes: ByteLen,
        /// Whether they were overwritten first.
        wiped: bool,
    },
    /// Bytes could not be wiped or given back. They stay counted and are never handed out again.
    NotReturned {
        /// The GPU that holds them.
        gpu: u32,
        /// How many.
        bytes: ByteLen,
    },
    /// A shard was written to a sealed image.
    Exported {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
        /// Bytes of the image.
        bytes: ByteLen,
    },
    /// A call was refused or failed.
    Refused {
        /// The call, as the metrics name it.
        call: Arc<str>,
        /// The shard that it named, if it named one.
        shard: Option<ShardId>,
        /// The GPU that it named, if it named one.
        gpu: Option<u32>,
        /// The stable code of the error, such as `unknown-gpu`.
        code: Arc<str>,
    },
    /// A sticky driver error took a GPU away, or a reset of one that worked failed.
    DeviceLost {
        /// The GPU.
        gpu: u32,
        /// What the driver said, in words.
        error: Arc<str>,
        /// The shards that it held, in ascending order of their ids.
        shards: Vec<ShardId>,
    },
    /// A GPU was emptied and is usable again. What came back was told of before, each as sealed or
    /// woken, and what found no place as parked.
    DeviceReset {
        /// The GPU.
        gpu: u32,
        /// The shards that are gone.
        lost: Vec<ShardId>,
        /// The shards that came back from copies.
        restored: Vec<ShardId>,
    },
    /// A direct copy between two GPUs arrived altered; it is staged through the host since.
    LinkDistrusted {
        /// The GPU that was copied from.
        from: u32,
        /// The GPU that was copied to.
        to: u32,
    },
    /// The manager was closed.
    Closed {
        /// Shards that could not be freed in time.
        left: u64,
    },
}

impl EventKind {
    /// A stable name of the kind, as in the serialised form.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sealed { .. } => "sealed",
            Self::Verified { .. } => "verified",
            Self::Altered { .. } => "altered",
            Self::Quarantined { .. } => "quarantined",
            Self::Repaired { .. } => "repaired",
            Self::SealedAnew { .. } => "sealed_anew",
            Self::Moved { .. } => "moved",
            Self::Parked { .. } => "parked",
            Self::Woken { .. } => "woken",
            Self::Evicted { .. } => "evicted",
            Self::Freed { .. } => "freed",
            Self::NotReturned { .. } => "not_returned",
            Self::Exported { .. } => "exported",
            Self::Refused { .. } => "refused",
            Self::DeviceLost { .. } => "device_lost",
            Self::DeviceReset { .. } => "device_reset",
            Self::LinkDistrusted { .. } => "link_distrusted",
            Self::Closed { .. } => "closed",
        }
    }
}
