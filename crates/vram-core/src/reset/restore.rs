//! Restores a lost shard from a copy.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::EventKind;
use vram_space::Gpu;

use crate::error::VramError;
use crate::models::admit;
use crate::moves::{Landed, WakeError, import, wake};
use crate::parts::gpus::caught;
use crate::parts::{Core, GpuChoice};
use crate::reset::{LostShard, NotRestored, ResetOptions, ResetReport, Restore};
use crate::resident::{Anew, lease, reseal};
use crate::room::make_room;
use crate::sealing::entry;
use crate::shard::{
    Ages, Backup, Copies, Entry, Exported, HostCopy, Moment, ParkedShard, Seal, SealedShard,
    Standing, State,
};

/// The parts of a lost shard that remain without its memory.
pub(crate) struct Remains {
    pub(crate) entry: Arc<Entry>,
    pub(crate) seal: Arc<Seal>,
    pub(crate) generation: u64,
    pub(crate) copies: Copies,
}

impl ResetReport {
    /// Records that a shard is lost.
    pub(crate) fn give_up(&mut self, entry: &Entry, gpu: &Gpu, why: NotRestored) {
        // A lease may hold the entry for a long time; the slot in the count of shards is released
        // now.
        drop(entry.take_seat());
        tracing::error!(shard = %entry.id, gpu = gpu.index, %why, "lost with its device");
        self.lost.push(LostShard {
            shard_id: entry.id.clone(),
            model_id: Arc::clone(&entry.sealed_as.model_id),
            owner: entry.owner.clone(),
            bytes: entry.plaintext_len,
            why,
        });
    }
}

/// Restores one shard, if possible, and records the result.
pub(crate) fn restore(
    core: &Core,
    mut remains: Remains,
    gpu: &Arc<Gpu>,
    options: ResetOptions,
    report: &mut ResetReport,
) {
    let targets = targets(core, gpu, options.elsewhere);
    let copies = core::mem::take(&mut remains.copies);
    let mut why = match options.restore {
        Restore::Nothing => NotRestored::NotAsked,
        Restore::FromCopies => NotRestored::NoCopy,
    };
    if options.restore == Restore::FromCopies {
        let Copies { backup, exported } = copies;
        if let Some(backup) = backup {
            let bytes = backup.host_len();
            match next_generation(core, &remains) {
                Ok(entry) => {
                    match wake_backup(core, entry, backup, exported.clone(), &targets) {
                        Ok(shard) => return report.restored.push(shard),
                        // The host copy itself is damaged: try the exported image, if there is one.
                        Err(failed) if is_no_good(failed.error()) => {
                            why = NotRestored::Failed(failed.error().clone());
                        }
                        Err(failed) => {
                            core.events.emit(EventKind::Parked {
                                shard: remains.entry.id.clone(),
                                gpu: gpu.index,
                                bytes,
                            });
                            return report.parked.push(failed);
                        }
                    }
                }
                Err(error) => why = NotRestored::Failed(error),
            }
        }
        if let Some(exported) = exported {
            match import_again(core, &remains, &exported, &targets) {
                Ok(shard) => return report.restored.push(shard),
                Err(reason) => why = reason,
            }
        }
    }
    report.give_up(&remains.entry, gpu, why);
}

/// The GPUs on which the shard may be restored, in this order.
fn targets(core: &Core, gpu: &Arc<Gpu>, elsewhere: bool) -> Vec<Arc<Gpu>> {
    let mut targets = vec![Arc::clone(gpu)];
    if elsewhere && let Ok(others) = admit::choose(core, GpuChoice::MostRoomFirst) {
        targets.extend(others.into_iter().filter(|other| other.index != gpu.index));
    }
    targets
}

/// A new entry of the shard without space: its next generation. Handles and leases of the
/// generation before do not refer to it.
fn next_generation(core: &Core, remains: &Remains) -> Result<Arc<Entry>, VramError> {
    let old = &remains.entry;
    let counted = old.take_seat().map_or_else(|| core.registry.count_one(), Ok)?;
    let standing = Standing::new(old.standing.claim);
    standing.set_pinned(old.standing.pinned());
    let state = State {
        seal: Arc::clone(&remains.seal),
        space: None,
        parked: true,
        generation: remains.generation.saturating_add(1),
        quarantine: None,
        ages: Ages::new(Moment::now(&*core.clock), None),
        host_len: ByteLen::ZERO,
        copies: Copies::default(),
    };
    let entry = Entry::new(
        old.id.clone(),
        old.sealed_as.clone(),
        old.owner.clone(),
        old.plaintext_len,
        standing,
        Arc::clone(&core.events),
        state,
        counted,
    );
    lease::used(core, &entry);
    Ok(Arc::new(entry))
}

/// Wakes a backup on the first GPU that accepts it. The host copy stays as a backup.
fn wake_backup(
    core: &Core,
    entry: Arc<Entry>,
    backup: Backup,
    exported: Option<Exported>,
    targets: &[Arc<Gpu>],
) -> Result<SealedShard, WakeError> {
    let mut state = entry.state();
    state.copies.exported = exported;
    state.host_len = backup.host_len();
    drop(state);
    core.registry.insert(Arc::clone(&entry));
    let listed = core.registry.list(&entry);
    let parked = ParkedShard { copy: Box::new(HostCopy { entry, backup }), listed };
    let mut refusal = None;
    for target in targets {
        match caught(core, GpuChoice::One(target.index), || {
            wake::copy_back(core, &parked, target.index)
        }) {
            Ok(space) => return Ok(wake::return_to(core, parked, space, true)),
            // The first error is kept: it is that of the GPU that held the shard.
            Err(error) => {
                refusal.get_or_insert(error);
            }
        }
    }
    let count = core.gpu_count();
    Err(WakeError::new(parked, refusal.unwrap_or(VramError::UnknownGpu { gpu: 0, count })))
}

/// Imports the image that a shard was exported to, on the first GPU that accepts it.
fn import_again(
    core: &Core,
    remains: &Remains,
    exported: &Exported,
    targets: &[Arc<Gpu>],
) -> Result<SealedShard, NotRestored> {
    let entry = next_generation(core, remains).map_err(NotRestored::Failed)?;
    let mut refusal = None;
    for target in targets {
        // Held until the shard is resident: its new space is not counted as being placed for a
        // moment.
        let under_way = match target.begin_call() {
            Ok(under_way) => under_way,
            Err(error) => {
                refusal.get_or_insert(NotRestored::Failed(error.into()));
                continue;
            }
        };
        let brought = caught(core, GpuChoice::One(target.index), || {
            import::bring_back(core, &entry.sealed_as, exported, &remains.seal, target, || {
                make_room::place_for(core, &entry, target)
            })
        });
        let failure = match brought {
            Ok(Some(landed)) => {
                let settled = caught(core, GpuChoice::One(target.index), || {
                    settle_image(core, &entry, landed, &remains.seal)
                });
                match settled {
                    Ok(()) => {
                        let mut state = entry.state();
                        state.generation = remains.generation.saturating_add(1);
                        state.copies.exported = Some(exported.clone());
                        drop(state);
                        let shard = entry::publish(core, entry);
                        drop(under_way);
                        return Ok(shard);
                    }
                    Err(error) => NotRestored::Failed(error),
                }
            }
            Ok(None) => NotRestored::OtherImage,
            Err(error) => NotRestored::Failed(error),
        };
        // Return the space of this attempt before the next one begins.
        let space = entry.state().space.take();
        drop(space);
        refusal.get_or_insert(failure);
    }
    Err(refusal.unwrap_or(NotRestored::NoCopy))
}

/// Makes the imported image the shard's content, with the protection that the shard had.
fn settle_image(
    core: &Core,
    entry: &Arc<Entry>,
    landed: Landed,
    lost: &Arc<Seal>,
) -> Result<(), VramError> {
    let Landed { seal, mut space, verified } = landed;
    space.commit();
    let now = Moment::now(&*core.clock);
    let same = seal.record == lost.record;
    let mut state = entry.state();
    state.space = Some(space);
    state.parked = false;
    // A quarantine of an earlier attempt on another GPU ends.
    state.quarantine = None;
    // If the records are equal, keep the lost seal: it also holds the shard's seal parameters.
    state.seal = if same { Arc::clone(lost) } else { seal };
    state.ages.arrived(now, verified);
    drop(state);
    if same {
        return Ok(());
    }
    // An Authenticated shard was encrypted for the image: seal it anew as it was. The event is
    // emitted once the shard is resident.
    let view = entry.view()?;
    reseal::seal_anew_untold(core, entry, &view, Anew { params: lost.params, key: lost.key_id() })?;
    if entry.state().seal.record == lost.record {
        return Ok(());
    }
    Err(vram_seal::SealError::DigestMismatch.into())
}

fn is_no_good(error: &VramError) -> bool {
    matches!(error, VramError::ParkedAltered { .. })
}
