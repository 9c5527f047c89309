//! Which keys are in use: a key that something is sealed under is not retired.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, Weak};

use vram_seal::{
    Expected, KeyError, KeyId, OpenLimits, SealError, SealKey, SealParams, Sealed, open_record_in,
};

use crate::call::Call;
use crate::error::VramError;
use crate::manager::{Core, VramManager};
use crate::registry::Seal;
use crate::shard::SealedShard;
use crate::sync::{Mutex, lock, read};
use crate::transition::Anew;

/// Counts the seals under each key, resident and parked.
#[derive(Debug, Default)]
pub(crate) struct KeyUses {
    by_key: Mutex<BTreeMap<KeyId, Weak<()>>>,
}

/// One seal under one key, until dropped.
#[derive(Debug)]
pub(crate) struct KeyUse {
    #[expect(dead_code, reason = "held to be counted")]
    token: Arc<()>,
}

impl KeyUses {
    /// Counts one more use.
    pub(crate) fn take(&self, key: KeyId) -> KeyUse {
        let mut by_key = lock(&self.by_key);
        let known = by_key.get(&key).and_then(Weak::upgrade);
        let token = known.unwrap_or_else(|| {
            let token = Arc::new(());
            by_key.insert(key, Arc::downgrade(&token));
            token
        });
        KeyUse { token }
    }

    /// Seals under a key.
    fn count(&self, key: &KeyId) -> usize {
        lock(&self.by_key).get(key).map_or(0, Weak::strong_count)
    }
}

impl Core {
    /// Opens a record that was just made or read, and counts it as a use of its key.
    pub(crate) fn open_seal(
        &self,
        sealed: Sealed,
        params: SealParams,
        expected: &Expected<'_>,
    ) -> Result<Seal, VramError> {
        let Sealed { record, tags, digest, .. } = sealed;
        let keys = read(&self.keys);
        let opened = open_record_in(&keys, &record, expected, OpenLimits::default())?;
        // Under the ring's lock: a key that is there now is not retired before it is counted.
        let key_use = self.key_uses.take(opened.fields().key_id());
        drop(keys);
        Ok(Seal { record, opener: opened.with_table(tags)?, params, digest, key_use })
    }

    /// Counts one more use of a key that is in the ring.
    pub(crate) fn use_key(&self, id: KeyId) -> Result<KeyUse, VramError> {
        let keys = read(&self.keys);
        keys.get(&id).ok_or(SealError::UnknownKey { id })?;
        Ok(self.key_uses.take(id))
    }
}

impl VramManager {
    /// The ids of all keys of the ring, in ascending order; none once the manager was closed.
    #[must_use]
    pub fn key_ids(&self) -> Vec<KeyId> {
        if self.core.check_open().is_err() {
            return Vec::new();
        }
        read(&self.core.keys).ids()
    }

    /// The id of the key that new seals are made with, or were until the manager was closed.
    #[must_use]
    pub fn active_key(&self) -> KeyId {
        if let Some(last) = self.core.closing.last_key() {
            return last;
        }
        read(&self.core.keys).active().id()
    }

    /// Adds a key to the ring: it opens images and can be made active.
    ///
    /// # Errors
    ///
    /// [`VramError::Key`] if a key of that id is there already.
    pub fn add_key(&self, key: SealKey) -> Result<(), VramError> {
        self.core.watched(Call::AddKey, None, None, 0, || {
            let mut keys = self.core.keys.write().unwrap_or_else(PoisonError::into_inner);
            self.core.check_open()?;
            Ok(keys.add(key)?)
        })
    }

    /// Makes a key of the ring the one that seals. What was sealed before keeps its key:
    /// [`reseal_shard`](Self::reseal_shard) moves it to another.
    ///
    /// # Errors
    ///
    /// [`VramError::Key`] if there is no such key.
    pub fn set_active_key(&self, key: &KeyId) -> Result<(), VramError> {
        self.core.watched(Call::ActivateKey, None, None, 0, || {
            let mut keys = self.core.keys.write().unwrap_or_else(PoisonError::into_inner);
            self.core.check_open()?;
            Ok(keys.set_active(key)?)
        })
    }

    /// Takes a key out of the ring and wipes it. What was exported under it opens no more.
    ///
    /// # Errors
    ///
    /// [`VramError::KeyInUse`] while shards are sealed under it, resident or parked;
    /// [`VramError::Key`] if it is the active one, or there is no such key.
    pub fn retire_key(&self, key: &KeyId) -> Result<(), VramError> {
        self.core.watched(Call::RetireKey, None, None, 0, || {
            let mut keys = self.core.keys.write().unwrap_or_else(PoisonError::into_inner);
            self.core.check_open()?;
            if keys.active().id() == *key {
                return Err(KeyError::ActiveKey { id: *key }.into());
            }
            let seals = self.core.key_uses.count(key);
            if seals > 0 {
                return Err(VramError::KeyInUse { key: *key, seals });
            }
            drop(keys.remove(key)?);
            tracing::info!(%key, "key retired");
            Ok(())
        })
    }

    /// Seals a shard anew under another key of the ring, on the same GPU and with the same cipher
    /// and scope. All or nothing; every segment is opened under the old seal first, so that no
    /// altered byte gets a valid record. Handles from before are answered with
    /// [`VramError::StaleHandle`]. A shard under that key already stays as it is.
    ///
    /// # Errors
    ///
    /// As [`open_resident`](Self::open_resident), and [`VramError::Seal`] if there is no such key.
    /// The shard is then as it was.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn reseal_shard(&self, shard: &SealedShard, key: &KeyId) -> Result<SealedShard, VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        self.core.watched(Call::Reseal, id, None, len, || self.core.reseal(shard, key))
    }
}

impl Core {
    fn reseal(&self, shard: &SealedShard, key: &KeyId) -> Result<SealedShard, VramError> {
        self.exclusive(shard, |entry| {
            entry.not_quarantined()?;
            let old = entry.view()?;
            old.gpu.ready()?;
            // Held until the new seal is there, so that the key is not retired meanwhile.
            let _key_use = self.use_key(*key)?;
            if old.seal.key_id() != *key {
                self.seal_anew(entry, &old, Anew { params: old.seal.params, key: *key })?;
                tracing::info!(shard = %entry.id, gpu = old.gpu.index, "sealed under another key");
            }
            Ok(self.handle(entry))
        })
    }
}
