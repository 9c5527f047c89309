//! Which keys are in use: a key that a shard is sealed under cannot be retired.

use vram_seal::{
    Expected, KeyError, KeyId, KeyRing, OpenLimits, Opened, SealError, SealKey, SealParams, Sealed,
    open_record_in,
};

use crate::error::VramError;
use crate::parts::Core;
use crate::shard::seal::prints::Prints;
use crate::shard::{KeyUse, Seal};
use crate::sync::{RwLockReadGuard, read, write};

/// The keys, to be used while the ring stays as it is.
///
/// # Errors
///
/// [`VramError::Closed`] once the keys of a closed manager are wiped. The call that asks was running
/// when the manager was closed.
pub(crate) fn ring(core: &Core) -> Result<RwLockReadGuard<'_, KeyRing>, VramError> {
    let keys = read(&core.keys);
    if core.closing.last_key().is_some() { Err(VramError::Closed) } else { Ok(keys) }
}

/// A seal that was just made under the key that `key_use` counts.
pub(crate) fn made_seal(
    core: &Core,
    opened: Opened,
    params: SealParams,
    key_use: KeyUse,
) -> Result<Seal, VramError> {
    drop(ring(core)?);
    let Opened { opener, digest, .. } = opened;
    Ok(Seal { opener, params, digest, prints: Prints::default(), key_use })
}

/// Opens a record that was just made or read, and counts it as a use of its key.
pub(crate) fn open_seal(
    core: &Core,
    sealed: Sealed,
    params: SealParams,
    expected: &Expected<'_>,
) -> Result<Seal, VramError> {
    let Sealed { record, tags, digest, .. } = sealed;
    let keys = ring(core)?;
    let opened = open_record_in(&keys, &record, expected, OpenLimits::default())?;
    // Counted under the ring's lock: no other thread can retire the key between lookup and count.
    let key_use = core.key_uses.take(opened.fields().key_id());
    drop(keys);
    let prints = Prints::default();
    Ok(Seal { opener: opened.with_table(tags)?, params, digest, prints, key_use })
}

/// Counts one more use of a key that is in the ring.
pub(crate) fn use_key(core: &Core, id: KeyId) -> Result<KeyUse, VramError> {
    let keys = ring(core)?;
    keys.get(&id).ok_or(SealError::UnknownKey { id })?;
    Ok(core.key_uses.take(id))
}

/// Changes the key ring, unless the manager is closed.
fn change<T>(
    core: &Core,
    change: impl FnOnce(&mut KeyRing) -> Result<T, VramError>,
) -> Result<T, VramError> {
    let mut keys = write(&core.keys);
    core.check_open()?;
    change(&mut keys)
}

/// Adds a key to the ring.
pub fn add(core: &Core, key: SealKey) -> Result<(), VramError> {
    change(core, |keys| Ok(keys.add(key)?))
}

/// Makes a key of the ring the key for new seals.
pub fn activate(core: &Core, key: &KeyId) -> Result<(), VramError> {
    change(core, |keys| Ok(keys.set_active(key)?))
}

/// Removes a key from the ring, if no shard is sealed under it.
pub fn retire(core: &Core, key: &KeyId) -> Result<(), VramError> {
    change(core, |keys| {
        if keys.active().id() == *key {
            return Err(KeyError::ActiveKey { id: *key }.into());
        }
        let seals = core.key_uses.count(key);
        if seals > 0 {
            return Err(VramError::KeyInUse { key: *key, seals });
        }
        drop(keys.remove(key)?);
        tracing::info!(%key, "key retired");
        Ok(())
    })
}

/// The ids of all keys in the ring; empty if the manager is closed.
#[must_use]
pub fn key_ids(core: &Core) -> Vec<KeyId> {
    if core.check_open().is_err() {
        return Vec::new();
    }
    ring(core).map_or_else(|_closed| Vec::new(), |keys| keys.ids())
}

/// The key for new seals; if the manager is closed, the key that was active last.
#[must_use]
pub fn active_key(core: &Core) -> KeyId {
    core.closing.last_key().unwrap_or_else(|| read(&core.keys).active().id())
}
