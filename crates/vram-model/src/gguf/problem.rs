//! The rules of the format GGUF that a file breaks.

use vram_alloc::{ByteLen, SizeError};

/// The rule of the format that a GGUF file breaks.
///
/// Names and keys are shortened and escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GgufProblem {
    /// The file ends inside its header.
    #[error(
        "it is cut short: its header goes on for at least {wanted} at byte {at}, and the file has {file_len}"
    )]
    Cut {
        /// Where the reader stands.
        at: u64,
        /// What it has to read there.
        wanted: ByteLen,
        /// Length of the file.
        file_len: ByteLen,
    },
    /// It does not begin with `GGUF`.
    #[error("it does not begin with `GGUF`")]
    Magic,
    /// A version that is not read.
    #[error("it is of version {version}, and versions 2 and 3 are read")]
    Version {
        /// The version in the file.
        version: u32,
    },
    /// All numbers are in the other byte order.
    #[error(
        "it is big-endian, and little-endian files are read; convert the model for this machine"
    )]
    BigEndian,
    /// The header is longer than the limit.
    #[error("its header is longer than {max}, the limit")]
    HeaderTooLong {
        /// The limit.
        max: ByteLen,
    },
    /// There are more keys of metadata than the limit.
    #[error("it claims {count} keys of metadata, more than {max}, the limit")]
    TooMuchMetadata {
        /// The count in the file.
        count: u64,
        /// The limit.
        max: usize,
    },
    /// There are more tensors than the limit.
    #[error("it claims {count} tensors, more than {max}, the limit")]
    TooManyTensors {
        /// The count in the file.
        count: u64,
        /// The limit.
        max: usize,
    },
    /// A count that the bytes of the file cannot hold.
    #[error("it claims {count} {what} at byte {at}, for which {file_len} are too few")]
    CountBeyondFile {
        /// What is counted.
        what: &'static str,
        /// The count in the file.
        count: u64,
        /// Where the counted things begin.
        at: u64,
        /// Length of the file.
        file_len: ByteLen,
    },
    /// A key or a name is longer than the limit.
    #[error("the {what} at byte {at} has {len} bytes, more than {max}, the limit")]
    NameTooLong {
        /// A key, or the name of a tensor.
        what: &'static str,
        /// Where it begins.
        at: u64,
        /// Its bytes.
        len: u64,
        /// The limit.
        max: usize,
    },
    /// A key or a name is not UTF-8.
    #[error("the {what} at byte {at} is not UTF-8")]
    NotText {
        /// A key, or the name of a tensor.
        what: &'static str,
        /// Where it begins.
        at: u64,
    },
    /// A key stands twice in the metadata.
    #[error("the key `{key}` stands twice in its metadata")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A value of a type that the format does not have.
    #[error("the value of `{key}` is of type {number}, which the format does not have")]
    ValueType {
        /// The key.
        key: String,
        /// The type in the file.
        number: u32,
    },
    /// A truth value that is neither 0 nor 1.
    #[error("a truth value of `{key}` is {byte}, neither 0 nor 1")]
    TruthValue {
        /// The key.
        key: String,
        /// The byte in the file.
        byte: u8,
    },
    /// Lists are nested more deeply than the limit.
    #[error("the value of `{key}` nests lists more than {max} deep, the limit")]
    Nested {
        /// The key.
        key: String,
        /// The limit.
        max: usize,
    },
    /// `general.alignment` is no power of two, or not a number of 32 bits.
    #[error("`general.alignment` is {value}; it must be a power of two, stored in 32 bits")]
    Alignment {
        /// The value in the file.
        value: String,
    },
    /// A name occurs twice.
    #[error("it names tensor `{tensor}` twice")]
    DuplicateName {
        /// The tensor.
        tensor: String,
    },
    /// A tensor has more dimensions than the limit.
    #[error("tensor `{tensor}` has {rank} dimensions, more than {max}, the limit")]
    RankTooHigh {
        /// The tensor.
        tensor: String,
        /// Its dimensions.
        rank: u32,
        /// The limit.
        max: usize,
    },
    /// A type of elements that is not known, or that ggml has withdrawn.
    #[error("tensor `{tensor}` is of type {number}, which is not known or was withdrawn")]
    TensorType {
        /// The tensor.
        tensor: String,
        /// The type in the file.
        number: u32,
    },
    /// A shape that has no size in the tensor's format.
    #[error("tensor `{tensor}` of type {format} and shape {shape:?} has no size: {error}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// The name of its type.
        format: &'static str,
        /// Its dimensions, outermost first.
        shape: Vec<u64>,
        /// Why.
        error: SizeError,
    },
    /// A tensor does not begin at a multiple of the alignment.
    #[error("tensor `{tensor}` begins at byte {offset} of the data, no multiple of {alignment}")]
    Misaligned {
        /// The tensor.
        tensor: String,
        /// Where it begins, from the start of the data section.
        offset: u64,
        /// The alignment of the file.
        alignment: u64,
    },
    /// A tensor ends beyond what 64 bits count.
    #[error("tensor `{tensor}` of {len} at byte {offset} of the data ends beyond 2^64 - 1")]
    Overflow {
        /// The tensor.
        tensor: String,
        /// Where it begins, from the start of the data section.
        offset: u64,
        /// Its bytes.
        len: ByteLen,
    },
    /// Two tensors share bytes.
    #[error(
        "tensor `{tensor}` begins at byte {start} of the file, inside `{other}`, which ends at {other_end}"
    )]
    Overlap {
        /// The tensor that begins later.
        tensor: String,
        /// Where it begins, from the start of the file.
        start: u64,
        /// The tensor before it.
        other: String,
        /// Where the other tensor ends.
        other_end: u64,
    },
    /// The file ends before its tensors do.
    #[error("it is cut short: tensor `{tensor}` ends at byte {end}, and the file has {file_len}")]
    Truncated {
        /// The last tensor.
        tensor: String,
        /// Where it ends, from the start of the file.
        end: u64,
        /// Length of the file.
        file_len: ByteLen,
    },
}

impl GgufProblem {
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
