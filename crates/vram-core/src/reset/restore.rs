//! Restores a shard from a copy after its GPU was emptied.

use std::sync::Arc;

use vram_space::Gpu;

use crate::error::VramError;
use crate::models::admit;
use crate::moves::{Landed, WakeError, import, wake};
use crate::parts::gpus::caught;
use crate::parts::{Core, GpuChoice};
use crate::reset::{LostShard, NotRestored, ResetOptions, ResetReport, Restore};
use crate::resident::{Anew, lease, reseal};
use crate::room::{make_room, park};
use crate::shard::{
    Arrived, Backup, Copies, Entry, Exported, HostCopy, Place, Seal, SealedShard, ShardCause, View,
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
        tracing::error!(shard = %entry.id, gpu = gpu.index, %why, "lost with its device");
        self.lost.push(LostShard {
            shard_id: entry.id.clone(),
            model_id: Arc::clone(&entry.holder.model_id),
            owner: entry.holder.owner.clone(),
            bytes: entry.plaintext_len,
            why,
        });
    }
}

/// Restores one shard, if possible, and records the result.
pub(crate) fn restore(
    core: &Core,
    remains: Remains,
    gpu: &Arc<Gpu>,
    options: ResetOptions,
    patience: Deadline,
    report: &mut ResetReport,
) {
    let Remains { entry, copies } = remains;
    let why = match options.restore {
        Restore::Nothing => NotRestored::NotAsked,
        Restore::FromCopies => {
            let targets = targets(core, gpu, options.elsewhere);
            match from_copies(core, &entry, copies, &targets, patience) {
                Ok(Ok(shard)) => return report.restored.push(shard),
                Ok(Err(parked)) => return report.parked.push(parked),
                Err(why) => why,
            }
        }
    };
    report.give_up(core, &entry, gpu, why);
}

/// What became of a shard that has a good copy: resident, or parked with the reason.
type Restored = Result<SealedShard, WakeError>;

fn from_copies(
    core: &Core,
    entry: &Arc<Entry>,
    copies: Copies,
    targets: &[Arc<Gpu>],
    patience: Deadline,
) -> Result<Restored, NotRestored> {
    let Copies { backup, exported } = copies;
    lease::used(core, entry);
    let mut why = NotRestored::NoCopy;
    if let Some(backup) = backup {
        let image = exported.clone();
        entry.change(|state, _told| state.copies.exported = image);
        match wake_backup(core, entry, backup, targets) {
            Ok(restored) => return Ok(restored),
            // The host copy itself is damaged: try the exported image, if there is one.
            Err(error) => why = NotRestored::Failed(error),
        }
    }
    match exported {
        Some(exported) => import_again(core, entry, &exported, targets, patience).map(Ok),
        None => Err(why),
    }
}

/// The GPUs on which the shard may be restored, in this order.
fn targets(core: &Core, gpu: &Arc<Gpu>, elsewhere: bool) -> Vec<Arc<Gpu>> {
    let mut targets = vec![Arc::clone(gpu)];
    if elsewhere && let Ok(others) = admit::choose(core, GpuChoice::MostRoomFirst) {
        targets.extend(others.into_iter().filter(|other| other.index != gpu.index));
    }
    targets
}

/// Wakes a backup on the first GPU that accepts it. The host copy stays as a backup; if no GPU
/// accepts it, the shard is parked.
///
/// # Errors
///
/// The backup is damaged.
fn wake_backup(
    core: &Core,
    entry: &Arc<Entry>,
    backup: Backup,
    targets: &[Arc<Gpu>],
) -> Result<Restored, VramError> {
    let mut copy = HostCopy { entry: Arc::clone(entry), backup };
    let mut refusal = None;
    for target in targets {
        let arrived = caught(core, GpuChoice::One(target.index), || {
            core.check_open()?;
            wake::copy_into(core, &copy, make_room::place_for(core, entry, target)?)
        });
        let error = match arrived {
            Ok(arrived) => {
                // Becomes the shard's backup in the moment in which it is resident: right after it,
                // another call may seal it anew, which ends its copies.
                let HostCopy { entry: owner, backup } = copy;
                let mut backup = Some(backup);
                match (wake::arrive(core, entry, arrived, &mut backup), backup) {
                    (Ok(shard), _) => return Ok(Ok(shard)),
                    (Err(error), Some(backup)) => {
                        copy = HostCopy { entry: owner, backup };
                        error
                    }
                    (Err(error), None) => return Err(error),
                }
            }
            Err(error) => error,
        };
        if matches!(error, VramError::ParkedAltered { .. }) {
            return Err(error);
        }
        // The first error is kept: it is that of the GPU that held the shard.
        refusal.get_or_insert(error);
    }
    let refusal = refusal.unwrap_or(VramError::UnknownGpu { gpu: 0, count: core.gpu_count() });
    let parked = park::leave(core, copy)?;
    Ok(Err(WakeError::new(parked, refusal)))
}

/// Imports the image that a shard was exported to, on the first GPU that accepts it. While calls
/// elsewhere hold the staging memory, it tries again until `patience` ends: a shard that is given up
/// does not come back.
fn import_again(
    core: &Core,
    entry: &Arc<Entry>,
    exported: &Exported,
    targets: &[Arc<Gpu>],
    patience: Deadline,
) -> Result<SealedShard, NotRestored> {
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
                let image = Some(exported.clone());
                entry.change(|state, _told| {
                    // A quarantine of an earlier attempt on another GPU ends.
                    state.quarantine = None;
                    state.copies.exported = image;
                });
                match wake::arrive(core, entry, arrived, &mut None) {
                    Ok(shard) => return Ok(shard),
                    Err(error) => NotRestored::Failed(error),
                }
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
    if seal.record == lost.record {
        return Ok(Arrived { space, verified });
    }
    // An Authenticated shard was encrypted for the image: seal it anew as it was.
    let view = View::of(&mut space, seal)?;
    let anew = Anew { params: lost.params, key: lost.key_id() };
    let (seal, written) = reseal::write(core, entry, &view, anew)?;
    if seal.record != lost.record {
        return Err(vram_seal::SealError::DigestMismatch.into());
    }
    Ok(written.arrived(space))
}
