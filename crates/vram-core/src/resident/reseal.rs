//! Opens and closes a resident shard: changes it from Encrypted to Authenticated and back,
//! completely or not at all.
//!
//! No transition turns altered bytes into a valid record: every segment is opened under the old
//! record, and the content as a whole is compared with it, before a new record counts.
//!
//! ```text
//!  with room for a second copy             without
//!   1 scope Shard: hash all segments        1 hash all segments, compare with the old record
//!   2 read, open, seal, write beside        2 a trial: read, open, seal, write nothing → new record
//!   3 compare with the old record           3 for each window, in place:
//!   4 read back                                 read, open, seal, write, read back
//!   5 the new copy counts                   4 the new record counts
//!   6 wipe and free the old copy
//! ```
//!
//! With a second copy, a failure drops the new copy. In place, a failure is undone by the same work
//! in the other direction: sealing is deterministic, so it produces the old bytes again, bit for
//! bit. A window whose write fails is rewritten from the host buffer that still holds it. The shard
//! is lost only if the device also refuses to write the old bytes; the shard is then in quarantine.

use vram_events::EventKind;
use vram_seal::{KeyId, Protection};
use vram_space::SpaceError;

use crate::error::VramError;
use crate::parts::Core;
use crate::parts::keys::use_key;
use crate::resident::beside::seal_beside;
use crate::resident::{Anew, in_place};
use crate::shard::{Entry, SealedShard, View};

/// Seals a shard anew under another key.
pub fn reseal(core: &Core, shard: &SealedShard, key: &KeyId) -> Result<SealedShard, VramError> {
    core.exclusive(shard, |entry| {
        entry.not_quarantined()?;
        let old = entry.view()?;
        old.gpu.ready()?;
        // Held until the shard has its new seal, so that no other thread retires the key before.
        let _key_use = use_key(core, *key)?;
        if old.seal.key_id() != *key {
            seal_anew(core, entry, &old, Anew { params: old.seal.params, key: *key })?;
            tracing::info!(shard = %entry.id, gpu = old.gpu.index, "sealed under another key");
        }
        Ok(core.handle(entry))
    })
}

/// Seals a shard anew in another mode, unless it has that mode already.
pub fn change_protection(
    core: &Core,
    handle: &SealedShard,
    to: Protection,
) -> Result<SealedShard, VramError> {
    core.exclusive(handle, |entry| {
        entry.not_quarantined()?;
        let old = entry.view()?;
        old.gpu.ready()?;
        if old.seal.protection() == to {
            return Ok(core.handle(entry));
        }
        let key = old.seal.key_id();
        seal_anew(core, entry, &old, Anew { params: old.seal.params.with_protection(to), key })?;
        tracing::info!(shard = %entry.id, gpu = old.gpu.index, ?to, "sealed anew");
        Ok(core.handle(entry))
    })
}

/// Seals a shard anew on its GPU. The caller is exclusive at its gate.
pub(crate) fn seal_anew(
    core: &Core,
    entry: &Entry,
    old: &View,
    anew: Anew,
) -> Result<(), VramError> {
    seal_anew_untold(core, entry, old, anew)?;
    core.events.emit(EventKind::SealedAnew {
        shard: entry.id.clone(),
        gpu: old.gpu.index,
        protection: anew.params.protection(),
    });
    Ok(())
}

/// Like [`seal_anew`](Self::seal_anew), but emits no event: for a shard that is not in the registry
/// yet.
pub(crate) fn seal_anew_untold(
    core: &Core,
    entry: &Entry,
    old: &View,
    anew: Anew,
) -> Result<(), VramError> {
    match old.gpu.place(entry.plaintext_len) {
        Ok(space) => seal_beside(core, entry, old, anew, space),
        Err(SpaceError::NoRoom(_)) => in_place::seal_in_place(core, entry, old, anew),
        Err(error) => Err(error.into()),
    }
}
