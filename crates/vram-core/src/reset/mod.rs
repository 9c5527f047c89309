//! Resets a lost GPU: empties it, takes its memory anew, and restores its shards from copies.
//!
//! ```text
//!   lost: every call on it answers `DeviceLost`, nothing is sent to it
//!    1 wait for calls that are still running                              they fail fast
//!    2 device.reset(), a new region                                      if refused: still lost
//!    3 a new life: no handle, view or placement of the last one refers to it
//!    4 its shards leave the ledger and the arena, each once               without a device call
//!    5 the GPU takes calls again
//!    6 shards are restored from backups and images, verified              same id, next generation
//! ```

pub mod quiet;
pub mod report;
pub mod restore;

pub use self::report::{LostShard, NotRestored, ResetOptions, ResetReport, Restore};
pub(crate) use self::restore::Remains;

use core::time::Duration;
use std::sync::Arc;

use vram_events::EventKind;
use vram_space::Gpu;

use crate::error::VramError;
use crate::parts::gpus::caught;
use crate::parts::{Core, GpuChoice};
use crate::sync::Deadline;

/// How long a reset waits for calls that are still running, if the options set no time. These calls
/// fail at their next call to the device, so they can only wait for sources and sinks.
const PATIENCE: Duration = Duration::from_secs(30);

/// Resets a GPU, and restores the shards that have copies.
pub fn reset(core: &Core, gpu: u32, options: ResetOptions) -> Result<ResetReport, VramError> {
    core.check_open()?;
    let gpu = Arc::clone(core.gpu(gpu)?);
    let busy = |why| VramError::GpuInUse { gpu: gpu.index, why };
    let claim = gpu.health.claim();
    // Checked again: a thread that closes the manager waits only for resets that hold the claim
    // already.
    core.check_open()?;
    let _claim = claim.ok_or_else(|| busy("another reset of it is under way"))?;
    let deadline = Deadline::within(options.within);
    if gpu.lost().is_some() {
        quiet::quiet(&gpu, &core.registry, deadline).map_err(busy)?;
    } else {
        quiet::give_up(&gpu, &core.registry, options.force, deadline)?;
    }
    gpu.begin_anew()?;
    let given_back = gpu.settle_unreturned();
    let remains = let_go(core, &gpu);
    for promise in core.promises.list() {
        promise.forget_stale();
    }
    gpu.health.recover();
    tracing::warn!(gpu = gpu.index, shards = remains.len(), "device reset");

    let mut report = ResetReport {
        gpu: gpu.index,
        lost: Vec::new(),
        restored: Vec::new(),
        parked: Vec::new(),
        given_back,
    };
    for one in remains {
        let entry = Arc::clone(&one.entry);
        let done = caught(core, GpuChoice::One(gpu.index), || {
            restore::restore(core, one, &gpu, options, &mut report);
            Ok(())
        });
        if let Err(why) = done {
            // A clock may have panicked. Restore the other shards all the same; the report and the
            // event name this one.
            report.give_up(&entry, &gpu, NotRestored::Failed(why));
        }
    }
    core.events.emit(EventKind::DeviceReset {
        gpu: gpu.index,
        lost: report.lost.iter().map(|shard| shard.shard_id.clone()).collect(),
        restored: report.restored.iter().map(|shard| shard.shard_id.clone()).collect(),
    });
    Ok(report)
}

/// Removes the shards of a reset device from the registry, and their placements from the ledger. No
/// other call does so meanwhile: every call on these shards is refused.
fn let_go(core: &Core, gpu: &Gpu) -> Vec<Remains> {
    let mut remains = Vec::new();
    for entry in core.registry.on(gpu.index) {
        let mut state = entry.state();
        if !state.lies_on(gpu.index) {
            // The shard was parked meanwhile, from its backup.
            continue;
        }
        let space = state.space.take();
        let copies = core::mem::take(&mut state.copies);
        let (seal, generation) = (Arc::clone(&state.seal), state.generation);
        drop(state);
        core.registry.remove(&entry.id);
        // This space belongs to an earlier life of the device: dropping it wipes nothing.
        drop(space);
        remains.push(Remains { entry, seal, generation, copies });
    }
    remains
}
