//! Which GPUs a call may use.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use vram_alloc::GpuIndex;
use vram_gpu::GpuError;

use crate::error::VramError;
use crate::parts::Core;

/// Which GPUs may hold a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GpuChoice {
    /// This GPU only.
    One(u32),
    /// All GPUs: the one with the most room first, the lowest index on a tie. A piece that does not
    /// fit there goes to the next.
    MostRoomFirst,
}

/// The index of the GPU, if the choice names one.
#[must_use]
pub const fn named(choice: GpuChoice) -> Option<u32> {
    match choice {
        GpuChoice::One(gpu) => Some(gpu),
        GpuChoice::MostRoomFirst => None,
    }
}

/// Runs `work`, and turns a panic of the device into an error of the device.
pub(crate) fn caught<T>(
    core: &Core,
    gpus: GpuChoice,
    work: impl FnOnce() -> Result<T, VramError>,
) -> Result<T, VramError> {
    let done = catch_unwind(AssertUnwindSafe(work));
    done.unwrap_or_else(|_panic| Err(device_panicked(core, gpus)))
}

fn device_panicked(core: &Core, gpus: GpuChoice) -> VramError {
    let gpu = named(gpus).unwrap_or(0);
    let index = core.gpu(gpu).map_or(GpuIndex::new(gpu), |gpu| gpu.device.info().index);
    let name = "the device panicked";
    let source = GpuError::Driver { gpu: index, code: u32::MAX, name, sticky: false };
    VramError::Device { gpu, source: Box::new(source) }
}
