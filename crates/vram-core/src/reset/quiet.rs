//! Waits until no calls run on a GPU, and takes a working GPU out of service.

use vram_gpu::GpuError;
use vram_space::{Gpu, Space, WipePolicy};

use crate::error::VramError;
use crate::parts::core::in_use;
use crate::shard::{Busy, Registry, gate};
use crate::sync::Deadline;

/// Waits until no call is running on a GPU that takes no calls.
///
/// # Errors
///
/// Why the GPU is in use: calls still run at the deadline, or the calling thread is inside a call
/// itself.
pub(crate) fn quiet(
    gpu: &Gpu,
    registry: &Registry,
    deadline: Deadline,
) -> Result<(), &'static str> {
    let busy = "calls on it are still under way";
    gpu.health.quiet_until(deadline.instant(), gate::is_inside_any()).map_err(|_left| busy)?;
    for entry in registry.on(gpu.index) {
        entry.gate.drained_until(deadline).map_err(|_refusal| busy)?;
    }
    Ok(())
}

/// Stops a working GPU from taking calls, and wipes its shards. If this is refused, the GPU keeps
/// working.
pub(crate) fn give_up(
    gpu: &Gpu,
    registry: &Registry,
    force: bool,
    deadline: Deadline,
) -> Result<(), VramError> {
    may_be_given_up(gpu, registry, force)?;
    // A loss for which no event is emitted: calls that are refused from here on are refused because
    // of the reset.
    let (index, name) = (gpu.device.info().index, "being reset by its owner");
    if !gpu.health.give_up(GpuError::Lost { gpu: index, code: 0, name }) {
        return quiet(gpu, registry, deadline)
            .map_err(|why| VramError::GpuInUse { gpu: gpu.index, why });
    }
    let busy = |why| VramError::GpuInUse { gpu: gpu.index, why };
    let quiet = quiet(gpu, registry, deadline).map_err(busy);
    // No call can begin any more, so this second check is final.
    let begun = quiet.and_then(|()| may_be_given_up(gpu, registry, force)).and_then(|()| {
        let left = gpu.health.begin_until(deadline.instant(), gate::is_inside_any());
        left.map_err(|_left| busy("calls on it are still under way"))
    });
    if let Err(error) = begun {
        gpu.health.keep_on();
        return Err(error);
    }
    if gpu.wipe == WipePolicy::Never {
        return Ok(());
    }
    for entry in registry.on(gpu.index) {
        let state = entry.state();
        // A shard that was parked from its backup meanwhile may lie on another GPU now.
        let space = state.space.as_ref().filter(|_| state.lies_on(gpu.index));
        let bytes = space.and_then(Space::written_bytes);
        drop(state);
        if let Some((block, range)) = bytes
            && let Some(block) = block.upgrade()
        {
            // The result does not matter: the device is reset next.
            let _wiped = gpu.overwrite(&block, range);
        }
    }
    Ok(())
}

/// # Errors
///
/// [`VramError::InUse`] for a leased shard, [`VramError::NotLost`] for any other.
fn may_be_given_up(gpu: &Gpu, registry: &Registry, force: bool) -> Result<(), VramError> {
    let entries = registry.on(gpu.index);
    if let Some(leased) = entries.iter().find(|entry| entry.gate.leases() > 0) {
        return Err(in_use(leased, Busy { leases: leased.gate.leases() }));
    }
    if entries.is_empty() || force {
        return Ok(());
    }
    let shards = u64::try_from(entries.len()).unwrap_or(u64::MAX);
    Err(VramError::NotLost { gpu: gpu.index, shards })
}
