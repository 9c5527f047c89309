//! Seals a shard anew into a second placement, by the kernels of its device: no byte of it comes to
//! the host.
//!
//! Whatever the kernels cannot tell, and whatever looks altered to them, is left to the host, which
//! does all of it again.

use std::sync::Arc;

use vram_gpu::kernels::Kernels;
use vram_seal::{Protection, SegmentCollector, SegmentHash};
use vram_space::Space;

use crate::error::VramError;
use crate::parts::Core;
use crate::resident::Anew;
use crate::resident::contents::{finish_seal, fresh};
use crate::shard::seal::prints::room_for;
use crate::shard::{Entry, Seal, View};
use crate::transfer::kernels::encrypt::encrypt;
use crate::transfer::kernels::launch::{Bytes, Told};
use crate::transfer::kernels::seals;

/// Seals the bytes at `old` anew into `space`; `None` if the host must do it.
///
/// ```text
///  1 plaintext: where it lies, or opened into the new place         tags are checked first
///  2 its hashes, compared with the old record
///  3 encrypted into the new place (and opened and hashed there), or copied, or left there
///  4 the hashes of the plaintext once more, where it still lies     nothing changed meanwhile
/// ```
pub(crate) fn write_anew(
    core: &Core,
    entry: &Entry,
    old: &View,
    anew: Anew,
    space: &Space,
) -> Result<Option<Seal>, VramError> {
    let was_open = old.seal.protection() == Protection::Authenticated;
    let opens = anew.params.protection() == Protection::Authenticated;
    if !seals(&old.gpu, anew.params) || !(was_open || old.lends_keys()) {
        return Ok(None);
    }
    let Some(kernels) = old.kernels() else { return Ok(None) };
    let kernels = &*kernels;
    let from = Bytes::of(old)?;
    let to = Bytes::in_space(space, from.layout)?;
    if !was_open {
        // Whatever the kernels cannot open, or whose tag is not good, is the host's.
        let opened = from.open(kernels, &to, |segment, lend| {
            let Some((key, tag)) = old.seal.opener.segment_key(segment)? else { return Ok(()) };
            lend(&key, tag)
        })?;
        if !opened {
            return Ok(None);
        }
    }
    let plain = if was_open { &from } else { &to };
    let Some(hashes) = content(kernels, old, plain)? else { return Ok(None) };
    let hashes = Arc::new(hashes);
    let sealer = fresh(core, entry, anew)?.fix(Arc::clone(&hashes))?;
    let collector = SegmentCollector::new(sealer)?;
    if encrypt(kernels, [plain, &to], &collector, &hashes, &|| Ok(()))? != Told::All {
        return Ok(None);
    }
    if was_open && opens {
        let copied = to.memory.copy_from(to.range, &**from.memory, from.range);
        copied.map_err(|error| old.gpu.failed(error))?;
    }
    // Plaintext that was encrypted where it lay is not there any more.
    let still = if opens { Some(&to) } else { was_open.then_some(&from) };
    if let Some(still) = still
        && content(kernels, old, still)?.as_ref() != Some(&*hashes)
    {
        return Ok(None);
    }
    finish_seal(core, entry, old, anew.params, collector.finish()?).map(Some)
}

/// The hashes of plaintext that is what `old` was sealed from; `None` if the kernels cannot tell, or
/// it is not.
fn content(
    kernels: &dyn Kernels,
    old: &View,
    plain: &Bytes<'_>,
) -> Result<Option<Vec<SegmentHash>>, VramError> {
    let mut hashes = room_for(plain.layout.count())?;
    let told = plain.hashes(kernels, 0..plain.layout.count(), |_segment, hash| {
        hashes.push(hash);
        Ok(())
    })?;
    Ok((told == Told::All && old.seal.is_of(&hashes)?).then_some(hashes))
}
