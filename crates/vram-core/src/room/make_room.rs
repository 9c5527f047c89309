//! Making room for a request that was refused.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_space::{Gpu, Space};

use crate::error::{EvictionPlan, Shortfall, VramError};
use crate::parts::Core;
use crate::room::evict::evict;
use crate::room::{Goal, RoomMaking, holders, plan};
use crate::shard::{Entry, ParkedShard};
use crate::sync::lock;

/// What was parked to make room, and waits.
pub fn take_evicted(core: &Core) -> Vec<ParkedShard> {
    core::mem::take(&mut *lock(&core.evicted))
}

/// Makes room for a request that was refused, if it allows that and a policy finds a way, and
/// tries it once more. The refusal that comes out says what would help.
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
        // The books had room, and the driver has not: once more, if somebody gives way there.
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

/// Finds a place for a shard that comes from elsewhere. Nothing is evicted for it; the refusal
/// says what would help.
pub(crate) fn place_for(core: &Core, entry: &Entry, target: &Arc<Gpu>) -> Result<Space, VramError> {
    let lens = [entry.plaintext_len];
    let room = RoomMaking::none(entry.standing.claim.priority);
    let gpus = core::slice::from_ref(target);
    with_room(core, gpus, Goal::Pieces(&lens), room, || Ok(target.place(entry.plaintext_len)?))
}

/// Lets go of some shards where the driver itself had no memory. Says whether any went.
pub(crate) fn give_way(core: &Core, gpu: &Arc<Gpu>, len: ByteLen, room: RoomMaking) -> bool {
    let gpus = [Arc::clone(gpu)];
    room.evicts
        && plan::plan_for(core, &gpus, Goal::Freed(len), room.priority)
            .is_some_and(|plan| evict_for_room(core, &plan))
}

/// Carries out a plan, and keeps what was parked. Says whether another attempt is worth it.
fn evict_for_room(core: &Core, plan: &EvictionPlan) -> bool {
    match evict(core, plan) {
        Ok(report) => {
            for (shard, error) in &report.kept {
                tracing::warn!(%shard, %error, "could not be evicted");
            }
            lock(&core.evicted).extend(report.parked);
            if core.check_open().is_err() {
                // Whoever closes it may have looked before.
                drop(take_evicted(core));
            }
            // Also where nothing had to go: there was room by then.
            true
        }
        Err(error) => {
            tracing::debug!(%error, "no room was made");
            false
        }
    }
}
