//! Where a shard lies and how it is sealed.

use std::sync::{Arc, Weak};

use vram_alloc::DeviceRange;
use vram_space::{Block, Gpu, Space};

use crate::error::VramError;
use crate::shard::{Moment, Seal};

/// Where a shard lies and how it is sealed, valid while a pass of its gate is held.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) gpu: Arc<Gpu>,
    pub(crate) range: DeviceRange,
    /// The block that the shard lies in. Not owned: a block returns to the driver even if views of
    /// it remain.
    pub(crate) block: Weak<Block>,
    pub(crate) seal: Arc<Seal>,
}

/// Space that holds the bytes of a shard which is not resident there yet.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) space: Space,
    /// When the check began that found all bytes sound; `None` if no check has read all of them.
    pub(crate) verified: Option<Moment>,
}

impl View {
    /// The view of what is sealed in `space`.
    pub(crate) fn of(space: &Space, seal: Arc<Seal>) -> Self {
        let gpu = Arc::clone(space.gpu());
        Self { gpu, range: space.range(), block: space.behind(), seal }
    }

    /// The block that the shard lies in, if the device takes calls.
    ///
    /// # Errors
    ///
    /// [`VramError::DeviceLost`].
    pub(crate) fn memory(&self) -> Result<Arc<Block>, VramError> {
        Ok(self.gpu.memory_in(&self.block)?)
    }

    /// Like [`memory`](Self::memory), but also while a reset that can still be refused waits for
    /// this call. For work that must not be left half done.
    ///
    /// # Errors
    ///
    /// [`VramError::DeviceLost`].
    pub(crate) fn memory_for_cleanup(&self) -> Result<Arc<Block>, VramError> {
        let allows_cleanup = self.gpu.allows_cleanup();
        match self.block.upgrade().filter(|_| allows_cleanup) {
            Some(block) => Ok(block),
            None => self.memory(),
        }
    }
}
