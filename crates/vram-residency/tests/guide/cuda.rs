//! A home for the guide's properties on CUDA devices, real or simulated.

use vram_residency::device::CudaDevice;
use vram_residency::{Budget, ByteLen, GpuIndex, VramError, VramManager};

/// A manager whose GPU i is the i-th of these devices, in turns if there are fewer devices than
/// GPUs, with a budget of its own.
pub(crate) fn manager(ordinals: &[u32], capacities: Vec<usize>) -> Result<VramManager, VramError> {
    let mut builder = VramManager::builder();
    for ((index, capacity), ordinal) in (0_u32..).zip(capacities).zip(ordinals.iter().cycle()) {
        let device = CudaDevice::open(*ordinal, GpuIndex::new(index))
            .map_err(|error| VramError::Config { what: error.to_string() })?;
        let budget = Budget::Bytes(ByteLen::from_usize(capacity));
        builder = builder.device(device).budget(index, budget);
    }
    builder.build()
}
