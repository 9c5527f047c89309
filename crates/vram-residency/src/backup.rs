//! Copies of shards that stay resident, to bring them back from when their device is lost: in host
//! memory, and as sealed images.

use core::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vram_alloc::{ByteLen, Charge};
use vram_seal::SealRecord;

use crate::call::Call;
use crate::clock::Timestamp;
use crate::error::VramError;
use crate::id::ShardId;
use crate::manager::{Core, VramManager};
use crate::parked::HostCopy;
use crate::registry::{Entry, Seal};
use crate::shard::SealedShard;

/// A backup that a manager keeps of a resident shard.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct BackupReport {
    /// The shard.
    pub shard_id: ShardId,
    /// Host bytes that it takes of the limit for parked shards.
    pub host_len: ByteLen,
    /// When it was made: every segment was verified then.
    pub at: Timestamp,
}

/// What there is of a shard elsewhere. Only of its present seal: sealing it anew forgets them.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    pub(crate) backup: Option<Backup>,
    pub(crate) exported: Option<Exported>,
}

/// The sealed bytes of a resident shard in host memory. A [`HostCopy`] that knows nothing of its
/// entry, which holds it.
pub(crate) struct Backup {
    bytes: Vec<u8>,
    seal: Arc<Seal>,
    resident: Arc<Seal>,
    at: Timestamp,
    charge: Charge,
}

/// A sealed image that the shard was written to.
#[derive(Clone, Debug)]
pub(crate) struct Exported {
    pub(crate) path: PathBuf,
    pub(crate) record: SealRecord,
}

impl Backup {
    pub(crate) fn of(copy: HostCopy) -> Self {
        let HostCopy { entry: _, bytes, seal, resident, at, charge } = copy;
        Self { bytes, seal, resident, at, charge }
    }

    pub(crate) fn host_len(&self) -> ByteLen {
        self.charge.len()
    }

    pub(crate) fn into_copy(self, entry: Arc<Entry>) -> HostCopy {
        let Self { bytes, seal, resident, at, charge } = self;
        HostCopy { entry, bytes, seal, resident, at, charge }
    }
}

impl fmt::Debug for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup").field("host_len", &self.charge.len()).finish_non_exhaustive()
    }
}

impl VramManager {
    /// Keeps a copy of a shard in host memory, encrypted, while the shard stays resident. Every
    /// segment is verified on the way. [`reset_gpu`](Self::reset_gpu) brings the shard back from it
    /// after its device was lost, and [`park`](Self::park) takes it where the device is gone for
    /// good.
    ///
    /// It is the copy of one seal: opening, closing and resealing the shard drop it, as freeing
    /// does. A shard that moves, is parked or woken keeps it. Asking again makes it anew.
    ///
    /// # Errors
    ///
    /// Those of a bad handle; [`VramError::Quarantined`]; [`VramError::ParkLimit`], also where there
    /// is no room for the new copy beside the old one; [`VramError::ShardAltered`] if the device
    /// bytes are not those that were sealed (the shard is in quarantine then); [`VramError::Seal`]
    /// if the key of an Authenticated shard is no longer in the ring; [`VramError::HostMemory`],
    /// [`VramError::Device`], [`VramError::DeviceLost`]. An older backup stays as it was.
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::VramManager;
    ///
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let shard = manager.seal_model("llama-3-8b", 0, b"weights")?;
    /// let backup = manager.back_up(&shard)?;
    /// assert_eq!(manager.park_capacity().used, backup.host_len);
    /// assert!(manager.report().shards[0].backed_up);
    ///
    /// manager.free_shard(&shard)?;
    /// assert!(manager.park_capacity().used.is_zero());
    /// # Ok::<(), vram_residency::VramError>(())
    /// ```
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn back_up(&self, shard: &SealedShard) -> Result<BackupReport, VramError> {
        let (id, gpu, bytes) = (&shard.shard_id, shard.gpu_index, shard.plaintext_len);
        self.core.watched(Call::BackUp, Some(id), Some(gpu), bytes, || {
            self.core.shared(shard, |entry| self.core.back_up(entry))
        })
    }

    /// Drops the backup of a shard, and gives its host memory back. Says whether there was one.
    ///
    /// # Errors
    ///
    /// Those of a bad handle.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id))]
    pub fn drop_backup(&self, shard: &SealedShard) -> Result<bool, VramError> {
        self.core.watched(Call::BackUp, Some(&shard.shard_id), Some(shard.gpu_index), 0, || {
            self.core.shared(shard, |entry| {
                let backup = entry.state().copies.backup.take();
                Ok(backup.is_some())
            })
        })
    }
}

impl Core {
    /// Makes a backup. The caller is inside the gate, so the seal stays what it is.
    fn back_up(&self, entry: &Arc<Entry>) -> Result<BackupReport, VramError> {
        let copy = self.host_copy(entry)?;
        let (shard_id, host_len, at) = (entry.id.clone(), copy.charge.len(), copy.at);
        let older = entry.state().copies.backup.replace(Backup::of(copy));
        drop(older);
        tracing::info!(shard = %entry.id, bytes = host_len.get(), "backed up");
        Ok(BackupReport { shard_id, host_len, at })
    }

    /// Remembers the image that a shard was written to, if the shard is still sealed as it was.
    pub(crate) fn remember_export(&self, shard: &SealedShard, path: &Path, record: &SealRecord) {
        let Some(entry) = self.registry.find(&shard.shard_id) else { return };
        // The working folder may be another when it is needed.
        let path = std::path::absolute(path).unwrap_or_else(|_unknown| path.to_path_buf());
        let mut state = entry.state();
        if state.generation == shard.generation {
            state.copies.exported = Some(Exported { path, record: record.clone() });
        }
    }
}
