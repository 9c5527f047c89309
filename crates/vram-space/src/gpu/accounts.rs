//! The figures of one GPU at one moment.

use std::sync::Weak;

use vram_alloc::{ArenaReport, ByteLen, Capacity, DeviceRange};

use crate::block::BlockCount;
use crate::gpu::Gpu;
use crate::sync::lock;

/// The figures of one GPU at one moment: `used + reserved + free == total`, and every used byte was
/// granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct GpuCapacity {
    /// The GPU's index in the manager.
    pub gpu: u32,
    /// The budget, less `scratch`.
    pub total: ByteLen,
    /// Bytes that hold shards, in whole granules, and bytes that could not be released.
    pub used: ByteLen,
    /// Bytes promised and not yet in use: reservations and running seals.
    pub reserved: ByteLen,
    /// Bytes that the configuration keeps free.
    pub headroom: ByteLen,
    /// Bytes beside `total` that the kernels of the device take for themselves.
    #[cfg_attr(feature = "serde", serde(default))]
    pub scratch: ByteLen,
    /// Bytes of the budget that other processes hold, according to the driver.
    pub foreign: ByteLen,
    /// Bytes neither used nor promised.
    pub free: ByteLen,
    /// Bytes that could be granted: free minus headroom minus foreign.
    pub room: ByteLen,
    /// The longest shard that the arena could place, if the ledger has room for it.
    pub largest_hole: ByteLen,
    /// The number of pieces that the free bytes consist of.
    pub hole_count: u64,
    /// Part of `used`: bytes that could not be wiped or released when they were freed, and are
    /// handed out to nobody until a later try succeeds; and bytes that a repair took out of use.
    pub unreturned: ByteLen,
}

/// Ledger and arena at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// The ledger.
    pub books: Capacity,
    /// Bytes that the arena covers.
    pub arena_capacity: ByteLen,
    /// Bytes in placements, by the arena's own count.
    pub arena_used: ByteLen,
    /// Bytes in placements, summed one by one.
    pub live: ByteLen,
    /// Bytes in holes, summed one by one.
    pub holes: ByteLen,
    /// Bytes that could not be wiped or released.
    pub unreturned: ByteLen,
    /// Bytes of blocks; `None` in mode `Region`.
    pub held: Option<ByteLen>,
    /// How often bytes were taken so far. Two reads are equal only if nothing changed in between:
    /// bytes given back and taken again show here.
    pub taken_count: u64,
}

impl Gpu {
    /// The present figures, all read at one moment.
    #[must_use]
    pub fn capacity(&self) -> GpuCapacity {
        let (books, arena) = self.figures();
        capacity_of(self.index, self.scratch, books, arena)
    }

    /// The ledger's figures at one moment.
    pub fn books(&self) -> Capacity {
        self.tenants.sweep();
        self.ledger.capacity()
    }

    /// The figures of ledger and arena at one moment.
    pub fn figures(&self) -> (Capacity, ArenaReport) {
        self.tenants.sweep();
        // Placing and releasing change both under the arena's lock.
        let arena = lock(&self.arena);
        let (books, mut report) = (self.ledger.capacity(), arena.report());
        drop(arena);
        if self.backing.region().ptr_eq(&Weak::new()) {
            report = without_region(books, report);
        }
        (books, report)
    }

    /// The unadjusted figures of ledger and arena at one moment, also in mode `Blocks`, where the
    /// arena is larger than the device.
    pub fn accounts(&self) -> Figures {
        let sum = |sum: ByteLen, len: ByteLen| sum.saturating_add(len);
        // Placing, releasing and setting aside change all of these; the first two do so under this
        // lock.
        let arena = lock(&self.arena);
        // Before the figures: what changes while they are read makes this count an old one.
        let taken_count = self.ledger.grants().wrapping_add(arena.placed_count());
        let (books, report) = (self.ledger.capacity(), arena.report());
        let live = arena.live().map(DeviceRange::len).fold(ByteLen::ZERO, sum);
        let holes = arena.holes().map(DeviceRange::len).fold(ByteLen::ZERO, sum);
        let unreturned = self.unreturned_bytes();
        let held = self.blocks().map(BlockCount::bytes);
        drop(arena);
        let (arena_capacity, arena_used) = (report.capacity, report.used);
        Figures { books, arena_capacity, arena_used, live, holes, unreturned, held, taken_count }
    }

    /// Bytes of the region that this manager allocated.
    pub fn region_len(&self) -> ByteLen {
        lock(&self.arena).capacity()
    }
}

/// The report of an arena that is larger than the device, as in mode `Blocks`: only the ledger limits
/// the length.
pub(crate) fn without_region(books: Capacity, mut report: ArenaReport) -> ArenaReport {
    report.largest_hole = books.room();
    report.hole_count = usize::from(!books.room().is_zero());
    (report.capacity, report.free) = (books.total, books.free());
    report
}

/// The figures of a GPU, from those of its ledger and its arena.
pub(crate) fn capacity_of(
    gpu: u32,
    scratch: ByteLen,
    books: Capacity,
    arena: ArenaReport,
) -> GpuCapacity {
    GpuCapacity {
        gpu,
        total: books.total,
        used: books.used,
        reserved: books.reserved,
        headroom: books.headroom,
        scratch,
        foreign: books.foreign,
        free: books.free(),
        room: books.room(),
        largest_hole: arena.largest_hole,
        hole_count: u64::try_from(arena.hole_count).unwrap_or(u64::MAX),
        unreturned: books.kept,
    }
}
