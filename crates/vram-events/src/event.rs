//! The data of an event about a shard, a GPU or a call.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_id::{ShardId, Timestamp};
use vram_seal::{AlteredSegments, Checked, Protection};

use crate::on_eviction::{EvictedFor, OnEviction};
use crate::whose::Whose;

/// An event of a manager. Events of one shard are in the order of that shard's transitions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Event {
    /// Position among all events of the manager, from 0. A gap means that events were dropped, or
    /// that the sink is told less than all.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// Whose the shard is, for an event about one shard; the model, for an event about a model. In
    /// the serialised form its fields stand beside the others.
    #[cfg_attr(feature = "serde", serde(flatten, skip_serializing_if = "Option::is_none"))]
    pub of: Option<Arc<Whose>>,
    /// What happened.
    pub kind: EventKind,
}

/// The kind of event. No kind contains content, keys, digests or pointers.
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
        /// The owner, if the request named one.
        owner: Option<Arc<str>>,
        /// The GPU that holds it.
        gpu: u32,
        /// Bytes of plaintext.
        bytes: ByteLen,
    },
    /// A whole model became resident. Follows the events of its shards, as every event about a
    /// model does; [`Event::of`] names the model.
    ModelAdmitted {
        /// The number of its shards.
        shards: u64,
        /// Bytes of plaintext.
        bytes: ByteLen,
    },
    /// Shards of a model moved together to a GPU, where the whole model now lies.
    ModelMoved {
        /// The GPU that holds it.
        to: u32,
        /// The number of shards that moved.
        shards: u64,
        /// Their bytes of plaintext.
        bytes: ByteLen,
    },
    /// A whole model left its GPUs for host memory.
    ModelParked {
        /// The number of its shards.
        shards: u64,
        /// Host bytes that it occupies.
        bytes: ByteLen,
    },
    /// A whole model was parked or freed to make room.
    ModelEvicted {
        /// The number of its shards.
        shards: u64,
        /// Bytes that became free on its GPUs.
        bytes: ByteLen,
        /// The action for the model.
        how: OnEviction,
        /// The request that needed the room; `None` if the program carried out a plan.
        evicted_for: Option<Arc<EvictedFor>>,
    },
    /// A whole model returned to GPUs from host memory.
    ModelWoken {
        /// The number of its shards.
        shards: u64,
        /// Bytes of plaintext.
        bytes: ByteLen,
    },
    /// A model was freed: all of its shards that were still there.
    ModelFreed {
        /// The number of shards that were freed.
        shards: u64,
        /// Bytes that can be handed out again.
        bytes: ByteLen,
    },
    /// A shard's device bytes were checked and are the sealed ones.
    Verified {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
        /// Device bytes that were checked.
        bytes: ByteLen,
        /// What the check rests on, and where it was computed.
        by: Checked,
    },
    /// A check found device bytes that are not the sealed ones. The shard is in quarantine.
    Altered {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
        /// The altered segments of this check. Empty if each segment matches by itself but the
        /// content as a whole does not.
        segments: AlteredSegments,
    },
    /// The kernels of a device called segments altered, and the host found them sound: a reading that
    /// failed once, or kernels that compute wrongly. The host's judgement counts.
    KernelsDisagreed {
        /// The GPU.
        gpu: u32,
        /// The number of segments.
        segments: u64,
    },
    /// The kernels of a device are used from now on.
    KernelsUsed {
        /// The GPU.
        gpu: u32,
    },
    /// The kernels of a device are not used for now: the host computes what they would.
    KernelsIdle {
        /// The GPU.
        gpu: u32,
        /// Why, in words.
        why: Arc<str>,
    },
    /// A shard was closed to readers. Follows the first [`Altered`](Self::Altered).
    Quarantined {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
    },
    /// A quarantined shard was restored from a source, and is open to readers again.
    Repaired {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
        /// The segments that were written again.
        segments: AlteredSegments,
    },
    /// A shard was sealed again: opened to plaintext, closed to ciphertext, or moved to another key.
    SealedAnew {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
        /// The form of the content that lies in device memory now.
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
        /// Host bytes that it occupies.
        bytes: ByteLen,
    },
    /// A parked shard was dropped by the program: it is gone, with its host memory.
    Dropped {
        /// The shard.
        shard: ShardId,
    },
    /// A shard returned to a GPU, from host memory or, after a reset, from an image.
    Woken {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
        /// Bytes of plaintext.
        bytes: ByteLen,
    },
    /// A shard was chosen to make room. A separate event with the outcome follows.
    Evicted {
        /// The shard.
        shard: ShardId,
        /// The GPU that held it.
        gpu: u32,
        /// Bytes that became free.
        bytes: ByteLen,
        /// The action for the shard.
        how: OnEviction,
        /// The request that needed the room; `None` if the program carried out a plan.
        evicted_for: Option<Arc<EvictedFor>>,
    },
    /// A shard was freed.
    Freed {
        /// The shard.
        shard: ShardId,
        /// The GPU that held it.
        gpu: u32,
        /// Bytes that can be handed out again; zero if they could not be released, which an earlier
        /// event reports.
        bytes: ByteLen,
        /// Whether they were overwritten first.
        wiped: bool,
    },
    /// Bytes could not be wiped or released. They stay counted and are handed out to nobody until
    /// a later try succeeds; a repair takes bytes out of use for good.
    NotReturned {
        /// The GPU that holds them.
        gpu: u32,
        /// The number of bytes.
        bytes: ByteLen,
    },
    /// Bytes that were not returned earlier could be wiped and released: they can be handed out
    /// again.
    Returned {
        /// The GPU that held them.
        gpu: u32,
        /// The number of bytes, of one or more placements.
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
        /// The call, by its name in the metrics.
        call: Arc<str>,
        /// The shard named in the call, if any.
        shard: Option<ShardId>,
        /// The GPU named in the call, if any.
        gpu: Option<u32>,
        /// The stable code of the error, such as `unknown-gpu`.
        code: Arc<str>,
    },
    /// A sticky driver error made a GPU unusable, or the reset of a working GPU failed.
    DeviceLost {
        /// The GPU.
        gpu: u32,
        /// The driver's error as text.
        error: Arc<str>,
        /// All shards that it held, in ascending order of their ids. No other event says of a shard
        /// that it was lost.
        shards: Arc<[ShardId]>,
    },
    /// A GPU was emptied and is usable again, unless a `DeviceLost` follows. Earlier events report
    /// each shard that returned, as woken, and each that found no place, as parked.
    DeviceReset {
        /// The GPU.
        gpu: u32,
        /// All shards whose content is gone.
        lost: Arc<[ShardId]>,
        /// All shards that were restored from copies.
        restored: Arc<[ShardId]>,
    },
    /// A direct copy between two GPUs delivered altered bytes; copies over this link go through the
    /// host from now on.
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
            Self::ModelAdmitted { .. } => "model_admitted",
            Self::ModelMoved { .. } => "model_moved",
            Self::ModelParked { .. } => "model_parked",
            Self::ModelEvicted { .. } => "model_evicted",
            Self::ModelWoken { .. } => "model_woken",
            Self::ModelFreed { .. } => "model_freed",
            Self::Verified { .. } => "verified",
            Self::Altered { .. } => "altered",
            Self::KernelsDisagreed { .. } => "kernels_disagreed",
            Self::KernelsUsed { .. } => "kernels_used",
            Self::KernelsIdle { .. } => "kernels_idle",
            Self::Quarantined { .. } => "quarantined",
            Self::Repaired { .. } => "repaired",
            Self::SealedAnew { .. } => "sealed_anew",
            Self::Moved { .. } => "moved",
            Self::Parked { .. } => "parked",
            Self::Dropped { .. } => "dropped",
            Self::Woken { .. } => "woken",
            Self::Evicted { .. } => "evicted",
            Self::Freed { .. } => "freed",
            Self::NotReturned { .. } => "not_returned",
            Self::Returned { .. } => "returned",
            Self::Exported { .. } => "exported",
            Self::Refused { .. } => "refused",
            Self::DeviceLost { .. } => "device_lost",
            Self::DeviceReset { .. } => "device_reset",
            Self::LinkDistrusted { .. } => "link_distrusted",
            Self::Closed { .. } => "closed",
        }
    }
}
