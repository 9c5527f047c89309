//! The keys that shards are sealed under.

use vram_core::error::VramError;
use vram_core::parts::call::Call;
use vram_core::parts::keys;
use vram_core::resident::reseal;
use vram_core::shard::SealedShard;
use vram_seal::{KeyId, SealKey};

use crate::manager::VramManager;

impl VramManager {
    /// The ids of all keys of the ring, in ascending order; none once the manager was closed.
    #[must_use]
    pub fn key_ids(&self) -> Vec<KeyId> {
        keys::key_ids(&self.core)
    }

    /// The id of the key that new seals are made with, or were until the manager was closed.
    #[must_use]
    pub fn active_key(&self) -> KeyId {
        keys::active_key(&self.core)
    }

    /// Adds a key to the ring: it opens images and can be made active.
    ///
    /// # Errors
    ///
    /// [`VramError::Key`] if a key of that id is there already.
    pub fn add_key(&self, key: SealKey) -> Result<(), VramError> {
        self.core.watched(Call::AddKey, None, None, 0, || keys::add(&self.core, key))
    }

    /// Makes a key of the ring the one that seals. What was sealed before keeps its key:
    /// [`reseal_shard`](Self::reseal_shard) moves it to another.
    ///
    /// # Errors
    ///
    /// [`VramError::Key`] if there is no such key.
    pub fn set_active_key(&self, key: &KeyId) -> Result<(), VramError> {
        self.core.watched(Call::ActivateKey, None, None, 0, || keys::activate(&self.core, key))
    }

    /// Takes a key out of the ring and wipes it. What was exported under it opens no more.
    ///
    /// # Errors
    ///
    /// [`VramError::KeyInUse`] while shards are sealed under it, resident or parked;
    /// [`VramError::Key`] if it is the active one, or there is no such key.
    pub fn retire_key(&self, key: &KeyId) -> Result<(), VramError> {
        self.core.watched(Call::RetireKey, None, None, 0, || keys::retire(&self.core, key))
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
        self.core.watched(Call::Reseal, id, None, len, || reseal::reseal(&self.core, shard, key))
    }
}
