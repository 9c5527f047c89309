//! The driver's memory figures of a GPU.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use vram_alloc::ByteLen;
use vram_gpu::MemoryInfo;

use crate::block::Backing;
use crate::error::SpaceError;
use crate::gpu::Gpu;

/// The driver's figures of a device, and the bytes that this manager holds of it.
#[derive(Clone, Copy, Debug)]
pub struct DriverFigures {
    /// The driver's figures.
    pub memory: MemoryInfo,
    /// Bytes of the region, or of the blocks, of this manager.
    pub ours: ByteLen,
    /// Whether both were read at one moment.
    pub steady: bool,
}

/// The maximum number of reads of the driver's figures while blocks come and go.
pub(crate) const FIGURES_TRIES: u32 = 16;

/// The part of a budget that is neither free at the driver nor held by this manager.
#[must_use]
pub(crate) fn foreign(budget: ByteLen, held: ByteLen, driver: MemoryInfo) -> ByteLen {
    budget.saturating_sub(held).saturating_sub(driver.free)
}

impl Gpu {
    /// Reads the driver's figures. In mode `Blocks`, bytes of the budget that other processes hold
    /// are excluded from the room.
    ///
    /// If blocks come and go during every read, the earlier figure stays: the driver decides at
    /// every allocation anyway.
    ///
    /// # Errors
    ///
    /// [`SpaceError::Device`], [`SpaceError::DeviceLost`]; the ledger is unchanged.
    pub fn refresh(&self) -> Result<DriverFigures, SpaceError> {
        self.bring_back();
        // A reset waits for this call, so a figure of one life cannot be recorded in the next.
        let _under_way = self.enter()?;
        let Backing::Blocks(held, _) = &self.backing else {
            let memory = self.device.memory().map_err(|error| self.failed(error))?;
            return Ok(DriverFigures { memory, ours: self.region_len(), steady: true });
        };
        let mut tries = 1;
        loop {
            self.ready()?;
            let count = held.now();
            let ((moves, quiet), ours) = (count.look(), count.bytes());
            let memory = self.device.memory().map_err(|error| self.failed(error))?;
            let steady = quiet && count.look() == (moves, true);
            if steady {
                let before = self.ledger.capacity();
                let foreign = foreign(before.total, ours, memory);
                if foreign != before.foreign {
                    tracing::info!(
                        gpu = self.index,
                        foreign = foreign.get(),
                        "others hold part of the budget"
                    );
                }
                self.ledger.set_foreign(foreign);
            }
            if steady || tries == FIGURES_TRIES {
                return Ok(DriverFigures { memory, ours, steady });
            }
            tries = tries.saturating_add(1);
            // Lets a thread that is between the start and the end of an allocation or free go on.
            std::thread::yield_now();
        }
    }

    /// As [`refresh`](Self::refresh), while another error is being prepared: only a lost device is
    /// reported.
    pub(crate) fn ask_again(&self) -> Result<(), SpaceError> {
        match self.refresh() {
            Err(lost @ SpaceError::DeviceLost { .. }) => Err(lost),
            _ => Ok(()),
        }
    }

    /// The driver's figure of free bytes, if it answers. The caller is releasing bytes, so a panic
    /// of the device is caught here.
    pub(crate) fn driver_free(&self) -> Option<ByteLen> {
        self.ready().ok()?;
        match catch_unwind(AssertUnwindSafe(|| self.device.memory())) {
            Ok(Ok(figures)) => Some(figures.free),
            Ok(Err(error)) => {
                let _only_a_figure = self.failed(error);
                None
            }
            Err(_panic) => None,
        }
    }
}
