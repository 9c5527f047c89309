//! The header of one safetensors file, checked against the file's length.

use std::collections::BTreeMap;

use safetensors::tensor::{Metadata, TensorInfo};
use vram_alloc::{ByteLen, Dtype, TensorFormat, tensor_bytes};

use crate::error::HeaderProblem;
use crate::lookalike::{self, Lookalike, SNIFFED};
use crate::name::shown;
use crate::safetensors::json::RawHeader;
use crate::{Limits, ModelError, ModelOptions, ReadAt, Tensor, TensorTable};

/// The length field at the start of the file: 8 bytes, little-endian.
const LENGTH_FIELD: u64 = 8;

/// The header of a safetensors file, after all figures in it were checked.
///
/// Owning one means: the tensors cover the data section without holes or overlaps, each is as long
/// as its dtype and shape require, no name occurs twice, and when the header was read the file had
/// exactly the length that the header states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafetensorsHeader {
    file: String,
    file_len: ByteLen,
    data_offset: u64,
    /// Length of length field, header and tensors together.
    stated_len: ByteLen,
    tensors: Vec<Tensor>,
    metadata: BTreeMap<String, String>,
}

impl SafetensorsHeader {
    /// Reads and checks the header of `source`; reads no tensor.
    ///
    /// # Arguments
    ///
    /// * `file`: the name of the source in errors; usually its path.
    /// * `source`: read at two positions: the length field and the header.
    /// * `limits`: bounds that are checked before anything is allocated.
    ///
    /// # Errors
    ///
    /// [`ModelError::Read`] if the source cannot be read, [`ModelError::OtherFormat`] if it is
    /// recognised as another format, [`ModelError::Header`] if it breaks a rule of the format.
    ///
    /// # Source
    ///
    /// <https://github.com/huggingface/safetensors#format>
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
        let refused = |problem| ModelError::Header { file: file.to_owned(), problem };
        let unreadable = |offset, wanted| {
            let file = file.to_owned();
            move |source| ModelError::Read { file, offset, wanted, source }
        };

        let file_len = source.byte_len().map_err(unreadable(0, ByteLen::ZERO))?;
        // No safetensors file begins like one of another format, as a rule by an impossible length.
        let or_another_format = |problem| match recognise(source, file_len) {
            Some(found) => ModelError::OtherFormat { file: file.to_owned(), found },
            None => refused(problem),
        };
        if file_len < LENGTH_FIELD {
            let problem = HeaderProblem::TooShort { file_len: ByteLen::new(file_len) };
            return Err(or_another_format(problem));
        }
        let mut field = [0; 8];
        source.read_exact_at(0, &mut field).map_err(unreadable(0, ByteLen::new(LENGTH_FIELD)))?;
        let header_len = ByteLen::new(u64::from_le_bytes(field));

        let text_len = checked_header_len(header_len, ByteLen::new(file_len), limits)
            .map_err(or_another_format)?;
        let mut text = Vec::new();
        text.try_reserve_exact(text_len).map_err(|_no_memory| ModelError::HostMemory {
            file: file.to_owned(),
            wanted: header_len,
        })?;
        text.resize(text_len, 0);
        source
            .read_exact_at(LENGTH_FIELD, &mut text)
            .map_err(unreadable(LENGTH_FIELD, header_len))?;

        let raw = RawHeader::parse(&text, limits).map_err(|problem| match problem {
            HeaderProblem::NotAnObject => or_another_format(problem),
            problem => refused(problem),
        })?;
        drop(text);
        // Cannot overflow: the header lies inside the file.
        let data_offset = LENGTH_FIELD.saturating_add(header_len.get());
        let lengths = Lengths { file_len: ByteLen::new(file_len), data_offset };
        Self::check(file, lengths, raw, options).map_err(refused)
    }

    /// The file as the caller named it.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Length of the file: length field, header and tensors. Less if the file was read with
    /// [`ModelOptions::headers_only`] and ends before its tensors do.
    #[must_use]
    pub const fn file_len(&self) -> ByteLen {
        self.file_len
    }

    /// Where the data section begins, in bytes from the start of the file.
    #[must_use]
    pub const fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// Length of the data section: the sum of all tensors.
    #[must_use]
    pub fn data_len(&self) -> ByteLen {
        self.stated_len.saturating_sub(ByteLen::new(self.data_offset))
    }

    /// Bytes of tensors that the file should have and ends before; zero unless it was read with
    /// [`ModelOptions::headers_only`].
    #[must_use]
    pub const fn missing(&self) -> ByteLen {
        self.stated_len.saturating_sub(self.file_len)
    }

    /// The tensors, in the order of their bytes in the file.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The free-form `__metadata__`, as the program that wrote the file set it.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Checks offsets, lengths and names, in an order that reports the first fault in the file.
    fn check(
        file: &str,
        Lengths { file_len, data_offset }: Lengths,
        raw: RawHeader,
        options: &ModelOptions,
    ) -> Result<Self, HeaderProblem> {
        let RawHeader { metadata, mut tensors } = raw;
        refuse_duplicates(&mut tensors)?;
        // Empty tensors come before the one that begins at the same position. Names decide the
        // rest, so that the order is the file's and does not depend on a hash map.
        tensors.sort_by(|(left_name, left), (right_name, right)| {
            (left.data_offsets, left_name).cmp(&(right.data_offsets, right_name))
        });

        let data_len = refuse_gaps(&tensors)?;
        let needed = ByteLen::new(data_offset.saturating_add(data_len));
        if needed > file_len && !options.headers_only {
            return Err(HeaderProblem::Truncated { needed, file_len });
        }
        if needed < file_len {
            return Err(HeaderProblem::TrailingBytes { needed, file_len });
        }

        // The reference implementation decides: a file that it refuses is refused here.
        let order: Vec<String> = tensors.iter().map(|(name, _)| name.clone()).collect();
        let reference = Metadata::new(metadata, tensors)
            .map_err(|error| HeaderProblem::Json { message: error.to_string() })?;
        let mut checked = Vec::with_capacity(order.len());
        for name in order {
            if let Some(info) = reference.info(&name) {
                checked.push(tensor(name, info, data_offset)?);
            }
        }
        let metadata = reference.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self {
            file: file.to_owned(),
            file_len,
            data_offset,
            stated_len: needed,
            tensors: checked,
            metadata,
        })
    }
}

impl TensorTable for SafetensorsHeader {
    fn file(&self) -> &str {
        Self::file(self)
    }

    fn tensors(&self) -> &[Tensor] {
        Self::tensors(self)
    }
}

/// Where the data section begins, and where the file ends.
#[derive(Clone, Copy, Debug)]
struct Lengths {
    file_len: ByteLen,
    data_offset: u64,
}

/// The header's length as `usize`, if limit and file allow it.
fn checked_header_len(
    header_len: ByteLen,
    file_len: ByteLen,
    limits: &Limits,
) -> Result<usize, HeaderProblem> {
    let max = limits.header_len_max;
    if header_len > max {
        return Err(HeaderProblem::HeaderTooLong { header_len, max });
    }
    if header_len > file_len.saturating_sub(ByteLen::new(LENGTH_FIELD)) {
        return Err(HeaderProblem::HeaderBeyondFile { header_len, file_len });
    }
    header_len.to_usize().ok_or(HeaderProblem::HeaderTooLong { header_len, max })
}

/// Returns an error for names that occur twice. The format forbids them, and a map would keep only
/// the last one without an error.
fn refuse_duplicates(tensors: &mut [(String, TensorInfo)]) -> Result<(), HeaderProblem> {
    tensors.sort_by(|(left, _), (right, _)| left.cmp(right));
    let twice = tensors.windows(2).find_map(|pair| match pair {
        [(left, _), (right, _)] if left == right => Some(shown(left)),
        _ => None,
    });
    twice.map_or(Ok(()), |name| Err(HeaderProblem::DuplicateName { name }))
}

/// Checks each tensor alone and against the one before it; returns where the last one ends.
fn refuse_gaps(tensors: &[(String, TensorInfo)]) -> Result<u64, HeaderProblem> {
    let mut end_so_far = 0;
    let mut last_name = "";
    for (name, info) in tensors {
        let (start, end) = offsets(info);
        if end < start {
            return Err(HeaderProblem::Reversed { tensor: shown(name), start, end });
        }
        let shape: Vec<u64> = info.shape.iter().map(|&dim| widened(dim)).collect();
        let dtype = known_dtype(name, info)?;
        let Ok(needed) = tensor_bytes(TensorFormat::Plain(dtype), &shape) else {
            return Err(HeaderProblem::Shape {
                tensor: shown(name),
                dtype: info.dtype.to_string(),
                shape,
            });
        };
        let found = ByteLen::new(end.saturating_sub(start));
        if needed != found {
            return Err(HeaderProblem::WrongLength {
                tensor: shown(name),
                dtype: info.dtype.to_string(),
                shape,
                needed,
                found,
            });
        }
        if start < end_so_far {
            return Err(HeaderProblem::Overlap {
                tensor: shown(name),
                start,
                other: shown(last_name),
                other_end: end_so_far,
            });
        }
        if start > end_so_far {
            return Err(HeaderProblem::Hole {
                tensor: shown(name),
                from: end_so_far,
                gap: ByteLen::new(start.saturating_sub(end_so_far)),
            });
        }
        end_so_far = end;
        last_name = name;
    }
    Ok(end_so_far)
}

/// One checked tensor, with its position in the file.
fn tensor(name: String, info: &TensorInfo, data_offset: u64) -> Result<Tensor, HeaderProblem> {
    let (start, end) = offsets(info);
    Ok(Tensor {
        format: TensorFormat::Plain(known_dtype(&name, info)?),
        name,
        shape: info.shape.iter().map(|&dim| widened(dim)).collect(),
        file_offset: data_offset.saturating_add(start),
        len: ByteLen::new(end.saturating_sub(start)),
    })
}

/// This workspace's dtype for the dtype in the file.
fn known_dtype(name: &str, info: &TensorInfo) -> Result<Dtype, HeaderProblem> {
    let dtype = info.dtype.to_string();
    Dtype::from_safetensors_name(&dtype)
        .ok_or_else(|| HeaderProblem::UnsupportedDtype { tensor: shown(name), dtype })
}

/// Start and end of a tensor, from the end of the header.
fn offsets(info: &TensorInfo) -> (u64, u64) {
    (widened(info.data_offsets.0), widened(info.data_offsets.1))
}

/// A `usize` as `u64`. No host has addresses wider than 64 bits.
fn widened(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// The format of the file, if its beginning identifies one.
fn recognise(source: &(impl ReadAt + ?Sized), file_len: u64) -> Option<Lookalike> {
    let mut beginning = [0; SNIFFED];
    let len = usize::try_from(file_len).unwrap_or(SNIFFED).min(SNIFFED);
    let beginning = beginning.get_mut(..len)?;
    source.read_exact_at(0, beginning).ok()?;
    lookalike::recognise(beginning)
}
