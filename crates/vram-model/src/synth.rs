//! Generated models: files with the tensor names and proportions of a real one, for demonstrations,
//! tests and benches that must not depend on a download.
//!
//! The same shape and seed give the same bytes on every machine, and a file of any length is
//! written through one small buffer.

mod gguf;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};
use vram_alloc::{ByteLen, Dtype, TensorFormat, tensor_bytes};

use crate::error::HeaderProblem;
use crate::name::shown;
use crate::{Limits, ModelError};

pub use self::gguf::SynthGguf;

/// Bytes generated at a time: the writer's memory use for a file of any length.
const WINDOW: usize = 256 << 10;
/// The name of a model without a file in errors.
const UNNAMED: &str = "the generated model";
/// The header is padded to this, as in the format's own writer, so that tensors are aligned.
const HEADER_ALIGNMENT: usize = 8;

/// The widths of a Llama-like decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LlamaShape {
    /// Decoder layers.
    pub layers: u64,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Width inside the feed-forward part.
    pub intermediate: u64,
    /// Width of keys and values: smaller than `hidden` with grouped-query attention.
    pub key_value: u64,
    /// Entries in the vocabulary.
    pub vocabulary: u64,
}

impl LlamaShape {
    /// Llama 3 8B: 291 tensors, 16.06 GB in bfloat16.
    ///
    /// # Source
    ///
    /// The model's `config.json`, <https://huggingface.co/meta-llama/Meta-Llama-3-8B>
    pub const LLAMA_3_8B: Self = Self {
        layers: 32,
        hidden: 4096,
        intermediate: 14_336,
        key_value: 1024,
        vocabulary: 128_256,
    };

    /// A shape of about `target` bytes in bfloat16: [`LLAMA_3_8B`](Self::LLAMA_3_8B) with every
    /// width divided by the same power of two, and the number of layers that comes closest.
    ///
    /// The smallest shape has one layer and about 150 KiB; it is also returned for smaller targets.
    #[must_use]
    pub fn about(target: ByteLen) -> Self {
        const FEWEST_LAYERS: u64 = 16;
        let full = Self::LLAMA_3_8B;
        let mut shape = full;
        for halvings in 0..=7_u32 {
            let narrowed = |width: u64| width >> halvings;
            shape = Self {
                layers: 1,
                hidden: narrowed(full.hidden),
                intermediate: narrowed(full.intermediate),
                key_value: narrowed(full.key_value),
                vocabulary: narrowed(full.vocabulary),
            };
            let one = shape.bytes();
            let layer = Self { layers: 2, ..shape }.bytes().saturating_sub(one);
            let rest = target.get().saturating_sub(one.saturating_sub(layer));
            // Rounds to the nearest; `layer` is never zero for widths of this size.
            shape.layers =
                rest.saturating_add(layer / 2).checked_div(layer).unwrap_or_default().max(1);
            if shape.layers >= FEWEST_LAYERS {
                break;
            }
        }
        shape
    }

    /// Names and dimensions of all tensors, in the order of the file.
    #[must_use]
    pub fn tensors(&self) -> Vec<(String, Vec<u64>)> {
        let Self { layers, hidden, intermediate, key_value, vocabulary } = *self;
        let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![vocabulary, hidden])];
        for layer in 0..layers {
            let parts = [
                ("input_layernorm", vec![hidden]),
                ("mlp.down_proj", vec![hidden, intermediate]),
                ("mlp.gate_proj", vec![intermediate, hidden]),
                ("mlp.up_proj", vec![intermediate, hidden]),
                ("post_attention_layernorm", vec![hidden]),
                ("self_attn.k_proj", vec![key_value, hidden]),
                ("self_attn.o_proj", vec![hidden, hidden]),
                ("self_attn.q_proj", vec![hidden, hidden]),
                ("self_attn.v_proj", vec![key_value, hidden]),
            ];
            for (part, shape) in parts {
                tensors.push((format!("model.layers.{layer}.{part}.weight"), shape));
            }
        }
        tensors.push(("model.norm.weight".to_owned(), vec![hidden]));
        tensors.push(("lm_head.weight".to_owned(), vec![vocabulary, hidden]));
        tensors
    }

    /// Bytes of all tensors in bfloat16, saturating.
    fn bytes(&self) -> u64 {
        self.tensors()
            .iter()
            .map(|(_, shape)| shape.iter().fold(2_u64, |bytes, &dim| bytes.saturating_mul(dim)))
            .fold(0, u64::saturating_add)
    }
}

/// A model that can be written: its header is fixed, its tensors are generated while they are
/// written.
#[derive(Clone, Debug)]
pub struct SynthModel {
    /// Length field and header, padded.
    header: Vec<u8>,
    /// Lengths of the tensors, in the order of the file.
    tensor_lens: Vec<ByteLen>,
    file_len: ByteLen,
    seed: u64,
}

impl SynthModel {
    /// A Llama-like model in bfloat16.
    ///
    /// # Errors
    ///
    /// As [`SynthModel::new`]; no shape from [`LlamaShape::about`] is refused.
    pub fn llama(shape: &LlamaShape, seed: u64) -> Result<Self, ModelError> {
        let tensors = shape.tensors();
        Self::new(tensors.into_iter().map(|(name, shape)| (name, Dtype::BF16, shape)), seed)
    }

    /// A model with these tensors: name, dtype and dimensions of each, in the order of the file.
    ///
    /// # Errors
    ///
    /// [`ModelError::Header`] if a name occurs twice, a shape has no size, or the header would be
    /// longer than the format allows.
    pub fn new(
        tensors: impl IntoIterator<Item = (String, Dtype, Vec<u64>)>,
        seed: u64,
    ) -> Result<Self, ModelError> {
        Self::checked(tensors, seed)
            .map_err(|problem| ModelError::Header { file: UNNAMED.to_owned(), problem })
    }

    /// Length of the file that [`write_to`](Self::write_to) writes.
    #[must_use]
    pub fn file_len(&self) -> ByteLen {
        self.file_len
    }

    /// The number of tensors.
    #[must_use]
    pub fn tensor_count(&self) -> usize {
        self.tensor_lens.len()
    }

    /// Writes the whole file: header, then tensor by tensor.
    ///
    /// Every two bytes of a tensor are a finite bfloat16 number with an absolute value below 2, so
    /// that the bytes resemble weights and neither noise nor zeros.
    ///
    /// # Errors
    ///
    /// The error of `writer`.
    pub fn write_to(&self, mut writer: impl Write) -> io::Result<()> {
        writer.write_all(&self.header)?;
        let mut window = vec![0; WINDOW];
        for (index, &len) in (0_u64..).zip(&self.tensor_lens) {
            write_weights(&mut writer, &mut window, SplitMix::new(self.seed, index), len)?;
        }
        writer.flush()
    }

    /// Writes the file to a new path.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] if the path exists; otherwise the error of the write. An
    /// incomplete file is left in place.
    pub fn write_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let file = File::create_new(path)?;
        self.write_to(BufWriter::with_capacity(WINDOW, file))
    }

    /// Writes the header to a new path, and makes the file as long as it would be with its tensors:
    /// a file for plans, which takes no more room than its header.
    ///
    /// # Errors
    ///
    /// As [`write_file`](Self::write_file), and where the file system has no files of that length.
    pub fn write_sparse(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let mut file = File::create_new(path)?;
        file.write_all(&self.header)?;
        file.set_len(self.file_len.get())
    }

    fn checked(
        tensors: impl IntoIterator<Item = (String, Dtype, Vec<u64>)>,
        seed: u64,
    ) -> Result<Self, HeaderProblem> {
        let mut infos: Vec<(String, TensorInfo)> = Vec::new();
        let mut names = HashSet::new();
        let mut tensor_lens = Vec::new();
        let mut data_len = 0_usize;
        for (name, dtype, shape) in tensors {
            if !names.insert(name.clone()) {
                return Err(HeaderProblem::DuplicateName { name: shown(&name) });
            }
            let sized = tensor_bytes(TensorFormat::Plain(dtype), &shape).ok().and_then(|len| {
                let end = data_len.checked_add(len.to_usize()?)?;
                let dims: Option<Vec<usize>> =
                    shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
                Some((len, end, dims?))
            });
            let written = serde_json::from_value(serde_json::Value::from(dtype.name()));
            let (Some((len, end, dims)), Ok(written)) = (sized, written) else {
                let dtype = dtype.name().to_owned();
                return Err(HeaderProblem::Shape { tensor: shown(&name), dtype, shape });
            };
            infos.push((
                name,
                TensorInfo { dtype: written, shape: dims, data_offsets: (data_len, end) },
            ));
            tensor_lens.push(len);
            data_len = end;
        }

        let json =
            |error: &dyn core::fmt::Display| HeaderProblem::Json { message: error.to_string() };
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let metadata = Metadata::new(Some(format), infos).map_err(|error| json(&error))?;
        let mut text = serde_json::to_vec(&metadata).map_err(|error| json(&error))?;
        text.resize(text.len().next_multiple_of(HEADER_ALIGNMENT), b' ');

        let text_len = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let (header_len, max) = (ByteLen::new(text_len), Limits::DEFAULT.header_len_max);
        if header_len > max {
            return Err(HeaderProblem::HeaderTooLong { header_len, max });
        }
        let mut header = text_len.to_le_bytes().to_vec();
        header.append(&mut text);
        let file_len = ByteLen::from_usize(header.len())
            .checked_add(ByteLen::from_usize(data_len))
            .ok_or_else(|| json(&"its length does not fit 64 bits"))?;
        Ok(Self { header, tensor_lens, file_len, seed })
    }
}

/// Writes the bytes of one tensor, a window at a time.
fn write_weights(
    writer: &mut impl Write,
    window: &mut [u8],
    mut noise: SplitMix,
    len: ByteLen,
) -> io::Result<()> {
    let mut left = len.get();
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(WINDOW).min(WINDOW);
        let filled = window.get_mut(..now).unwrap_or_default();
        noise.fill_with_weights(filled);
        writer.write_all(filled)?;
        left = left.saturating_sub(u64::try_from(now).unwrap_or(left));
    }
    Ok(())
}

/// A small generator with a stream of its own for every tensor.
///
/// # Source
///
/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
#[derive(Debug)]
struct SplitMix(u64);

impl SplitMix {
    /// The increment of the published generator: the golden ratio in 64 bits.
    const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

    fn new(seed: u64, stream: u64) -> Self {
        let mut start = Self(seed ^ stream.wrapping_mul(Self::GAMMA));
        Self(start.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Self::GAMMA);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Fills `target` with little-endian bfloat16 numbers: any sign and mantissa, exponents from
    /// 2⁻⁷ to 2⁰.
    fn fill_with_weights(&mut self, target: &mut [u8]) {
        const KEPT: u64 = 0x83ff_83ff_83ff_83ff;
        const EXPONENT: u64 = 0x3c00_3c00_3c00_3c00;
        for four in target.chunks_mut(8) {
            let bytes = ((self.next() & KEPT) | EXPONENT).to_le_bytes();
            for (byte, made) in four.iter_mut().zip(bytes) {
                *byte = made;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_shape_is_the_published_one() {
        let full = LlamaShape::LLAMA_3_8B;
        assert_eq!(full.tensors().len(), 291);
        // 8.03 billion parameters, two bytes each.
        assert_eq!(full.bytes(), 16_060_522_496);
    }

    #[test]
    fn a_shape_comes_close_to_what_was_asked() {
        for mib in [4_u64, 64, 256, 1024, 16 << 10, 140 << 10] {
            let target = ByteLen::from_mib_saturating(mib);
            let bytes = LlamaShape::about(target).bytes();
            let off = bytes.abs_diff(target.get());
            assert!(off * 20 <= target.get(), "{mib} MiB: {bytes} bytes");
        }
    }

    #[test]
    fn asked_for_nothing_the_smallest_shape_is_given() {
        let smallest = LlamaShape::about(ByteLen::ZERO);
        assert_eq!(smallest.layers, 1);
        assert!(smallest.bytes() < 200 << 10, "{}", smallest.bytes());
    }

    #[test]
    fn weights_are_finite_and_small() {
        let mut bytes = vec![0; 4099];
        SplitMix::new(7, 3).fill_with_weights(&mut bytes);
        for pair in bytes.chunks_exact(2) {
            let bits = u32::from(u16::from_le_bytes([pair[0], pair[1]])) << 16;
            let weight = f32::from_bits(bits);
            assert!(weight.abs() < 2.0 && weight.abs() >= 0.007, "{weight}");
        }
    }
}
