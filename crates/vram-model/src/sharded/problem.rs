//! Why a folder or an index leads to no model.

use vram_alloc::ByteLen;

/// Why an index does not lead to a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexProblem {
    /// It is longer than the limit.
    #[error("it has {len}, more than {max}, the limit")]
    TooLong {
        /// Length of the file.
        len: ByteLen,
        /// The limit.
        max: ByteLen,
    },
    /// It is no JSON, or not of the form of an index.
    #[error("it is not valid: {message}")]
    Json {
        /// The JSON reader's message, with line and column.
        message: String,
    },
    /// It has no `weight_map`.
    #[error("it has no `weight_map`")]
    NoMap,
    /// Its `weight_map` has no entry.
    #[error("its `weight_map` names no tensor")]
    Empty,
    /// A tensor stands twice in it.
    #[error("it names tensor `{tensor}` twice")]
    DuplicateName {
        /// The tensor, shortened.
        tensor: String,
    },
    /// A tensor's name is longer than the limit.
    #[error("the name of tensor `{tensor}` is longer than {max} bytes, the limit")]
    NameTooLong {
        /// The tensor, shortened.
        tensor: String,
        /// The limit.
        max: usize,
    },
    /// It names more tensors than one plan holds.
    #[error("it names more than {max} tensors")]
    TooManyTensors {
        /// The limit.
        max: usize,
    },
    /// It names more files than the limit.
    #[error("it names more than {max} files, the limit")]
    TooManyFiles {
        /// The limit.
        max: usize,
    },
    /// A name of a file leads out of the folder of the index.
    #[error("it has tensor `{tensor}` in `{name}`, which is no name of a file in its folder")]
    Outside {
        /// The tensor, shortened.
        tensor: String,
        /// The name, shortened.
        name: String,
    },
    /// It names some files of a set that count themselves, and leaves others out.
    #[error("it names files of a set of {count}, and leaves out {}{}", missing.join(", "), more(to_usize(*missing_count), missing.len()))]
    LeavesOut {
        /// The number of files in the set, by their names.
        count: u64,
        /// The first files that it leaves out.
        missing: Vec<String>,
        /// How many it leaves out.
        missing_count: u64,
    },
    /// A tensor is not in the file that the index names.
    #[error("it has tensor `{tensor}` in {file}, which does not contain it")]
    NotThere {
        /// The tensor, shortened.
        tensor: String,
        /// The file.
        file: String,
    },
    /// A tensor is in a file, and the index does not say so.
    #[error("{file} contains tensor `{tensor}`, and the index says that it is {place}")]
    NotListed {
        /// The tensor, shortened.
        tensor: String,
        /// The file.
        file: String,
        /// Nowhere, or in another file.
        place: String,
    },
}

impl IndexProblem {
    /// Returns true if the file exceeds one of the limits that a caller can raise.
    #[must_use]
    pub const fn is_limit(&self) -> bool {
        matches!(self, Self::TooLong { .. } | Self::NameTooLong { .. } | Self::TooManyFiles { .. })
    }
}

/// Why a folder leads to no model, or to several.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FolderProblem {
    /// It has no model file.
    #[error("it has no .safetensors and no .gguf file{}", beside(other.as_deref()))]
    Empty {
        /// A file of it that is a model of another format by its name.
        other: Option<String>,
    },
    /// It has several models.
    #[error("it has {count} models: {}{}", named.join(", "), more(*count, named.len()))]
    Several {
        /// The number of models.
        count: usize,
        /// The first of them: an index, a file, or the first file of a set.
        named: Vec<String>,
    },
    /// It has more entries than the limit.
    #[error("it has more than {max} entries, the limit")]
    TooManyEntries {
        /// The limit.
        max: usize,
    },
}

fn beside(other: Option<&str>) -> String {
    other.map_or_else(String::new, |name| format!("; {name} is of another format"))
}

fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// How many were not named.
pub(crate) fn more(count: usize, named: usize) -> String {
    match count.saturating_sub(named) {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    }
}
