//! The keys under which shards are sealed.

use vram_core::error::VramError;
use vram_core::parts::call::Call;
use vram_core::parts::keys;
use vram_core::resident::reseal;
use vram_core::shard::SealedShard;
use vram_seal::{KeyId, SealKey};

use crate::manager::VramManager;

impl VramManager {
    /// The ids of all keys of the ring, in ascending order; none after the manager is closed.
    #[must_use]
    pub fn key_ids(&self) -> Vec<KeyId> {
        keys::key_ids(&self.core)
    }

    /// The id of the key that seals new shards. On a closed manager, the id of the last such key.
    #[must_use]
    pub fn active_key(&self) -> KeyId {
        keys::active_key(&self.core)
    }

    /// Adds a key to the ring. It then opens images, and can be made the active key.
    ///
    /// # Errors
    ///
    /// [`VramError::Key`] if the ring holds a key of that id already.
    pub fn add_key(&self, key: SealKey) -> Result<(), VramError> {
        self.core.watched(Call::AddKey, None, None, 0, || keys::add(&self.core, key))
    }

    /// Makes a key of the ring the active one, which seals. Shards sealed before keep their key;
    /// [`reseal_shard`](Self::reseal_shard) moves a shard to another key.
    ///
    /// # Errors
    ///
    /// [`VramError::Key`] if the ring holds no such key.
    pub fn set_active_key(&self, key: &KeyId) -> Result<(), VramError> {
        self.core.watched(Call::ActivateKey, None, None, 0, || keys::activate(&self.core, key))
    }

    /// Removes a key from the ring and wipes it. Images exported under it can no longer be opened.
    ///
    /// # Errors
    ///
    /// [`VramError::KeyInUse`] while resident or parked shards are sealed under it;
    /// [`VramError::Key`] if it is the active key, or the ring holds no such key.
    pub fn retire_key(&self, key: &KeyId) -> Result<(), VramError> {
        self.core.watched(Call::RetireKey, None, None, 0, || keys::retire(&self.core, key))
    }

    /// Seals a shard anew under another key of the ring, on the same GPU and with the same cipher
    /// and scope. All or nothing; the call opens every segment under the old seal first, so that no
    /// altered byte gets a valid record. Older handles answer [`VramError::StaleHandle`]. A shard
    /// already sealed under that key stays as it is.
    ///
    /// # Errors
    ///
    /// As [`open_resident`](Self::open_resident), and [`VramError::Seal`] if the ring holds no such
    /// key. The shard is then as it was.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn reseal_shard(&self, shard: &SealedShard, key: &KeyId) -> Result<SealedShard, VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        self.core.watched(Call::Reseal, id, None, len, || reseal::reseal(&self.core, shard, key))
    }
}
