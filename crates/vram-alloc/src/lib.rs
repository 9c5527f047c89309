#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

extern crate alloc;

mod arena;
mod bounds;
pub mod compaction;
mod fit;
pub mod host;
mod ledger;
mod notation;
mod plan;
mod report;
mod site;
mod sync;
mod tensor;
mod units;
mod uuid;

pub use arena::{Arena, ArenaError, ArenaPolicy, Misfit, Placement, ReleaseError, ReleaseReason};
pub use bounds::{BoundsError, ByteRange, DeviceRange, checked_shard_size};
pub use fit::{Fit, fits};
pub use ledger::{Charge, Kept, Ledger, LedgerError, MAX_TOTAL, Reservation};
pub use notation::ParseByteLenError;
pub use plan::{ModelPlan, PIECE_COUNT_MAX, Piece, PlanError};
pub use report::{ArenaReport, Capacity};
pub use site::Site;
pub use tensor::{BlockFormat, Dtype, SizeError, TensorFormat, tensor_bytes};
pub use units::{Alignment, AlignmentError, ByteLen, ByteOffset, DeviceOffset, GpuIndex};
pub use uuid::DeviceUuid;
