//! Moving a shard to host memory.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::EventKind;
use vram_space::Space;

use crate::error::VramError;
use crate::parts::Core;
pub(crate) use crate::room::host_copy::host_copy;
use crate::shard::{Entry, HostCopy, Listed, ParkedShard, SealedShard, State};

/// Parks a shard. The caller is exclusive at its gate. On any failure it is where it was.
pub(crate) fn park_entry(core: &Core, entry: &Arc<Entry>) -> Result<ParkedShard, VramError> {
    if entry.view()?.gpu.lost().is_some() {
        // Out of reach there; a backup is all that can be taken anywhere else. In one step: a
        // reset, which asks at no gate, takes what it finds.
        let mut state = entry.state();
        let backup = if state.space.is_some() { state.copies.backup.take() } else { None };
        if let Some(backup) = backup {
            // What was found on the device goes with it: the copy is of before.
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

/// Lets a shard that was copied to host memory leave its GPU. The caller is exclusive at its
/// gate, and was when it was copied.
pub(crate) fn leave(core: &Core, copy: HostCopy) -> ParkedShard {
    let listed = core.registry.list(&copy.entry);
    let space = copy.entry.state().vacate(copy.backup.host_len());
    left(core, copy, listed, space)
}

/// Gives up the place that a shard in host memory had.
fn left(core: &Core, copy: HostCopy, listed: Listed, space: Option<Space>) -> ParkedShard {
    let entry = &copy.entry;
    let gpu = space.as_ref().map_or(u32::MAX, |space| space.gpu().index);
    // The shard is in host memory; what becomes of its place changes nothing about that.
    if let Some(Err((bytes, error))) = space.map(Space::give_back) {
        tracing::error!(shard = %entry.id, bytes = bytes.get(), %error, "parked, but its place could not be wiped and stays counted");
    }
    let (shard, bytes) = (entry.id.clone(), copy.backup.host_len());
    tracing::info!(%shard, bytes = bytes.get(), "parked");
    core.events.emit(EventKind::Parked { shard, gpu, bytes });
    ParkedShard { copy: Box::new(copy), listed }
}

impl State {
    /// The shard is in host memory from now on, of so many bytes. The place that it had.
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
