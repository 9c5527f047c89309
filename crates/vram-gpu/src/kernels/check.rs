//! The checks of arguments that every backend runs first. A refused call has changed nothing.

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, GpuIndex};

use super::{
    CipherSpan, FINGERPRINT_SPAN_MAX, HashSpan, KernelError, SEGMENT_MAX, SPAN_ALIGNMENT, Unfit,
};
use crate::DeviceMemory;
use crate::memory::Extent;

/// Bytes in a chunk of BLAKE3.
const CHUNK_LEN: u64 = 1024;

/// Checks the spans of [`Kernels::hash`](super::Kernels::hash).
pub(crate) fn hash(memory: &dyn DeviceMemory, spans: &[HashSpan]) -> Result<(), KernelError> {
    for span in spans {
        read(memory, span.range, SEGMENT_MAX)?;
        // The last chunk of the whole may be short. A span that ends elsewhere than at a power of
        // two is the end of the whole; whether the whole has an end there, its caller knows.
        let chunks = span.range.len().get().div_ceil(CHUNK_LEN).next_power_of_two();
        let is_subtree = span.first_chunk.is_multiple_of(chunks);
        if !is_subtree || span.root && span.first_chunk != 0 {
            return Err(unfit(memory, Unfit::NoSubtree { first_chunk: span.first_chunk }));
        }
    }
    Ok(())
}

/// Checks the spans of [`Kernels::fingerprint`](super::Kernels::fingerprint).
pub(crate) fn fingerprint(
    memory: &dyn DeviceMemory,
    spans: &[DeviceRange],
) -> Result<(), KernelError> {
    spans.iter().try_for_each(|span| read(memory, *span, FINGERPRINT_SPAN_MAX))
}

/// Checks the arguments of [`Kernels::tags`](super::Kernels::tags).
pub(crate) fn tags(
    memory: &dyn DeviceMemory,
    spans: &[CipherSpan],
    keys: usize,
) -> Result<(), KernelError> {
    lists(memory, spans, keys)?;
    spans.iter().try_for_each(|span| cipher(memory, span.source))
}

/// Checks the arguments of [`Kernels::open`](super::Kernels::open) and
/// [`Kernels::seal`](super::Kernels::seal). `others` are the lengths of the lists beside the spans.
pub(crate) fn cipher_both(
    source: &dyn DeviceMemory,
    target: &dyn DeviceMemory,
    spans: &[CipherSpan],
    others: &[usize],
) -> Result<(), KernelError> {
    if source.gpu() != target.gpu() {
        return Err(unfit(target, Unfit::OtherMemory));
    }
    others.iter().try_for_each(|others| lists(source, spans, *others))?;
    let mut places = Vec::with_capacity(spans.len());
    for span in spans {
        cipher(source, span.source)?;
        let to = extent(target).at(span.target, span.source.len())?;
        aligned(target, to)?;
        places.push((absolute(source, span.source), absolute(target, to)));
    }
    if disjoint(&places) { Ok(()) } else { Err(unfit(source, Unfit::Overlap)) }
}

/// First byte and end of a range, on the device.
type Place = (u64, u64);

/// Whether no target shares a byte with another target, or with a source other than the one in the
/// same place that becomes it: the segments are worked on side by side.
fn disjoint(places: &[(Place, Place)]) -> bool {
    // Sorted, whatever overlaps a target begins after it and before its end, or it does so with the
    // furthest one before.
    let mut all: Vec<(Place, bool)> = Vec::with_capacity(places.len().saturating_mul(2));
    for &(source, target) in places {
        if source != target {
            all.push((source, false));
        }
        all.push((target, true));
    }
    all.retain(|((start, end), _)| start < end);
    all.sort_unstable();
    let (mut any_end, mut target_end) = (0, 0);
    all.into_iter().all(|((start, end), is_target)| {
        let apart = start >= if is_target { any_end } else { target_end };
        any_end = any_end.max(end);
        if is_target {
            target_end = target_end.max(end);
        }
        apart
    })
}

fn absolute(memory: &dyn DeviceMemory, range: DeviceRange) -> Place {
    let base = memory.address().get();
    (base.saturating_add(range.start().get()), base.saturating_add(range.end().get()))
}

/// A span that is read, of at least one byte.
fn read(memory: &dyn DeviceMemory, range: DeviceRange, max: ByteLen) -> Result<(), KernelError> {
    if range.is_empty() || range.len() > max {
        return Err(unfit(memory, Unfit::Length { len: range.len(), max }));
    }
    extent(memory).within(range)?;
    aligned(memory, range)
}

/// A segment, which may be empty.
fn cipher(memory: &dyn DeviceMemory, range: DeviceRange) -> Result<(), KernelError> {
    if range.len() > SEGMENT_MAX {
        return Err(unfit(memory, Unfit::Length { len: range.len(), max: SEGMENT_MAX }));
    }
    extent(memory).within(range)?;
    aligned(memory, range)
}

fn aligned(memory: &dyn DeviceMemory, range: DeviceRange) -> Result<(), KernelError> {
    let start: DeviceOffset = range.start();
    let (address, _) = absolute(memory, range);
    if start.get().is_multiple_of(SPAN_ALIGNMENT) && address.is_multiple_of(SPAN_ALIGNMENT) {
        Ok(())
    } else {
        Err(unfit(memory, Unfit::Unaligned { at: start.get() }))
    }
}

fn lists(
    memory: &dyn DeviceMemory,
    spans: &[CipherSpan],
    others: usize,
) -> Result<(), KernelError> {
    let spans = spans.len();
    if spans == others { Ok(()) } else { Err(unfit(memory, Unfit::Lists { spans, others })) }
}

fn extent(memory: &dyn DeviceMemory) -> Extent {
    Extent { gpu: memory.gpu(), len: memory.len() }
}

fn unfit(memory: &dyn DeviceMemory, why: Unfit) -> KernelError {
    let gpu: GpuIndex = memory.gpu();
    KernelError::Unfit { gpu, why }
}
