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

use std::sync::Arc;

use vram_events::EventKind;
use vram_seal::{KeyId, Protection};
use vram_space::{Space, SpaceError};

use crate::error::VramError;
use crate::parts::Core;
use crate::parts::keys::use_key;
use crate::resident::{Anew, beside, in_place};
use crate::shard::entry::arrive::arrive;
use crate::shard::{Arrived, Check, Entry, Moment, Seal, SealedShard, ShardCause, View};

/// Seals a shard anew under another key.
pub fn reseal(core: &Core, shard: &SealedShard, key: &KeyId) -> Result<SealedShard, VramError> {
    core.exclusive(shard, |entry| {
        entry.not_quarantined()?;
        let old = entry.view()?;
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
fn seal_anew(core: &Core, entry: &Entry, old: &View, anew: Anew) -> Result<(), VramError> {
    let (gpu, protection) = (old.gpu.index, anew.params.protection());
    let at = core.events.now();
    let event = EventKind::SealedAnew { shard: entry.id.clone(), gpu, protection };
    // The copies of the old seal are dropped outside of the shard's lock.
    let mut outdated = None;
    match write(core, entry, old, anew)? {
        (seal, Written::Beside(Arrived { space, verified })) => {
            let now = Moment::now(&*core.clock);
            let before = arrive(entry, space, ShardCause::Move, |state, told| {
                outdated = Some(state.seal_anew(seal));
                state.ages.arrived(now, verified);
                told.tell(at, event);
            });
            let before = before?;
            // The new copy is the shard now; an error while the old space is returned does not
            // change that.
            if let Some(Err((bytes, error))) = before.map(Space::give_back) {
                tracing::error!(
                    shard = %entry.id,
                    bytes = bytes.get(),
                    %error,
                    "sealed anew, but the old copy could not be given back and stays counted"
                );
            }
        }
        (seal, Written::InPlace(began)) => entry.change(|state, told| {
            outdated = Some(state.seal_anew(seal));
            state.ages.arrived(began, Some(Check::by_host(began)));
            told.tell(at, event);
        }),
    }
    drop(outdated);
    Ok(())
}

/// Where the bytes of a new seal lie.
pub(crate) enum Written {
    /// In a second placement; the old bytes still lie where they were.
    Beside(Arrived),
    /// In the old one, since the moment at which writing them began.
    InPlace(Moment),
}

impl Written {
    /// Where the bytes lie, if `old` is the old placement.
    pub(crate) fn arrived(self, old: Space) -> Arrived {
        match self {
            Self::Beside(arrived) => arrived,
            Self::InPlace(began) => Arrived { space: old, verified: Some(Check::by_host(began)) },
        }
    }
}

/// Seals the bytes at `old` anew, and verifies them. The shard itself is not changed.
pub(crate) fn write(
    core: &Core,
    entry: &Entry,
    old: &View,
    anew: Anew,
) -> Result<(Arc<Seal>, Written), VramError> {
    match old.gpu.place(entry.plaintext_len) {
        Ok(space) => beside::write_anew(core, entry, old, anew, space)
            .map(|(seal, arrived)| (seal, Written::Beside(arrived))),
        Err(SpaceError::NoRoom(_)) => in_place::rewrite(core, entry, old, anew)
            .map(|(seal, began)| (seal, Written::InPlace(began))),
        Err(error) => Err(error.into()),
    }
}
