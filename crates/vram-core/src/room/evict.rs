//! Making room: which shards would have to go, what there would be then, and letting them go.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::{EventKind, OnEviction};
use vram_id::ShardId;

use crate::error::{Eviction, EvictionPlan, VramError};
use crate::parts::Core;
use crate::parts::core::in_use;
use crate::room::{Goal, free, holders, park, plan};
use crate::shard::{Entry, ParkedShard};

/// What an eviction did.
#[derive(Debug, Default)]
#[non_exhaustive]
#[must_use = "the shards that were parked are in it"]
pub struct EvictionReport {
    /// The shards that went.
    pub evicted: Vec<Eviction>,
    /// Those of them that were parked, in host memory.
    pub parked: Vec<ParkedShard>,
    /// The shards that did not go, and why.
    pub kept: Vec<(ShardId, VramError)>,
    /// Bytes that came back.
    pub bytes: ByteLen,
}

impl EvictionReport {
    /// Whether everything went that was to go.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.kept.is_empty()
    }
}

/// Why a shard may not be evicted, if it may not.
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

/// Carries out a plan, unless a shard of it may not go any more.
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

/// Carries out a plan as far as it goes.
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
            // It went, and its bytes stay counted: that was logged where they were set aside.
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
    // It may have changed during the wait.
    if entry.view()?.gpu.index != eviction.gpu {
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
            Ok(Some(park::leave(core, copy)))
        }
        OnEviction::Free => free::free_entry_for(core, entry, told).map(|_receipt| None),
        // `Never`: no other kind takes a shard away.
        _ => Err(outdated("is to stay")),
    }
}

/// What would be evicted for `bytes` in one piece; nothing is.
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
