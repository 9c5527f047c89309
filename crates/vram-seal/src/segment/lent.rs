//! The key of one segment, lent to a cipher elsewhere: on the device that holds the bytes.

use core::fmt;

use crate::key::secret::Secret;

/// The key of one segment. It opens that segment of one seal and nothing else. Wiped when dropped;
/// whoever copies the bytes wipes the copy.
pub struct SegmentKey {
    bytes: Secret,
    segment: u64,
    last: bool,
}

impl SegmentKey {
    pub(crate) fn new(bytes: &[u8; 32], segment: u64, last: bool) -> Self {
        Self { bytes: Secret::copy_of(bytes), segment, last }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The number of the segment, which the nonce contains.
    #[must_use]
    pub const fn segment(&self) -> u64 {
        self.segment
    }

    /// Whether the segment is the last, which the nonce contains.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        self.last
    }
}

impl fmt::Debug for SegmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentKey({})", self.segment)
    }
}
