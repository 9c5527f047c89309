//! Makes room: which shards would have to be evicted, the room there would be then, and the
//! eviction itself.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::{EventKind, OnEviction};
use vram_id::ShardId;

use crate::error::{Eviction, EvictionPlan, VramError};
use crate::parts::Core;
use crate::parts::core::in_use;
use crate::room::{Goal, free, holders, park, plan};
use crate::shard::{Entry, ParkedShard};

/// The result of an eviction.
#[derive(Debug, Default)]
#[non_exhaustive]
#[must_use = "the shards that were parked are in it"]
pub struct EvictionReport {
    /// The shards that were evicted.
    pub evicted: Vec<Eviction>,
    /// The evicted shards that were parked in host memory.
    pub parked: Vec<ParkedShard>,
    /// The shards that were not evicted, each with the reason.
    pub kept: Vec<(ShardId, VramError)>,
    /// Bytes that were freed.
    pub bytes: ByteLen,
}

impl EvictionReport {
    /// Whether every shard of the plan was evicted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.kept.is_empty()
    }
}

/// Why a shard may not be evicted; `None` if it may.
pub(crate) fn cannot_go(core: &Core, entry: &Entry) -> Option<&'static str> {
    if plan::fate(core, entry) == OnEviction::Never {
        Some("is to stay")
    } else if entry.standing.pinned() {
        Some("is pinned")
    } else if entry.gate.leases() > 0 {
        Some("is leased")
    } else if entry.not_quarantined().is_err() {
        Some("is in quarantine")
    } else {
        None
    }
}

/// Carries out a plan. Refuses it if one of its shards may no longer be evicted.
pub fn evict(core: &Core, plan: &EvictionPlan) -> Result<EvictionReport, VramError> {
    core.check_open()?;
    let mut entries = Vec::with_capacity(plan.evictions.len());
    for eviction in &plan.evictions {
        let outdated = |why| VramError::PlanOutdated { shard: eviction.shard_id.clone(), why };
        let entry = core.registry.get(&eviction.shard_id).ok_or_else(|| outdated("is gone"))?;
        if entry.state().gpu_index() != eviction.gpu {
            return Err(outdated("has moved"));
        }
        if let Some(why) = cannot_go(core, &entry) {
            return Err(outdated(why));
        }
        entries.push(entry);
    }
    Ok(evict_all(core, plan, entries))
}

/// Carries out a plan as far as possible.
fn evict_all(core: &Core, plan: &EvictionPlan, entries: Vec<Arc<Entry>>) -> EvictionReport {
    let mut report = EvictionReport::default();
    for (eviction, entry) in plan.evictions.iter().zip(entries) {
        match evict_entry(core, &entry, eviction) {
            Ok(parked) => {
                tracing::info!(
                    shard = %entry.id,
                    gpu = eviction.gpu,
                    bytes = eviction.bytes.get(),
                    parked = parked.is_some(),
                    "evicted"
                );
                report.bytes = report.bytes.saturating_add(eviction.bytes);
                report.parked.extend(parked);
                report.evicted.push(eviction.clone());
            }
            // The shard is freed and its bytes stay counted; this was logged where they were set
            // aside.
            Err(VramError::NotReturned { .. }) => {
                report.evicted.push(Eviction { bytes: ByteLen::ZERO, ..eviction.clone() });
            }
            Err(error) => report.kept.push((entry.id.clone(), error)),
        }
    }
    report
}

fn evict_entry(
    core: &Core,
    entry: &Arc<Entry>,
    eviction: &Eviction,
) -> Result<Option<ParkedShard>, VramError> {
    let outdated = |why| VramError::PlanOutdated { shard: entry.id.clone(), why };
    let _pass = entry.gate.exclusive().map_err(|busy| in_use(entry, busy))?;
    // The shard may have moved while the call waited.
    let gpu = entry.here()?;
    let _pass = gpu.enter()?;
    if gpu.index != eviction.gpu {
        return Err(outdated("has moved"));
    }
    if let Some(why) = cannot_go(core, entry) {
        return Err(outdated(why));
    }
    let how = plan::fate(core, entry);
    let told = || {
        let (shard, gpu, bytes) = (entry.id.clone(), eviction.gpu, eviction.bytes);
        core.events.emit(EventKind::Evicted { shard, gpu, bytes, how });
    };
    match how {
        OnEviction::Park => {
            let copy = park::host_copy(core, entry)?;
            told();
            park::leave(core, copy).map(Some)
        }
        OnEviction::Free => free::free_entry_for(core, entry, told).map(|_receipt| None),
        // `Never`. Each other kind evicts the shard and is handled above.
        _ => Err(outdated("is to stay")),
    }
}

/// The shards that would have to be evicted so that `bytes` are free in one piece. Evicts none.
pub fn plan_eviction(core: &Core, gpu: u32, bytes: ByteLen) -> Result<EvictionPlan, VramError> {
    core.check_open()?;
    let gpus = [Arc::clone(core.gpu(gpu)?)];
    let [only] = &gpus;
    only.ready()?;
    if core.eviction.is_none() {
        return Err(VramError::config("no eviction policy was given to the builder"));
    }
    let lens = [bytes];
    let plan = plan::plan_for(core, &gpus, Goal::Pieces(&lens), u32::MAX);
    plan.ok_or_else(|| {
        let shortfall = holders::shortfall_of(&gpus, Goal::Pieces(&lens));
        VramError::InsufficientVram(Box::new(holders::with_holders(core, shortfall, &gpus)))
    })
}
