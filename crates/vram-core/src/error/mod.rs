//! What can go wrong, where, how much was asked for, and what would help.

pub mod class;
pub mod eviction_plan;
pub mod file;
pub mod reservation_id;
pub mod shortfall;
pub mod space;
mod words;

pub use self::class::Class;
pub use self::eviction_plan::{Eviction, EvictionPlan};
pub use self::reservation_id::ReservationId;
pub use self::shortfall::{Holder, Shortfall};

use core::time::Duration;
use std::path::PathBuf;
use std::sync::Arc;

use self::words::{Leases, Place, Segments};
use vram_alloc::ByteLen;
use vram_files::{KeySourceError, SourceError};
use vram_gpu::GpuError;
use vram_id::ShardId;
use vram_seal::{ContentDigest, KeyError, KeyId, SealError};

/// Why a call was refused or failed.
///
/// A failed call changed nothing, except what the failure itself revealed and its error names: a
/// quarantine, a lost device, bytes that could not be wiped and stay counted. No variant carries
/// content, keys, tags or pointers, so every error can be logged as it is.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VramError {
    /// There is no room for the request on this GPU.
    #[error(transparent)]
    InsufficientVram(Box<Shortfall>),
    /// The manager has no GPU of this index.
    #[error("there is no gpu {gpu}: the manager has {count}, counted from 0")]
    UnknownGpu {
        /// The index that was asked for.
        gpu: u32,
        /// How many GPUs there are.
        count: u32,
    },
    /// The handle was made by another manager.
    #[error("the handle of {shard} belongs to another manager")]
    ForeignHandle {
        /// The shard that the handle names.
        shard: ShardId,
    },
    /// The handle's fields or its seal record are not as the manager made them.
    #[error("the handle of {shard} was altered")]
    HandleAltered {
        /// The shard that the handle names.
        shard: ShardId,
    },
    /// The handle is sound, but its shard is no longer resident.
    #[error("{shard} was freed")]
    ShardFreed {
        /// The shard that the handle names.
        shard: ShardId,
    },
    /// The shard is in host memory: it answers again once it was woken.
    #[error("{shard} is parked: wake it first")]
    Parked {
        /// The shard that the handle names.
        shard: ShardId,
    },
    /// The host memory for parked shards has no room for one more.
    #[error("{needed} cannot be parked: room for {room}, of {limit} for parked shards")]
    ParkLimit {
        /// Host bytes that parking takes.
        needed: ByteLen,
        /// Host bytes that could be had.
        room: ByteLen,
        /// The configured limit.
        limit: ByteLen,
    },
    /// The copy of a parked shard in host memory is not what was parked.
    #[error("the parked copy of {shard} was altered in host memory: {}", Segments(segments))]
    ParkedAltered {
        /// The shard.
        shard: ShardId,
        /// The altered segments, in ascending order.
        segments: Vec<u64>,
    },
    /// The shard has been sealed anew since the handle was made: ask for a fresh handle.
    #[error("the handle of {shard} is from before the shard was sealed anew")]
    StaleHandle {
        /// The shard that the handle names.
        shard: ShardId,
    },
    /// The shard's device bytes were found altered before: nothing is read from it until it is
    /// freed or repaired.
    #[error("{shard} is in quarantine: {} was altered", Segments(segments))]
    Quarantined {
        /// The shard.
        shard: ShardId,
        /// The segments that were found altered, in ascending order.
        segments: Vec<u64>,
    },
    /// The shard's device bytes are not those that were sealed. It is in quarantine from now on.
    #[error("{shard} was altered in device memory: {}", Segments(segments))]
    ShardAltered {
        /// The shard.
        shard: ShardId,
        /// The altered segments that this call met, in ascending order; empty if the segments
        /// are sound one by one, and the content as a whole is not.
        segments: Vec<u64>,
    },
    /// What was just written to the device reads back differently, though the copy was reported
    /// as done. Nothing stayed resident.
    #[error("bytes written to gpu {gpu} read back differently: {}", Segments(segments))]
    WriteNotKept {
        /// The GPU that was written to.
        gpu: u32,
        /// The segments that differ, in ascending order.
        segments: Vec<u64>,
    },
    /// The range does not lie inside the shard.
    #[error("{length} bytes at {offset} are not inside {shard} of {len}")]
    OutOfBounds {
        /// The shard.
        shard: ShardId,
        /// First byte asked for.
        offset: u64,
        /// Bytes asked for.
        length: u64,
        /// Plaintext bytes of the shard.
        len: ByteLen,
    },
    /// The target has another length than the shard.
    #[error("the target has {found}, and {shard} has {expected}")]
    TargetLength {
        /// The shard.
        shard: ShardId,
        /// Plaintext bytes of the shard.
        expected: ByteLen,
        /// Bytes of the target.
        found: ByteLen,
    },
    /// A configured limit would be passed.
    #[error("{what} is limited to {limit}, and {wanted} was asked for")]
    LimitExceeded {
        /// What is limited, with its unit.
        what: &'static str,
        /// The limit, inclusive.
        limit: u64,
        /// What was asked for.
        wanted: u64,
    },
    /// The source gave other bytes in the second pass than in the first.
    #[error("the source of {model_id} changed in segment {segment} while it was being sealed")]
    SourceChanged {
        /// The model being sealed.
        model_id: Arc<str>,
        /// The segment that differs.
        segment: u64,
    },
    /// The source has another length than it declared.
    #[error("{source_name} declared {declared} and has {found}, while {model_id} was being sealed")]
    SourceLength {
        /// The model being sealed.
        model_id: Arc<str>,
        /// What was read.
        source_name: String,
        /// The length it declared.
        declared: ByteLen,
        /// The length at which it ended, or the length it has at least.
        found: ByteLen,
    },
    /// The source could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The content is not the one that was expected. A whole digest would confirm guesses of the
    /// content to whoever reads a log, so the text has only its beginning.
    #[error("the content of {model_id} has {found:?}, and {expected:?} was expected")]
    DigestMismatch {
        /// The model being sealed.
        model_id: Arc<str>,
        /// The digest the caller named.
        expected: Box<ContentDigest>,
        /// The digest of what came.
        found: Box<ContentDigest>,
    },
    /// The caller asked to stop.
    #[error("cancelled after {done} of {total}")]
    Cancelled {
        /// Bytes that had been handled.
        done: ByteLen,
        /// Bytes there were to handle.
        total: ByteLen,
    },
    /// A file, a source or a target failed.
    #[error("{action}{}: {source}", Place(path.as_deref()))]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file, where there is one.
        path: Option<PathBuf>,
        /// What the operating system said.
        source: Arc<std::io::Error>,
    },
    /// A key could not be read, made or found.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key cannot be retired: something is sealed under it.
    #[error("key {key} is in use by {seals} seals: move their shards to another key first")]
    KeyInUse {
        /// The key.
        key: KeyId,
        /// Seals under it, of resident and parked shards.
        seals: usize,
    },
    /// No key could be had where one should be.
    #[error(transparent)]
    KeySource(#[from] KeySourceError),
    /// A sealed image was refused.
    #[error("sealed image {}: {source}", path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<SealError>,
    },
    /// The seal refused its input.
    #[error(transparent)]
    Seal(SealError),
    /// The device or its driver failed. It is usable: this was not a sticky error.
    #[error("{source}")]
    Device {
        /// The GPU, as this manager counts them.
        gpu: u32,
        /// What the device said.
        #[source]
        source: Box<GpuError>,
    },
    /// A sticky driver error took the GPU away. Nothing is sent to it any more; the others go on.
    #[error("gpu {gpu} is lost: {source}")]
    DeviceLost {
        /// The GPU, as this manager counts them.
        gpu: u32,
        /// What took it away.
        #[source]
        source: Box<GpuError>,
    },
    /// The shard is gone, but its bytes could not be wiped, or the driver did not take them back:
    /// they stay counted and are never handed out again.
    #[error(
        "{shard} was freed, but {bytes} on gpu {gpu} could not be given back and stay counted: {source}"
    )]
    NotReturned {
        /// The shard that was freed.
        shard: ShardId,
        /// The GPU that holds the bytes.
        gpu: u32,
        /// Bytes that stay counted.
        bytes: ByteLen,
        /// Why they could not be wiped or given back.
        #[source]
        source: Box<GpuError>,
    },
    /// The shard is leased, or the calling thread is using it itself.
    #[error("{shard} is in use{}", Leases(*leases))]
    InUse {
        /// The shard.
        shard: ShardId,
        /// Leases that are out; 0 if the calling thread is in its own way.
        leases: usize,
    },
    /// Other calls were still using the shard when the time was up.
    #[error("{shard} was still in use by other calls after {waited:?}")]
    TimedOut {
        /// The shard.
        shard: ShardId,
        /// How long was waited.
        waited: Duration,
    },
    /// The reservation's time was up: its bytes went back, or what was left of them.
    #[error("{reservation} has expired")]
    ReservationExpired {
        /// The reservation.
        reservation: ReservationId,
    },
    /// The reservation holds less than the request takes.
    #[error("{reservation} holds {remaining}, and {needed} is needed")]
    ReservationTooSmall {
        /// The reservation.
        reservation: ReservationId,
        /// Bytes that the request takes, in whole granules.
        needed: ByteLen,
        /// Bytes that are still reserved.
        remaining: ByteLen,
    },
    /// The request is for another GPU than the reservation.
    #[error("{reservation} is on gpu {reserved}, and the request is for gpu {asked}")]
    ReservationElsewhere {
        /// The reservation.
        reservation: ReservationId,
        /// The GPU that it is on.
        reserved: u32,
        /// The GPU that the request names.
        asked: u32,
    },
    /// The reservation was made by another manager.
    #[error("{reservation} belongs to another manager")]
    ForeignReservation {
        /// The reservation, as that manager counts them.
        reservation: ReservationId,
    },
    /// A shard of the plan cannot be evicted any more. Nothing was evicted: ask for a new plan.
    #[error("the eviction plan is outdated: {shard} {why}")]
    PlanOutdated {
        /// The shard.
        shard: ShardId,
        /// Why it cannot go.
        why: &'static str,
    },
    /// The host has no memory for the answer or for a buffer.
    #[error("the host has no memory for {wanted}")]
    HostMemory {
        /// Bytes that were asked for.
        wanted: ByteLen,
    },
    /// The GPU cannot be reset at the moment: somebody is busy with it.
    #[error("gpu {gpu} cannot be reset now: {why}")]
    GpuInUse {
        /// The GPU.
        gpu: u32,
        /// Who is busy with it.
        why: &'static str,
    },
    /// The GPU is well and holds shards, which a reset would lose.
    #[error("gpu {gpu} is not lost and holds {shards} shards: only a forced reset gives them up")]
    NotLost {
        /// The GPU.
        gpu: u32,
        /// Shards that it holds.
        shards: u64,
    },
    /// The manager was closed: it takes nothing any more, and serves nothing.
    #[error("the manager is closed")]
    Closed,
    /// There is no GPU to take.
    #[error("no gpu can be used: {reason}")]
    NoGpu {
        /// Why not, and what would help.
        reason: String,
    },
    /// The manager cannot be built like this.
    #[error("configuration: {what}")]
    Config {
        /// What is wrong, and what would be right.
        what: String,
    },
}

impl From<SealError> for VramError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Key(error) => Self::Key(error),
            SealError::HostMemory { wanted } => Self::HostMemory { wanted },
            other => Self::Seal(other),
        }
    }
}
