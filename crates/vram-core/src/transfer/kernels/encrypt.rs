//! Encrypts segments by kernels.

use core::cell::RefCell;
use std::collections::VecDeque;

use vram_gpu::kernels::Kernels;
use vram_seal::{Protection, SealError, SegmentCollector, SegmentHash};

use crate::error::VramError;
use crate::transfer::kernels::launch::{Bytes, Told};

/// Seals every segment of plaintext with these hashes: the bytes of the first place become those of
/// the second, which may be the same. In mode Authenticated nothing is encrypted.
///
/// If the kernels stop in the middle, the bytes of the second place are unspecified.
pub(crate) fn encrypt(
    kernels: &dyn Kernels,
    [from, to]: [&Bytes<'_>; 2],
    collector: &SegmentCollector,
    hashes: &[SegmentHash],
) -> Result<Told, VramError> {
    let (layout, sealer) = (from.layout, collector.sealer());
    let begin = |segment| {
        let hash = usize::try_from(segment).ok().and_then(|at| hashes.get(at)).cloned();
        let count = layout.count();
        sealer.begin_segment(segment, hash.ok_or(SealError::NoSuchSegment { segment, count })?)
    };
    if sealer.protection() == Protection::Authenticated {
        for segment in 0..layout.count() {
            collector.put(segment, begin(segment)?.finish([0; 16]))?;
        }
        return Ok(Told::All);
    }
    let under_way = RefCell::new(VecDeque::new());
    from.lent(
        0..layout.count(),
        |lent, segment| {
            let one = begin(segment)?;
            if let Some(key) = one.key() {
                lent.push(&layout, [from.range, to.range], key)?;
            }
            under_way.borrow_mut().push_back(one);
            Ok(())
        },
        |memory, lent| kernels.seal(memory, &**to.memory, &lent.spans, &lent.keys),
        |_lent, _at, tag| {
            if let Some(one) = under_way.borrow_mut().pop_front() {
                collector.put(one.segment(), one.finish(tag))?;
            }
            Ok(())
        },
    )
}
