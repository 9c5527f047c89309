//! Why a file is not a model that can be planned.

use std::io;

use vram_alloc::{ByteLen, PlanError};

/// Why a model file was not accepted.
///
/// Every variant names the file. Names that come out of the file are shortened and escaped before
/// they enter an error, so that a message can be printed on a terminal as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file could not be opened.
    #[error("cannot open {file}: {source}")]
    Open {
        /// The file as the caller named it.
        file: String,
        /// What the operating system answered.
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
        /// How much was wanted.
        wanted: ByteLen,
        /// What the operating system answered.
        source: io::Error,
    },
    /// The host has not the memory to hold the header.
    #[error("no host memory for the {wanted} header of {file}")]
    HostMemory {
        /// The file as the caller named it.
        file: String,
        /// Length of the header.
        wanted: ByteLen,
    },
    /// The file begins like another format.
    #[error("{file} is not a safetensors file: {found}")]
    OtherFormat {
        /// The file as the caller named it.
        file: String,
        /// What it looks like instead.
        found: Lookalike,
    },
    /// The header breaks a rule of the format, or the file does not match it.
    #[error("{file} is not a sound safetensors file: {problem}")]
    Header {
        /// The file as the caller named it.
        file: String,
        /// Which rule, where, and by how much.
        problem: HeaderProblem,
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
    /// More files than a plan can number.
    #[error("{count} files are more than one plan holds")]
    TooManyFiles {
        /// How many were given.
        count: usize,
    },
    /// The tensors do not make up a plan.
    #[error("the tensors do not make up a plan: {0}")]
    Plan(#[from] PlanError),
}

/// Which rule of the format a header breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderProblem {
    /// Shorter than the 8 bytes that give the header's length.
    #[error("it has {file_len}, fewer than the 8 that begin every safetensors file")]
    TooShort {
        /// Length of the file.
        file_len: ByteLen,
    },
    /// The header declares itself longer than the limit.
    #[error("its header claims {header_len}, more than the limit of {max}")]
    HeaderTooLong {
        /// What the first 8 bytes say.
        header_len: ByteLen,
        /// The limit.
        max: ByteLen,
    },
    /// The header declares itself longer than the file.
    #[error("its header claims {header_len}, but the whole file has {file_len}")]
    HeaderBeyondFile {
        /// What the first 8 bytes say.
        header_len: ByteLen,
        /// Length of the file.
        file_len: ByteLen,
    },
    /// The header does not begin with `{`.
    #[error("its header does not begin with `{{`")]
    NotAnObject,
    /// The header is not JSON, or not of the shape that the format asks for.
    #[error("its header is not valid: {message}")]
    Json {
        /// What the JSON reader said, with line and column.
        message: String,
    },
    /// A key stands in the header twice.
    #[error("its header names `{name}` twice")]
    DuplicateName {
        /// The key, shortened.
        name: String,
    },
    /// More tensors than the limit.
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
    /// More free-form entries than the limit.
    #[error("its `__metadata__` has more than {max} entries, the limit")]
    TooMuchMetadata {
        /// The limit.
        max: usize,
    },
    /// A dtype that the format knows and this build does not.
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
    /// A tensor's end lies before its start.
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
        /// What dtype and shape need.
        needed: ByteLen,
        /// What the offsets span.
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
        /// Where that one ends.
        other_end: u64,
    },
    /// Bytes between two tensors belong to none; the format forbids that.
    #[error(
        "the {gap} before tensor `{tensor}`, from byte {from} of the data on, belong to no tensor"
    )]
    Hole {
        /// The tensor after the hole, shortened.
        tensor: String,
        /// Where the hole begins, in bytes from the end of the header.
        from: u64,
        /// How long it is.
        gap: ByteLen,
    },
    /// The file ends before its tensors do.
    #[error("it is cut short: its header promises {needed}, the file has {file_len}")]
    Truncated {
        /// What length field, header and tensors need together.
        needed: ByteLen,
        /// Length of the file.
        file_len: ByteLen,
    },
    /// The file goes on after its tensors.
    #[error(
        "it goes on after its last tensor: its header promises {needed}, the file has {file_len}"
    )]
    TrailingBytes {
        /// What length field, header and tensors need together.
        needed: ByteLen,
        /// Length of the file.
        file_len: ByteLen,
    },
}

/// What a file that is no safetensors file looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lookalike {
    /// `GGUF`, llama.cpp's format.
    Gguf,
    /// A zip archive, as `PyTorch` writes `.bin`, `.pt` and `.pth` files.
    Zip,
    /// A bare Python pickle.
    Pickle,
    /// A JSON text, such as the index of a model in several files.
    Json,
    /// A Git LFS pointer: the placeholder of a file that was not fetched.
    LfsPointer,
    /// An HTML page: what a download saves when it is given an error page.
    Html,
    /// A sealed image of this project.
    SealedImage,
}

impl core::fmt::Display for Lookalike {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Gguf => "it is a GGUF file, which is not supported yet",
            Self::Zip => "it is a zip archive, probably a PyTorch checkpoint; convert it first",
            Self::Pickle => "it is a Python pickle; convert it first",
            Self::Json => {
                "it is a JSON text, perhaps the index of a sharded model; \
                 name the .safetensors files that it lists"
            }
            Self::LfsPointer => "it is a Git LFS pointer; fetch the file with `git lfs pull`",
            Self::Html => "it is an HTML page, perhaps the error page of a failed download",
            Self::SealedImage => "it is a sealed image",
        })
    }
}
