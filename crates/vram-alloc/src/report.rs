//! The figures of the ledger and of the arena, taken at one instant.

use core::fmt;

use crate::units::ByteLen;

/// The figures of one ledger at one instant.
///
/// While the bytes taken do not exceed the total, `used + reserved + free() == total`, exactly, in
/// every interleaving of threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Capacity {
    /// The budget.
    pub total: ByteLen,
    /// Bytes in use.
    pub used: ByteLen,
    /// The part of `used` that stays counted for good, because the device refused to take it back.
    pub kept: ByteLen,
    /// Bytes promised and not yet in use. Bytes that are being released appear here for an instant.
    pub reserved: ByteLen,
    /// Bytes that the ledger does not grant, so that others find room.
    pub headroom: ByteLen,
    /// Bytes of the budget that other processes took.
    pub foreign: ByteLen,
}

impl Capacity {
    /// Bytes in use or promised.
    #[must_use]
    pub const fn taken(self) -> ByteLen {
        self.used.saturating_add(self.reserved)
    }

    /// Bytes neither used nor promised; zero if the budget was set below the bytes taken.
    #[must_use]
    pub const fn free(self) -> ByteLen {
        self.total.saturating_sub(self.taken())
    }

    /// The largest reservation that the ledger would grant now: free, less headroom, less foreign.
    #[must_use]
    pub const fn room(self) -> ByteLen {
        self.free().saturating_sub(self.headroom).saturating_sub(self.foreign)
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "total {}, used {}, reserved {}, room {}",
            self.total,
            self.used,
            self.reserved,
            self.room()
        )
    }
}

/// The figures of one arena at one instant. `used + free == capacity`, exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ArenaReport {
    /// Bytes in the region.
    pub capacity: ByteLen,
    /// Sum of the footprints of live placements.
    pub used: ByteLen,
    /// Sum of the holes.
    pub free: ByteLen,
    /// The largest single hole: the largest placement with no alignment beyond the granule.
    pub largest_hole: ByteLen,
    /// Number of holes.
    pub hole_count: usize,
    /// Number of live placements, the empty ones included.
    pub live_count: usize,
}

impl ArenaReport {
    /// The share of the free memory outside the largest hole, in parts per million, rounded down: 0
    /// for one hole or none, towards 1 000 000 as the free memory splits into small holes.
    #[must_use]
    pub fn fragmentation_ppm(self) -> u32 {
        let outside = u128::from(self.free.saturating_sub(self.largest_hole).get());
        outside
            .saturating_mul(1_000_000)
            .checked_div(u128::from(self.free.get()))
            .and_then(|ppm| u32::try_from(ppm).ok())
            .unwrap_or(0)
    }

    /// [`ArenaReport::fragmentation_ppm`] as a fraction of one, in steps of a millionth.
    #[must_use]
    pub fn fragmentation(self) -> f64 {
        f64::from(self.fragmentation_ppm()) / 1e6
    }
}

impl fmt::Display for ArenaReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} placements hold {} of {}; free {} in {} holes, the largest {}; fragmentation {:.1} %",
            self.live_count,
            self.used,
            self.capacity,
            self.free,
            self.hole_count,
            self.largest_hole,
            self.fragmentation() * 100.0
        )
    }
}
