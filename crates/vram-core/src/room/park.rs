//! Moves a shard to host memory.

use std::sync::Arc;

use vram_events::{EventKind, EvictedFor};
use vram_space::Space;

use crate::error::VramError;
use crate::parts::Core;
pub(crate) use crate::room::host_copy::host_copy;
use crate::shard::{Backup, Entry, HostCopy, ParkedShard, Place, SealedShard, ShardCause, State};

/// Parks a shard. The caller is exclusive at its gate. After any failure the shard is where it was.
pub(crate) fn park_entry(core: &Core, entry: &Arc<Entry>) -> Result<ParkedShard, VramError> {
    if entry.here()?.lost().is_some() {
        // The bytes on a lost device cannot be read; only a backup can be parked. It is taken in the
        // moment in which it counts: a reset that comes before restores the shard from it.
        if let Some(parked) = leave_as(core, entry, None, |state| state.copies.backup.take())? {
            return Ok(parked);
        }
    }
    leave(core, host_copy(core, entry)?)
}

/// Removes a shard from its GPU because the program says so: see [`leave_for`].
pub(crate) fn leave(core: &Core, copy: HostCopy) -> Result<ParkedShard, VramError> {
    leave_for(core, copy, None)
}

/// Removes a shard from its GPU after it was copied to host memory. The caller is exclusive at its
/// gate, and was when the shard was copied.
///
/// # Errors
///
/// A reset of its GPU took the shard meanwhile.
pub(crate) fn leave_for(
    core: &Core,
    copy: HostCopy,
    evicted_for: Option<&Arc<EvictedFor>>,
) -> Result<ParkedShard, VramError> {
    let HostCopy { entry, backup } = copy;
    let gone = || VramError::ShardFreed { shard: entry.id.clone() };
    leave_as(core, &entry, evicted_for, |_state| Some(backup))?.ok_or_else(gone)
}

/// Removes a shard from its GPU as the copy that `take` finds; `None` if it finds none.
fn leave_as(
    core: &Core,
    entry: &Arc<Entry>,
    evicted_for: Option<&Arc<EvictedFor>>,
    take: impl FnOnce(&mut State) -> Option<Box<Backup>>,
) -> Result<Option<ParkedShard>, VramError> {
    let at = core.events.now();
    let number = core.registry.parked.next_number();
    let gone = entry.change(|state, told| {
        let gpu = state.gpu_index();
        state.place().allows(ShardCause::Park, &entry.id)?;
        let Some(backup) = take(state) else { return Ok(None) };
        let bytes = backup.host_len();
        let evicted_for = evicted_for.map(Arc::clone);
        let next = Place::Parked { host_len: bytes, number, evicted_for };
        let space = state.go(&entry.id, ShardCause::Park, next)?;
        // What was found altered lay on the device; the host copy was verified.
        state.quarantine = None;
        told.tell(at, EventKind::Parked { shard: entry.id.clone(), gpu, bytes });
        Ok::<_, VramError>(Some((space, backup)))
    });
    let Some((space, backup)) = gone? else { return Ok(None) };
    // The shard is in host memory; an error while its space is returned does not change that.
    if let Some(Err((bytes, error))) = space.map(Space::give_back) {
        tracing::error!(shard = %entry.id, bytes = bytes.get(), %error, "parked, but its place could not be wiped and stays counted");
    }
    tracing::info!(shard = %entry.id, bytes = backup.host_len().get(), "parked");
    let listed = core.registry.list(entry, number);
    let copy = HostCopy { entry: Arc::clone(entry), backup };
    Ok(Some(ParkedShard { copy: Box::new(copy), listed }))
}

/// Parks a shard.
pub fn park(core: &Core, handle: &SealedShard) -> Result<ParkedShard, VramError> {
    core.exclusive(handle, |entry| park_entry(core, entry))
}
