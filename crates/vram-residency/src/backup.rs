//! Copies of shards that stay resident, to bring them back from when their device is lost: in host
//! memory, and as sealed images.

use core::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vram_alloc::{ByteLen, Charge};
use vram_seal::SealRecord;

use crate::clock::Timestamp;
use crate::error::VramError;
use crate::id::ShardId;
use crate::manager::parts::Core;
use crate::park;
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

/// Makes a backup. The caller is inside the gate, so the seal stays what it is.
pub(crate) fn back_up(core: &Core, entry: &Arc<Entry>) -> Result<BackupReport, VramError> {
    let copy = park::host_copy(core, entry)?;
    let (shard_id, host_len, at) = (entry.id.clone(), copy.charge.len(), copy.at);
    let older = entry.state().copies.backup.replace(Backup::of(copy));
    drop(older);
    tracing::info!(shard = %entry.id, bytes = host_len.get(), "backed up");
    Ok(BackupReport { shard_id, host_len, at })
}

/// Remembers the image that a shard was written to, if the shard is still sealed as it was.
pub(crate) fn remember_export(core: &Core, shard: &SealedShard, path: &Path, record: &SealRecord) {
    let Some(entry) = core.registry.find(&shard.shard_id) else { return };
    // The working folder may be another when it is needed.
    let path = std::path::absolute(path).unwrap_or_else(|_unknown| path.to_path_buf());
    let mut state = entry.state();
    if state.generation == shard.generation {
        state.copies.exported = Some(Exported { path, record: record.clone() });
    }
}
