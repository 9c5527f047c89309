#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(feature = "audit")]
mod audit;
mod builder;
mod close;
mod error;
mod images;
mod manager;
mod models;
mod moves;
mod parts;
mod repair;
mod reports;
mod reset;
mod resident;
mod room;
mod scrub;
mod sealing;
mod shard;
mod sync;
mod transfer;

#[cfg(feature = "audit")]
pub use audit::AuditError;
#[cfg(feature = "audit")]
pub use audit::AuditHead;
#[cfg(feature = "audit")]
pub use audit::AuditStatus;
#[cfg(feature = "audit")]
pub use audit::AuditSummary;
#[cfg(feature = "audit")]
pub use audit::AuditWriter;
#[cfg(feature = "audit")]
pub use audit::ParseAuditHeadError;
#[cfg(feature = "audit")]
pub use audit::verify_audit;
#[cfg(feature = "audit")]
pub use audit::verify_audit_against;
pub use builder::{Budget, VramManagerBuilder};
pub use close::CloseReport;
pub use error::VramError;
pub use error::class::Class;
pub use error::eviction_plan::{Eviction, EvictionPlan};
pub use error::reservation_id::ReservationId;
pub use error::shortfall::{Holder, Shortfall};
pub use images::{
    inspect_image, seal_image, seal_image_to, unseal_image, unseal_image_to, verify_image,
};
pub use manager::VramManager;
pub use models::model::{ModelHandle, ModelPiece, ModelSource};
pub use models::moves::ModelVerdict;
pub use models::parked::{ParkedModel, ParkedPiece, WakeModelError};
pub use models::request::AdmitRequest;
pub use models::reserve::PlanReservation;
pub use models::reserve_request::ReservePlanRequest;
pub use moves::compact_report::{CompactBudget, CompactEnd, CompactReport};
pub use moves::export_options::ExportOptions;
pub use moves::import_request::ImportRequest;
pub use moves::links::LinkReport;
pub use moves::wake_error::WakeError;
pub use parts::call::Call;
pub use parts::gpus::GpuChoice;
pub use parts::limits::Limits;
pub use parts::links::LinkState;
pub use parts::policy::{Candidate, CostPerByte, EvictionPolicy, Lru, Priority};
pub use repair::options::{RepairOptions, RepairReport};
pub use reports::budget::DriverMemory;
pub use reports::metrics::{CallMetrics, FailureCount, GpuMetrics, Metrics};
pub use reports::reconciliation::{Account, Difference, Reconciliation};
pub use reports::report::{GpuReport, Report, ShardReport};
pub use reports::snapshot::{
    GpuSnapshot, KeySnapshot, ParkedSnapshot, ReservationSnapshot, Snapshot, SnapshotCounters,
    SnapshotState,
};
pub use reset::report::{LostShard, NotRestored, ResetOptions, ResetReport, Restore};
pub use resident::lease::Lease;
pub use resident::verify::{Verdict, Verify};
pub use room::evict::EvictionReport;
pub use room::free::FreedReceipt;
pub use room::host_copy::BackupReport;
pub use scrub::cursor::ScrubCursor;
pub use scrub::pace::{ScrubOptions, ScrubRate};
pub use scrub::status::ScrubStatus;
pub use scrub::step::ScrubStep;
pub use scrub::thread::Scrubber;
pub use scrub::totals::ScrubMetrics;
pub use sealing::request::SealRequest;
pub use sealing::reservation::{Reservation, ReservationReport, ReserveRequest};
pub use sealing::stream::SealOptions;
pub use shard::handle::SealedShard;
pub use shard::host::ParkCapacity;
pub use shard::parked::ParkedShard;
pub use transfer::check::ReadBack;
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
pub use vram_space::{GpuCapacity, MemoryMode, RoomAfter, UnreturnedMemory, WipePolicy};

pub use vram_ticket::{
    ShardTicket, TICKET_NAME_LEN_MAX, TicketError, TicketExpectation, TicketOptions, TicketState,
    TicketVerifier,
};

/// Devices, and the one that injects faults: for tests of orchestrators.
pub use vram_gpu as device;
