//! The place of GGUF, llama.cpp's model format.
//!
//! Its reader will turn a GGUF file's tensor table into the same [`ModelPlan`] that safetensors
//! headers become, with [`BlockFormat`] sizes for quantised tensors. Until it is here, a GGUF file
//! is recognised by its first four bytes and refused by name
//! ([`Lookalike::Gguf`](crate::Lookalike::Gguf)).
//!
//! [`ModelPlan`]: vram_alloc::ModelPlan
//! [`BlockFormat`]: vram_alloc::BlockFormat

/// The first four bytes of every GGUF file.
///
/// # Source
///
/// <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>
pub const MAGIC: [u8; 4] = *b"GGUF";
