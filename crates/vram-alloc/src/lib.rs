#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod arena;
mod block;
mod bounds;
mod dtype;
mod fit;
mod holes;
mod ledger;
mod notation;
mod placement;
mod plan;
mod report;
mod sync;
mod units;
mod uuid;

pub use arena::{Arena, ArenaError, ArenaPolicy, Misfit, ReleaseError, ReleaseReason};
pub use block::BlockFormat;
pub use bounds::{BoundsError, ByteRange, DeviceRange, checked_shard_size};
pub use dtype::{Dtype, SizeError, TensorFormat, tensor_bytes};
pub use fit::{Fit, fits};
pub use ledger::{Charge, Kept, Ledger, LedgerError, MAX_TOTAL, Reservation};
pub use notation::ParseByteLenError;
pub use placement::Placement;
pub use plan::{ModelPlan, PIECE_COUNT_MAX, Piece, PlanError};
pub use report::{ArenaReport, Capacity};
pub use units::{Alignment, AlignmentError, ByteLen, ByteOffset, DeviceOffset, GpuIndex};
pub use uuid::DeviceUuid;
