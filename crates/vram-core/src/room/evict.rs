//! Makes room: which shards would have to be evicted, the room there would be then, and the
//! eviction itself.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::{EventKind, OnEviction};
use vram_id::ShardId;

use crate::error::{Eviction, EvictionPlan, Shortfall, VramError};
use crate::parts::Core;
use crate::parts::core::in_use;
use crate::room::plan::Victim;
use crate::room::{Goal, free, holders, park, plan};
use crate::shard::{Entry, Occupied, ParkedShard};

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

/// Why a shard is not to be evicted, whoever uses it or not; `None` if it may be.
pub(crate) fn stays(core: &Core, entry: &Entry) -> Option<&'static str> {
    if plan::fate(core, entry) == OnEviction::Never {
        Some("is to stay")
    } else if entry.standing.pinned() {
        Some("is pinned")
    } else if entry.not_quarantined().is_err() {
        Some("is in quarantine")
    } else {
        None
    }
}

/// The error for a shard that other calls use.
pub(crate) fn occupied(entry: &Entry, who: Occupied) -> VramError {
    in_use(entry, who.into())
}

/// Carries out a plan. Refuses it if one of its shards may no longer be evicted. Waits for calls
/// that use one of them.
pub fn evict(core: &Core, plan: &EvictionPlan) -> Result<EvictionReport, VramError> {
    core.check_open()?;
    let mut entries = Vec::with_capacity(plan.evictions.len());
    for eviction in &plan.evictions {
        let outdated = |why| VramError::PlanOutdated { shard: eviction.shard_id.clone(), why };
        let entry = core.registry.get(&eviction.shard_id).ok_or_else(|| outdated("is gone"))?;
        if entry.state().gpu_index() != eviction.gpu {
            return Err(outdated("has moved"));
        }
        let leased = || (entry.gate.leases() > 0).then_some("is leased");
        if let Some(why) = stays(core, &entry).or_else(leased) {
            return Err(outdated(why));
        }
        entries.push(entry);
    }
    let mut report = EvictionReport::default();
    for (eviction, entry) in plan.evictions.iter().zip(entries) {
        let pass = entry.gate.exclusive().map_err(|busy| in_use(&entry, busy));
        match pass {
            Ok(_pass) => report.record(eviction, &entry, evict_entry(core, &entry, eviction)),
            Err(error) => report.record(eviction, &entry, Err(error)),
        }
    }
    Ok(report)
}

/// Evicts shards to make room, without waiting: all of them, or none if one is in use or may no
/// longer go. If the eviction of one fails, the rest stay as well.
pub(crate) fn evict_now(core: &Core, victims: &[&Victim]) -> EvictionReport {
    let mut report = EvictionReport::default();
    let mut passes = Vec::with_capacity(victims.len());
    for victim in victims {
        match victim.entry.gate.try_exclusive() {
            Ok(pass) if victim.may_go(core) => passes.push(pass),
            _ => return report,
        }
    }
    for (victim, _pass) in victims.iter().zip(passes) {
        let eviction = victim.eviction();
        let outcome = evict_entry(core, &victim.entry, &eviction);
        report.record(&eviction, &victim.entry, outcome);
        if !report.is_complete() {
            break;
        }
    }
    report
}

impl EvictionReport {
    fn record(
        &mut self,
        eviction: &Eviction,
        entry: &Entry,
        outcome: Result<Option<ParkedShard>, VramError>,
    ) {
        match outcome {
            Ok(parked) => {
                tracing::info!(
                    shard = %entry.id,
                    gpu = eviction.gpu,
                    bytes = eviction.bytes.get(),
                    parked = parked.is_some(),
                    "evicted"
                );
                self.bytes = self.bytes.saturating_add(eviction.bytes);
                self.parked.extend(parked);
                self.evicted.push(eviction.clone());
            }
            // The shard is freed and its bytes stay counted; this was logged where they were set
            // aside.
            Err(VramError::NotReturned { .. }) => {
                self.evicted.push(Eviction { bytes: ByteLen::ZERO, ..eviction.clone() });
            }
            Err(error) => self.kept.push((entry.id.clone(), error)),
        }
    }
}

/// Evicts a shard. The caller is exclusive at its gate.
fn evict_entry(
    core: &Core,
    entry: &Arc<Entry>,
    eviction: &Eviction,
) -> Result<Option<ParkedShard>, VramError> {
    let outdated = |why| VramError::PlanOutdated { shard: entry.id.clone(), why };
    // The shard may have moved, or been found altered, while the call waited.
    let gpu = entry.here()?;
    // Held to the end: no reset takes the shard in between.
    let _pass = gpu.enter()?;
    if gpu.index != eviction.gpu {
        return Err(outdated("has moved"));
    }
    if let Some(why) = stays(core, entry) {
        return Err(outdated(why));
    }
    let how = plan::fate(core, entry);
    let told = || {
        let (shard, gpu, bytes) = (entry.id.clone(), eviction.gpu, eviction.bytes);
        entry.told.emit(EventKind::Evicted { shard, gpu, bytes, how });
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
    let (plan, busy) = plan::plan_for(core, &gpus, Goal::Pieces(&lens), u32::MAX);
    plan.ok_or_else(|| {
        let shortfall = holders::shortfall_of(&gpus, Goal::Pieces(&lens));
        let shortfall = holders::with_holders(core, shortfall, &gpus);
        VramError::InsufficientVram(Box::new(Shortfall { busy, ..shortfall }))
    })
}
