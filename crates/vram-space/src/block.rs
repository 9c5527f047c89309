//! Device memory that holds shards: one region per GPU, or one block per shard.

use core::ops::Deref;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use vram_alloc::{Alignment, Arena, ArenaError, ByteLen, Kept, MAX_TOTAL, Placement};
use vram_gpu::{Device, DeviceMemory, FreeError, GpuError};

use crate::sync::{Mutex, lock};

/// How a manager allocates device memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum MemoryMode {
    /// Allocates the whole budget when the manager is built. Later placements do not depend on what
    /// other processes allocate, and placing a shard makes no driver call.
    #[default]
    Region,
    /// Allocates nothing when the manager is built. Each shard that has bytes gets an allocation of
    /// its own, in whole granules of 256 bytes and within the budget. The allocation returns to the
    /// driver when the shard is removed. Memory that other processes take meanwhile is not
    /// available: see `VramManager::refresh`.
    Blocks,
    /// As `Blocks`, in whole granules of 2 MiB: the unit in which a driver gives memory out, and the
    /// only allocations that another process can open without getting at their neighbours
    /// (`Lease::share`). Each shard takes its length rounded up to that.
    SharedBlocks,
}

impl MemoryMode {
    /// The unit of what a shard takes.
    #[must_use]
    pub(crate) const fn granule(self) -> Alignment {
        match self {
            Self::Region | Self::Blocks => Alignment::GRANULE,
            Self::SharedBlocks => Alignment::MIB_2,
        }
    }

    /// Whether each shard has an allocation of its own.
    #[must_use]
    pub(crate) const fn is_by_block(self) -> bool {
        matches!(self, Self::Blocks | Self::SharedBlocks)
    }

    /// An arena for a GPU with this budget.
    pub(crate) fn arena(self, budget: ByteLen) -> Result<Arena, ArenaError> {
        Arena::with_granule(self.arena_len(budget), self.granule())
    }

    /// Bytes that the arena of a GPU with this budget covers.
    #[must_use]
    pub(crate) const fn arena_len(self, budget: ByteLen) -> ByteLen {
        match self {
            Self::Region => budget,
            // Whole granules, so that the last placement is not cut short.
            Self::Blocks | Self::SharedBlocks => {
                let short = self.granule().get().saturating_sub(1);
                ByteLen::new(MAX_TOTAL.get() & !short)
            }
        }
    }
}

/// One driver allocation that holds shards.
#[derive(Debug)]
pub struct Block {
    pub(crate) memory: Box<dyn DeviceMemory>,
    /// The number of the life in which this block was allocated. After a reset the block is
    /// invalid.
    pub epoch: u64,
    /// The count that includes this block; `None` for a region.
    pub count: Option<Arc<Count>>,
}

impl Block {
    /// Wraps the allocation of a whole region.
    #[must_use]
    pub fn region(memory: Box<dyn DeviceMemory>, epoch: u64) -> Arc<Self> {
        Arc::new(Self { memory, epoch, count: None })
    }

    #[must_use]
    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the allocation to the driver.
    ///
    /// # Errors
    ///
    /// [`FreeError`] contains the block, which is still allocated.
    pub fn free(self) -> Result<(), FreeError> {
        self.memory.free()
    }

    #[must_use]
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

/// Bytes that the driver did not take back, or that could not be offered to it.
#[derive(Debug)]
pub struct Stuck {
    /// The block, if it still exists.
    pub block: Option<Box<dyn DeviceMemory>>,
    pub error: GpuError,
}

/// The memory behind a GPU's placements.
#[derive(Debug)]
pub enum Backing {
    /// Parts of this region. `None` for a budget of zero: then only empty shards fit, and their
    /// bytes are never accessed.
    Region(Mutex<Option<Arc<Block>>>),
    /// Blocks. A placement is only the block's entry in the arena. The arena is so large that the
    /// ledger always refuses first.
    Blocks(BlockCount, Pages),
}

/// Of what lengths blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// As [`MemoryMode::Blocks`] says.
    Granules,
    /// As [`MemoryMode::SharedBlocks`] says.
    Shared,
}

impl Backing {
    /// Allocates what a GPU of this budget needs at the start: its region, or nothing.
    ///
    /// # Errors
    ///
    /// The device's error.
    pub fn take(device: &dyn Device, mode: MemoryMode, budget: ByteLen) -> Result<Self, GpuError> {
        match mode {
            MemoryMode::Region if budget.is_zero() => Ok(Self::Region(Mutex::default())),
            MemoryMode::Region => {
                let region = Block::region(device.allocate(budget)?, 0);
                Ok(Self::Region(Mutex::new(Some(region))))
            }
            MemoryMode::Blocks => Ok(Self::Blocks(BlockCount::default(), Pages::Granules)),
            MemoryMode::SharedBlocks => Ok(Self::Blocks(BlockCount::default(), Pages::Shared)),
        }
    }

    /// How memory is allocated.
    pub const fn mode(&self) -> MemoryMode {
        match self {
            Self::Region(_) => MemoryMode::Region,
            Self::Blocks(_, Pages::Granules) => MemoryMode::Blocks,
            Self::Blocks(_, Pages::Shared) => MemoryMode::SharedBlocks,
        }
    }

    /// The region while it exists; an empty `Weak` in mode `Blocks`.
    pub fn region(&self) -> Weak<Block> {
        match self {
            Self::Region(region) => lock(region).as_ref().map_or_else(Weak::new, Arc::downgrade),
            Self::Blocks(..) => Weak::new(),
        }
    }
}

/// Bytes of the blocks that this manager holds from the driver, in the current life of the device.
#[derive(Debug, Default)]
pub struct BlockCount(Mutex<Arc<Count>>);

/// Bytes of the blocks of one life of a device. A block is subtracted from the count that it was
/// added to.
#[derive(Debug, Default)]
pub struct Count {
    bytes: AtomicU64,
    /// Counts the starts and the ends of allocations and frees. A driver figure matches `bytes`
    /// only if this value did not change while the figure was read, and no allocation or free was
    /// running.
    moves: AtomicU64,
    /// Allocations and frees that are running.
    under_way: AtomicU64,
}

impl BlockCount {
    /// Bytes of the blocks that are allocated now.
    pub fn bytes(&self) -> ByteLen {
        self.now().bytes()
    }

    /// The count of the current life.
    pub fn now(&self) -> Arc<Count> {
        Arc::clone(&lock(&self.0))
    }

    /// Subtracts a block that was set aside earlier and has now been freed.
    pub(crate) fn less(&self, len: ByteLen) {
        let count = self.now();
        count.begin();
        count.end(ByteLen::ZERO, len);
    }

    /// Starts a new count after the device was emptied. Later frees of older blocks do not change
    /// it.
    pub fn renew(&self) {
        *lock(&self.0) = Arc::default();
    }
}

impl Count {
    pub fn bytes(&self) -> ByteLen {
        ByteLen::new(self.bytes.load(Ordering::Acquire))
    }

    pub(crate) fn begin(&self) {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.moves.fetch_add(1, Ordering::AcqRel);
    }

    pub fn end(&self, more: ByteLen, less: ByteLen) {
        self.bytes.fetch_add(more.get(), Ordering::AcqRel);
        self.bytes.fetch_sub(less.get(), Ordering::AcqRel);
        self.moves.fetch_add(1, Ordering::AcqRel);
        self.under_way.fetch_sub(1, Ordering::AcqRel);
    }

    /// The number of starts and ends so far, and whether no allocation or free is running.
    pub fn look(&self) -> (u64, bool) {
        let moves = self.moves.load(Ordering::Acquire);
        (moves, self.under_way.load(Ordering::Acquire) == 0)
    }
}

/// A placement that could not be wiped, or whose block the driver did not take back. Until the
/// device is reset it is not handed out again and its bytes stay counted.
#[derive(Debug)]
pub struct Unreturned {
    pub placement: Placement,
    pub kept: Kept,
    pub block: Option<Box<dyn DeviceMemory>>,
    pub error: GpuError,
}
