//! Limits for headers of untrusted files.

use vram_alloc::ByteLen;

/// Bounds on a header, checked before anything is allocated for it.
///
/// The defaults accept every published model known to us (18 771 tensors in the largest one) and
/// keep the host memory that a hostile header can claim below half a GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The longest accepted header. The format's own limit is 100 MB.
    pub header_len_max: ByteLen,
    /// The maximum number of tensors in one file.
    pub tensor_count_max: usize,
    /// The longest accepted tensor name, in bytes of UTF-8.
    pub name_len_max: usize,
    /// The maximum number of entries in the free-form `__metadata__`.
    pub metadata_count_max: usize,
}

impl Limits {
    /// The limits for callers that set none.
    pub const DEFAULT: Self = Self {
        header_len_max: ByteLen::new(100_000_000),
        tensor_count_max: 1 << 18,
        name_len_max: 1024,
        metadata_count_max: 1 << 16,
    };

    /// Sets the longest accepted header.
    #[must_use]
    pub const fn with_header_len_max(mut self, len: ByteLen) -> Self {
        self.header_len_max = len;
        self
    }

    /// Sets the maximum number of tensors in one file.
    #[must_use]
    pub const fn with_tensor_count_max(mut self, count: usize) -> Self {
        self.tensor_count_max = count;
        self
    }

    /// Sets the longest accepted tensor name, in bytes.
    #[must_use]
    pub const fn with_name_len_max(mut self, len: usize) -> Self {
        self.name_len_max = len;
        self
    }

    /// Sets the maximum number of entries in `__metadata__`.
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
