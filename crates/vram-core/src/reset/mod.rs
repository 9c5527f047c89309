//! Resetting a lost GPU: emptied, taken anew, and filled again from copies.
//!
//! ```text
//!   lost: every call on it answers `DeviceLost`, nothing is sent to it
//!    1 wait for the calls that were under way                             they fail fast
//!    2 device.reset(), a new region                                       refused: as lost as before
//!    3 a new life: no handle, view or place of the last one reaches into it
//!    4 its shards leave the books and the arena, each once                without a device call
//!    5 the GPU takes calls again
//!    6 shards come back from backups and images, verified                 same id, next generation
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

/// How long a reset waits for the calls that are under way, where nobody says otherwise. They fail
/// at their next call to the device, and so wait for sources and sinks alone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Resets a GPU, and brings back what has copies.
pub fn reset(core: &Core, gpu: u32, options: ResetOptions) -> Result<ResetReport, VramError> {
    core.check_open()?;
    let gpu = Arc::clone(core.gpu(gpu)?);
    let busy = |why| VramError::GpuInUse { gpu: gpu.index, why };
    let claim = gpu.health.claim();
    // Once more: whoever closes the manager waits for those who have the claim, and no others.
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
            // A clock, say. The others come back all the same, and whoever follows is told.
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

/// Takes the shards of an emptied device out of the registry, and their places out of the
/// books. Nobody else does so meanwhile: every call on them is refused.
fn let_go(core: &Core, gpu: &Gpu) -> Vec<Remains> {
    let mut remains = Vec::new();
    for entry in core.registry.on(gpu.index) {
        let mut state = entry.state();
        if !state.lies_on(gpu.index) {
            // Parked meanwhile, by way of its backup.
            continue;
        }
        let space = state.space.take();
        let copies = core::mem::take(&mut state.copies);
        let (seal, generation) = (Arc::clone(&state.seal), state.generation);
        drop(state);
        core.registry.remove(&entry.id);
        // It is of an earlier life: nothing is wiped.
        drop(space);
        remains.push(Remains { entry, seal, generation, copies });
    }
    remains
}
