//! A segment in reports: its number and its position.

use core::fmt;

use vram_alloc::ByteRange;

/// A segment that was found altered, and its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SegmentSpan {
    /// Index of the segment, from 0.
    pub segment: u64,
    /// First byte, from the start of the shard.
    pub start: u64,
    /// Bytes in the segment.
    pub len: u64,
}

impl SegmentSpan {
    /// A segment and its bytes, as returned by
    /// [`SegmentLayout::range`](crate::SegmentLayout::range).
    #[must_use]
    pub const fn new(segment: u64, bytes: ByteRange) -> Self {
        Self { segment, start: bytes.start().get(), len: bytes.len().get() }
    }
}

impl fmt::Display for SegmentSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} ({} bytes at {})", self.segment, self.len, self.start)
    }
}
