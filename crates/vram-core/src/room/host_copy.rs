//! Copies of resident shards from which they are restored if their device is lost: in host memory,
//! and as sealed images.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_id::{ShardId, Timestamp};
use vram_seal::{Protection, SegmentCollector};

use crate::error::VramError;
use crate::parts::Core;
use crate::resident::contents::altered;
use crate::resident::{Anew, contents};
use crate::shard::{Backup, Entry, HostCopy, Seal, SealedShard, View};
use crate::transfer::host::{needed, parked_params};
use crate::transfer::read::zeroed;
use crate::transfer::{Convert, Outward};

/// A backup that a manager holds of a resident shard.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct BackupReport {
    /// The shard.
    pub shard_id: ShardId,
    /// Host bytes that the backup takes from the limit for parked shards.
    pub host_len: ByteLen,
    /// When the backup was made; every segment was verified then.
    pub at: Timestamp,
}

/// Makes a backup. The caller is inside the gate, so the seal does not change.
fn back_up_entry(core: &Core, entry: &Arc<Entry>) -> Result<BackupReport, VramError> {
    // Held until the backup is the shard's: no reset puts another generation in its place before.
    let _pass = entry.here()?.enter()?;
    let copy = host_copy(core, entry)?;
    let (shard_id, host_len, at) = (entry.id.clone(), copy.backup.host_len(), copy.backup.at);
    let older = entry.state().copies.backup.replace(copy.backup);
    drop(older);
    tracing::info!(shard = %entry.id, bytes = host_len.get(), "backed up");
    Ok(BackupReport { shard_id, host_len, at })
}

/// Copies a shard to host memory, encrypted and verified. The shard itself is not changed.
pub(crate) fn host_copy(core: &Core, entry: &Arc<Entry>) -> Result<HostCopy, VramError> {
    entry.not_quarantined()?;
    let view = entry.view()?;
    let len = entry.plaintext_len;
    let (needed, count) = (needed(&view.seal, len), view.seal.opener.layout().count());
    let charge = core.registry.parked.charge(needed)?;
    let mut bytes = zeroed(len)?;
    let seal = match view.seal.protection() {
        Protection::Encrypted => view
            .copy_out(0..count, &mut bytes, &Outward::AsTheyAre { hashes: None })
            .map(|()| Arc::clone(&view.seal)),
        _ => encrypt_out(core, entry, &view, &mut bytes).map(Arc::new),
    };
    let seal = seal.map_err(|error| altered(entry, error))?;
    let backup =
        Box::new(Backup { bytes, seal, resident: view.seal, at: core.clock.now(), charge });
    Ok(HostCopy { entry: Arc::clone(entry), backup })
}

/// Fills `out` with the bytes of an Authenticated shard, encrypted.
fn encrypt_out(core: &Core, entry: &Entry, view: &View, out: &mut [u8]) -> Result<Seal, VramError> {
    let params = parked_params(view);
    let fresh = contents::fresh(core, entry, Anew { params, key: view.seal.key_id() })?;
    let collector = SegmentCollector::new(fresh.one_pass()?)?;
    let sealer = collector.sealer();
    let keep = |segment, sealed| collector.put(segment, sealed);
    let convert = Convert { from: &view.seal.opener, to: sealer };
    let how = Outward::Anew { convert, keep: &keep };
    view.copy_out(0..sealer.layout().count(), out, &how)?;
    contents::finish_seal(core, entry, view, params, collector.finish()?)
}

/// Drops the backup of a shard. Returns true if there was one.
pub fn drop_backup(core: &Core, shard: &SealedShard) -> Result<bool, VramError> {
    core.shared(shard, |entry| {
        let backup = entry.state().copies.backup.take();
        Ok(backup.is_some())
    })
}

/// Makes a backup of a shard; replaces an older one.
pub fn back_up(core: &Core, shard: &SealedShard) -> Result<BackupReport, VramError> {
    core.shared(shard, |entry| back_up_entry(core, entry))
}
