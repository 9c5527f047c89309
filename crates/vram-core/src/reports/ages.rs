//! How long ago all of a shard was last found sound. Ages use the monotonic clock, so that a wall
//! clock that is set back does not make a shard look recently verified.

use core::time::Duration;

use vram_id::ShardId;

use crate::error::VramError;
use crate::parts::Core;
use crate::shard::{Entry, SealedShard};

/// For how long no check has found all of a shard sound.
#[derive(Clone, Debug)]
pub(crate) struct Age {
    pub(crate) shard: ShardId,
    pub(crate) gpu: u32,
    /// Whether the shard can be read: it is not in quarantine, nor on a lost GPU.
    pub(crate) served: bool,
    pub(crate) unverified: Duration,
}

/// The ages of all resident shards, in ascending order of their ids.
pub(crate) fn ages(core: &Core) -> Vec<Age> {
    let lost: Vec<bool> = core.gpus.iter().map(|gpu| gpu.ready().is_err()).collect();
    let entries = core.registry.sorted();
    let now = core.clock.monotonic();
    let age = |entry: std::sync::Arc<Entry>| {
        let state = entry.state();
        let gpu = state.space.as_ref()?.gpu().index;
        let there = usize::try_from(gpu).ok().and_then(|gpu| lost.get(gpu)) == Some(&false);
        let served = there && state.quarantine.is_none();
        let unverified = state.ages.unverified_for(now);
        Some(Age { shard: entry.id.clone(), gpu, served, unverified })
    };
    entries.into_iter().filter_map(age).collect()
}

/// The shard that no check has found sound for the longest time, and that time.
pub fn oldest_unverified(core: &Core) -> Option<(ShardId, Duration)> {
    let served = ages(core).into_iter().filter(|age| age.served);
    // Of equals the one with the lowest id, so that a run is repeatable.
    let oldest = served.reduce(|a, b| if b.unverified > a.unverified { b } else { a })?;
    Some((oldest.shard, oldest.unverified))
}

/// The time since the beginning of the check that last found all of a shard sound.
pub fn unverified_age(core: &Core, shard: &SealedShard) -> Result<Duration, VramError> {
    let entry = core.resolve(shard)?;
    let now = core.clock.monotonic();
    let age = entry.state().ages.unverified_for(now);
    Ok(age)
}
