//! Encrypts segments by kernels, and makes sure that it was the plaintext that was hashed.

use vram_gpu::kernels::Kernels;
use vram_seal::{BegunSegment, Protection, SealError, Sealer, SegmentCollector, SegmentHash};

use crate::error::VramError;
use crate::shard::seal::prints::room_for;
use crate::transfer::kernels::launch::{Bytes, Told};

/// Seals every segment of plaintext with these hashes: the bytes of the first place become those of
/// the second, which may be the same. In mode Authenticated nothing is encrypted.
///
/// A tag says only that the ciphertext is what the cipher wrote. What it was made of, no tag of its own
/// maker can tell: the plaintext may have changed after it was hashed, or the cipher erred. So what
/// was sealed is opened where it lies and hashed, and then sealed once more, which must give the same
/// tags. `go_on` is called between these passes.
///
/// If the kernels stop in the middle, the bytes of the second place are unspecified, unless the
/// answer says that they are untouched.
pub(crate) fn encrypt(
    kernels: &dyn Kernels,
    [from, to]: [&Bytes<'_>; 2],
    collector: &SegmentCollector,
    hashes: &[SegmentHash],
    go_on: &dyn Fn() -> Result<(), VramError>,
) -> Result<Told, VramError> {
    let (layout, sealer) = (from.layout, collector.sealer());
    if sealer.protection() == Protection::Authenticated {
        for segment in 0..layout.count() {
            collector.put(segment, begin(sealer, hashes, segment)?.finish([0; 16]))?;
        }
        return Ok(Told::All);
    }
    let mut first = room_for(layout.count())?;
    match seal(kernels, [from, to], sealer, hashes, &mut first)? {
        Told::All => {}
        nothing @ Told::Nothing { .. } => return Ok(nothing),
    }
    go_on()?;
    let stopped = Told::Nothing { error: None, untouched: false };
    let opened = to.open(kernels, to, |segment, lend| {
        let tag = usize::try_from(segment).ok().and_then(|at| first.get(at)).copied();
        match begin(sealer, hashes, segment)?.key() {
            Some(key) => lend(key, tag.unwrap_or_default()),
            None => Ok(()),
        }
    })?;
    if !opened {
        return Ok(stopped);
    }
    go_on()?;
    let mut same = true;
    let told = to.hashes(kernels, 0..layout.count(), |segment, hash| {
        same &= at(hashes, segment) == Some(&hash);
        Ok(())
    })?;
    if told != Told::All || !same {
        return Ok(stopped);
    }
    go_on()?;
    let mut second = room_for(layout.count())?;
    if seal(kernels, [to, to], sealer, hashes, &mut second)? != Told::All || first != second {
        return Ok(stopped);
    }
    for (segment, tag) in (0..).zip(second) {
        collector.put(segment, begin(sealer, hashes, segment)?.finish(tag))?;
    }
    Ok(Told::All)
}

fn at(hashes: &[SegmentHash], segment: u64) -> Option<&SegmentHash> {
    usize::try_from(segment).ok().and_then(|at| hashes.get(at))
}

fn begin(sealer: &Sealer, hashes: &[SegmentHash], segment: u64) -> Result<BegunSegment, VramError> {
    let count = sealer.layout().count();
    let hash = at(hashes, segment).cloned().ok_or(SealError::NoSuchSegment { segment, count })?;
    Ok(sealer.begin_segment(segment, hash)?)
}

/// Encrypts every segment, and appends the tags.
fn seal(
    kernels: &dyn Kernels,
    [from, to]: [&Bytes<'_>; 2],
    sealer: &Sealer,
    hashes: &[SegmentHash],
    tags: &mut Vec<[u8; 16]>,
) -> Result<Told, VramError> {
    from.lent(
        0..from.layout.count(),
        |lent, segment| match begin(sealer, hashes, segment)?.key() {
            Some(key) => lent.push(&from.layout, [from.range, to.range], key),
            None => Ok(()),
        },
        |memory, lent| kernels.seal(memory, &**to.memory, &lent.spans, &lent.keys),
        |_lent, _at, tag| {
            tags.push(tag);
            Ok(())
        },
    )
}
