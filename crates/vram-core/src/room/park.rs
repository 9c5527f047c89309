//! Moves a shard to host memory.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::EventKind;
use vram_id::Timestamp;
use vram_space::Space;

use crate::error::VramError;
use crate::parts::Core;
pub(crate) use crate::room::host_copy::host_copy;
use crate::shard::{Entry, HostCopy, ParkedShard, Place, SealedShard, ShardCause, State, Told};

/// Parks a shard. The caller is exclusive at its gate. After any failure the shard is where it was.
pub(crate) fn park_entry(core: &Core, entry: &Arc<Entry>) -> Result<ParkedShard, VramError> {
    if entry.here()?.lost().is_some() {
        // The bytes on a lost device cannot be read; only a backup can be parked. It is taken in the
        // moment in which the shard leaves: a reset that takes the shard first restores it from
        // this backup.
        let parking = Parking::begin(core);
        let left = entry.change(|state, told| {
            let here = state.space().is_some();
            let backup = if here { state.copies.backup.take()? } else { return None };
            match parking.leaves(entry, state, told, backup.host_len()) {
                Ok(space) => Some((backup, space)),
                Err(_refused) => {
                    state.copies.backup = Some(backup);
                    None
                }
            }
        });
        if let Some((backup, space)) = left {
            let copy = HostCopy { entry: Arc::clone(entry), backup };
            return Ok(parking.parked(core, copy, space));
        }
    }
    leave(core, host_copy(core, entry)?)
}

/// Removes a shard from its GPU after it was copied to host memory. The caller is exclusive at its
/// gate, and was when the shard was copied.
///
/// # Errors
///
/// A reset of its GPU took the shard meanwhile.
pub(crate) fn leave(core: &Core, copy: HostCopy) -> Result<ParkedShard, VramError> {
    let (entry, bytes) = (&copy.entry, copy.backup.host_len());
    let parking = Parking::begin(core);
    let space = entry.change(|state, told| parking.leaves(entry, state, told, bytes))?;
    Ok(parking.parked(core, copy, space))
}

/// One parking of one shard.
struct Parking {
    at: Timestamp,
    number: u64,
}

impl Parking {
    fn begin(core: &Core) -> Self {
        Self { at: core.events.now(), number: core.registry.parked.next_number() }
    }

    /// Makes the transition, and returns the space that the shard had.
    fn leaves(
        &self,
        entry: &Entry,
        state: &mut State,
        told: &Told,
        host_len: ByteLen,
    ) -> Result<Option<Space>, VramError> {
        let gpu = state.gpu_index();
        let next = Place::Parked { host_len, number: self.number };
        let space = state.go(&entry.id, ShardCause::Park, next).map_err(|(_, refused)| refused)?;
        // What was found altered lay on the device; the host copy was verified.
        state.quarantine = None;
        let (shard, bytes) = (entry.id.clone(), host_len);
        told.tell(self.at, EventKind::Parked { shard, gpu, bytes });
        Ok(space)
    }

    fn parked(self, core: &Core, copy: HostCopy, space: Option<Space>) -> ParkedShard {
        let (entry, bytes) = (&copy.entry, copy.backup.host_len());
        // The shard is in host memory; an error while its space is returned does not change that.
        if let Some(Err((bytes, error))) = space.map(Space::give_back) {
            tracing::error!(shard = %entry.id, bytes = bytes.get(), %error, "parked, but its place could not be wiped and stays counted");
        }
        tracing::info!(shard = %entry.id, bytes = bytes.get(), "parked");
        let listed = core.registry.list(entry, self.number);
        ParkedShard { copy: Box::new(copy), listed }
    }
}

/// Parks a shard.
pub fn park(core: &Core, handle: &SealedShard) -> Result<ParkedShard, VramError> {
    core.exclusive(handle, |entry| park_entry(core, entry))
}
