//! Device memory: allocating, freeing and overwriting it.

use core::panic::AssertUnwindSafe;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::{Arc, Weak};

use vram_alloc::{ByteLen, DeviceRange};
use vram_gpu::{FreeError, GpuError};

use crate::block::{Block, BlockCount, Stuck};
use crate::error::SpaceError;
use crate::gpu::Gpu;

impl Gpu {
    /// Allocates a block of `len` bytes.
    ///
    /// # Errors
    ///
    /// [`SpaceError::Device`] if the driver refuses, for lack of memory or for another reason.
    /// After a refusal for lack of memory the ledger has the driver's present figure of foreign
    /// bytes. [`SpaceError::DeviceLost`], [`SpaceError::HostMemory`].
    pub fn allocate(&self, held: &BlockCount, len: ByteLen) -> Result<Arc<Block>, SpaceError> {
        self.ready()?;
        let (count, epoch) = (held.now(), self.life.epoch());
        count.begin();
        let made = catch_unwind(AssertUnwindSafe(|| self.device.allocate(len)));
        let more = if matches!(made, Ok(Ok(_))) { len } else { ByteLen::ZERO };
        count.end(more, ByteLen::ZERO);
        let made = made.unwrap_or_else(|panic| resume_unwind(panic));
        match made {
            Ok(memory) => Ok(Arc::new(Block { memory, epoch, count: Some(count) })),
            Err(error @ GpuError::OutOfMemory { .. }) => {
                self.ask_again()?;
                Err(self.failed(error))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Returns a block to the driver.
    ///
    /// # Errors
    ///
    /// Why the driver did not take it; its bytes stay counted.
    pub fn give_back(&self, block: Arc<Block>) -> Result<(), Stuck> {
        let len = block.len();
        let count = block.count.clone().unwrap_or_default();
        // No calls are sent to a lost device: a reset reclaims all of its memory. A block of an
        // earlier life was reclaimed by the reset that ended that life.
        // Asked first: a device that works now, in the life of the block, works in that life.
        if self.ready().is_err() || block.epoch != self.life.epoch() {
            count.begin();
            count.end(ByteLen::ZERO, len);
            let gone = self.life.bury(block);
            // Dropping it makes no driver call, and a panic in it changes nothing here.
            let _dropped = catch_unwind(AssertUnwindSafe(|| drop(gone)));
            return Ok(());
        }
        // Every call that uses a block holds a pass of its shard's gate, so no call uses it now.
        let Some(block) = Arc::into_inner(block) else {
            debug_assert!(false, "a block was in use when it was given back");
            return Err(Stuck { block: None, error: self.stuck("the block is in use") });
        };
        let epoch = block.epoch;
        count.begin();
        // This also runs during unwinding, so a second panic is caught here.
        let freed = catch_unwind(AssertUnwindSafe(|| block.free()));
        match freed {
            Ok(Ok(())) => {
                count.end(ByteLen::ZERO, len);
                Ok(())
            }
            Ok(Err(FreeError { memory, error })) => {
                if let SpaceError::DeviceLost { .. } = self.failed(error) {
                    count.end(ByteLen::ZERO, len);
                    let block = Arc::new(Block { memory, epoch, count: None });
                    drop(self.life.bury(block));
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

    /// Runs `work`, which calls the device, and turns a panic into an error.
    ///
    /// # Errors
    ///
    /// What `work` answers.
    pub fn caught<T>(&self, work: impl FnOnce() -> Result<T, GpuError>) -> Result<T, GpuError> {
        let done = catch_unwind(AssertUnwindSafe(work));
        done.unwrap_or_else(|_panic| Err(self.stuck("the device panicked")))
    }

    /// The error where the driver itself gave none.
    pub(crate) fn stuck(&self, name: &'static str) -> GpuError {
        GpuError::Driver { gpu: self.device.info().index, code: u32::MAX, name, sticky: false }
    }

    /// The memory that a shard lies in, if the device takes calls. It is never requested for an
    /// empty shard.
    ///
    /// # Errors
    ///
    /// [`SpaceError::DeviceLost`], also where the block is of an earlier life;
    /// [`SpaceError::Device`] where the space is empty and has no memory.
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

    /// Overwrites a part of device memory. Returns false if the device is lost: its bytes are gone
    /// anyway.
    ///
    /// # Errors
    ///
    /// The device's error.
    pub fn overwrite(&self, memory: &Block, range: DeviceRange) -> Result<bool, GpuError> {
        // This also runs during unwinding, so a second panic is caught here.
        match catch_unwind(AssertUnwindSafe(|| memory.fill(range, 0))) {
            Ok(Ok(())) => Ok(true),
            Ok(Err(error)) => {
                if let SpaceError::DeviceLost { .. } = self.failed_in(memory.epoch(), error) {
                    return Ok(false);
                }
                Err(error)
            }
            Err(_panic) => Err(self.stuck("the device panicked")),
        }
    }
}
