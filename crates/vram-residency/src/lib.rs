#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod builder;
mod clock;
mod error;
mod feed;
mod free;
mod gate;
mod gpu;
mod id;
mod lanes;
mod limits;
mod manager;
mod migrate;
mod pool;
mod read;
mod registry;
mod report;
mod request;
mod shard;
mod space;
mod sync;
mod verify;
mod windows;
mod write;

pub use builder::{Budget, VramManagerBuilder};
pub use clock::{Clock, SystemClock, Timestamp};
pub use error::{Class, Shortfall, VramError};
pub use free::FreedReceipt;
pub use gpu::WipePolicy;
pub use id::{ParseShardIdError, ShardId};
pub use limits::Limits;
pub use manager::VramManager;
pub use report::{GpuCapacity, GpuReport, Report, ShardReport};
pub use request::SealRequest;
pub use shard::SealedShard;
pub use verify::{SegmentSpan, Verdict, Verify};
pub use write::ReadBack;

// What callers need of the crates below, so that they depend on this one alone.
pub use vram_alloc::{
    Alignment, ByteLen, ByteOffset, ByteRange, GpuIndex, ModelPlan, Piece, checked_shard_size,
};
pub use vram_gpu::{Device, DeviceInfo, DeviceKind, DeviceUuid, GpuError, HostDevice};
pub use vram_seal::parallel::Threads;
pub use vram_seal::{
    ContentDigest, ContentHasher, HashKind, KeyError, KeyId, KeyRing, Protection, SealError,
    SealKey, SealRecord, SegmentSize, SivScope, Suite,
};

/// Devices, and the one that injects faults: for tests of orchestrators.
pub use vram_gpu as device;
