#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod error;
mod file;
pub mod gguf;
mod limits;
mod lookalike;
mod name;
mod plan;
mod read_at;
mod safetensors;
mod sharded;
pub mod synth;
mod tensor;

pub use error::{HeaderProblem, ModelError};
pub use file::{FileHeader, ModelFile};
pub use gguf::{GgufHeader, GgufProblem, GgufValue};
pub use limits::{Limits, ModelOptions};
pub use lookalike::Lookalike;
pub use name::{is_plain, shown_whole};
pub use plan::{QUANTISATIONS, Quantised, plan, plan_of, quantised};
pub use read_at::ReadAt;
pub use safetensors::SafetensorsHeader;
pub use sharded::{FolderProblem, IndexProblem, ModelSet};
pub use tensor::{Tensor, TensorTable};
pub use vram_alloc::{BlockFormat, Dtype, TensorFormat};
