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

use vram_events::EventKind;
use vram_seal::parallel::map_each;
use vram_space::Space;

use crate::error::VramError;
use crate::moves::WakeError;
use crate::parts::gpus::caught;
use crate::parts::{Core, GpuChoice};
use crate::room::make_room;
use crate::shard::entry::arrive;
use crate::shard::{
    Arrived, Backup, Check, Entry, HostCopy, Moment, ParkedShard, SealedShard, ShardCause, View,
};

/// Copies a parked shard to a placement on a GPU and verifies it there. The shard is not resident
/// yet.
pub(crate) fn copy_back(core: &Core, parked: &ParkedShard, gpu: u32) -> Result<Arrived, VramError> {
    core.check_open()?;
    check_own(core, parked)?;
    let space = make_room::place_for(core, &parked.copy.entry, core.gpu(gpu)?)?;
    copy_into(core, &parked.copy, space)
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
    copy: &HostCopy,
    mut space: Space,
) -> Result<Arrived, VramError> {
    space.written()?;
    let view = View::of(&mut space, Arc::clone(&copy.backup.resident))?;
    let began = Moment::now(&*core.clock);
    let by = copy.copy_in(&view)?;
    Ok(Arrived { space, verified: Some(Check { began, by }) })
}

/// Makes shards resident where verified copies of them lie, all in one moment. Of each whose place in
/// `backups` holds one, the backup is kept and taken from there. `model` is told after the last of
/// them, in the same moment: they are a whole model.
///
/// # Errors
///
/// [`VramError::DeviceLost`] if a GPU was lost meanwhile: every shard is as it was.
pub(crate) fn arrive_all(
    core: &Core,
    shards: Vec<(&Entry, Arrived)>,
    backups: &mut [Option<Box<Backup>>],
    mut model: Option<EventKind>,
) -> Result<Vec<SealedShard>, VramError> {
    let now = Moment::now(&*core.clock);
    let entries: Vec<_> =
        shards.iter().map(|(entry, arrived)| (*entry, arrived.verified)).collect();
    let coming = shards.into_iter().map(|(entry, arrived)| (entry, arrived.space)).collect();
    let mut stated = Vec::with_capacity(entries.len());
    let arrived = arrive::arrive_all(coming, ShardCause::Wake, |index, state, told| {
        let Some((entry, verified)) = entries.get(index) else { return };
        state.ages.arrived(now, *verified);
        if let Some(backup) = backups.get_mut(index).and_then(Option::take) {
            state.copies.backup = Some(backup);
        }
        // Read in the same moment: another thread may park the shard again right after.
        let now_stated = state.stated(entry);
        let (gpu, bytes) = (now_stated.gpu_index, entry.plaintext_len);
        told.tell(now.wall, EventKind::Woken { shard: entry.id.clone(), gpu, bytes });
        stated.push(now_stated);
        if stated.len() == entries.len()
            && let Some(model) = model.take()
        {
            told.tell_model(now.wall, model);
        }
    });
    arrived?;
    for one in &stated {
        let (id, gpu, bytes) = (&one.shard_id, one.gpu_index, one.plaintext_len);
        tracing::info!(shard = %id, gpu, bytes, "woken");
    }
    map_each(core.threads, stated, |stated| Ok(core.marker.handle(stated)))
}

/// Makes one shard resident, as [`arrive_all`].
pub(crate) fn arrive(
    core: &Core,
    entry: &Entry,
    arrived: Arrived,
    backup: &mut Option<Box<Backup>>,
) -> Result<SealedShard, VramError> {
    let woken = arrive_all(core, vec![(entry, arrived)], core::slice::from_mut(backup), None)?;
    woken.into_iter().next().ok_or_else(|| VramError::ShardFreed { shard: entry.id.clone() })
}

/// Makes a parked shard resident again. After any failure, the parked shard is returned unchanged.
pub fn wake(core: &Core, parked: ParkedShard, gpu: u32) -> Result<SealedShard, WakeError> {
    // A panic of the device must not drop the parked shard.
    let gpus = GpuChoice::One(gpu);
    // Not a call on the whole model, but the model is another one afterwards.
    let member = parked.copy.entry.member();
    let _waking = member.map(|member| member.model.hold());
    let woken = caught(core, gpus, || copy_back(core, &parked, gpu))
        .and_then(|arrived| arrive(core, &parked.copy.entry, arrived, &mut None));
    // The parked shard is dropped with its host copy once the shard is resident.
    woken.map_err(|error| WakeError::new(parked, error))
}
