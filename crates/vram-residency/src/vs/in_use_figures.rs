//! What the driver says is in use on a GPU.

use vram_alloc::{ByteLen, DeviceRange};

use crate::reports::budget::DriverMemory;
use crate::reports::reconciliation::Figures;
use crate::sync::lock;
use crate::vs::block::Held;
use crate::vs::gpu::Gpu;

impl Gpu {
    /// Books and arena at one moment, as they are: of blocks too, where the arena is larger than
    /// the device.
    pub(crate) fn accounts(&self) -> Figures {
        let sum = |sum: ByteLen, len: ByteLen| sum.saturating_add(len);
        // Placing, giving back and setting aside change all of them, the first two under this lock.
        let arena = lock(&self.arena);
        let (books, report) = (self.ledger.capacity(), arena.report());
        let live = arena.live().map(DeviceRange::len).fold(ByteLen::ZERO, sum);
        let holes = arena.holes().map(DeviceRange::len).fold(ByteLen::ZERO, sum);
        let unreturned = self.unreturned_bytes();
        let held = self.blocks().map(Held::bytes);
        drop(arena);
        let (arena_capacity, arena_used) = (report.capacity, report.used);
        Figures { books, arena_capacity, arena_used, live, holes, unreturned, held }
    }
}

/// Bytes in use by the driver's word.
pub(crate) const fn in_use(driver: &DriverMemory) -> ByteLen {
    driver.total.saturating_sub(driver.free)
}
