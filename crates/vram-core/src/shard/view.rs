//! Where a shard lies and how it is sealed.

use std::sync::{Arc, Weak};

use vram_alloc::DeviceRange;
use vram_space::{Block, Gpu, Space};

use crate::error::VramError;
use crate::shard::{Moment, Seal};

/// Where a shard lies and how it is sealed, while a pass of its gate is held.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) gpu: Arc<Gpu>,
    pub(crate) range: DeviceRange,
    /// What it lies in. Not owned: a block goes back to the driver though views of it are left.
    pub(crate) block: Weak<Block>,
    pub(crate) seal: Arc<Seal>,
}

/// A place whose bytes are those of a shard, before the shard counts there.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) space: Space,
    /// When the check began that found all of them sound; none if no check read all of them.
    pub(crate) verified: Option<Moment>,
}

impl View {
    /// What is sealed in a place.
    pub(crate) fn of(space: &Space, seal: Arc<Seal>) -> Self {
        let gpu = Arc::clone(space.gpu());
        Self { gpu, range: space.range(), block: space.behind(), seal }
    }

    /// The memory that the shard lies in, if the device takes calls.
    ///
    /// # Errors
    ///
    /// [`VramError::DeviceLost`].
    pub(crate) fn memory(&self) -> Result<Arc<Block>, VramError> {
        Ok(self.gpu.memory_in(&self.block)?)
    }

    /// As [`memory`](Self::memory), also while a reset that may be refused yet waits for the caller:
    /// for what must not be left half done.
    ///
    /// # Errors
    ///
    /// [`VramError::DeviceLost`].
    pub(crate) fn memory_to_the_end(&self) -> Result<Arc<Block>, VramError> {
        let winds_up = self.gpu.winds_up();
        match self.block.upgrade().filter(|_| winds_up) {
            Some(block) => Ok(block),
            None => self.memory(),
        }
    }
}
