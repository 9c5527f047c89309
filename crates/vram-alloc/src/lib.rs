#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod arena;
mod bounds;
mod holes;
mod ledger;
mod report;
mod sync;
mod units;

pub use arena::{Arena, ArenaError, ArenaPolicy, Misfit, Placement, ReleaseError, ReleaseReason};
pub use bounds::{BoundsError, ByteRange, DeviceRange, checked_shard_size};
pub use ledger::{Charge, Ledger, LedgerError, MAX_TOTAL, Reservation};
pub use report::{ArenaReport, Capacity};
pub use units::{
    Alignment, AlignmentError, ByteLen, ByteOffset, DeviceOffset, GpuIndex, ParseByteLenError,
};
