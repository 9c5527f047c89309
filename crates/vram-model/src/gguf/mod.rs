//! GGUF, llama.cpp's model format: versions 2 and 3, little-endian.
//!
//! ```text
//!  GGUF  version  count of tensors  count of keys      4 + 4 + 8 + 8 bytes
//!  keys          text, type, value                     each
//!  tensors       text, rank, dimensions, type, offset  each
//!  padding       to a multiple of general.alignment
//!  data          offsets count from here
//! ```
//!
//! # Source
//!
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>

mod header;
mod keys;
mod problem;
mod reader;
mod table;
mod value;

pub use self::header::{GgufHeader, GgufSplit, MAGIC};
pub use self::problem::GgufProblem;
pub use self::value::{GgufArray, GgufType, GgufValue};
