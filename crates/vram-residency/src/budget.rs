//! Budgets while a manager runs: less, more, and what others hold of the card.

use vram_alloc::ByteLen;

use crate::block::DriverFigures;
use crate::call::Call;
use crate::error::VramError;
use crate::gpu::Gpu;
use crate::manager::{Core, VramManager};
use crate::sync::lock;

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

impl VramManager {
    /// Replaces a GPU's budget. It may be less than what is in use: nothing breaks, and nothing is
    /// granted until enough was given back. The memory itself stays with the manager.
    ///
    /// # Arguments
    ///
    /// * `bytes`: at most what was taken of the device when the manager was built; of a GPU that is
    ///   used block by block, at most what the device has.
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`]; [`VramError::LimitExceeded`] above that. The old budget stays.
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::{ByteLen, VramManager};
    ///
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let shard = manager.seal_model("llama", 0, &[0; 1 << 16])?;
    /// manager.set_budget(0, ByteLen::new(1000))?;
    /// assert!(manager.seal_model("other", 0, b"1").is_err());
    /// assert_eq!(manager.unseal_and_free(&shard)?.len(), 1 << 16);
    /// assert!(manager.seal_model("other", 0, b"1").is_ok());
    /// # Ok::<(), vram_residency::VramError>(())
    /// ```
    #[tracing::instrument(level = "info", skip_all, fields(gpu, bytes = bytes.get()))]
    pub fn set_budget(&self, gpu: u32, bytes: ByteLen) -> Result<(), VramError> {
        let work = || self.core.set_budget(gpu, bytes);
        self.core.watched(Call::SetBudget, None, Some(gpu), 0, work)
    }

    /// Replaces the bytes of a GPU's budget that are kept free. Any length will do.
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`].
    #[tracing::instrument(level = "info", skip_all, fields(gpu, bytes = bytes.get()))]
    pub fn set_headroom(&self, gpu: u32, bytes: ByteLen) -> Result<(), VramError> {
        self.core.watched(Call::SetBudget, None, Some(gpu), 0, || {
            self.core.check_open()?;
            self.core.gpu(gpu)?.ledger.set_headroom(bytes);
            Ok(())
        })
    }

    /// Asks the driver what others hold of a GPU, and counts what they hold of the budget: it is
    /// not granted from then on, until this is called again.
    ///
    /// That concerns a GPU that is used [block by block](crate::MemoryMode::Blocks), which asks without
    /// this, too, when the driver has no memory for a block. A region was taken when the manager was
    /// built: nobody can take any of it. What the driver needs itself counts as held by others:
    /// contexts, and what it rounds up.
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`]; [`VramError::Device`], [`VramError::DeviceLost`], with the figures
    /// as they were.
    #[tracing::instrument(level = "info", skip_all, fields(gpu))]
    pub fn refresh(&self, gpu: u32) -> Result<DriverMemory, VramError> {
        self.core.watched(Call::Refresh, None, Some(gpu), 0, || self.core.refresh(gpu))
    }
}

impl Core {
    fn set_budget(&self, gpu: u32, bytes: ByteLen) -> Result<(), VramError> {
        self.check_open()?;
        let gpu = self.gpu(gpu)?;
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

    fn refresh(&self, gpu: u32) -> Result<DriverMemory, VramError> {
        Ok(self.driver_memory(gpu)?.0)
    }

    /// The driver's figures, and whether they are of one moment with ours.
    pub(crate) fn driver_memory(&self, gpu: u32) -> Result<(DriverMemory, bool), VramError> {
        self.check_open()?;
        let gpu = self.gpu(gpu)?;
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
}

impl Gpu {
    /// Bytes of the region that this manager took.
    pub(crate) fn region_len(&self) -> ByteLen {
        lock(&self.arena).capacity()
    }
}
