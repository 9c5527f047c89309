//! Reads a shard: returns authenticated bytes only, or an error.

use vram_alloc::{ByteLen, ByteRange};
use vram_seal::ContentDigest;

use crate::error::VramError;
use crate::parts::Core;
use crate::resident::contents::altered;
use crate::resident::lease;
use crate::shard::entry::in_shard;
use crate::shard::{Entry, SealedShard, View};
use crate::transfer::read::zeroed;

/// All plaintext of a shard.
pub fn unseal(core: &Core, handle: &SealedShard) -> Result<Vec<u8>, VramError> {
    core.shared(handle, |entry| unseal_entry(core, entry))
}

pub(crate) fn unseal_entry(core: &Core, entry: &Entry) -> Result<Vec<u8>, VramError> {
    entry.not_quarantined()?;
    let mut out = zeroed(entry.plaintext_len)?;
    read_entry(core, entry, ByteRange::whole(entry.plaintext_len), &mut out)?;
    Ok(out)
}

/// Reads `length` bytes at `offset`.
pub fn read_range(
    core: &Core,
    handle: &SealedShard,
    offset: u64,
    length: u64,
) -> Result<Vec<u8>, VramError> {
    core.shared(handle, |entry| {
        let range = in_shard(entry, offset, length)?;
        entry.not_quarantined()?;
        let mut out = zeroed(range.len())?;
        read_entry(core, entry, range, &mut out)?;
        Ok(out)
    })
}

/// Fills `target` with the bytes at `offset`.
pub fn read_into(
    core: &Core,
    handle: &SealedShard,
    offset: u64,
    target: &mut [u8],
) -> Result<(), VramError> {
    core.shared(handle, |entry| {
        let length = ByteLen::from_usize(target.len()).get();
        let range = in_shard(entry, offset, length)?;
        entry.not_quarantined()?;
        read_entry(core, entry, range, target)
    })
}

/// Fills `target`, which must have the shard's length, with all of it.
pub fn unseal_into(core: &Core, handle: &SealedShard, target: &mut [u8]) -> Result<(), VramError> {
    core.shared(handle, |entry| {
        let (expected, found) = (entry.plaintext_len, ByteLen::from_usize(target.len()));
        if expected != found {
            return Err(VramError::TargetLength { shard: entry.id.clone(), expected, found });
        }
        entry.not_quarantined()?;
        read_entry(core, entry, ByteRange::whole(expected), target)
    })
}

/// Reads a checked range of a shard into `out`, which has the length of the range. After an error
/// or a panic, `out` holds zeros.
pub(crate) fn read_entry(
    core: &Core,
    entry: &Entry,
    range: ByteRange,
    out: &mut [u8],
) -> Result<(), VramError> {
    read_there(core, entry, &entry.view()?, range, out)
}

/// As [`read_entry`], in a call that has a view of the shard already.
pub(crate) fn read_there(
    core: &Core,
    entry: &Entry,
    view: &View,
    range: ByteRange,
    out: &mut [u8],
) -> Result<(), VramError> {
    lease::used(core, entry);
    view.read_view(range, out).map_err(|error| altered(entry, error))
}

/// The plain digest of a shard's content.
pub fn content_digest(core: &Core, shard: &SealedShard) -> Result<ContentDigest, VramError> {
    let entry = core.resolve(shard)?;
    let digest = entry.state().seal.digest;
    Ok(digest)
}
