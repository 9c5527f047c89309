//! Makes room for a request that was refused.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_space::{Gpu, Space};

use crate::error::{EvictionPlan, Shortfall, VramError};
use crate::parts::Core;
use crate::room::evict::evict;
use crate::room::{Goal, RoomMaking, holders, plan};
use crate::shard::{Entry, ParkedShard};
use crate::sync::lock;

/// Takes the shards that were parked to make room.
pub fn take_evicted(core: &Core) -> Vec<ParkedShard> {
    core::mem::take(&mut *lock(&core.evicted))
}

/// Makes room for a refused request, if the request allows it and the policy finds a way, and tries
/// the request once more. The refusal that it returns states what would help.
pub(crate) fn with_room<T>(
    core: &Core,
    gpus: &[Arc<Gpu>],
    goal: Goal<'_>,
    room: RoomMaking,
    mut attempt: impl FnMut() -> Result<T, VramError>,
) -> Result<T, VramError> {
    let explain = |shortfall: Shortfall| {
        let mut shortfall = holders::with_holders(core, shortfall, gpus);
        shortfall.plan = plan::plan_for(core, gpus, goal, room.priority);
        shortfall
    };
    let shortfall = match attempt() {
        Err(VramError::InsufficientVram(shortfall)) => explain(*shortfall),
        // The ledger had room but the driver has no memory: retry once if shards could be evicted
        // there.
        Err(VramError::Device { gpu, source })
            if source.is_out_of_memory() && give_way(core, core.gpu(gpu)?, goal.needed(), room) =>
        {
            return attempt();
        }
        other => return other,
    };
    if room.evicts
        && let Some(plan) = &shortfall.plan
        && evict_for_room(core, plan)
    {
        return match attempt() {
            Err(VramError::InsufficientVram(shortfall)) => {
                Err(VramError::InsufficientVram(Box::new(explain(*shortfall))))
            }
            other => other,
        };
    }
    Err(VramError::InsufficientVram(Box::new(shortfall)))
}

/// Finds a placement for a shard that comes from elsewhere. No shard is evicted for it; the refusal
/// states what would help.
pub(crate) fn place_for(core: &Core, entry: &Entry, target: &Arc<Gpu>) -> Result<Space, VramError> {
    let lens = [entry.plaintext_len];
    let room = RoomMaking::none(entry.standing.claim.priority);
    let gpus = core::slice::from_ref(target);
    with_room(core, gpus, Goal::Pieces(&lens), room, || Ok(target.place(entry.plaintext_len)?))
}

/// Evicts some shards when the driver itself has no memory. Returns true if a retry is useful.
pub(crate) fn give_way(core: &Core, gpu: &Arc<Gpu>, len: ByteLen, room: RoomMaking) -> bool {
    let gpus = [Arc::clone(gpu)];
    room.evicts
        && plan::plan_for(core, &gpus, Goal::Freed(len), room.priority)
            .is_some_and(|plan| evict_for_room(core, &plan))
}

/// Carries out a plan, and stores the shards that were parked. Returns true if a retry is useful.
fn evict_for_room(core: &Core, plan: &EvictionPlan) -> bool {
    match evict(core, plan) {
        Ok(report) => {
            for (shard, error) in &report.kept {
                tracing::warn!(%shard, %error, "could not be evicted");
            }
            lock(&core.evicted).extend(report.parked);
            if core.check_open().is_err() {
                // The thread that closes the manager may have emptied the list before these shards
                // were added.
                drop(take_evicted(core));
            }
            // Also if no shard had to be evicted: there was room by then.
            true
        }
        Err(error) => {
            tracing::debug!(%error, "no room was made");
            false
        }
    }
}
