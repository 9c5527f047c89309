//! The figures of one GPU at one moment.

use vram_alloc::ByteLen;

use crate::vs::gpu::Gpu;

/// The figures of one GPU at one moment: `used + reserved + free == total`, and nothing is used
/// that was not granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct GpuCapacity {
    /// The GPU, as the manager counts them.
    pub gpu: u32,
    /// The budget.
    pub total: ByteLen,
    /// Bytes that hold shards, in whole granules, and bytes that could not be returned.
    pub used: ByteLen,
    /// Bytes promised and not yet in use: reservations, and seals under way.
    pub reserved: ByteLen,
    /// Bytes that the configuration keeps free.
    pub headroom: ByteLen,
    /// Bytes of the budget that other processes hold, according to the driver.
    pub foreign: ByteLen,
    /// Bytes neither used nor promised.
    pub free: ByteLen,
    /// Bytes that could be granted: free, less headroom, less foreign.
    pub room: ByteLen,
    /// The longest shard that could be placed, if there is room for it.
    pub largest_hole: ByteLen,
    /// How many pieces the free bytes are in.
    pub hole_count: u64,
    /// Of `used`: bytes that could not be wiped when they were freed, and are never handed out
    /// again.
    pub unreturned: ByteLen,
}

impl GpuCapacity {
    pub(crate) fn of(gpu: &Gpu) -> Self {
        let (books, arena) = gpu.figures();
        Self {
            gpu: gpu.index,
            total: books.total,
            used: books.used,
            reserved: books.reserved,
            headroom: books.headroom,
            foreign: books.foreign,
            free: books.free(),
            room: books.room(),
            largest_hole: arena.largest_hole,
            hole_count: u64::try_from(arena.hole_count).unwrap_or(u64::MAX),
            unreturned: books.kept,
        }
    }
}
