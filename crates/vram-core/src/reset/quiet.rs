//! Waits until no calls run on a GPU, and takes a working GPU out of service.

use vram_space::{Gpu, Space, SpaceError, WipePolicy};

use crate::error::VramError;
use crate::parts::core::in_use;
use crate::shard::{Busy, Registry, gate};
use crate::sync::Deadline;

const BUSY: &str = "calls on it are still under way";

/// Waits until no call is running on a GPU that takes no calls.
///
/// # Errors
///
/// Why the GPU is in use: calls still run at the deadline, or the calling thread is inside a call
/// itself.
pub(crate) fn quiet(gpu: &Gpu, deadline: Deadline) -> Result<(), &'static str> {
    let left = gpu.life.quiet_until(deadline.instant(), gate::is_inside_any());
    left.map_err(|_left| BUSY)
}

/// Stops new calls on a working GPU, waits for those that run, and wipes its shards. If this is
/// refused, the GPU keeps working.
pub(crate) fn drain(
    gpu: &Gpu,
    registry: &Registry,
    force: bool,
    deadline: Deadline,
) -> Result<(), VramError> {
    may_be_emptied(gpu, registry, force)?;
    match gpu.drain() {
        // It was lost meanwhile: what calls still run fail fast.
        Err(SpaceError::DeviceLost { .. }) => {
            return quiet(gpu, deadline).map_err(|why| VramError::GpuInUse { gpu: gpu.index, why });
        }
        drained => drained?,
    }
    let draining = Draining { gpu, begun: false };
    quiet(gpu, deadline).map_err(|why| VramError::GpuInUse { gpu: gpu.index, why })?;
    // No call can begin any more, so this second check is final.
    may_be_emptied(gpu, registry, force)?;
    draining.begin(deadline)?;
    if gpu.wipe == WipePolicy::Never {
        return Ok(());
    }
    for entry in registry.on(gpu.index) {
        let bytes = entry.state().space().and_then(Space::written_bytes);
        if let Some((block, range)) = bytes
            && let Some(block) = block.upgrade()
        {
            // The result does not matter: the device is reset next.
            let _wiped = gpu.overwrite(&block, range);
        }
    }
    Ok(())
}

/// A GPU that takes no new calls. Dropping it without having begun lets it serve again.
struct Draining<'a> {
    gpu: &'a Gpu,
    begun: bool,
}

impl Draining<'_> {
    fn begin(mut self, deadline: Deadline) -> Result<(), VramError> {
        let begun = self.gpu.life.begin_until(deadline.instant(), gate::is_inside_any());
        begun.map_err(|_left| VramError::GpuInUse { gpu: self.gpu.index, why: BUSY })?;
        self.begun = true;
        Ok(())
    }
}

impl Drop for Draining<'_> {
    fn drop(&mut self) {
        if !self.begun {
            self.gpu.life.stay();
        }
    }
}

/// # Errors
///
/// [`VramError::InUse`] for a leased shard, [`VramError::NotLost`] for any other.
fn may_be_emptied(gpu: &Gpu, registry: &Registry, force: bool) -> Result<(), VramError> {
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
