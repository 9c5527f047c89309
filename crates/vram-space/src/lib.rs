#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod block;
mod error;
mod gpu;
mod life;
mod space;
mod staging;
mod sync;
mod tenants;

pub use block::{Backing, Block, BlockCount, MemoryMode};
pub use error::{NoRoom, SpaceError};
pub use gpu::accounts::{Figures, GpuCapacity};
pub use gpu::compute::{Compute, KernelFigures, KernelWork, KernelsIdle};
pub use gpu::driver::DriverFigures;
pub use gpu::release::UnreturnedMemory;
pub use gpu::reset::Emptied;
pub use gpu::{Gpu, GpuOptions, Means, WipePolicy, scratch_of};
pub use life::Life;
pub use life::pass::{Claim, LifePass};
pub use life::table::{LifeCause, LifeState, LifeStep};
pub use space::dry_run::{DryRun, RoomAfter};
pub use space::place::Placing;
pub use space::placements::{EmptyGpu, Placements, PlannedPlace};
pub use space::{Origin, Returned, Space, locate};
pub use staging::at_work::on_a_worker;
pub use staging::bound::StagingBound;
pub use staging::lanes::{Lanes, Wanted, Worker};
pub use staging::pool::{SMALLEST, StagingPool};
pub use staging::together::{Span, hull, rest_from};
pub use tenants::Tenants;
