//! What sealing anew needs of the old content.

use vram_seal::{
    Expected, KeyId, Protection, SealError, SealParams, Sealed, Sealer, SegmentHash, SivScope,
};

use crate::error::VramError;
use crate::parts::{Core, keys};
use crate::shard::{Entry, Seal, View};
use crate::sync::read;

/// Opens every segment of a shard and hashes it, and compares the whole with the record.
///
/// # Errors
///
/// [`VramError::ShardAltered`] naming every altered segment; the shard is in quarantine then.
pub(crate) fn content_hashes(entry: &Entry, view: &View) -> Result<Vec<SegmentHash>, VramError> {
    let (hashes, segments) = view.content_on()?;
    if !segments.is_empty() {
        entry.quarantine(&segments);
        return Err(VramError::ShardAltered { shard: entry.id.clone(), segments });
    }
    let checked = view.seal.opener.check_digest(&hashes);
    checked.map_err(|error| altered(entry, error.into()))?;
    Ok(hashes)
}

/// A sealer for the content of a shard.
pub(crate) fn sealer(
    core: &Core,
    entry: &Entry,
    anew: Anew,
    hashes: Option<&[SegmentHash]>,
) -> Result<Sealer, VramError> {
    let context = entry.sealed_as.context()?;
    let id = anew.key;
    let keys = read(&core.keys);
    let key = keys.get(&id).ok_or(SealError::UnknownKey { id })?;
    let mut sealer = Sealer::new(key, &context, anew.params, entry.plaintext_len)?;
    drop(keys);
    if let Some(hashes) = hashes.filter(|_| sealer.needs_digest_first()) {
        sealer.fix(hashes)?;
    }
    Ok(sealer)
}

/// Opens a record that was just made, as every reader will.
pub(crate) fn finish_seal(
    core: &Core,
    old: &View,
    params: SealParams,
    sealed: Sealed,
) -> Result<Seal, VramError> {
    if sealed.digest != old.seal.digest {
        return Err(SealError::DigestMismatch.into());
    }
    // The context was stated by this manager a moment ago; key and code are checked all the same.
    keys::open_seal(core, sealed, params, &Expected::anything())
}

/// How a shard is to be sealed anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anew {
    pub(crate) params: SealParams,
    pub(crate) key: KeyId,
}

/// Whether sealing with these choices needs all hashes before the first segment.
pub(crate) fn needs_digest_first(params: SealParams) -> bool {
    params.protection() != Protection::Authenticated && params.scope() == SivScope::Shard
}

/// An error of the seal while device bytes are being read means that they are not what was sealed:
/// the shard goes into quarantine.
pub(crate) fn altered(entry: &Entry, error: VramError) -> VramError {
    let segments = match error {
        VramError::Seal(
            SealError::SegmentMismatch { segment } | SealError::SourceChanged { segment },
        ) => vec![segment],
        VramError::Seal(SealError::DigestMismatch) => Vec::new(),
        other => return other,
    };
    entry.quarantine(&segments);
    VramError::ShardAltered { shard: entry.id.clone(), segments }
}
