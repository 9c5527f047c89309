//! The device's part of a reset: wait until no call runs, empty the device, allocate again.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use vram_alloc::ByteLen;
use vram_gpu::{DeviceState, GpuError};

use crate::block::{Backing, Block};
use crate::error::SpaceError;
use crate::gpu::Gpu;
use crate::gpu::driver::foreign;
use crate::sync::lock;

impl Gpu {
    /// Resets the device, allocates its memory again, and begins its next life. The device does not
    /// take calls yet.
    ///
    /// # Errors
    ///
    /// The device's error. Ledger, arena and life are unchanged.
    pub fn begin_anew(&self) -> Result<(), SpaceError> {
        let reset_by_others = matches!(self.health.lost(), Some(GpuError::StaleAllocation { .. }));
        let begun = self.caught(|| {
            if !(reset_by_others && self.device.state() == DeviceState::Ready) {
                self.device.reset()?;
            }
            match &self.backing {
                Backing::Region(_) => match self.region_len() {
                    len if len.is_zero() => Ok((None, None)),
                    len => Ok((Some(self.device.allocate(len)?), None)),
                },
                Backing::Blocks(_) => Ok((None, Some(self.device.memory()?))),
            }
        });
        let (memory, figures) = begun.map_err(|error| {
            tracing::error!(gpu = self.index, %error, "the device could not be taken again");
            // Records the loss if the device worked before the reset; it stays lost.
            self.lose(error, None);
            self.failed(error)
        })?;

        let (life, buried) = self.health.renew();
        let old = match &self.backing {
            Backing::Region(region) => {
                self.ledger.set_foreign(ByteLen::ZERO);
                let fresh = memory.map(|memory| Block::region(memory, life));
                core::mem::replace(&mut *lock(region), fresh)
            }
            Backing::Blocks(held) => {
                held.renew();
                None
            }
        };
        if let Some(figures) = figures {
            let total = self.ledger.capacity().total;
            self.ledger.set_foreign(foreign(total, ByteLen::ZERO, figures));
        }
        // These values belong to the last life. Dropping them makes no driver call, and a panic
        // changes nothing.
        let _dropped = catch_unwind(AssertUnwindSafe(|| {
            drop((old, buried));
            self.pool.clear();
        }));
        Ok(())
    }
}
