//! Moves a shard to host memory.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::EventKind;
use vram_space::Space;

use crate::error::VramError;
use crate::parts::Core;
pub(crate) use crate::room::host_copy::host_copy;
use crate::shard::{Entry, HostCopy, Listed, ParkedShard, SealedShard, State};

/// Parks a shard. The caller is exclusive at its gate. After any failure the shard is where it was.
pub(crate) fn park_entry(core: &Core, entry: &Arc<Entry>) -> Result<ParkedShard, VramError> {
    if entry.view()?.gpu.lost().is_some() {
        // The bytes on a lost device cannot be read; only a backup can be parked. This is one step
        // under the state's lock, because a reset takes what it finds and does not wait at the
        // gate.
        let mut state = entry.state();
        let backup = if state.space.is_some() { state.copies.backup.take() } else { None };
        if let Some(backup) = backup {
            // The alterations were found on the device, and the backup is older: the quarantine
            // ends.
            state.quarantine = None;
            let copy = HostCopy { entry: Arc::clone(entry), backup };
            let listed = core.registry.list(entry);
            let space = state.vacate(copy.backup.host_len());
            drop(state);
            return Ok(left(core, copy, listed, space));
        }
    }
    Ok(leave(core, host_copy(core, entry)?))
}

/// Removes a shard from its GPU after it was copied to host memory. The caller is exclusive at its
/// gate, and was when the shard was copied.
pub(crate) fn leave(core: &Core, copy: HostCopy) -> ParkedShard {
    let listed = core.registry.list(&copy.entry);
    let space = copy.entry.state().vacate(copy.backup.host_len());
    left(core, copy, listed, space)
}

/// Frees the space of a shard that is in host memory now.
fn left(core: &Core, copy: HostCopy, listed: Listed, space: Option<Space>) -> ParkedShard {
    let entry = &copy.entry;
    let gpu = space.as_ref().map_or(u32::MAX, |space| space.gpu().index);
    // The shard is in host memory; an error while its space is returned does not change that.
    if let Some(Err((bytes, error))) = space.map(Space::give_back) {
        tracing::error!(shard = %entry.id, bytes = bytes.get(), %error, "parked, but its place could not be wiped and stays counted");
    }
    let (shard, bytes) = (entry.id.clone(), copy.backup.host_len());
    tracing::info!(%shard, bytes = bytes.get(), "parked");
    core.events.emit(EventKind::Parked { shard, gpu, bytes });
    ParkedShard { copy: Box::new(copy), listed }
}

impl State {
    /// Marks the shard as parked with `host_len` host bytes, and returns the space that it had.
    fn vacate(&mut self, host_len: ByteLen) -> Option<Space> {
        self.parked = true;
        self.host_len = host_len;
        self.space.take()
    }
}

/// Parks a shard.
pub fn park(core: &Core, handle: &SealedShard) -> Result<ParkedShard, VramError> {
    core.exclusive(handle, |entry| park_entry(core, entry))
}
