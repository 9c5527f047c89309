//! Parks a shard in host memory, and wakes it; both directions verify every segment.
//!
//! ```text
//!  park                                     wake
//!   1 host memory, in the ledger             1 a placement on any GPU
//!   2 each window: read, open, keep sealed   2 each window: host → staging → device
//!     (Authenticated: encrypt what is kept)    (Authenticated: opened in staging)
//!   3 handles answer `Parked`                3 every segment is opened at the target
//!   4 the device bytes are wiped             4 handles are valid again
//! ```
//!
//! The shard keeps its id, its seal and its record. When it is woken, its bytes are compared with
//! the record under which it was parked, so no altered byte returns as a valid one.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::EventKind;
use vram_space::Space;

use crate::error::VramError;
use crate::moves::WakeError;
use crate::parts::gpus::caught;
use crate::parts::{Core, GpuChoice};
use crate::room::make_room;
use crate::shard::{Arrived, Moment, ParkedShard, SealedShard, View};

/// Copies a parked shard to a placement on a GPU and verifies it there. The shard is not resident
/// yet.
pub(crate) fn copy_back(core: &Core, parked: &ParkedShard, gpu: u32) -> Result<Arrived, VramError> {
    core.check_open()?;
    check_own(core, parked)?;
    let space = make_room::place_for(core, &parked.copy.entry, core.gpu(gpu)?)?;
    copy_into(core, parked, space)
}

/// # Errors
///
/// [`VramError::ForeignHandle`] if another manager parked the shard.
pub(crate) fn check_own(core: &Core, parked: &ParkedShard) -> Result<(), VramError> {
    if parked.listed.is_in(&core.registry.parked) {
        Ok(())
    } else {
        Err(VramError::ForeignHandle { shard: parked.shard_id().clone() })
    }
}

/// Writes a parked shard to its placement on a GPU, and opens every segment there.
pub(crate) fn copy_into(
    core: &Core,
    parked: &ParkedShard,
    mut space: Space,
) -> Result<Arrived, VramError> {
    space.written()?;
    let view = View::of(&space, Arc::clone(&parked.copy.backup.resident));
    let began = Moment::now(&*core.clock);
    parked.copy.copy_in(&view)?;
    Ok(Arrived { space, verified: Some(began) })
}

/// Makes a parked shard resident where a verified copy of it lies. The host copy is freed, or stays
/// as the shard's backup.
pub(crate) fn return_to(
    core: &Core,
    parked: ParkedShard,
    arrived: Arrived,
    keep_copy: bool,
) -> SealedShard {
    let now = Moment::now(&*core.clock);
    let Arrived { mut space, verified } = arrived;
    let ParkedShard { copy, listed } = parked;
    // Before the shard is resident: from then on another thread can find it and park it again.
    listed.woken();
    space.commit();
    let gpu = space.gpu().index;
    let entry = Arc::clone(&copy.entry);
    // Take the gate first, so that no other call can emit an event for this shard before `Woken`. A
    // thread that entered the gate while the shard was parked leaves at once.
    let _pass = entry.gate.exclusive();
    let mut state = entry.state();
    space.finish_placing();
    state.space = Some(space);
    state.parked = false;
    state.host_len = ByteLen::ZERO;
    state.ages.arrived(now, verified);
    if keep_copy {
        state.copies.backup = Some(copy.backup);
    }
    // Read while the state is locked: another thread may park the shard again right after.
    let stated = state.stated(&entry);
    drop(state);
    let (shard, bytes) = (entry.id.clone(), entry.plaintext_len);
    tracing::info!(%shard, gpu, bytes = bytes.get(), "woken");
    core.events.emit(EventKind::Woken { shard, gpu, bytes });
    core.marker.handle(stated)
}

/// Makes a parked shard resident again. After any failure, the parked shard is returned unchanged.
pub fn wake(core: &Core, parked: ParkedShard, gpu: u32) -> Result<SealedShard, WakeError> {
    // A panic of the device must not drop the parked shard.
    let gpus = GpuChoice::One(gpu);
    match caught(core, gpus, || copy_back(core, &parked, gpu)) {
        Ok(space) => Ok(return_to(core, parked, space, false)),
        Err(error) => Err(WakeError::new(parked, error)),
    }
}
