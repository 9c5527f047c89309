#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod error;
pub mod gguf;
mod limits;
mod lookalike;
mod name;
mod plan;
mod read_at;
mod safetensors;
mod sharded;
pub mod synth;

pub use error::{HeaderProblem, ModelError};
pub use limits::Limits;
pub use lookalike::Lookalike;
pub use name::shown_whole;
pub use plan::{plan, plan_of};
pub use read_at::ReadAt;
pub use safetensors::{SafetensorsFile, SafetensorsHeader, Tensor};
