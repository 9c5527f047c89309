//! Moves a shard to another GPU, and verifies it there before the source is freed.

use core::time::Duration;
use std::sync::Arc;

use vram_events::EventKind;
use vram_seal::parallel::map_each;
use vram_seal::{AlteredSegments, Checked};
use vram_space::Space;

use crate::error::VramError;
use crate::moves::links;
use crate::parts::Core;
use crate::resident::lease;
use crate::room::make_room;
use crate::shard::entry::arrive::arrive_all;
use crate::shard::{Arrived, Check, Entry, Moment, SealedShard, ShardCause, View};
use crate::transfer::copy::{copy_by_peer, copy_staged};
use crate::transfer::kernels::Looked;

/// Moves a shard. After any failure the shard is where it was.
pub fn migrate(core: &Core, handle: &SealedShard, gpu: u32) -> Result<SealedShard, VramError> {
    core.exclusive(handle, |entry| migrate_entry(core, entry, gpu))
}

/// Moves a shard. The caller is exclusive at its gate.
pub(crate) fn migrate_entry(
    core: &Core,
    entry: &Entry,
    gpu: u32,
) -> Result<SealedShard, VramError> {
    let target = core.gpu(gpu)?;
    entry.not_quarantined()?;
    let view = entry.view()?;
    if view.gpu.index != target.index {
        move_entry(core, entry, &view, &Arc::clone(target))?;
    }
    Ok(core.handle(entry))
}

fn move_entry(
    core: &Core,
    entry: &Entry,
    source: &View,
    target: &Arc<vram_space::Gpu>,
) -> Result<(), VramError> {
    let arrived = copy_to(core, entry, source, make_room::place_for(core, entry, target)?)?;
    settle_in(core, entry, arrived)?;
    tracing::info!(shard = %entry.id, from = source.gpu.index, to = target.index, "migrated");
    Ok(())
}

/// Copies a shard to another placement and verifies it there. The shard itself is not changed.
pub(crate) fn copy_to(
    core: &Core,
    entry: &Entry,
    source: &View,
    mut space: Space,
) -> Result<Arrived, VramError> {
    space.written()?;
    let moved = View::of(&mut space, Arc::clone(&source.seal))?;
    let began = Moment::now(&*core.clock);
    let by = copy_verified(core, entry, source, &moved)?;
    Ok(Arrived { space, verified: Some(Check { began, by }) })
}

/// Makes a verified copy the shard's present placement, and returns the old space to its GPU.
///
/// # Errors
///
/// As [`settle_all`].
pub(crate) fn settle_in(core: &Core, entry: &Entry, arrived: Arrived) -> Result<(), VramError> {
    settle_all(core, vec![(entry, arrived)])
}

/// Makes verified copies the present placements of shards, all in one moment, and returns the old
/// spaces to their GPUs.
///
/// # Errors
///
/// [`VramError::DeviceLost`] if a target was lost meanwhile: every shard is where it was.
pub(crate) fn settle_all(core: &Core, copies: Vec<(&Entry, Arrived)>) -> Result<(), VramError> {
    let now = Moment::now(&*core.clock);
    let entries: Vec<_> = copies
        .iter()
        .map(|(entry, arrived)| (*entry, entry.state().gpu_index(), arrived.verified))
        .collect();
    let coming = copies.into_iter().map(|(entry, arrived)| (entry, arrived.space)).collect();
    let moved = arrive_all(coming, ShardCause::Move, |index, state, told| {
        let Some((entry, from, verified)) = entries.get(index) else { return };
        state.ages.arrived(now, *verified);
        let (shard, to, bytes) = (entry.id.clone(), state.gpu_index(), entry.plaintext_len);
        told.tell(now.wall, EventKind::Moved { shard, from: *from, to, bytes });
    });
    // Wiping what they leave takes as long as writing it.
    let returned = map_each(core.threads, moved?, |old| {
        Ok::<_, VramError>(old.and_then(|space| space.give_back().err()))
    })?;
    for ((entry, ..), failed) in entries.iter().zip(returned) {
        // The shard has moved; an error while its old space is returned does not change that.
        if let Some((bytes, error)) = failed {
            tracing::warn!(shard = %entry.id, bytes = bytes.get(), %error, "moved, but the old place stays counted");
        }
    }
    Ok(())
}

/// Copies a shard, and looks at every segment at its new placement. Returns what that rests on.
fn copy_verified(
    core: &Core,
    entry: &Entry,
    source: &View,
    target: &View,
) -> Result<Checked, VramError> {
    let link = (source.gpu.index, target.gpu.index);
    let peer = !core.links.is_distrusted(link.0, link.1)
        && target.gpu.device.can_copy_from_peer(&*source.gpu.device);
    let mut peer_altered = false;
    if peer && copy_by_peer(source, target)?.is_continue() {
        let Looked { altered, checked } = target.look_at_arrival()?;
        if altered.is_empty() {
            return Ok(checked);
        }
        // Some peer links report success and deliver other bytes: copy once more through the host.
        peer_altered = true;
        tracing::warn!(
            shard = %entry.id,
            from = source.gpu.index,
            to = target.gpu.index,
            segments = %AlteredSegments::from(altered),
            "the peer copy did not verify, staging through the host"
        );
    }
    copy_staged(source, target)?;
    let Looked { altered: arrived_altered, checked } = target.look_at_arrival()?;
    if arrived_altered.is_empty() {
        if peer_altered {
            // The source is sound, and the copy through the host arrived: the link altered the
            // bytes.
            links::distrust(core, link.0, link.1);
        }
        return Ok(checked);
    }
    // Either the source was altered, or the transfer altered the bytes. Checking the source decides
    // which.
    let segments = source.altered()?;
    if segments.is_empty() {
        let gpu = target.gpu.index;
        return Err(VramError::WriteNotKept { gpu, segments: arrived_altered.into() });
    }
    entry.quarantine(&segments);
    Err(VramError::ShardAltered { shard: entry.id.clone(), segments: segments.into() })
}

/// Moves a shard, waiting for other calls no longer than `timeout`.
pub fn migrate_within(
    core: &Core,
    handle: &SealedShard,
    gpu: u32,
    timeout: Duration,
) -> Result<SealedShard, VramError> {
    lease::exclusive_within(core, handle, timeout, |entry| migrate_entry(core, entry, gpu))
}
