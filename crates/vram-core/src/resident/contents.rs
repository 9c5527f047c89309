//! The parts that sealing a shard anew needs from its old content.

use std::sync::Arc;

use vram_seal::{Expected, Fresh, KeyId, SealError, SealParams, Sealed, Sealer, SegmentHash};

use crate::error::VramError;
use crate::parts::{Core, keys};
use crate::shard::{Entry, Seal, View};

/// Opens and hashes every segment of a shard, and compares the whole content with the record.
///
/// # Errors
///
/// [`VramError::ShardAltered`] with every altered segment; the shard is then in quarantine.
pub(crate) fn content_hashes(entry: &Entry, view: &View) -> Result<Vec<SegmentHash>, VramError> {
    let (hashes, segments) = view.content_on()?;
    if !segments.is_empty() {
        entry.quarantine(&segments);
        return Err(VramError::ShardAltered { shard: entry.id.clone(), segments: segments.into() });
    }
    let checked = view.seal.opener.check_digest(&hashes);
    checked.map_err(|error| altered(entry, error.into()))?;
    Ok(hashes)
}

/// A sealer for the content of a shard that has these hashes: it seals nothing else.
pub(crate) fn sealer(
    core: &Core,
    entry: &Entry,
    anew: Anew,
    hashes: &Arc<Vec<SegmentHash>>,
) -> Result<Sealer, VramError> {
    Ok(fresh(core, entry, anew)?.fix(Arc::clone(hashes))?)
}

/// A sealer for the content of a shard, before any of it was hashed.
pub(crate) fn fresh(core: &Core, entry: &Entry, anew: Anew) -> Result<Sealer<Fresh>, VramError> {
    let mut described = Vec::new();
    let context = entry.sealed_as.context(&mut described)?;
    let id = anew.key;
    let keys = keys::ring(core)?;
    let key = keys.get(&id).ok_or(SealError::UnknownKey { id })?;
    Ok(Sealer::new(key, &context, anew.params, entry.plaintext_len)?)
}

/// Opens a record that was just made, as every reader will.
pub(crate) fn finish_seal(
    core: &Core,
    entry: &Entry,
    old: &View,
    params: SealParams,
    sealed: Sealed,
) -> Result<Seal, VramError> {
    if sealed.digest != old.seal.digest {
        return Err(SealError::DigestMismatch.into());
    }
    // The new record is of the same shard, whatever was sealed meanwhile.
    let mut described = Vec::new();
    let context = entry.sealed_as.context(&mut described)?;
    keys::open_seal(core, sealed, params, &Expected::from(&context).params(params))
}

/// The parameters and the key for sealing a shard anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anew {
    pub(crate) params: SealParams,
    pub(crate) key: KeyId,
}

/// Handles an error of the seal while device bytes are read: the bytes differ from what was sealed,
/// so the shard goes into quarantine.
pub(crate) fn altered(entry: &Entry, error: VramError) -> VramError {
    let segments = match error {
        VramError::Seal(
            SealError::SegmentMismatch { segment } | SealError::SourceChanged { segment },
        ) => vec![segment],
        VramError::Seal(SealError::DigestMismatch) => Vec::new(),
        other => return other,
    };
    entry.quarantine(&segments);
    VramError::ShardAltered { shard: entry.id.clone(), segments: segments.into() }
}
