//! Budgets while a manager runs: less, more, and what others hold of the card.

use vram_alloc::ByteLen;
use vram_space::DriverFigures;

use crate::error::VramError;
use crate::parts::Core;

/// What the driver says about a GPU's memory, and what that means for the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct DriverMemory {
    /// The GPU, as the manager counts them.
    pub gpu: u32,
    /// Bytes that the device has.
    pub total: ByteLen,
    /// Bytes that the driver would still give out.
    pub free: ByteLen,
    /// Bytes that this manager holds of it: its region, or its blocks.
    pub ours: ByteLen,
    /// Bytes that are neither free nor ours: other processes, and the driver itself.
    pub others: ByteLen,
    /// Bytes of the budget that can be had neither from the driver nor are held already. Of a
    /// region zero, unless the device shrank: what was taken up front is ours whatever others do.
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
        None => gpu.region_len(),
    };
    if bytes > limit {
        return Err(refused(limit));
    }
    gpu.ledger.set_total(bytes).map_err(|_too_large| refused(vram_alloc::MAX_TOTAL))
}

/// Asks the driver for its figures, and keeps what others hold out of the room.
pub fn refresh(core: &Core, gpu: u32) -> Result<DriverMemory, VramError> {
    Ok(driver_memory(core, gpu)?.0)
}

/// The driver's figures, and whether they are of one moment with ours.
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
    // What is not there cannot be ours: the device has to hold both.
    let foreign = ours.saturating_add(others).saturating_sub(memory.total);
    gpu.ledger.set_foreign(foreign);
    if !foreign.is_zero() {
        tracing::warn!(gpu = gpu.index, bytes = foreign.get(), "the budget is not backed");
    }
    Ok((DriverMemory { gpu: gpu.index, total, free, ours, others, foreign }, steady))
}
