//! Device memory that shards lie in: one region of a GPU, or a block of its own for each.

use core::ops::Deref;
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicU64, Ordering};
use std::panic::{catch_unwind, resume_unwind};
use std::sync::{Arc, Weak};

use vram_alloc::{ByteLen, Kept, Placement};
use vram_gpu::{DeviceMemory, FreeError, GpuError};

use crate::error::VramError;
use crate::sync::{Mutex, lock};
use crate::vs::driver::{DriverFigures, FIGURES_TRIES, foreign};
use crate::vs::gpu::Gpu;

/// How a manager takes memory of a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum MemoryMode {
    /// All of the budget at once, when the manager is built. What fits then fits later, whatever
    /// other processes do; placing a shard calls no driver.
    #[default]
    Region,
    /// Nothing up front: each shard that has bytes gets an allocation of its own, in whole granules
    /// of 256 bytes and within the budget, which goes back to the driver when the shard goes. What
    /// others take meanwhile is not there: see [`refresh`](crate::VramManager::refresh).
    Blocks,
}

/// One allocation that shards lie in.
#[derive(Debug)]
pub(crate) struct Block {
    memory: Box<dyn DeviceMemory>,
    /// The life of the device that it is of: after a reset it is nothing any more.
    life: u64,
    /// The count that it is in; none for a region.
    count: Option<Arc<Count>>,
}

impl Block {
    /// A region.
    pub(crate) fn region(memory: Box<dyn DeviceMemory>, life: u64) -> Arc<Self> {
        Arc::new(Self { memory, life, count: None })
    }

    pub(crate) const fn life(&self) -> u64 {
        self.life
    }

    /// Gives the allocation back to the driver.
    ///
    /// # Errors
    ///
    /// [`FreeError`] hands it back: it is still there.
    pub(crate) fn free(self) -> Result<(), FreeError> {
        self.memory.free()
    }

    pub(crate) fn into_memory(self) -> Box<dyn DeviceMemory> {
        self.memory
    }
}

impl Deref for Block {
    type Target = dyn DeviceMemory;

    fn deref(&self) -> &Self::Target {
        &*self.memory
    }
}

/// Bytes that the driver did not take back, or that were not fit for it.
#[derive(Debug)]
pub(crate) struct Stuck {
    /// The block, if it is still there.
    pub(crate) block: Option<Box<dyn DeviceMemory>>,
    pub(crate) error: GpuError,
}

/// What a GPU's placements stand for.
#[derive(Debug)]
pub(crate) enum Backing {
    /// Parts of this region. None for a budget of zero: only empty shards fit, and nobody asks for
    /// their bytes.
    Region(Mutex<Option<Arc<Block>>>),
    /// Blocks. A placement is only the block's entry in the books: the arena is so large that a
    /// place is never what is missing.
    Blocks(Held),
}

impl Backing {
    pub(crate) const fn mode(&self) -> MemoryMode {
        match self {
            Self::Region(_) => MemoryMode::Region,
            Self::Blocks(_) => MemoryMode::Blocks,
        }
    }

    /// The region, for as long as it is there; of blocks, nothing.
    pub(crate) fn region(&self) -> Weak<Block> {
        match self {
            Self::Region(region) => lock(region).as_ref().map_or_else(Weak::new, Arc::downgrade),
            Self::Blocks(_) => Weak::new(),
        }
    }
}

/// Bytes of the blocks that this manager has from the driver, in this life of the device.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<Arc<Count>>);

/// Bytes of the blocks of one life of a device. A block is taken out of the count that it is in.
#[derive(Debug, Default)]
pub(crate) struct Count {
    bytes: AtomicU64,
    /// Counts the beginnings and the ends of allocations and frees: a figure of the driver's belongs
    /// to `bytes` only if this stood still around it, and nothing was under way.
    moves: AtomicU64,
    /// Allocations and frees that are under way.
    under_way: AtomicU64,
}

impl Held {
    /// Bytes of the blocks that are held now.
    pub(crate) fn bytes(&self) -> ByteLen {
        self.now().bytes()
    }

    fn now(&self) -> Arc<Count> {
        Arc::clone(&lock(&self.0))
    }

    /// A block went back that was given up before.
    pub(crate) fn less(&self, len: ByteLen) {
        let count = self.now();
        count.begin();
        count.end(ByteLen::ZERO, len);
    }

    /// The device was emptied: nothing is held, whatever is still given back later.
    pub(crate) fn renew(&self) {
        *lock(&self.0) = Arc::default();
    }
}

impl Count {
    fn bytes(&self) -> ByteLen {
        ByteLen::new(self.bytes.load(Ordering::Acquire))
    }

    fn begin(&self) {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.moves.fetch_add(1, Ordering::AcqRel);
    }

    fn end(&self, more: ByteLen, less: ByteLen) {
        self.bytes.fetch_add(more.get(), Ordering::AcqRel);
        self.bytes.fetch_sub(less.get(), Ordering::AcqRel);
        self.moves.fetch_add(1, Ordering::AcqRel);
        self.under_way.fetch_sub(1, Ordering::AcqRel);
    }

    /// The count, and whether nothing is under way.
    fn look(&self) -> (u64, bool) {
        let moves = self.moves.load(Ordering::Acquire);
        (moves, self.under_way.load(Ordering::Acquire) == 0)
    }
}

impl Gpu {
    /// A block of `len` bytes from the driver.
    ///
    /// # Errors
    ///
    /// [`VramError::Device`] if the driver says no, for lack of memory or else; what others took is
    /// in the books then. [`VramError::DeviceLost`], [`VramError::HostMemory`].
    pub(crate) fn allocate(&self, held: &Held, len: ByteLen) -> Result<Arc<Block>, VramError> {
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
    pub(crate) fn give_back(&self, block: Arc<Block>) -> Result<(), Stuck> {
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
                if let VramError::DeviceLost { .. } = self.failed(error) {
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

    /// What is answered where the driver itself said nothing.
    pub(crate) fn stuck(&self, name: &'static str) -> GpuError {
        GpuError::Driver { gpu: self.device.info().index, code: u32::MAX, name, sticky: false }
    }

    /// Asks the driver for its figures and, of a GPU that is used block by block, keeps what others
    /// hold of the budget out of the room.
    ///
    /// While blocks come and go all the time, what is known stays known: the driver has the last
    /// word at every allocation.
    ///
    /// # Errors
    ///
    /// [`VramError::Device`], [`VramError::DeviceLost`]; the books are as they were.
    pub(crate) fn refresh(&self) -> Result<DriverFigures, VramError> {
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
    pub(crate) fn ask_again(&self) -> Result<(), VramError> {
        match self.refresh() {
            Err(lost @ VramError::DeviceLost { .. }) => Err(lost),
            _ => Ok(()),
        }
    }

    /// What a shard lies in, if the device takes calls. Nobody asks for what an empty one lies in.
    pub(crate) fn memory_in(&self, block: &Weak<Block>) -> Result<Arc<Block>, VramError> {
        self.ready()?;
        block.upgrade().ok_or_else(|| {
            let gpu = self.device.info().index;
            if block.ptr_eq(&Weak::new()) {
                let source = Box::new(GpuError::ZeroLength { gpu });
                return VramError::Device { gpu: self.index, source };
            }
            let source = Box::new(GpuError::StaleAllocation { gpu });
            VramError::DeviceLost { gpu: self.index, source }
        })
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

/// A placement that could not be wiped, or whose block the driver did not take back. It is not
/// handed out again, and its bytes stay counted, until the device is reset.
#[derive(Debug)]
pub(crate) struct Unreturned {
    pub(crate) placement: Placement,
    pub(crate) kept: Kept,
    pub(crate) block: Option<Box<dyn DeviceMemory>>,
    pub(crate) error: GpuError,
}
