//! The header of one GGUF file, checked against the file's length.

use std::collections::BTreeMap;

use vram_alloc::ByteLen;

use super::reader::Reader;
use super::{GgufProblem, GgufValue, keys, table};
use crate::{Limits, ModelError, ModelOptions, ReadAt, Tensor, TensorTable};

/// The first four bytes of every GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// The alignment of a file that states none.
const ALIGNMENT_DEFAULT: u64 = 32;

/// The header of a GGUF file, after all figures in it were checked.
///
/// Owning one means: every tensor lies in the file, aligned, no two share a byte, each is as long as
/// its type and shape require, no key and no name occurs twice. Bytes of the data section that belong to
/// no tensor are permitted; [`unused`](Self::unused) counts them.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufHeader {
    file: String,
    file_len: ByteLen,
    version: u32,
    alignment: u64,
    header_len: ByteLen,
    data_offset: u64,
    /// Where the last tensor ends.
    data_end: u64,
    tensors: Vec<Tensor>,
    metadata: BTreeMap<String, GgufValue>,
}

/// Which part of a model in several files one file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GgufSplit {
    /// The part, from 0.
    pub number: u64,
    /// The number of parts.
    pub count: u64,
    /// Tensors of all parts together, if the file says it.
    pub tensor_count: Option<u64>,
}

impl GgufHeader {
    /// Reads and checks the header of `source`; reads no tensor.
    ///
    /// # Arguments
    ///
    /// * `file`: the name of the source in errors; usually its path.
    /// * `source`: read by position, through a buffer of 64 KiB.
    /// * `limits`: bounds that are checked before anything is allocated.
    ///
    /// # Errors
    ///
    /// [`ModelError::Read`] if the source cannot be read, [`ModelError::Gguf`] if it breaks a rule
    /// of the format.
    ///
    /// # Source
    ///
    /// <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>
    pub fn read(
        file: &str,
        source: &(impl ReadAt + ?Sized),
        limits: &Limits,
    ) -> Result<Self, ModelError> {
        Self::read_with(file, source, &ModelOptions::from(*limits))
    }

    /// As [`read`](Self::read), with all options.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_with(
        file: &str,
        source: &(impl ReadAt + ?Sized),
        options: &ModelOptions,
    ) -> Result<Self, ModelError> {
        let limits = &options.limits;
        let mut reader = Reader::new(file, source, limits)?;
        let version = beginning(&mut reader)?;
        let (tensor_count, key_count) = (reader.u64()?, reader.u64()?);
        table::check_count(&reader, tensor_count, limits)?;
        let metadata = keys::read(&mut reader, key_count, limits)?;
        let alignment = alignment(&reader, &metadata)?;
        let entries = table::read(&mut reader, tensor_count, limits)?;
        let header_len = ByteLen::new(reader.at());
        // At most 100 MB or so and 2^31: no sum of them overflows.
        let padding = alignment.wrapping_sub(reader.at()) & alignment.wrapping_sub(1);
        let data_offset = reader.at().saturating_add(padding);
        let tensors = table::place(&reader, entries, (data_offset, alignment), options)?;
        let data_end = tensors.iter().map(table::end).max().unwrap_or(header_len.get());
        let (file, file_len) = (file.to_owned(), reader.file_len());
        Ok(Self {
            file,
            file_len,
            version,
            alignment,
            header_len,
            data_offset,
            data_end,
            tensors,
            metadata,
        })
    }

    /// The file as the caller named it.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Length of the file.
    #[must_use]
    pub const fn file_len(&self) -> ByteLen {
        self.file_len
    }

    /// The version of the format: 2 or 3.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The power of two that the position of each tensor is a multiple of, counted from
    /// [`data_offset`](Self::data_offset).
    #[must_use]
    pub const fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Length of everything before the padding and the tensors.
    #[must_use]
    pub const fn header_len(&self) -> ByteLen {
        self.header_len
    }

    /// Where the data section begins, in bytes from the start of the file. A file without tensors
    /// may end before.
    #[must_use]
    pub const fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// Bytes of tensors that the file should have and ends before; zero unless it was read with
    /// [`ModelOptions::headers_only`].
    #[must_use]
    pub const fn missing(&self) -> ByteLen {
        ByteLen::new(self.data_end).saturating_sub(self.file_len)
    }

    /// Bytes behind the header that belong to no tensor: padding, and what else there is.
    #[must_use]
    pub fn unused(&self) -> ByteLen {
        let used = |sum: ByteLen, tensor: &Tensor| sum.saturating_add(tensor.len);
        let whole = self.file_len.max(ByteLen::new(self.data_end));
        let behind = whole.saturating_sub(self.header_len);
        behind.saturating_sub(self.tensors.iter().fold(ByteLen::ZERO, used))
    }

    /// The tensors, in the order of their bytes in the file.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The metadata, by key.
    #[must_use]
    pub const fn metadata(&self) -> &BTreeMap<String, GgufValue> {
        &self.metadata
    }

    /// Which part of a model in several files this is, if it is one.
    #[must_use]
    pub fn split(&self) -> Option<GgufSplit> {
        let number = |key: &str| self.metadata.get(key).and_then(GgufValue::as_u64);
        let count = number("split.count").filter(|count| *count > 1)?;
        let tensor_count = number("split.tensors.count");
        Some(GgufSplit { number: number("split.no").unwrap_or(0), count, tensor_count })
    }
}

impl TensorTable for GgufHeader {
    fn file(&self) -> &str {
        Self::file(self)
    }

    fn tensors(&self) -> &[Tensor] {
        Self::tensors(self)
    }
}

/// Reads magic and version, and returns the version.
fn beginning<R: ReadAt + ?Sized>(reader: &mut Reader<'_, R>) -> Result<u32, ModelError> {
    let magic: [u8; 4] = reader.array()?;
    if magic != MAGIC {
        return Err(reader.refuse(GgufProblem::Magic));
    }
    match reader.u32()? {
        version @ 2..=3 => Ok(version),
        version if (1..=3).contains(&version.swap_bytes()) => {
            Err(reader.refuse(GgufProblem::BigEndian))
        }
        version => Err(reader.refuse(GgufProblem::Version { version })),
    }
}

fn alignment<R: ReadAt + ?Sized>(
    reader: &Reader<'_, R>,
    metadata: &BTreeMap<String, GgufValue>,
) -> Result<u64, ModelError> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(ALIGNMENT_DEFAULT) };
    match value {
        GgufValue::Unsigned(alignment)
            if alignment.is_power_of_two() && u32::try_from(*alignment).is_ok() =>
        {
            Ok(*alignment)
        }
        other => {
            let value = crate::name::shown(&other.to_string());
            Err(reader.refuse(GgufProblem::Alignment { value }))
        }
    }
}
