//! What can go wrong: where, how much was requested, and what would help.

pub mod class;
pub mod eviction_plan;
pub mod file;
pub mod oldest_lease;
pub mod reservation_id;
pub mod shortfall;
pub mod space;
mod words;

pub use self::class::Class;
pub use self::eviction_plan::{Eviction, EvictionPlan};
pub use self::oldest_lease::OldestLease;
pub use self::reservation_id::ReservationId;
pub use self::shortfall::{AfterAll, BusyShards, Holder, Shortfall};

use core::time::Duration;
use std::path::PathBuf;
use std::sync::Arc;

use self::words::{Leases, MadeRoom, Place};
use vram_alloc::ByteLen;
use vram_events::EvictedFor;
use vram_files::{KeySourceError, SourceError};
use vram_gpu::GpuError;
use vram_id::ShardId;
use vram_seal::{AlteredSegments, ContentDigest, KeyError, KeyId, SealError};

/// Why a call was refused or failed.
///
/// A failed call changes nothing, except what the failure itself reveals and its error names: a
/// quarantine, a lost device, bytes that could not be wiped and stay counted. No variant carries
/// content, keys, tags or pointers, so every error can be logged as it is.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VramError {
    /// This GPU has no room for the request.
    #[error(transparent)]
    InsufficientVram(Box<Shortfall>),
    /// The manager has no GPU with this index.
    #[error("there is no gpu {gpu}: the manager has {count}, counted from 0")]
    UnknownGpu {
        /// The requested index.
        gpu: u32,
        /// The number of GPUs.
        count: u32,
    },
    /// The handle was made by another manager.
    #[error("the handle of {shard} belongs to another manager")]
    ForeignHandle {
        /// The shard that the handle names.
        shard: ShardId,
    },
    /// The handle's fields or its seal record differ from what the manager made.
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
    /// The shard is in host memory: its handles work again after it is woken.
    #[error("{shard} is parked{}: wake it first", MadeRoom(evicted_for.as_deref()))]
    Parked {
        /// The shard that the handle names.
        shard: ShardId,
        /// The request that it was evicted for; `None` if the program parked it.
        evicted_for: Option<Arc<EvictedFor>>,
    },
    /// The GPU of the shard was reset, and the shard is being restored from a copy.
    #[error("{shard} is being restored after a reset of its gpu")]
    Restoring {
        /// The shard that the handle names.
        shard: ShardId,
    },
    /// The host memory for parked shards has no room for one more.
    #[error("{needed} cannot be parked: room for {room}, of {limit} for parked shards")]
    ParkLimit {
        /// Host bytes that parking takes.
        needed: ByteLen,
        /// Host bytes that are still available.
        room: ByteLen,
        /// The configured limit.
        limit: ByteLen,
    },
    /// The copy of a parked shard in host memory differs from what was parked.
    #[error("the parked copy of {shard} was altered in host memory: {segments}")]
    ParkedAltered {
        /// The shard.
        shard: ShardId,
        /// The altered segments.
        segments: AlteredSegments,
    },
    /// The shard was sealed anew after the handle was made: ask for a fresh handle.
    #[error("the handle of {shard} is from before the shard was sealed anew")]
    StaleHandle {
        /// The shard that the handle names.
        shard: ShardId,
    },
    /// The shard's device bytes were found altered by an earlier check. The shard is not read until
    /// it is freed or repaired.
    #[error("{shard} is in quarantine: {segments} was altered")]
    Quarantined {
        /// The shard.
        shard: ShardId,
        /// The segments that were found altered.
        segments: AlteredSegments,
    },
    /// The shard's device bytes are not those that were sealed. The shard is in quarantine from now
    /// on.
    #[error("{shard} was altered in device memory: {segments}")]
    ShardAltered {
        /// The shard.
        shard: ShardId,
        /// The altered segments that this call found. Empty if each segment is sound and the content
        /// as a whole differs.
        segments: AlteredSegments,
    },
    /// Bytes that were just written to the device read back differently, though the device reported
    /// the copy as done. Nothing stayed resident.
    #[error("bytes written to gpu {gpu} read back differently: {segments}")]
    WriteNotKept {
        /// The GPU that was written to.
        gpu: u32,
        /// The segments that differ.
        segments: AlteredSegments,
    },
    /// The range does not lie inside the shard.
    #[error("{length} bytes at {offset} are not inside {shard} of {len}")]
    OutOfBounds {
        /// The shard.
        shard: ShardId,
        /// First requested byte, counted from the start of the shard.
        offset: u64,
        /// Number of requested bytes.
        length: u64,
        /// Plaintext bytes of the shard.
        len: ByteLen,
    },
    /// The target and the shard differ in length.
    #[error("the target has {found}, and {shard} has {expected}")]
    TargetLength {
        /// The shard.
        shard: ShardId,
        /// Plaintext bytes of the shard.
        expected: ByteLen,
        /// Bytes of the target.
        found: ByteLen,
    },
    /// The request would exceed a configured limit.
    #[error("{what} is limited to {limit}, and {wanted} was asked for")]
    LimitExceeded {
        /// What is limited, with its unit.
        what: &'static str,
        /// The limit, inclusive.
        limit: u64,
        /// The requested amount.
        wanted: u64,
    },
    /// The source changed: a segment no longer has the bytes that were hashed before.
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
        /// The name of the source.
        source_name: String,
        /// The length it declared.
        declared: ByteLen,
        /// The length at which the source ended, or the length that it has at least.
        found: ByteLen,
    },
    /// The source could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The content is not the expected one. Neither text nor `Debug` shows a digest, not even its
    /// beginning: it would let a reader of a log confirm a guess of the content.
    #[error("the content of {model_id} has another digest than expected")]
    DigestMismatch {
        /// The model being sealed.
        model_id: Arc<str>,
        /// The digest that the caller named.
        expected: Box<ContentDigest>,
        /// The digest of the content that was read.
        found: Box<ContentDigest>,
    },
    /// The caller cancelled the call.
    #[error("cancelled after {done} of {total}")]
    Cancelled {
        /// Bytes that were handled before the cancellation.
        done: ByteLen,
        /// Bytes to handle in total.
        total: ByteLen,
    },
    /// A file, a source or a target failed.
    #[error("{action}{}: {source}", Place(path.as_deref()))]
    Io {
        /// The action that failed.
        action: &'static str,
        /// The file, if there is one.
        path: Option<PathBuf>,
        /// The error of the operating system.
        source: Arc<std::io::Error>,
    },
    /// A key could not be read, made or found.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key cannot be retired: shards are sealed under it.
    #[error("key {key} is in use by {seals} seals: move their shards to another key first")]
    KeyInUse {
        /// The key.
        key: KeyId,
        /// Seals under this key, of resident and parked shards.
        seals: usize,
    },
    /// No key was found where one is needed.
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
    /// The device or its driver failed. The device stays usable: the error is not sticky.
    #[error("{source}")]
    Device {
        /// The index of the GPU in this manager.
        gpu: u32,
        /// The error of the device.
        #[source]
        source: Box<GpuError>,
    },
    /// A sticky driver error: the GPU is lost. The manager sends it no more calls; the other GPUs
    /// keep working.
    #[error("gpu {gpu} is lost: {source}")]
    DeviceLost {
        /// The index of the GPU in this manager.
        gpu: u32,
        /// The error with which the device was lost.
        #[source]
        source: Box<GpuError>,
    },
    /// The shard is freed, but its bytes could not be wiped, or the driver did not take them back.
    /// The bytes stay counted and are handed out to nobody until a later try succeeds.
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
        /// Why the bytes could not be wiped or returned.
        #[source]
        source: Box<GpuError>,
    },
    /// The shard is leased, or another call uses it and this one does not wait, or the calling
    /// thread is using it already.
    #[error("{shard} is in use{}", Leases(*leases, oldest.as_deref()))]
    InUse {
        /// The shard.
        shard: ShardId,
        /// Leases that exist; 0 if calls use the shard.
        leases: usize,
        /// The lease that began first, if it still existed when the error was made.
        oldest: Option<Box<OldestLease>>,
    },
    /// Other calls still used the shard at the time-out.
    #[error("{shard} was still in use by other calls after {waited:?}")]
    TimedOut {
        /// The shard.
        shard: ShardId,
        /// How long the call waited.
        waited: Duration,
    },
    /// The shard cannot be shared with another process as it lies.
    #[error("{shard} is not shared with another process: {reason}")]
    NotShareable {
        /// The shard.
        shard: ShardId,
        /// Why not, and what would help.
        reason: &'static str,
    },
    /// The reservation has expired; its unused bytes were returned.
    #[error("{reservation} has expired")]
    ReservationExpired {
        /// The reservation.
        reservation: ReservationId,
    },
    /// The reservation holds fewer bytes than the request needs.
    #[error("{reservation} holds {remaining}, and {needed} is needed")]
    ReservationTooSmall {
        /// The reservation.
        reservation: ReservationId,
        /// Bytes that the request needs, in whole granules.
        needed: ByteLen,
        /// Bytes that are still reserved.
        remaining: ByteLen,
    },
    /// The request is for another GPU than the reservation.
    #[error("{reservation} is on gpu {reserved}, and the request is for gpu {asked}")]
    ReservationElsewhere {
        /// The reservation.
        reservation: ReservationId,
        /// The GPU of the reservation.
        reserved: u32,
        /// The GPU that the request names.
        asked: u32,
    },
    /// The reservation was made by another manager.
    #[error("{reservation} belongs to another manager")]
    ForeignReservation {
        /// The number of the reservation in the manager that made it.
        reservation: ReservationId,
    },
    /// A shard of the plan can no longer be evicted. Nothing was evicted: ask for a new plan.
    #[error("the eviction plan is outdated: {shard} {why}")]
    PlanOutdated {
        /// The shard.
        shard: ShardId,
        /// Why it cannot be evicted.
        why: &'static str,
    },
    /// The host has no memory for the answer or for a buffer.
    #[error("the host has no memory for {wanted}")]
    HostMemory {
        /// The number of bytes requested.
        wanted: ByteLen,
    },
    /// Other calls hold the staging memory of the manager, and nothing was left for this one within
    /// the time that the limits allow.
    #[error("no staging is left: {needed} needed, {taken} of {limit} taken by other calls")]
    StagingLimit {
        /// Host bytes that the call cannot do without.
        needed: ByteLen,
        /// Host bytes that other calls hold.
        taken: ByteLen,
        /// The configured limit for all calls.
        limit: ByteLen,
    },
    /// The GPU works, and this call has to wait: a reset of it waits for calls that run there, or is
    /// under way; or it cannot be reset now, because calls or shards use it.
    #[error("gpu {gpu} is in use: {why}")]
    GpuInUse {
        /// The GPU.
        gpu: u32,
        /// What uses the GPU.
        why: &'static str,
    },
    /// The GPU is not lost and holds shards, which a reset would lose.
    #[error("gpu {gpu} is not lost and holds {shards} shards: only a forced reset gives them up")]
    NotLost {
        /// The GPU.
        gpu: u32,
        /// Shards that it holds.
        shards: u64,
    },
    /// The manager was closed: it accepts no more calls.
    #[error("the manager is closed")]
    Closed,
    /// The manager has no GPU that it can use.
    #[error("no gpu can be used: {reason}")]
    NoGpu {
        /// Why there is none, and what would help.
        reason: String,
    },
    /// The manager cannot be built with this configuration.
    #[error("configuration: {what}")]
    Config {
        /// What is wrong, and what a valid value is.
        what: String,
    },
}
