//! How many bytes a tensor takes: plain element types and block formats.

mod block;
mod dtype;

pub use self::block::BlockFormat;
pub use self::dtype::{Dtype, SizeError, TensorFormat, tensor_bytes};
