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
pub use vram_audit::{
    AuditError, AuditHead, AuditStatus, AuditSummary, AuditWriter, ParseAuditHeadError,
    verify_audit, verify_audit_against,
};
pub use vram_core::close::CloseReport;
pub use vram_core::error::VramError;
pub use vram_core::error::class::Class;
pub use vram_core::error::eviction_plan::{Eviction, EvictionPlan};
pub use vram_core::error::reservation_id::ReservationId;
pub use vram_core::error::shortfall::{Holder, Shortfall};
pub use vram_core::models::model::{ModelHandle, ModelPiece, ModelSource};
pub use vram_core::models::moves::ModelVerdict;
pub use vram_core::models::parked::{ParkedModel, ParkedPiece, WakeModelError};
pub use vram_core::models::request::AdmitRequest;
pub use vram_core::models::reserve::PlanReservation;
pub use vram_core::models::reserve_request::ReservePlanRequest;
pub use vram_core::moves::compact_report::{CompactBudget, CompactEnd, CompactReport};
pub use vram_core::moves::export_options::ExportOptions;
pub use vram_core::moves::import_request::ImportRequest;
pub use vram_core::moves::links::LinkReport;
pub use vram_core::moves::wake_error::WakeError;
pub use vram_core::parts::call::Call;
pub use vram_core::parts::gpus::GpuChoice;
pub use vram_core::parts::limits::Limits;
pub use vram_core::parts::links::LinkState;
pub use vram_core::parts::policy::{Candidate, CostPerByte, EvictionPolicy, Lru, Priority};
pub use vram_core::repair::options::{RepairOptions, RepairReport};
pub use vram_core::reports::budget::DriverMemory;
pub use vram_core::reports::metrics::{CallMetrics, FailureCount, GpuMetrics, Metrics};
pub use vram_core::reports::reconciliation::{Account, Difference, Reconciliation};
pub use vram_core::reports::report::{GpuReport, Report, ShardReport};
pub use vram_core::reports::snapshot::{
    GpuSnapshot, KeySnapshot, ParkedSnapshot, ReservationSnapshot, Snapshot, SnapshotCounters,
    SnapshotState,
};
pub use vram_core::reset::report::{LostShard, NotRestored, ResetOptions, ResetReport, Restore};
pub use vram_core::resident::lease::Lease;
pub use vram_core::resident::verify::{Verdict, Verify};
pub use vram_core::room::evict::EvictionReport;
pub use vram_core::room::free::FreedReceipt;
pub use vram_core::room::host_copy::BackupReport;
pub use vram_core::scrub::cursor::ScrubCursor;
pub use vram_core::scrub::pace::{ScrubOptions, ScrubRate};
pub use vram_core::scrub::status::ScrubStatus;
pub use vram_core::scrub::step::ScrubStep;
pub use vram_core::scrub::thread::Scrubber;
pub use vram_core::scrub::totals::ScrubMetrics;
pub use vram_core::sealing::request::SealRequest;
pub use vram_core::sealing::reservation::{Reservation, ReservationReport, ReserveRequest};
pub use vram_core::sealing::stream::SealOptions;
pub use vram_core::shard::handle::SealedShard;
pub use vram_core::shard::host::ParkCapacity;
pub use vram_core::shard::parked::ParkedShard;
pub use vram_core::transfer::check::ReadBack;
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
