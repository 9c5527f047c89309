//! Device memory: taking it, giving it back, overwriting it.

use core::panic::AssertUnwindSafe;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::{Arc, Weak};

use vram_alloc::{ByteLen, DeviceRange};
use vram_gpu::{FreeError, GpuError};

use crate::block::{Block, Held, Stuck};
use crate::error::SpaceError;
use crate::gpu::Gpu;

impl Gpu {
    /// A block of `len` bytes from the driver.
    ///
    /// # Errors
    ///
    /// [`SpaceError::Device`] if the driver says no, for lack of memory or else; what others took is
    /// in the books then. [`SpaceError::DeviceLost`], [`SpaceError::HostMemory`].
    pub fn allocate(&self, held: &Held, len: ByteLen) -> Result<Arc<Block>, SpaceError> {
        self.ready()?;
        let (count, life) = (held.now(), self.health.life());
        count.begin();
        let made = catch_unwind(AssertUnwindSafe(|| self.device.allocate(len)));
        let more = if matches!(made, Ok(Ok(_))) { len } else { ByteLen::ZERO };
        count.end(more, ByteLen::ZERO);
        let made = made.unwrap_or_else(|panic| resume_unwind(panic));
        match made {
            Ok(memory) => Ok(Arc::new(Block { memory, life, count: Some(count) })),
            Err(error @ GpuError::OutOfMemory { .. }) => {
                self.ask_again()?;
                Err(self.failed(error))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Gives a block back to the driver.
    ///
    /// # Errors
    ///
    /// Why it did not take it; its bytes stay counted.
    pub fn give_back(&self, block: Arc<Block>) -> Result<(), Stuck> {
        let len = block.len();
        let count = block.count.clone().unwrap_or_default();
        // Nothing more is sent to a lost device: it takes its memory back as a whole, when it is
        // reset. Of an earlier life it has done so.
        if block.life != self.health.life() || !self.winds_up() {
            count.begin();
            count.end(ByteLen::ZERO, len);
            let gone = self.health.bury(block);
            // It calls no driver; a panic changes nothing.
            let _dropped = catch_unwind(AssertUnwindSafe(|| drop(gone)));
            return Ok(());
        }
        // Whoever uses a block holds a pass of its shard's gate, so nobody does now.
        let Some(block) = Arc::into_inner(block) else {
            debug_assert!(false, "a block was in use when it was given back");
            return Err(Stuck { block: None, error: self.stuck("the block is in use") });
        };
        let life = block.life;
        count.begin();
        // This runs while panics unwind too: a second one must not get out.
        let freed = catch_unwind(AssertUnwindSafe(|| block.free()));
        match freed {
            Ok(Ok(())) => {
                count.end(ByteLen::ZERO, len);
                Ok(())
            }
            Ok(Err(FreeError { memory, error })) => {
                if let SpaceError::DeviceLost { .. } = self.failed(error) {
                    count.end(ByteLen::ZERO, len);
                    let block = Arc::new(Block { memory, life, count: None });
                    drop(self.health.bury(block));
                    return Ok(());
                }
                count.end(ByteLen::ZERO, ByteLen::ZERO);
                Err(Stuck { block: Some(memory), error })
            }
            Err(_panic) => {
                count.end(ByteLen::ZERO, ByteLen::ZERO);
                Err(Stuck { block: None, error: self.stuck("the device panicked") })
            }
        }
    }

    /// Calls the device by `work`, and answers a panic as an error.
    ///
    /// # Errors
    ///
    /// What `work` answers.
    pub fn caught<T>(&self, work: impl FnOnce() -> Result<T, GpuError>) -> Result<T, GpuError> {
        let done = catch_unwind(AssertUnwindSafe(work));
        done.unwrap_or_else(|_panic| Err(self.stuck("the device panicked")))
    }

    /// What is answered where the driver itself said nothing.
    pub(crate) fn stuck(&self, name: &'static str) -> GpuError {
        GpuError::Driver { gpu: self.device.info().index, code: u32::MAX, name, sticky: false }
    }

    /// What a shard lies in, if the device takes calls. Nobody asks for what an empty one lies in.
    ///
    /// # Errors
    ///
    /// [`SpaceError::DeviceLost`], also where the block is of an earlier life;
    /// [`SpaceError::Device`] where there is no memory behind an empty space.
    pub fn memory_in(&self, block: &Weak<Block>) -> Result<Arc<Block>, SpaceError> {
        self.ready()?;
        block.upgrade().ok_or_else(|| {
            let gpu = self.device.info().index;
            if block.ptr_eq(&Weak::new()) {
                let source = Box::new(GpuError::ZeroLength { gpu });
                return SpaceError::Device { gpu: self.index, source };
            }
            let source = Box::new(GpuError::StaleAllocation { gpu });
            SpaceError::DeviceLost { gpu: self.index, source }
        })
    }

    /// Overwrites a part of device memory. Says whether it did: what is on a lost device is gone
    /// anyway.
    ///
    /// # Errors
    ///
    /// What the device answered.
    pub fn overwrite(&self, memory: &Block, range: DeviceRange) -> Result<bool, GpuError> {
        // This runs while panics unwind too: a second one must not get out.
        match catch_unwind(AssertUnwindSafe(|| memory.fill(range, 0))) {
            Ok(Ok(())) => Ok(true),
            Ok(Err(error)) => {
                if let SpaceError::DeviceLost { .. } = self.failed_in(memory.life(), error) {
                    return Ok(false);
                }
                Err(error)
            }
            Err(_panic) => Err(self.stuck("the device panicked")),
        }
    }
}
