//! Device memory that shards lie in: one region of a GPU, or a block of its own for each.

use core::ops::Deref;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use vram_alloc::{ByteLen, Kept, MAX_TOTAL, Placement};
use vram_gpu::{Device, DeviceMemory, FreeError, GpuError};

use crate::sync::{Mutex, lock};

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
    /// others take meanwhile is not there: see `VramManager::refresh`.
    Blocks,
}

impl MemoryMode {
    /// Bytes that the arena of a GPU with this budget covers.
    #[must_use]
    pub(crate) const fn arena_len(self, budget: ByteLen) -> ByteLen {
        match self {
            Self::Region => budget,
            // Whole granules, so that no placement is cut short at its end.
            Self::Blocks => ByteLen::new(MAX_TOTAL.get() & !255),
        }
    }
}

/// One allocation that shards lie in.
#[derive(Debug)]
pub struct Block {
    pub(crate) memory: Box<dyn DeviceMemory>,
    /// The life of the device that it is of: after a reset it is nothing any more.
    pub life: u64,
    /// The count that it is in; none for a region.
    pub count: Option<Arc<Count>>,
}

impl Block {
    /// A region.
    #[must_use]
    pub fn region(memory: Box<dyn DeviceMemory>, life: u64) -> Arc<Self> {
        Arc::new(Self { memory, life, count: None })
    }

    #[must_use]
    pub(crate) const fn life(&self) -> u64 {
        self.life
    }

    /// Gives the allocation back to the driver.
    ///
    /// # Errors
    ///
    /// [`FreeError`] hands it back: it is still there.
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

/// Bytes that the driver did not take back, or that were not fit for it.
#[derive(Debug)]
pub struct Stuck {
    /// The block, if it is still there.
    pub block: Option<Box<dyn DeviceMemory>>,
    pub error: GpuError,
}

/// What a GPU's placements stand for.
#[derive(Debug)]
pub enum Backing {
    /// Parts of this region. None for a budget of zero: only empty shards fit, and nobody asks for
    /// their bytes.
    Region(Mutex<Option<Arc<Block>>>),
    /// Blocks. A placement is only the block's entry in the books: the arena is so large that a
    /// place is never what is missing.
    Blocks(Held),
}

impl Backing {
    /// Takes what a GPU of this budget needs up front: its region, or nothing.
    ///
    /// # Errors
    ///
    /// What the device answered.
    pub fn take(device: &dyn Device, mode: MemoryMode, budget: ByteLen) -> Result<Self, GpuError> {
        match mode {
            MemoryMode::Region if budget.is_zero() => Ok(Self::Region(Mutex::default())),
            MemoryMode::Region => {
                let region = Block::region(device.allocate(budget)?, 0);
                Ok(Self::Region(Mutex::new(Some(region))))
            }
            MemoryMode::Blocks => Ok(Self::Blocks(Held::default())),
        }
    }

    /// How memory is taken.
    pub const fn mode(&self) -> MemoryMode {
        match self {
            Self::Region(_) => MemoryMode::Region,
            Self::Blocks(_) => MemoryMode::Blocks,
        }
    }

    /// The region, for as long as it is there; of blocks, nothing.
    pub fn region(&self) -> Weak<Block> {
        match self {
            Self::Region(region) => lock(region).as_ref().map_or_else(Weak::new, Arc::downgrade),
            Self::Blocks(_) => Weak::new(),
        }
    }
}

/// Bytes of the blocks that this manager has from the driver, in this life of the device.
#[derive(Debug, Default)]
pub struct Held(Mutex<Arc<Count>>);

/// Bytes of the blocks of one life of a device. A block is taken out of the count that it is in.
#[derive(Debug, Default)]
pub struct Count {
    bytes: AtomicU64,
    /// Counts the beginnings and the ends of allocations and frees: a figure of the driver's belongs
    /// to `bytes` only if this stood still around it, and nothing was under way.
    moves: AtomicU64,
    /// Allocations and frees that are under way.
    under_way: AtomicU64,
}

impl Held {
    /// Bytes of the blocks that are held now.
    pub fn bytes(&self) -> ByteLen {
        self.now().bytes()
    }

    /// The count of this life.
    pub fn now(&self) -> Arc<Count> {
        Arc::clone(&lock(&self.0))
    }

    /// A block went back that was given up before.
    pub(crate) fn less(&self, len: ByteLen) {
        let count = self.now();
        count.begin();
        count.end(ByteLen::ZERO, len);
    }

    /// The device was emptied: nothing is held, whatever is still given back later.
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

    /// The count, and whether nothing is under way.
    pub fn look(&self) -> (u64, bool) {
        let moves = self.moves.load(Ordering::Acquire);
        (moves, self.under_way.load(Ordering::Acquire) == 0)
    }
}

/// A placement that could not be wiped, or whose block the driver did not take back. It is not
/// handed out again, and its bytes stay counted, until the device is reset.
#[derive(Debug)]
pub struct Unreturned {
    pub placement: Placement,
    pub kept: Kept,
    pub block: Option<Box<dyn DeviceMemory>>,
    pub error: GpuError,
}
