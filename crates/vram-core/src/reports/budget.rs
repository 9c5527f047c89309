//! Changes budgets while a manager runs, and reports what other processes hold of a device.

use vram_alloc::ByteLen;
use vram_space::DriverFigures;

use crate::error::VramError;
use crate::parts::Core;

/// The driver's figures of a GPU's memory, and their effect on the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct DriverMemory {
    /// The index of the GPU in this manager.
    pub gpu: u32,
    /// Bytes of the device in total.
    pub total: ByteLen,
    /// Bytes that the driver can still allocate.
    pub free: ByteLen,
    /// Device bytes that this manager holds: its region, or its blocks.
    pub ours: ByteLen,
    /// Bytes that are neither free nor held by this manager for shards: other processes, the
    /// driver itself, and the scratch memory of loaded kernels.
    pub others: ByteLen,
    /// Bytes of the budget that this manager neither holds nor can get from the driver. For a
    /// region zero, unless the device shrank: the region was allocated at the start, whatever other
    /// processes do.
    pub foreign: ByteLen,
}

/// Sets the budget of a GPU.
pub fn set_budget(core: &Core, gpu: u32, bytes: ByteLen) -> Result<(), VramError> {
    core.check_open()?;
    let gpu = core.gpu(gpu)?;
    let refused = |limit: ByteLen| VramError::LimitExceeded {
        what: "the budget of a gpu, in bytes,",
        limit: limit.get(),
        wanted: bytes.get(),
    };
    let limit = match gpu.blocks() {
        Some(_) => gpu.device.info().total,
        None => gpu.region_len().saturating_add(gpu.scratch),
    };
    if bytes > limit {
        return Err(refused(limit));
    }
    let total = bytes.saturating_sub(gpu.scratch);
    gpu.ledger.set_total(total).map_err(|_too_large| refused(vram_alloc::MAX_TOTAL))
}

/// Reads the driver's figures, and excludes the bytes of other processes from the room.
pub fn refresh(core: &Core, gpu: u32) -> Result<DriverMemory, VramError> {
    Ok(driver_memory(core, gpu)?.0)
}

/// The driver's figures, and whether they are of the same moment as this manager's own.
pub(crate) fn driver_memory(core: &Core, gpu: u32) -> Result<(DriverMemory, bool), VramError> {
    core.check_open()?;
    let gpu = core.gpu(gpu)?;
    let DriverFigures { memory, ours, steady } = gpu.refresh()?;
    let others = memory.total.saturating_sub(memory.free).saturating_sub(ours);
    let (total, free) = (memory.total, memory.free);
    if gpu.blocks().is_some() {
        let foreign = gpu.ledger.capacity().foreign;
        let memory = DriverMemory { gpu: gpu.index, total, free, ours, others, foreign };
        return Ok((memory, steady));
    }
    // The device must hold both; bytes beyond its total cannot belong to this manager.
    let foreign = ours.saturating_add(others).saturating_sub(memory.total);
    gpu.ledger.set_foreign(foreign);
    if !foreign.is_zero() {
        tracing::warn!(gpu = gpu.index, bytes = foreign.get(), "the budget is not backed");
    }
    Ok((DriverMemory { gpu: gpu.index, total, free, ours, others, foreign }, steady))
}
