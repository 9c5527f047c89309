//! Returning a GPU's memory to its driver when the manager closes.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceRange};
use vram_gpu::{DeviceMemory, FreeError, GpuError};

use crate::block::{Backing, Block};
use crate::gpu::unreturned::Waiting;
use crate::gpu::{Gpu, WipePolicy};
use crate::life::table::LifeState;
use crate::sync::{Mutex, lock};

/// Memory of one GPU that a closed manager still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnreturnedMemory {
    /// The GPU.
    pub gpu: u32,
    /// Bytes that this manager holds of it.
    pub bytes: ByteLen,
    /// Why they could not be freed; `None` where something still lies in them.
    pub error: Option<GpuError>,
}

impl Gpu {
    /// Bytes that this manager holds from the driver.
    fn held(&self) -> ByteLen {
        match &self.backing {
            Backing::Region(region) => {
                lock(region).as_ref().map_or(ByteLen::ZERO, |region| region.len())
            }
            Backing::Blocks(held, _) => held.bytes(),
        }
    }

    /// The same figure as a report; `None` for zero bytes, and for memory that went with a lost
    /// device.
    pub fn still_held(&self) -> Option<UnreturnedMemory> {
        let bytes = if self.is_settled() { ByteLen::ZERO } else { self.held() };
        (!bytes.is_zero()).then_some(UnreturnedMemory { gpu: self.index, bytes, error: None })
    }

    /// Whether nothing is owed to the driver: the memory went with the device, or everything was
    /// given up already.
    fn is_settled(&self) -> bool {
        self.lost().is_some() || self.life.state() == LifeState::Closed
    }

    /// Returns all memory that holds nothing any more to the driver. Reports what could not be
    /// returned.
    pub fn give_up_memory(&self) -> Option<UnreturnedMemory> {
        let left = self.give_up();
        // What failed because the device was lost meanwhile is not owed either.
        if left.is_some() && self.is_settled() { self.give_up() } else { left }
    }

    fn give_up(&self) -> Option<UnreturnedMemory> {
        let unreturned = |bytes: ByteLen, error| {
            (!bytes.is_zero()).then_some(UnreturnedMemory { gpu: self.index, bytes, error })
        };
        if self.is_settled() {
            // A lost device gets no calls. What stands for its memory here is kept until the process
            // or a reset ends it.
            let _settled = self.settle_unreturned();
            let _never_too_large = self.ledger.set_total(ByteLen::ZERO);
            return None;
        }
        let mut failure = None;
        for one in self.take_all_unreturned() {
            if let Err(error) = self.try_again(one) {
                failure = Some(error);
            }
        }
        if !self.ledger.capacity().taken().is_zero() {
            return unreturned(self.held(), failure);
        }
        let outcome = match &self.backing {
            Backing::Region(region) => {
                let taken = lock(region).take();
                taken.map_or(Ok(()), |block| self.free_region(region, block))
            }
            Backing::Blocks(..) => Ok(()),
        };
        match outcome {
            Ok(()) => {
                // Nothing is held, and a total of zero prevents further grants.
                let _never_too_large = self.ledger.set_total(ByteLen::ZERO);
                None
            }
            Err((bytes, error)) => unreturned(bytes, Some(error)),
        }
    }

    fn free_region(
        &self,
        region: &Mutex<Option<Arc<Block>>>,
        block: Arc<Block>,
    ) -> Result<(), (ByteLen, GpuError)> {
        let (epoch, len) = (block.epoch(), block.len());
        let block = match Arc::try_unwrap(block) {
            Ok(block) => block,
            Err(shared) => {
                *lock(region) = Some(shared);
                return Err((len, self.stuck("the region is in use")));
            }
        };
        match catch_unwind(AssertUnwindSafe(|| block.free())) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(FreeError { memory, error })) => {
                *lock(region) = Some(Block::region(memory, epoch));
                let _remembered = self.failed(error);
                Err((len, error))
            }
            Err(_panic) => Err((len, self.stuck("the device panicked"))),
        }
    }

    /// Tries once more to wipe and release memory that was set aside.
    pub(crate) fn try_again(&self, mut waiting: Waiting) -> Result<(), GpuError> {
        let one = &mut waiting.what;
        let outcome = match (&self.backing, one.block.take()) {
            (Backing::Region(region), _) => {
                let region = lock(region).clone();
                let range = one.placement.footprint_range();
                region.map_or(Ok(()), |region| self.wipe_again(&**region, range))
            }
            (Backing::Blocks(..), Some(memory)) => {
                let whole = DeviceRange::whole(memory.len());
                match self.wipe_again(&*memory, whole) {
                    Ok(()) => self.free_again(memory).map_err(|(memory, error)| {
                        one.block = memory;
                        error
                    }),
                    Err(error) => {
                        one.block = Some(memory);
                        Err(error)
                    }
                }
            }
            // The block was lost in a panic of the device, so there is nothing to free.
            (Backing::Blocks(..), None) => Err(one.error),
        };
        match outcome {
            Ok(()) => {
                self.returned(waiting.what);
                Ok(())
            }
            Err(error) => {
                one.error = error;
                self.still_unreturned(waiting);
                Err(error)
            }
        }
    }

    fn wipe_again(&self, memory: &dyn DeviceMemory, range: DeviceRange) -> Result<(), GpuError> {
        if self.wipe == WipePolicy::Never || range.is_empty() {
            return Ok(());
        }
        self.caught(|| memory.fill(range, 0)).inspect_err(|error| {
            let _remembered = self.failed(*error);
        })
    }

    /// Frees a block that the driver refused before.
    fn free_again(
        &self,
        memory: Box<dyn DeviceMemory>,
    ) -> Result<(), (Option<Box<dyn DeviceMemory>>, GpuError)> {
        let len = memory.len();
        match catch_unwind(AssertUnwindSafe(|| memory.free())) {
            Ok(Ok(())) => {
                if let Some(held) = self.blocks() {
                    held.less(len);
                }
                Ok(())
            }
            Ok(Err(FreeError { memory, error })) => {
                let _remembered = self.failed(error);
                Err((Some(memory), error))
            }
            Err(_panic) => Err((None, self.stuck("the device panicked"))),
        }
    }
}
