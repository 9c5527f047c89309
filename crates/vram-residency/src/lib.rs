#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod builder;
mod images;
mod manager;

pub use builder::{Budget, VramManagerBuilder};
pub use images::{
    inspect_image, seal_image, seal_image_to, unseal_image, unseal_image_to, verify_image,
};
pub use manager::VramManager;
pub use vram_alloc::{
    Alignment, ByteLen, ByteOffset, ByteRange, DeviceOffset, Fit, GpuIndex, ModelPlan, Piece,
    PlanError, checked_shard_size,
};
#[cfg(feature = "audit")]
pub use vram_audit::AuditError;
#[cfg(feature = "audit")]
pub use vram_audit::AuditHead;
#[cfg(feature = "audit")]
pub use vram_audit::AuditStatus;
#[cfg(feature = "audit")]
pub use vram_audit::AuditSummary;
#[cfg(feature = "audit")]
pub use vram_audit::AuditWriter;
#[cfg(feature = "audit")]
pub use vram_audit::ParseAuditHeadError;
#[cfg(feature = "audit")]
pub use vram_audit::verify_audit;
#[cfg(feature = "audit")]
pub use vram_audit::verify_audit_against;
pub use vram_core::close::CloseReport;
pub use vram_core::error::{
    Class, Eviction, EvictionPlan, Holder, ReservationId, Shortfall, VramError,
};
pub use vram_core::models::{
    AdmitRequest, ModelHandle, ModelPiece, ModelSource, ModelVerdict, ParkedModel, ParkedPiece,
    PlanReservation, ReservePlanRequest, WakeModelError,
};
pub use vram_core::moves::{
    CompactBudget, CompactEnd, CompactReport, ExportOptions, ImportRequest, LinkReport, WakeError,
};
pub use vram_core::parts::call::Call;
pub use vram_core::parts::{
    Candidate, CostPerByte, EvictionPolicy, GpuChoice, Limits, LinkState, Lru, Priority,
};
pub use vram_core::repair::{RepairOptions, RepairReport};
pub use vram_core::reports::{
    Account, CallMetrics, Difference, DriverMemory, FailureCount, GpuMetrics, GpuReport,
    GpuSnapshot, KeySnapshot, Metrics, ParkedSnapshot, Reconciliation, Report, ReservationSnapshot,
    ShardReport, Snapshot, SnapshotCounters, SnapshotState,
};
pub use vram_core::reset::{LostShard, NotRestored, ResetOptions, ResetReport, Restore};
pub use vram_core::resident::{Lease, Verdict, Verify};
pub use vram_core::room::{BackupReport, EvictionReport, FreedReceipt};
pub use vram_core::scrub::{
    ScrubCursor, ScrubMetrics, ScrubOptions, ScrubRate, ScrubStatus, ScrubStep, Scrubber,
};
pub use vram_core::sealing::{
    Reservation, ReservationReport, ReserveRequest, SealOptions, SealRequest,
};
pub use vram_core::shard::{ParkCapacity, ParkedShard, SealedShard};
pub use vram_core::transfer::ReadBack;
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
pub use vram_space::{GpuCapacity, MemoryMode, RoomAfter, UnreturnedMemory, WipePolicy};
pub use vram_ticket::{
    ShardTicket, TICKET_NAME_LEN_MAX, TicketError, TicketExpectation, TicketOptions, TicketState,
    TicketVerifier,
};

/// Devices, and the one that injects faults: for tests of orchestrators.
pub use vram_gpu as device;
