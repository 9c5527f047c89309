//! Which GPUs a call may use.

use vram_alloc::GpuIndex;
use vram_gpu::GpuError;

use crate::error::VramError;
use crate::parts::Core;

/// Which GPUs may hold a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GpuChoice {
    /// This one alone.
    One(u32),
    /// All of them: the one with most room first, the lowest index on a tie; a piece that finds no
    /// room there goes to the next.
    MostRoomFirst,
}

/// The one GPU of a choice, if it is one.
#[must_use]
pub const fn named(choice: GpuChoice) -> Option<u32> {
    match choice {
        GpuChoice::One(gpu) => Some(gpu),
        GpuChoice::MostRoomFirst => None,
    }
}

/// The answer where a device panicked, which must not take a parked shard with it.
pub(crate) fn device_panicked(core: &Core, gpus: GpuChoice) -> VramError {
    let gpu = match gpus {
        GpuChoice::One(gpu) => gpu,
        GpuChoice::MostRoomFirst => 0,
    };
    let index = core.gpu(gpu).map_or(GpuIndex::new(gpu), |gpu| gpu.device.info().index);
    let name = "the device panicked";
    let source = GpuError::Driver { gpu: index, code: u32::MAX, name, sticky: false };
    VramError::Device { gpu, source: Box::new(source) }
}
