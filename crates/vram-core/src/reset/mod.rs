//! Resets a GPU: empties it, takes its memory anew, and restores its shards from copies.
//!
//! ```text
//!   lost: calls on it answer `DeviceLost`          working: new calls answer `GpuInUse`
//!    1 wait for the calls that run on it           1 likewise; refused: it serves again
//!    2 device.reset(), a new region                2 its shards are wiped; then likewise
//!                                                  if the device refuses: it is lost
//!    3 each of its shards: the next generation stands in the list, as being restored
//!    4 a new life of the device begins, in which it takes calls
//!    5 shards are restored from backups and images, verified      same id, next generation;
//!      those of one model in one moment, and until then nothing of it is evicted
//!    6 one event ends the reset; a loss in the meantime is told after it
//! ```

pub mod quiet;
pub mod report;
pub mod restore;
pub mod together;

pub use self::report::{LostShard, NotRestored, ResetOptions, ResetReport, Restore};
pub(crate) use self::restore::Remains;
pub(crate) use self::together::{Restoring, Set};

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use vram_events::EventKind;
use vram_space::Gpu;

use crate::error::VramError;
use crate::parts::gpus::caught;
use crate::parts::{Core, GpuChoice};
use crate::shard::{Ages, Moment, Place, ShardCause, State};
use crate::sync::Deadline;

/// How long a reset waits for calls that are still running, if the options set no time. These calls
/// fail at their next call to the device, so they can only wait for sources and sinks.
const PATIENCE: Duration = Duration::from_secs(30);

/// Resets a GPU, and restores the shards that have copies.
pub fn reset(core: &Core, gpu: u32, options: ResetOptions) -> Result<ResetReport, VramError> {
    core.check_open()?;
    let gpu = Arc::clone(core.gpu(gpu)?);
    // Before anything is wiped for it.
    gpu.may_reset()?;
    let busy = |why| VramError::GpuInUse { gpu: gpu.index, why };
    let claim = gpu.life.claim();
    // Checked again: a thread that closes the manager waits only for resets that hold the claim
    // already.
    core.check_open()?;
    let _claim = claim.ok_or_else(|| busy("another reset of it is under way"))?;
    let deadline = Deadline::within(options.within);
    let was_lost = gpu.lost().is_some();
    if was_lost {
        quiet::quiet(&gpu, deadline).map_err(busy)?;
    } else {
        quiet::drain(&gpu, &core.registry, options.force, deadline)?;
    }
    let emptied = gpu.empty()?;
    let given_back = gpu.settle_unreturned();
    let sets = let_go(core, &gpu);
    gpu.renew(emptied);
    // From here on the reset ends with its event, whatever happens.
    let fresh = || ResetReport::new(gpu.index, given_back, was_lost);
    let mut end = End { core, gpu: &gpu, report: Some(fresh()) };
    let shards = sets.iter().map(|set| set.remains.len()).sum::<usize>();
    tracing::warn!(gpu = gpu.index, shards, "device reset");
    for promise in core.promises.list() {
        promise.forget_stale();
    }
    let patience = Deadline::within(options.within);
    let restoring = Restoring { core, gpu: &gpu, options, patience };
    for set in sets {
        let entries: Vec<_> = set.remains.iter().map(|one| Arc::clone(&one.entry)).collect();
        let Some(report) = &mut end.report else { continue };
        let done = caught(core, GpuChoice::One(gpu.index), || {
            restoring.restore(set, report);
            Ok(())
        });
        if let Err(why) = done {
            // A device or a file panicked. Restore the other shards all the same; the report and
            // the event name these.
            for entry in entries {
                report.give_up(core, &entry, &gpu, NotRestored::Failed(why.clone()));
            }
        }
    }
    if let Some(report) = &mut end.report {
        report.sort();
    }
    end.finish();
    Ok(end.report.take().unwrap_or_else(fresh))
}

/// A reset whose device is empty. Dropping it ends the reset.
struct End<'a> {
    core: &'a Core,
    gpu: &'a Gpu,
    report: Option<ResetReport>,
}

impl End<'_> {
    fn finish(&self) {
        let Some(report) = &self.report else { return };
        let at = self.core.events.now();
        let gpu = self.gpu.index;
        let lost = report.lost.iter().map(|shard| shard.shard_id.clone()).collect();
        let restored = report.restored.iter().map(|shard| shard.shard_id.clone()).collect();
        let event = EventKind::DeviceReset { gpu, lost, restored };
        self.gpu.recover(|| self.core.events.append(at, None, event));
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        // Only if a panic came between: otherwise the report was taken out.
        self.finish();
    }
}

/// Puts the next generation of each shard of an emptied device into the list of shards, as being
/// restored, and returns the placements to arena and ledger. Every use of them has ended, and none
/// can begin. Those that go together are in one set.
fn let_go(core: &Core, gpu: &Gpu) -> Vec<Set> {
    let mut sets: Vec<Set> = Vec::new();
    let mut models = BTreeMap::new();
    let entries = core.registry.on(gpu.index);
    // Held before any of them goes: whoever makes room finds no model in part.
    for member in entries.iter().filter_map(|old| old.member()) {
        models.entry(member.model.number).or_insert_with(|| {
            sets.push(Set { remains: Vec::new(), held: Some(member.model.hold()) });
            sets.len().saturating_sub(1)
        });
    }
    for old in entries {
        let now = Moment::now(&*core.clock);
        let taken = old.change(|state, _told| {
            // A shard that was parked meanwhile, from its backup, is not here any more.
            if !state.lies_on(gpu.index) {
                return None;
            }
            let copies = core::mem::take(&mut state.copies);
            let place = Place::Restoring { gpu: gpu.index };
            let generation = state.generation.saturating_add(1);
            let next = State::new(place, Arc::clone(&state.seal), generation, Ages::new(now, None));
            let entry = Arc::new(old.next_generation(state, next));
            // In one step for whoever looks for it: first the new one, then the old one ends.
            core.registry.insert(Arc::clone(&entry));
            let space = state.go(&old.id, ShardCause::Empty, Place::Replaced);
            Some((space, Remains { entry, copies }))
        });
        let Some((space, one)) = taken else { continue };
        // This space belongs to an earlier life of the device: dropping it wipes nothing.
        drop(space);
        let set = old.member().and_then(|member| models.get(&member.model.number));
        match set.and_then(|at| sets.get_mut(*at)) {
            Some(set) => set.remains.push(one),
            None => sets.push(Set { remains: vec![one], held: None }),
        }
    }
    sets
}
