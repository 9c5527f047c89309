#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod builder;
mod cards;
mod images;
mod manager;
#[cfg(feature = "models")]
mod model_files;

pub use builder::{Budget, VramManagerBuilder};
pub use images::{
    inspect_image, seal_image, seal_image_to, unseal_image, unseal_image_to, verify_image,
};
pub use manager::VramManager;
#[cfg(feature = "models")]
pub use model_files::{ModelFiles, ModelFilesError};
pub use vram_alloc::{
    Alignment, ByteLen, ByteOffset, ByteRange, DeviceOffset, Fit, GpuIndex, ModelPlan, Piece,
    PlanError, Site, checked_shard_size,
};
#[cfg(feature = "audit")]
#[doc(inline)]
pub use vram_audit::{
    AuditCheck, AuditError, AuditFileId, AuditHandle, AuditHead, AuditSummary, AuditWriter,
    ParseAuditFileIdError, ParseAuditHeadError, verify_audit, verify_audit_against,
};
#[doc(inline)]
pub use vram_core::close::{CloseReport, HeldLeases};
#[doc(inline)]
pub use vram_core::error::{
    AfterAll, BusyShards, Class, Eviction, EvictionPlan, Holder, OldestLease, ReservationId,
    Shortfall, VramError,
};
#[doc(inline)]
pub use vram_core::models::{
    AdmitRequest, CallOptions, ModelHandle, ModelImport, ModelPiece, ModelSource, ModelVerdict,
    ParkedModel, ParkedPiece, PieceSource, PlanReservation, ReservePlanRequest, WakeModelError,
    WakeModelRequest,
};
#[doc(inline)]
pub use vram_core::moves::{
    CompactBudget, CompactEnd, CompactReport, ExportOptions, ImportRequest, LinkReport, WakeError,
};
#[doc(inline)]
pub use vram_core::parts::call::Call;
#[doc(inline)]
pub use vram_core::parts::{
    Candidate, CostPerByte, EvictionPolicy, EvictionUnit, GpuChoice, Limits, LinkState, Lru,
    Priority,
};
#[doc(inline)]
pub use vram_core::repair::{RepairOptions, RepairReport};
#[doc(inline)]
pub use vram_core::reports::{
    Account, CallMetrics, Difference, DriverMemory, FailureCount, GpuMetrics, GpuReport,
    GpuSnapshot, KeySnapshot, LeaseReport, Metrics, ModelFigures, ModelMetrics, ModelReport,
    ModelSnapshot, ModelState, ParkedSnapshot, Reconciliation, Report, ReservationSnapshot,
    ShardReport, Snapshot, SnapshotCounters, SnapshotState,
};
#[doc(inline)]
pub use vram_core::reset::{LostShard, NotRestored, ResetOptions, ResetReport, Restore};
#[doc(inline)]
pub use vram_core::resident::{Lease, SharedShard, Verdict, Verify};
#[doc(inline)]
pub use vram_core::room::{BackupReport, EvictionReport, FreedReceipt};
#[doc(inline)]
pub use vram_core::scrub::{
    GpuScrub, ScrubCursor, ScrubMetrics, ScrubOptions, ScrubRate, ScrubStatus, ScrubStep, Scrubber,
};
#[doc(inline)]
pub use vram_core::sealing::{
    Reservation, ReservationReport, ReserveRequest, SealOptions, SealRequest,
};
#[doc(inline)]
pub use vram_core::shard::{ModelCounts, ParkCapacity, ParkedShard, SealedShard, ShardState};
#[doc(inline)]
pub use vram_core::transfer::ReadBack;
#[doc(inline)]
pub use vram_events::{
    Event, EventKind, EventLevel, EventLog, EventSink, EvictedFor, OnEviction, PieceName,
    SinkCounts, Whose,
};
#[doc(inline)]
pub use vram_files::{
    Access, CancelToken, FileDifference, FilePool, FileSource, FileState, ImageInfo, ImageOptions,
    ImageReport, ImageVerdict, KeySource, KeySourceError, Overwrite, Progress, ReaderSource,
    SliceSource, Source, SourceError, core_dumps_denied, create_key_file, deny_core_dumps,
    regular_file,
};
pub use vram_gpu::{Device, DeviceInfo, DeviceKind, DeviceUuid, GpuError, HostDevice, ShareHandle};
#[doc(inline)]
pub use vram_id::{Clock, ParseShardIdError, ShardId, SystemClock, Timestamp};
pub use vram_seal::parallel::Threads;
#[doc(inline)]
pub use vram_seal::{AlteredSegments, SegmentSpan};
pub use vram_seal::{
    CONTEXT_LEN_MAX, Checked, ContentDigest, ContentHasher, ContextField, Evidence, Expected,
    ExpectedDigest, HashKind, KeyError, KeyId, KeyRing, MetadataCode, ParseDigestError, Protection,
    RecordFields, SealContext, SealError, SealKey, SealParams, SealRecord, SegmentSize, SivScope,
    Suite, TicketKey,
};
#[doc(inline)]
pub use vram_space::{
    Compute, GpuCapacity, KernelFigures, LifeState, MemoryMode, Placements, PlannedPlace,
    RoomAfter, UnreturnedMemory, WipePolicy,
};
#[doc(inline)]
pub use vram_ticket::{
    ModelTicket, ModelTicketExpectation, ShardTicket, TICKET_GPUS_MAX, TICKET_NAME_LEN_MAX,
    TicketError, TicketExpectation, TicketOptions, TicketState, TicketVerifier, model_root,
};

/// Model files: their headers, checked, and plans of them.
#[cfg(feature = "models")]
pub use vram_model as model;

/// What NVIDIA's management library says of the cards, for
/// [`card_monitor`](VramManagerBuilder::card_monitor) and [`card`](VramManager::card). It is loaded with
/// the feature `cuda` alone.
pub use vram_nvml as nvml;

/// Devices, and the one that injects faults: for tests of orchestrators.
pub use vram_gpu as device;
