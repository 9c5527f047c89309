#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod admit;
mod age;
mod backup;
mod block;
mod budget;
mod builder;
mod call;
mod close;
mod compact;
mod detect;
mod dry_run;
mod error;
mod evict;
mod export;
mod free;
mod gate;
mod gpu;
mod health;
mod images;
mod import;
mod key_uses;
mod lanes;
mod lease;
mod limits;
mod links;
mod manager;
mod meter;
mod metrics;
mod migrate;
mod model;
mod model_moves;
mod outward;
mod park;
mod parked;
mod policy;
mod pool;
mod promise;
mod read;
mod reconcile;
mod registry;
mod repair;
mod report;
mod request;
mod reservation;
mod reserved_plan;
mod reset;
mod scrub;
mod shard;
mod shortfall;
mod snapshot;
mod space;
mod standing;
mod stream;
mod sync;
mod tenants;
mod ticket;
mod transition;
mod verify;
mod windows;
mod write;

// The paths that these had as modules of this crate.
use vram_events as events;
use vram_events as sink;
use vram_files as cancel;
use vram_files as feed;
use vram_files as image;
use vram_files as keys;
use vram_files as progress;
use vram_files as source;
use vram_files as whole_file;
use vram_id as clock;
use vram_id as id;
use vram_seal as hashes;

pub use admit::{AdmitRequest, GpuChoice};
pub use backup::BackupReport;
pub use block::MemoryMode;
pub use budget::DriverMemory;
pub use builder::{Budget, VramManagerBuilder};
pub use call::Call;
pub use close::{CloseReport, UnreturnedMemory};
pub use compact::{CompactBudget, CompactEnd, CompactReport};
pub use error::{Class, VramError};
pub use evict::{Eviction, EvictionPlan, EvictionReport, RoomAfter};
pub use export::ExportOptions;
pub use free::FreedReceipt;
pub use gpu::WipePolicy;
pub use images::{
    inspect_image, seal_image, seal_image_to, unseal_image, unseal_image_to, verify_image,
};
pub use import::ImportRequest;
pub use lease::Lease;
pub use limits::Limits;
pub use links::{LinkReport, LinkState};
pub use manager::VramManager;
pub use metrics::{CallMetrics, FailureCount, GpuMetrics, Metrics};
pub use model::{ModelHandle, ModelPiece, ModelSource};
pub use model_moves::{ModelVerdict, ParkedModel, ParkedPiece, WakeModelError};
pub use park::WakeError;
pub use parked::{ParkCapacity, ParkedShard};
pub use policy::{Candidate, CostPerByte, EvictionPolicy, Lru, Priority};
pub use promise::ReservationId;
pub use reconcile::{Account, Difference, Reconciliation};
pub use repair::{RepairOptions, RepairReport};
pub use report::{GpuCapacity, GpuReport, Report, ShardReport};
pub use request::SealRequest;
pub use reservation::{Reservation, ReservationReport, ReserveRequest};
pub use reserved_plan::{PlanReservation, ReservePlanRequest};
pub use reset::{LostShard, NotRestored, ResetOptions, ResetReport, Restore};
pub use scrub::{
    ScrubCursor, ScrubMetrics, ScrubOptions, ScrubRate, ScrubStatus, ScrubStep, Scrubber,
};
pub use shard::SealedShard;
pub use shortfall::{Holder, Shortfall};
pub use snapshot::{
    GpuSnapshot, KeySnapshot, ParkedSnapshot, ReservationSnapshot, Snapshot, SnapshotCounters,
    SnapshotState,
};
pub use stream::SealOptions;
pub use verify::{Verdict, Verify};
#[cfg(feature = "audit")]
pub use vram_audit::{
    AuditError, AuditHead, AuditStatus, AuditSummary, AuditWriter, ParseAuditHeadError,
    verify_audit, verify_audit_against,
};
pub use write::ReadBack;

// What callers need of the crates below, so that they depend on this one alone.
pub use vram_alloc::{
    Alignment, ByteLen, ByteOffset, ByteRange, DeviceOffset, Fit, GpuIndex, ModelPlan, Piece,
    PlanError, checked_shard_size,
};
pub use vram_events::{Event, EventKind, EventLog, EventSink, OnEviction, SinkCounts};
pub use vram_files::{
    Access, CancelToken, FileSource, ImageInfo, ImageOptions, ImageReport, ImageVerdict, KeySource,
    KeySourceError, Overwrite, Progress, ReaderSource, SliceSource, Source, SourceError,
    create_key_file,
};
pub use vram_gpu::{Device, DeviceInfo, DeviceKind, DeviceUuid, GpuError, HostDevice};
pub use vram_id::{Clock, ParseShardIdError, ShardId, SystemClock, Timestamp};
pub use vram_seal::parallel::Threads;
pub use vram_seal::{
    ContentDigest, ContentHasher, ContextField, Expected, HashKind, KeyError, KeyId, KeyRing,
    Protection, RecordFields, SealContext, SealError, SealKey, SealParams, SealRecord, SegmentSize,
    SegmentSpan, SivScope, Suite, TicketKey,
};
pub use vram_ticket::{
    ShardTicket, TICKET_NAME_LEN_MAX, TicketError, TicketExpectation, TicketOptions, TicketState,
    TicketVerifier,
};

/// Devices, and the one that injects faults: for tests of orchestrators.
pub use vram_gpu as device;
