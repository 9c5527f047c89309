//! How long ago all of a shard was last found sound. Ages use the monotonic clock, so that a wall
//! clock that is set back does not make a shard look recently verified.

use core::time::Duration;

use vram_id::ShardId;
use vram_space::Gpu;

use crate::error::VramError;
use crate::parts::Core;
use crate::shard::{Entry, SealedShard};

/// For how long no check has found all of a shard sound.
#[derive(Clone, Debug)]
pub(crate) struct Age {
    pub(crate) shard: ShardId,
    pub(crate) unverified: Duration,
}

/// The ages of all resident shards, in ascending order of their ids.
pub(crate) fn ages(core: &Core) -> Vec<Age> {
    let entries = core.registry.sorted();
    let now = core.clock.monotonic();
    let age = |entry: std::sync::Arc<Entry>| {
        let state = entry.state();
        state.space()?;
        let unverified = state.ages.unverified_for(now);
        Some(Age { shard: entry.id.clone(), unverified })
    };
    entries.into_iter().filter_map(age).collect()
}

/// The shard of a GPU that no check has found sound for the longest time, and that time; `None` if
/// none can be read there.
pub(crate) fn oldest_on(core: &Core, gpu: &Gpu, now: Duration) -> Option<(ShardId, Duration)> {
    gpu.ready().ok()?;
    let (since, shard) = core.registry.census.oldest(gpu.index)?;
    Some((shard, now.saturating_sub(since)))
}

/// The shard that no check has found sound for the longest time, and that time.
pub fn oldest_unverified(core: &Core) -> Option<(ShardId, Duration)> {
    let now = core.clock.monotonic();
    let oldest = core.gpus.iter().filter_map(|gpu| oldest_on(core, gpu, now));
    // Of equals the one with the lowest id, so that a run is repeatable.
    oldest.min_by(|(a, age), (b, other)| other.cmp(age).then_with(|| a.cmp(b)))
}

/// The time since the beginning of the check that last found all of a shard sound.
pub fn unverified_age(core: &Core, shard: &SealedShard) -> Result<Duration, VramError> {
    let entry = core.resolve(shard)?;
    let now = core.clock.monotonic();
    let age = entry.state().ages.unverified_for(now);
    Ok(age)
}
