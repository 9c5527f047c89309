//! The driver's figures of a GPU.

use vram_alloc::ByteLen;
use vram_gpu::MemoryInfo;

/// What the driver says of a device, and what this manager has of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DriverFigures {
    pub(crate) memory: MemoryInfo,
    /// Bytes of the region, or of the blocks.
    pub(crate) ours: ByteLen,
    /// Whether both are of one moment.
    pub(crate) steady: bool,
}

/// How often the driver's figures are asked for while blocks come and go.
pub(crate) const FIGURES_TRIES: u32 = 16;

/// The part of a budget that can be had neither from the driver, nor is held already.
pub(crate) fn foreign(budget: ByteLen, held: ByteLen, driver: MemoryInfo) -> ByteLen {
    budget.saturating_sub(held).saturating_sub(driver.free)
}
