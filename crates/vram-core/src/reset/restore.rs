//! Brings a shard from a copy to a GPU after its own was emptied.

use std::sync::Arc;

use vram_space::Gpu;

use crate::error::VramError;
use crate::models::admit;
use crate::moves::{Landed, import, wake};
use crate::parts::gpus::caught;
use crate::parts::{Core, GpuChoice};
use crate::reset::{LostShard, NotRestored, ResetReport};
use crate::resident::{Anew, lease, reseal};
use crate::room::make_room;
use crate::shard::{
    Arrived, Backup, Copies, Entry, Exported, HostCopy, Place, Seal, ShardCause, View,
};
use crate::sync::Deadline;

/// What is left of a shard whose GPU was emptied: its next generation, which is being restored, and
/// the copies of it.
pub(crate) struct Remains {
    pub(crate) entry: Arc<Entry>,
    pub(crate) copies: Copies,
}

impl ResetReport {
    /// Records that a shard is lost. Has no effect on one that was restored.
    pub(crate) fn give_up(&mut self, core: &Core, entry: &Entry, gpu: &Gpu, why: NotRestored) {
        let gone =
            entry.change(|state, _told| state.go(&entry.id, ShardCause::GiveUp, Place::Gone));
        if gone.is_err() {
            return;
        }
        core.registry.remove(&entry.id);
        drop(entry.take_seat());
        // What a forced reset takes from a working device was asked for.
        if self.was_lost || matches!(why, NotRestored::Failed(_)) {
            tracing::error!(shard = %entry.id, gpu = gpu.index, %why, "lost with its device");
        } else {
            tracing::warn!(shard = %entry.id, gpu = gpu.index, %why, "given up by a forced reset");
        }
        self.lost.push(LostShard {
            shard_id: entry.id.clone(),
            model_id: Arc::clone(&entry.holder().model_id),
            owner: entry.holder().owner.clone(),
            bytes: entry.plaintext_len,
            why,
        });
    }
}

/// The copies of one shard, tried one after the other until one lies on a GPU, verified. The shard is
/// not resident yet.
///
/// # Errors
///
/// No copy is good, or the image has no room. A good backup is left where it has none.
pub(crate) fn bring(
    core: &Core,
    entry: &Arc<Entry>,
    copies: Copies,
    targets: &[Arc<Gpu>],
    patience: Deadline,
) -> Result<Brought, NotRestored> {
    let Copies { backup, exported } = copies;
    lease::used(core, entry);
    let mut why = NotRestored::NoCopy;
    if let Some(backup) = backup {
        let image = exported.clone();
        entry.change(|state, _told| state.copies.exported = image);
        match bring_backup(core, entry, backup, targets) {
            Ok(brought) => return Ok(brought),
            // The host copy itself is damaged: try the exported image, if there is one.
            Err(error) => why = NotRestored::Failed(error),
        }
    }
    match exported {
        Some(exported) => import_again(core, entry, &exported, targets, patience),
        None => Err(why),
    }
}

/// Where a good copy of a shard is.
pub(crate) enum Brought {
    /// On a GPU; with the backup that it came from, which becomes the shard's in the moment in which
    /// it is resident: right after it, another call may seal it anew, which ends its copies.
    There(Arrived, Option<Box<Backup>>),
    /// In host memory: no GPU accepted it.
    Left(Box<Backup>, VramError),
}

/// The GPUs on which a shard may be restored, in this order.
pub(crate) fn targets(core: &Core, gpu: &Arc<Gpu>, elsewhere: bool) -> Vec<Arc<Gpu>> {
    let mut targets = vec![Arc::clone(gpu)];
    if elsewhere && let Ok(others) = admit::choose(core, GpuChoice::MostRoomFirst) {
        targets.extend(others.into_iter().filter(|other| other.index != gpu.index));
    }
    targets
}

/// Copies a backup to the first GPU that accepts it.
///
/// # Errors
///
/// The backup is damaged.
fn bring_backup(
    core: &Core,
    entry: &Arc<Entry>,
    backup: Box<Backup>,
    targets: &[Arc<Gpu>],
) -> Result<Brought, VramError> {
    let copy = HostCopy { entry: Arc::clone(entry), backup };
    let mut refusal = None;
    for target in targets {
        let arrived = caught(core, GpuChoice::One(target.index), || {
            core.check_open()?;
            wake::copy_into(core, &copy, make_room::place_for(core, entry, target)?)
        });
        match arrived {
            Ok(arrived) => return Ok(Brought::There(arrived, Some(copy.backup))),
            Err(error @ VramError::ParkedAltered { .. }) => return Err(error),
            // The first error is kept: it is that of the GPU that held the shard.
            Err(error) => {
                refusal.get_or_insert(error);
            }
        }
    }
    let refusal = refusal.unwrap_or(VramError::UnknownGpu { gpu: 0, count: core.gpu_count() });
    Ok(Brought::Left(copy.backup, refusal))
}

/// Imports the image that a shard was exported to, on the first GPU that accepts it. While calls
/// elsewhere hold the staging memory, it tries again until `patience` ends: a shard that is given up
/// does not come back.
fn import_again(
    core: &Core,
    entry: &Arc<Entry>,
    exported: &Arc<Exported>,
    targets: &[Arc<Gpu>],
    patience: Deadline,
) -> Result<Brought, NotRestored> {
    let seal = Arc::clone(&entry.state().seal);
    let mut refusal = None;
    for target in targets {
        let brought = loop {
            let brought = caught(core, GpuChoice::One(target.index), || {
                let landed =
                    import::bring_back(core, &entry.sealed_as, exported, &seal, target, || {
                        make_room::place_for(core, entry, target)
                    })?;
                landed.map(|landed| as_it_was(core, entry, landed, &seal)).transpose()
            });
            let wait = matches!(brought, Err(VramError::StagingLimit { .. }));
            if !wait || patience.has_passed() || core.check_open().is_err() {
                break brought;
            }
        };
        let failure = match brought {
            Ok(Some(arrived)) => {
                let image = Some(Arc::clone(exported));
                entry.change(|state, _told| {
                    // A quarantine of an earlier attempt on another GPU ends.
                    state.quarantine = None;
                    state.copies.exported = image;
                });
                return Ok(Brought::There(arrived, None));
            }
            Ok(None) => NotRestored::OtherImage,
            Err(error) => NotRestored::Failed(error),
        };
        refusal.get_or_insert(failure);
    }
    Err(refusal.unwrap_or(NotRestored::NoCopy))
}

/// The imported image with the seal that the shard had.
fn as_it_was(
    core: &Core,
    entry: &Entry,
    landed: Landed,
    lost: &Arc<Seal>,
) -> Result<Arrived, VramError> {
    let Landed { seal, mut space, verified } = landed;
    if seal.record() == lost.record() {
        return Ok(Arrived { space, verified });
    }
    // An Authenticated shard was encrypted for the image: seal it anew as it was.
    let view = View::of(&mut space, seal)?;
    let anew = Anew { params: lost.params, key: lost.key_id() };
    let (seal, written) = reseal::write(core, entry, &view, anew)?;
    if seal.record() != lost.record() {
        return Err(vram_seal::SealError::DigestMismatch.into());
    }
    Ok(written.arrived(space))
}
