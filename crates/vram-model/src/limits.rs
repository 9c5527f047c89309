//! How much of a stranger's file is believed before it is refused.

use vram_alloc::ByteLen;

/// Bounds on what a header may ask for, checked before anything is allocated for it.
///
/// The defaults admit every model published so far (18 771 tensors in the largest one known to us)
/// and keep what a hostile header can claim of host memory below half a GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Longest header accepted. The format itself stops at 100 MB.
    pub header_len_max: ByteLen,
    /// Most tensors accepted in one file.
    pub tensor_count_max: usize,
    /// Longest tensor name accepted, in bytes of UTF-8.
    pub name_len_max: usize,
    /// Most entries accepted in the free-form `__metadata__`.
    pub metadata_count_max: usize,
}

impl Limits {
    /// The limits that are used where a caller gives none.
    pub const DEFAULT: Self = Self {
        header_len_max: ByteLen::new(100_000_000),
        tensor_count_max: 1 << 18,
        name_len_max: 1024,
        metadata_count_max: 1 << 16,
    };

    /// Sets the longest header accepted.
    #[must_use]
    pub const fn with_header_len_max(mut self, len: ByteLen) -> Self {
        self.header_len_max = len;
        self
    }

    /// Sets the most tensors accepted in one file.
    #[must_use]
    pub const fn with_tensor_count_max(mut self, count: usize) -> Self {
        self.tensor_count_max = count;
        self
    }

    /// Sets the longest tensor name accepted, in bytes.
    #[must_use]
    pub const fn with_name_len_max(mut self, len: usize) -> Self {
        self.name_len_max = len;
        self
    }

    /// Sets the most entries accepted in `__metadata__`.
    #[must_use]
    pub const fn with_metadata_count_max(mut self, count: usize) -> Self {
        self.metadata_count_max = count;
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
