//! Reads the table of tensors of a GGUF file, and checks where their bytes lie.

use vram_alloc::{ByteLen, TensorFormat, tensor_bytes};

use super::GgufProblem;
use super::reader::Reader;
use crate::name::shown;
use crate::{Limits, ModelError, ModelOptions, ReadAt, Tensor};

/// The fewest bytes of an entry: the length of the name, rank, type and offset.
const ENTRY_BYTES_MIN: u64 = 8 + 4 + 4 + 8;
/// Bytes of one dimension.
const DIM_BYTES: u64 = 8;

/// One entry of the table, before its place in the file is known.
pub(super) struct Entry {
    name: String,
    format: TensorFormat,
    shape: Vec<u64>,
    len: ByteLen,
    /// From the start of the data section.
    offset: u64,
}

/// Refuses a count of tensors that is over the limit, or that the file has no bytes for.
pub(super) fn check_count<R: ReadAt + ?Sized>(
    reader: &Reader<'_, R>,
    count: u64,
    limits: &Limits,
) -> Result<(), ModelError> {
    let max = limits.tensor_count_max;
    if usize::try_from(count).map_or(true, |count| count > max) {
        return Err(reader.refuse(GgufProblem::TooManyTensors { count, max }));
    }
    reader.prove_count("tensors", count, ENTRY_BYTES_MIN)
}

/// Reads `count` entries.
pub(super) fn read<R: ReadAt + ?Sized>(
    reader: &mut Reader<'_, R>,
    count: u64,
    limits: &Limits,
) -> Result<Vec<Entry>, ModelError> {
    check_count(reader, count, limits)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(entry(reader, limits)?);
    }
    Ok(entries)
}

fn entry<R: ReadAt + ?Sized>(
    reader: &mut Reader<'_, R>,
    limits: &Limits,
) -> Result<Entry, ModelError> {
    let name = reader.name("name of a tensor", limits.name_len_max)?;
    let (rank, max) = (reader.u32()?, limits.rank_max);
    if usize::try_from(rank).map_or(true, |rank| rank > max) {
        let tensor = shown(&name);
        return Err(reader.refuse(GgufProblem::RankTooHigh { tensor, rank, max }));
    }
    reader.prove_count("dimensions", rank.into(), DIM_BYTES)?;
    let mut shape = Vec::new();
    for _ in 0..rank {
        shape.push(reader.u64()?);
    }
    // The file has the dimension that varies fastest first.
    shape.reverse();
    let number = reader.u32()?;
    let Some(format) = TensorFormat::from_ggml_type(number) else {
        let tensor = shown(&name);
        return Err(reader.refuse(GgufProblem::TensorType { tensor, number }));
    };
    let len = match tensor_bytes(format, &shape) {
        Ok(len) => len,
        Err(error) => {
            let (tensor, format) = (shown(&name), format.name());
            return Err(reader.refuse(GgufProblem::Shape { tensor, format, shape, error }));
        }
    };
    let offset = reader.u64()?;
    Ok(Entry { name, format, shape, len, offset })
}

/// Places the tensors in the file, in the order of their bytes.
///
/// # Arguments
///
/// * `data_offset`: where the data section begins.
/// * `alignment`: the power of two that each offset is a multiple of.
pub(super) fn place<R: ReadAt + ?Sized>(
    reader: &Reader<'_, R>,
    entries: Vec<Entry>,
    (data_offset, alignment): (u64, u64),
    options: &ModelOptions,
) -> Result<Vec<Tensor>, ModelError> {
    let mut tensors = Vec::with_capacity(entries.len());
    for entry in entries {
        let Entry { name, format, shape, len, offset } = entry;
        if offset & alignment.wrapping_sub(1) != 0 {
            let tensor = shown(&name);
            return Err(reader.refuse(GgufProblem::Misaligned { tensor, offset, alignment }));
        }
        let start = data_offset.checked_add(offset);
        let Some(file_offset) = start.filter(|start| start.checked_add(len.get()).is_some()) else {
            let tensor = shown(&name);
            return Err(reader.refuse(GgufProblem::Overflow { tensor, offset, len }));
        };
        tensors.push(Tensor { name, format, shape, file_offset, len });
    }
    refuse_duplicates(reader, &tensors)?;
    // Empty tensors come before the one that begins at the same position.
    tensors.sort_by(|left, right| {
        let key = |tensor: &Tensor| (tensor.file_offset, tensor.len);
        key(left).cmp(&key(right)).then_with(|| left.name.cmp(&right.name))
    });
    refuse_overlaps(reader, &tensors)?;
    let last = tensors.iter().max_by_key(|tensor| end(tensor));
    if let Some(last) = last.filter(|last| end(last) > reader.file_len().get())
        && !options.headers_only
    {
        let (tensor, end, file_len) = (shown(&last.name), end(last), reader.file_len());
        return Err(reader.refuse(GgufProblem::Truncated { tensor, end, file_len }));
    }
    Ok(tensors)
}

/// Where a tensor that was placed ends. It does not overflow: that was checked.
pub(super) const fn end(tensor: &Tensor) -> u64 {
    tensor.file_offset.saturating_add(tensor.len.get())
}

fn refuse_duplicates<R: ReadAt + ?Sized>(
    reader: &Reader<'_, R>,
    tensors: &[Tensor],
) -> Result<(), ModelError> {
    let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    let twice = names.windows(2).find_map(|pair| match pair {
        [left, right] if left == right => Some(shown(left)),
        _ => None,
    });
    twice.map_or(Ok(()), |tensor| Err(reader.refuse(GgufProblem::DuplicateName { tensor })))
}

fn refuse_overlaps<R: ReadAt + ?Sized>(
    reader: &Reader<'_, R>,
    tensors: &[Tensor],
) -> Result<(), ModelError> {
    let mut before: Option<&Tensor> = None;
    for tensor in tensors {
        if let Some(other) = before.filter(|other| end(other) > tensor.file_offset) {
            return Err(reader.refuse(GgufProblem::Overlap {
                tensor: shown(&tensor.name),
                start: tensor.file_offset,
                other: shown(&other.name),
                other_end: end(other),
            }));
        }
        if !tensor.len.is_zero() {
            before = Some(tensor);
        }
    }
    Ok(())
}
