//! Why a model file could not be read or planned.

use std::io;

use vram_alloc::{ByteLen, PlanError};

use crate::gguf::GgufProblem;
use crate::lookalike::Lookalike;
use crate::sharded::{FolderProblem, IndexProblem};

/// Why a model file was not accepted.
///
/// Every variant names the file. Names from inside the file are shortened and escaped before they
/// enter an error, so that a message can be printed on a terminal unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file could not be opened.
    #[error("cannot open {file}: {source}")]
    Open {
        /// The file as the caller named it.
        file: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// The path leads to a directory, a pipe or a device.
    #[error("{file} is not a regular file")]
    NotAFile {
        /// The file as the caller named it.
        file: String,
    },
    /// The file could not be read at some position.
    #[error("cannot read {wanted} at byte {offset} of {file}: {source}")]
    Read {
        /// The file as the caller named it.
        file: String,
        /// Where reading began, in bytes from the start of the file.
        offset: u64,
        /// The number of bytes to read.
        wanted: ByteLen,
        /// The operating system's error.
        source: io::Error,
    },
    /// The file was written while its header was read.
    #[error(
        "{file} changed while its header was read: {what}; read it again when nothing writes it"
    )]
    Changed {
        /// The file as the caller named it.
        file: String,
        /// What differs: its length or its times.
        what: &'static str,
    },
    /// The host does not have enough memory for the header.
    #[error("no host memory for the {wanted} header of {file}")]
    HostMemory {
        /// The file as the caller named it.
        file: String,
        /// Length of the header.
        wanted: ByteLen,
    },
    /// The file has the beginning of another format.
    #[error("{file} is not a safetensors file: {found}")]
    OtherFormat {
        /// The file as the caller named it.
        file: String,
        /// The recognised format.
        found: Lookalike,
    },
    /// The header breaks a rule of the format, or the file does not match it.
    #[error("{file} is not a sound safetensors file: {problem}")]
    Header {
        /// The file as the caller named it.
        file: String,
        /// The rule, the position, and the figures.
        problem: HeaderProblem,
    },
    /// A GGUF file breaks a rule of its format.
    #[error("{file} is not a sound GGUF file: {problem}")]
    Gguf {
        /// The file as the caller named it.
        file: String,
        /// The rule, the position, and the figures.
        problem: Box<GgufProblem>,
    },
    /// An index does not lead to a model, or the files are not as it says.
    #[error("{file} is not the index of this model: {problem}")]
    Index {
        /// The index as the caller named it.
        file: String,
        /// What is wrong, and with which tensor.
        problem: IndexProblem,
    },
    /// A folder leads to no model, or to several.
    #[error("{folder} is not the folder of one model: {problem}")]
    Folder {
        /// The folder as the caller named it.
        folder: String,
        /// What it has.
        problem: FolderProblem,
    },
    /// Files of a model in several files are missing.
    #[error(
        "the model has {count} file{}, and these {}: {}{} in {folder}{}",
        if *count == 1 { "" } else { "s" },
        if *named { "were not given" } else { "are missing" },
        missing.join(", "),
        rest(*missing_count, missing),
        index.as_ref().map_or_else(String::new, |index| format!(", as {index} says"))
    )]
    MissingFiles {
        /// Where they should be.
        folder: String,
        /// The number of all files of the model.
        count: u64,
        /// The names of the first ones that are missing.
        missing: Vec<String>,
        /// The number of all that are missing.
        missing_count: u64,
        /// The others were named one by one, not found in a folder.
        named: bool,
        /// The index that names them, if one does.
        index: Option<String>,
    },
    /// GGUF files that state which part of a model they are do not make up all of it.
    #[error("{file} is a part of a model in several files: {what}")]
    Split {
        /// The file as the caller named it.
        file: String,
        /// What does not agree.
        what: String,
    },
    /// Two files of one model name the same tensor.
    #[error("tensor `{tensor}` is in both {first} and {second}")]
    TensorInTwoFiles {
        /// The tensor, shortened.
        tensor: String,
        /// The file that comes first in the list.
        first: String,
        /// The file that comes later.
        second: String,
    },
    /// There are more files than a plan can number.
    #[error("{count} files are more than one plan holds")]
    TooManyFiles {
        /// The number of files.
        count: usize,
    },
    /// The tensors cannot form a plan.
    #[error("the tensors do not make up a plan: {0}")]
    Plan(#[from] PlanError),
}

/// The rule of the format that a header breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderProblem {
    /// Shorter than the 8 bytes that give the header's length.
    #[error("it has {file_len}, fewer than the 8 that begin every safetensors file")]
    TooShort {
        /// Length of the file.
        file_len: ByteLen,
    },
    /// The header states a length above the limit.
    #[error("its header claims {header_len}, more than the limit of {max}")]
    HeaderTooLong {
        /// The length in the first 8 bytes.
        header_len: ByteLen,
        /// The limit.
        max: ByteLen,
    },
    /// The header states a length beyond the end of the file.
    #[error("its header claims {header_len}, but the whole file has {file_len}")]
    HeaderBeyondFile {
        /// The length in the first 8 bytes.
        header_len: ByteLen,
        /// Length of the file.
        file_len: ByteLen,
    },
    /// The header does not begin with `{`.
    #[error("its header does not begin with `{{`")]
    NotAnObject,
    /// The header is not JSON, or does not have the shape that the format requires.
    #[error("its header is not valid: {message}")]
    Json {
        /// The JSON reader's message, with line and column.
        message: String,
    },
    /// A key occurs twice in the header.
    #[error("its header names `{name}` twice")]
    DuplicateName {
        /// The key, shortened.
        name: String,
    },
    /// There are more tensors than the limit.
    #[error("it declares more than {max} tensors, the limit")]
    TooManyTensors {
        /// The limit.
        max: usize,
    },
    /// A tensor's name is longer than the limit.
    #[error("the name of tensor `{tensor}` is longer than {max} bytes, the limit")]
    NameTooLong {
        /// The tensor, shortened.
        tensor: String,
        /// The limit.
        max: usize,
    },
    /// A tensor has more dimensions than the limit.
    #[error("tensor `{tensor}` has {rank} dimensions, more than {max} dimensions, the limit")]
    RankTooHigh {
        /// The tensor, shortened.
        tensor: String,
        /// Its dimensions.
        rank: usize,
        /// The limit.
        max: usize,
    },
    /// There are more free-form entries than the limit.
    #[error("its `__metadata__` has more than {max} entries, the limit")]
    TooMuchMetadata {
        /// The limit.
        max: usize,
    },
    /// A dtype of the format that this version does not support.
    #[error("tensor `{tensor}` has elements of type {dtype}, which is not supported")]
    UnsupportedDtype {
        /// The tensor, shortened.
        tensor: String,
        /// The dtype's name in the file.
        dtype: String,
    },
    /// A shape whose size cannot be counted in bytes.
    #[error(
        "tensor `{tensor}` of type {dtype} and shape {shape:?} has no size in whole bytes that fits 64 bits"
    )]
    Shape {
        /// The tensor, shortened.
        tensor: String,
        /// The dtype's name in the file.
        dtype: String,
        /// The dimensions, outermost first.
        shape: Vec<u64>,
    },
    /// A tensor ends before its start.
    #[error("tensor `{tensor}` ends at byte {end} of the data, before its start at {start}")]
    Reversed {
        /// The tensor, shortened.
        tensor: String,
        /// Where it starts, in bytes from the end of the header.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// Offsets, dtype and shape disagree.
    #[error(
        "tensor `{tensor}` of type {dtype} and shape {shape:?} needs {needed}, but its offsets span {found}"
    )]
    WrongLength {
        /// The tensor, shortened.
        tensor: String,
        /// The dtype's name in the file.
        dtype: String,
        /// The dimensions, outermost first.
        shape: Vec<u64>,
        /// The length that dtype and shape require.
        needed: ByteLen,
        /// The length between the offsets.
        found: ByteLen,
    },
    /// Two tensors share bytes.
    #[error(
        "tensor `{tensor}` starts at byte {start} of the data, inside `{other}`, which ends at {other_end}"
    )]
    Overlap {
        /// The tensor that starts later, shortened.
        tensor: String,
        /// Where it starts, in bytes from the end of the header.
        start: u64,
        /// The tensor before it, shortened.
        other: String,
        /// Where the other tensor ends.
        other_end: u64,
    },
    /// Bytes between two tensors belong to no tensor; the format forbids that.
    #[error(
        "the {gap} before tensor `{tensor}`, from byte {from} of the data on, belong to no tensor"
    )]
    Hole {
        /// The tensor after the hole, shortened.
        tensor: String,
        /// Where the hole begins, in bytes from the end of the header.
        from: u64,
        /// The length of the hole.
        gap: ByteLen,
    },
    /// The file ends before its last tensor does.
    #[error("it is cut short: its header promises {needed}, the file has {file_len}")]
    Truncated {
        /// The length of length field, header and tensors together.
        needed: ByteLen,
        /// Length of the file.
        file_len: ByteLen,
    },
    /// The file has bytes after its tensors.
    #[error(
        "it goes on after its last tensor: its header promises {needed}, the file has {file_len}"
    )]
    TrailingBytes {
        /// The length of length field, header and tensors together.
        needed: ByteLen,
        /// Length of the file.
        file_len: ByteLen,
    },
}

impl ModelError {
    /// Returns true if a file, an index or a folder exceeds one of the limits that a caller can raise.
    #[must_use]
    pub const fn is_limit(&self) -> bool {
        match self {
            Self::Header { problem, .. } => problem.is_limit(),
            Self::Gguf { problem, .. } => problem.is_limit(),
            Self::Index { problem, .. } => problem.is_limit(),
            Self::Folder { problem, .. } => matches!(problem, FolderProblem::TooManyEntries { .. }),
            _ => false,
        }
    }
}

impl HeaderProblem {
    /// Returns true if the file exceeds one of the limits that a caller can raise.
    #[must_use]
    pub const fn is_limit(&self) -> bool {
        matches!(
            self,
            Self::HeaderTooLong { .. }
                | Self::TooManyTensors { .. }
                | Self::NameTooLong { .. }
                | Self::RankTooHigh { .. }
                | Self::TooMuchMetadata { .. }
        )
    }
}

/// How many of the missing files were not named.
fn rest(count: u64, named: &[String]) -> String {
    match count.saturating_sub(u64::try_from(named.len()).unwrap_or(u64::MAX)) {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    }
}
