//! The device's part of a reset: wait until no call runs, empty the device, allocate again.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use vram_alloc::ByteLen;
use vram_gpu::{DeviceMemory, DeviceState, GpuError, MemoryInfo};

use crate::block::{Backing, Block};
use crate::error::SpaceError;
use crate::gpu::Gpu;
use crate::gpu::driver::foreign;
use crate::sync::lock;

/// Fresh memory of a device that was emptied.
#[derive(Debug)]
#[must_use = "the next life begins when it is handed to `renew`"]
pub struct Emptied {
    memory: Option<Box<dyn DeviceMemory>>,
    figures: Option<MemoryInfo>,
}

impl Gpu {
    /// Whether the device may be reset, or was by others, so that no reset is needed.
    ///
    /// # Errors
    ///
    /// The device's reason. Nothing was changed.
    pub fn may_reset(&self) -> Result<(), SpaceError> {
        if self.reset_by_others() {
            return Ok(());
        }
        self.caught(|| self.device.may_reset()).map_err(|error| self.failed(error))
    }

    /// Whether a call from outside this manager has reset the device.
    fn reset_by_others(&self) -> bool {
        matches!(self.life.lost(), Some(GpuError::StaleAllocation { .. }))
            && self.device.state() == DeviceState::Ready
    }

    /// Resets the device and allocates its memory again. The life that ends here lasts until
    /// [`renew`](Self::renew).
    ///
    /// # Errors
    ///
    /// The device's error: the device is lost then. Ledger and arena are unchanged.
    pub fn empty(&self) -> Result<Emptied, SpaceError> {
        let emptied = self.caught(|| {
            if !self.reset_by_others() {
                self.device.reset()?;
            }
            match &self.backing {
                Backing::Region(_) => match self.region_len() {
                    len if len.is_zero() => Ok(Emptied { memory: None, figures: None }),
                    len => Ok(Emptied { memory: Some(self.device.allocate(len)?), figures: None }),
                },
                Backing::Blocks(..) => {
                    Ok(Emptied { memory: None, figures: Some(self.device.memory()?) })
                }
            }
        });
        emptied.map_err(|error| {
            tracing::error!(gpu = self.index, %error, "the device could not be taken again");
            // Records the loss if the device worked before the reset; it stays lost.
            self.lose(error, None);
            self.failed(error)
        })
    }

    /// Begins the next life of an emptied device, in which its shards are restored.
    pub fn renew(&self, emptied: Emptied) {
        let Emptied { memory, figures } = emptied;
        let (old, buried) = self.life.renew(|epoch| {
            if let Some(figures) = figures {
                let total = self.ledger.capacity().total;
                self.ledger.set_foreign(foreign(total, ByteLen::ZERO, figures));
            }
            match &self.backing {
                Backing::Region(region) => {
                    self.ledger.set_foreign(ByteLen::ZERO);
                    let fresh = memory.map(|memory| Block::region(memory, epoch));
                    core::mem::replace(&mut *lock(region), fresh)
                }
                Backing::Blocks(held, _) => {
                    held.renew();
                    None
                }
            }
        });
        // These values belong to the last life. Dropping them makes no driver call, and a panic
        // changes nothing.
        let _dropped = catch_unwind(AssertUnwindSafe(|| {
            drop((old, buried));
            self.pool.clear();
        }));
    }
}
