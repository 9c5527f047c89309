//! Placeholder for GGUF, llama.cpp's model format.
//!
//! A reader will convert a GGUF file's tensor table into the same [`ModelPlan`] as safetensors
//! headers, with [`BlockFormat`] sizes for quantised tensors. Until then, a GGUF file is recognised
//! by its first four bytes and refused with an error that names the format
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
