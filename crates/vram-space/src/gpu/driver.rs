//! The driver's figures of a GPU.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use vram_alloc::ByteLen;
use vram_gpu::MemoryInfo;

use crate::block::Backing;
use crate::error::SpaceError;
use crate::gpu::Gpu;

/// What the driver says of a device, and what this manager has of it.
#[derive(Clone, Copy, Debug)]
pub struct DriverFigures {
    /// What the driver says.
    pub memory: MemoryInfo,
    /// Bytes of the region, or of the blocks.
    pub ours: ByteLen,
    /// Whether both are of one moment.
    pub steady: bool,
}

/// How often the driver's figures are asked for while blocks come and go.
pub(crate) const FIGURES_TRIES: u32 = 16;

/// The part of a budget that can be had neither from the driver, nor is held already.
#[must_use]
pub(crate) fn foreign(budget: ByteLen, held: ByteLen, driver: MemoryInfo) -> ByteLen {
    budget.saturating_sub(held).saturating_sub(driver.free)
}

impl Gpu {
    /// Asks the driver for its figures and, of a GPU that is used block by block, keeps what others
    /// hold of the budget out of the room.
    ///
    /// While blocks come and go all the time, what is known stays known: the driver has the last
    /// word at every allocation.
    ///
    /// # Errors
    ///
    /// [`SpaceError::Device`], [`SpaceError::DeviceLost`]; the books are as they were.
    pub fn refresh(&self) -> Result<DriverFigures, SpaceError> {
        // A figure of one life must not be taken for one of the next.
        let _under_way = self.enter()?;
        let Backing::Blocks(held) = &self.backing else {
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
            // Whoever is between two figures gets on.
            std::thread::yield_now();
        }
    }

    /// As [`refresh`](Self::refresh), on the way to another answer: only a lost device is news.
    pub(crate) fn ask_again(&self) -> Result<(), SpaceError> {
        match self.refresh() {
            Err(lost @ SpaceError::DeviceLost { .. }) => Err(lost),
            _ => Ok(()),
        }
    }

    /// The driver's figure of free bytes, if it says. Bytes are being given back while it is asked,
    /// so not even a panic of the device gets out.
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
