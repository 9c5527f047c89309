//! A part of a region that its holder has taken from the arena.

use core::fmt;

use crate::bounds::{BoundsError, ByteRange, DeviceRange};
use crate::units::{ByteLen, DeviceOffset};

/// A live part of an arena's region.
///
/// [`Arena::release`](crate::Arena::release) frees its bytes; if it is only dropped, they stay
/// taken.
#[must_use = "a placement that is dropped stays taken"]
pub struct Placement {
    pub(crate) arena: u64,
    pub(crate) slot: usize,
    pub(crate) serial: u64,
    pub(crate) start: DeviceOffset,
    pub(crate) len: ByteLen,
    pub(crate) footprint: ByteLen,
}

impl Placement {
    /// Position of the first byte, from the start of the region.
    #[must_use]
    pub fn start(&self) -> DeviceOffset {
        self.start
    }

    /// Bytes that the caller asked for.
    #[must_use]
    pub fn len(&self) -> ByteLen {
        self.len
    }

    /// Returns true if the placement holds no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len.is_zero()
    }

    /// Bytes taken from the region: the length in whole granules, cut at the end of the region.
    #[must_use]
    pub fn footprint(&self) -> ByteLen {
        self.footprint
    }

    /// Exactly the bytes that the caller asked for.
    #[must_use]
    pub fn range(&self) -> DeviceRange {
        DeviceRange::spanning(self.start, self.len)
    }

    /// The bytes taken from the region.
    #[must_use]
    pub fn footprint_range(&self) -> DeviceRange {
        DeviceRange::spanning(self.start, self.footprint)
    }

    /// Where `part` of the shard lies in the region.
    ///
    /// # Errors
    ///
    /// [`BoundsError::OutOfBounds`] if `part` was checked against a longer shard.
    pub fn locate(&self, part: ByteRange) -> Result<DeviceRange, BoundsError> {
        self.range().slice(part)
    }
}

impl fmt::Debug for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placement")
            .field("start", &self.start)
            .field("len", &self.len)
            .field("footprint", &self.footprint)
            .finish_non_exhaustive()
    }
}
