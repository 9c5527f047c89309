//! Limits for headers of untrusted files, and how model files are read.

use vram_alloc::ByteLen;

/// The highest value of [`Limits::rank_max`].
pub(crate) const RANK_CAP: usize = 4096;

/// Bounds on a header, checked before anything is allocated for it.
///
/// The defaults accept every published model known to us (18 771 tensors in the largest one) and
/// keep the host memory that a hostile header can claim below half a GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The longest accepted header, or index of a sharded model. The limit of the format
    /// safetensors itself is 100 MB.
    pub header_len_max: ByteLen,
    /// The maximum number of tensors in one file.
    pub tensor_count_max: usize,
    /// The longest accepted name of a tensor, and key of metadata in a GGUF file, in bytes of UTF-8.
    pub name_len_max: usize,
    /// The maximum number of entries in the free-form `__metadata__`, and of keys in a GGUF file.
    pub metadata_count_max: usize,
    /// The maximum number of dimensions of a tensor, at most 4096. `PyTorch`'s own limit is 64.
    pub rank_max: usize,
    /// The maximum number of files of one model, and of entries of a folder that are looked at.
    pub file_count_max: usize,
}

impl Limits {
    /// The limits for callers that set none.
    pub const DEFAULT: Self = Self {
        header_len_max: ByteLen::new(100_000_000),
        tensor_count_max: 1 << 18,
        name_len_max: 1024,
        metadata_count_max: 1 << 16,
        rank_max: 64,
        file_count_max: 1 << 14,
    };

    /// The highest limits that a program lets its user set. A header of the most tensors with the longest
    /// names has some 10 GiB; what is more is a mistake.
    pub const MOST: Self = Self {
        header_len_max: ByteLen::new(16 << 30),
        tensor_count_max: 1 << 24,
        name_len_max: 1 << 16,
        metadata_count_max: 1 << 24,
        rank_max: RANK_CAP,
        file_count_max: 1 << 20,
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

    /// Sets the maximum number of entries in `__metadata__`, and of keys in a GGUF file.
    #[must_use]
    pub const fn with_metadata_count_max(mut self, count: usize) -> Self {
        self.metadata_count_max = count;
        self
    }

    /// Sets the maximum number of dimensions of a tensor; more than 4096 count as 4096.
    #[must_use]
    pub const fn with_rank_max(mut self, rank: usize) -> Self {
        self.rank_max = if rank < RANK_CAP { rank } else { RANK_CAP };
        self
    }

    /// Sets the maximum number of files of one model.
    #[must_use]
    pub const fn with_file_count_max(mut self, count: usize) -> Self {
        self.file_count_max = count;
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How the files of a model are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelOptions {
    /// Bounds on headers.
    pub limits: Limits,
    /// Accepts a part of the files of a model in several files.
    pub partial: bool,
    /// Accepts a file that ends before its tensors do: for plans, which need headers alone.
    pub headers_only: bool,
}

impl ModelOptions {
    /// Sets the bounds on headers.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Accepts a part of the files of a model in several files.
    #[must_use]
    pub const fn partial(mut self, partial: bool) -> Self {
        self.partial = partial;
        self
    }

    /// Accepts files that end before their tensors do. What is read of them is complete: headers
    /// are never accepted in part.
    #[must_use]
    pub const fn headers_only(mut self, headers_only: bool) -> Self {
        self.headers_only = headers_only;
        self
    }
}

impl From<Limits> for ModelOptions {
    fn from(limits: Limits) -> Self {
        Self::default().limits(limits)
    }
}
