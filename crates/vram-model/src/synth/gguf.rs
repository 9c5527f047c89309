//! Generated GGUF files.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use vram_alloc::{ByteLen, TensorFormat, tensor_bytes};

use super::{LlamaShape, SplitMix, UNNAMED, WINDOW, write_weights};
use crate::ModelError;
use crate::gguf::{GgufProblem, GgufType, GgufValue, MAGIC};
use crate::name::shown;

/// A GGUF file that can be written: keys and tensors are fixed, the bytes of the tensors are
/// generated while they are written.
///
/// ```
/// use vram_alloc::{BlockFormat, TensorFormat};
/// use vram_model::synth::SynthGguf;
/// use vram_model::{GgufHeader, GgufValue, Limits};
///
/// let mut file = Vec::new();
/// SynthGguf::new(1)
///     .key("general.name", GgufValue::Text("tiny".to_owned()))
///     .tensor("output.weight", TensorFormat::Block(BlockFormat::Q4K), vec![32, 256])
///     .write_to(&mut file)?;
/// let header = GgufHeader::read("tiny.gguf", &file, &Limits::default())?;
/// assert_eq!(header.tensors()[0].len.get(), 32 * 144);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SynthGguf {
    version: u32,
    alignment: u32,
    keys: Vec<(String, GgufValue)>,
    tensors: Vec<(String, TensorFormat, Vec<u64>)>,
    seed: u64,
}

impl SynthGguf {
    /// An empty file of version 3.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { version: 3, alignment: 32, keys: Vec::new(), tensors: Vec::new(), seed }
    }

    /// A Llama-like model: matrices in `format`, vectors in 32 bits.
    ///
    /// # Arguments
    ///
    /// * `format`: one that stores 256 elements or fewer together, if the widths are multiples of
    ///   256.
    #[must_use]
    pub fn llama(shape: &LlamaShape, format: TensorFormat, seed: u64) -> Self {
        let mut file = Self::new(seed).key("general.architecture", GgufValue::Text("llama".into()));
        for (name, shape) in shape.tensors() {
            let plain = TensorFormat::Plain(vram_alloc::Dtype::F32);
            let format = if shape.len() > 1 { format } else { plain };
            file = file.tensor(name, format, shape);
        }
        file
    }

    /// Sets the version of the format.
    #[must_use]
    pub const fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Sets the alignment, a power of two, and states it as `general.alignment`.
    #[must_use]
    pub fn alignment(mut self, alignment: u32) -> Self {
        self.alignment = alignment;
        self.key("general.alignment", GgufValue::Unsigned(alignment.into()))
    }

    /// Adds a key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>, value: GgufValue) -> Self {
        self.keys.push((key.into(), value));
        self
    }

    /// Adds a tensor, with its dimensions outermost first.
    #[must_use]
    pub fn tensor(
        mut self,
        name: impl Into<String>,
        format: TensorFormat,
        shape: impl Into<Vec<u64>>,
    ) -> Self {
        self.tensors.push((name.into(), format, shape.into()));
        self
    }

    /// Everything before the tensors, padded.
    ///
    /// # Errors
    ///
    /// [`ModelError::Gguf`] if a shape has no size, or a format has no number in GGUF files.
    pub fn header(&self) -> Result<Vec<u8>, ModelError> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.version.to_le_bytes());
        put_len(&mut bytes, self.tensors.len());
        put_len(&mut bytes, self.keys.len());
        for (key, value) in &self.keys {
            put_text(&mut bytes, key);
            bytes.extend_from_slice(&type_of(value).number().to_le_bytes());
            put_value(&mut bytes, value);
        }
        let mut offset = 0_u64;
        for ((name, format, shape), len) in self.tensors.iter().zip(self.lens()?) {
            let Some(number) = format.ggml_type() else {
                return Err(refused(GgufProblem::TensorType {
                    tensor: shown(name),
                    number: u32::MAX,
                }));
            };
            put_text(&mut bytes, name);
            bytes.extend_from_slice(&u32::try_from(shape.len()).unwrap_or(u32::MAX).to_le_bytes());
            shape.iter().rev().for_each(|dim| bytes.extend_from_slice(&dim.to_le_bytes()));
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&offset.to_le_bytes());
            offset = self.aligned(offset.saturating_add(len.get()));
        }
        let padded = self.aligned(ByteLen::from_usize(bytes.len()).get());
        bytes.resize(usize::try_from(padded).unwrap_or(bytes.len()), 0);
        Ok(bytes)
    }

    /// Writes the whole file: header, then tensor by tensor, each padded.
    ///
    /// # Errors
    ///
    /// The error of `writer`; [`io::ErrorKind::InvalidInput`] where [`header`](Self::header) fails.
    pub fn write_to(&self, mut writer: impl Write) -> io::Result<()> {
        writer.write_all(&self.header().map_err(invalid)?)?;
        let mut window = vec![0; WINDOW];
        for (index, len) in (0_u64..).zip(self.lens().map_err(invalid)?) {
            write_weights(&mut writer, &mut window, SplitMix::new(self.seed, index), len)?;
            let padding = self.aligned(len.get()).saturating_sub(len.get());
            writer.write_all(&vec![0; usize::try_from(padding).unwrap_or(0)])?;
        }
        writer.flush()
    }

    /// Writes the file to a new path.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] if the path exists; otherwise as
    /// [`write_to`](Self::write_to). An incomplete file is left in place.
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
        let header = self.header().map_err(invalid)?;
        let padded = |len: ByteLen| self.aligned(len.get());
        let lens = self.lens().map_err(invalid)?;
        let data = lens.into_iter().map(padded).fold(0, u64::saturating_add);
        let mut file = File::create_new(path)?;
        file.write_all(&header)?;
        file.set_len(ByteLen::from_usize(header.len()).get().saturating_add(data))
    }

    fn lens(&self) -> Result<Vec<ByteLen>, ModelError> {
        let len = |(name, format, shape): &(String, TensorFormat, Vec<u64>)| {
            tensor_bytes(*format, shape).map_err(|error| {
                let (tensor, format, shape) = (shown(name), format.name(), shape.clone());
                refused(GgufProblem::Shape { tensor, format, shape, error })
            })
        };
        self.tensors.iter().map(len).collect()
    }

    fn aligned(&self, len: u64) -> u64 {
        len.checked_next_multiple_of(u64::from(self.alignment)).unwrap_or(len)
    }
}

fn refused(problem: GgufProblem) -> ModelError {
    ModelError::Gguf { file: UNNAMED.to_owned(), problem: Box::new(problem) }
}

fn invalid(error: ModelError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

fn put_len(bytes: &mut Vec<u8>, len: usize) {
    bytes.extend_from_slice(&u64::try_from(len).unwrap_or(u64::MAX).to_le_bytes());
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_len(bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
}

/// The type in which a value is written: the shortest of 32 and 64 bits.
fn type_of(value: &GgufValue) -> GgufType {
    match value {
        GgufValue::Unsigned(value) if u32::try_from(*value).is_ok() => GgufType::U32,
        GgufValue::Unsigned(_) => GgufType::U64,
        GgufValue::Signed(value) if i32::try_from(*value).is_ok() => GgufType::I32,
        GgufValue::Signed(_) => GgufType::I64,
        GgufValue::F32(_) => GgufType::F32,
        GgufValue::F64(_) => GgufType::F64,
        GgufValue::Bool(_) => GgufType::Bool,
        GgufValue::Text(_) => GgufType::Text,
        GgufValue::Array(_) => GgufType::Array,
    }
}

/// Writes a value; of a list, its first elements, all in the type of the first one.
fn put_value(bytes: &mut Vec<u8>, value: &GgufValue) {
    match value {
        GgufValue::Unsigned(value) => match u32::try_from(*value) {
            Ok(short) => bytes.extend_from_slice(&short.to_le_bytes()),
            Err(_) => bytes.extend_from_slice(&value.to_le_bytes()),
        },
        GgufValue::Signed(value) => match i32::try_from(*value) {
            Ok(short) => bytes.extend_from_slice(&short.to_le_bytes()),
            Err(_) => bytes.extend_from_slice(&value.to_le_bytes()),
        },
        GgufValue::F32(value) => bytes.extend_from_slice(&value.to_le_bytes()),
        GgufValue::F64(value) => bytes.extend_from_slice(&value.to_le_bytes()),
        GgufValue::Bool(value) => bytes.push((*value).into()),
        GgufValue::Text(text) => put_text(bytes, text),
        GgufValue::Array(array) => {
            let of = array.first.first().map_or(array.of, type_of);
            bytes.extend_from_slice(&of.number().to_le_bytes());
            put_len(bytes, array.first.len());
            array.first.iter().for_each(|value| put_value(bytes, value));
        }
    }
}
