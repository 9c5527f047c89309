//! Makes room: what would have to be evicted, the room there would be then, and the eviction itself.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::{EventKind, EvictedFor, OnEviction};
use vram_id::ShardId;
use vram_space::Gpu;

use crate::error::{Eviction, EvictionPlan, VramError};
use crate::parts::Core;
use crate::parts::core::in_use;
use crate::room::plan::Advice;
use crate::room::victim::{self, Victim, together};
use crate::room::{Goal, RoomMaking, free, holders, park, plan};
use crate::shard::gate::{self, Patience};
use crate::shard::{Admitted, Entry, Occupied, ParkedModel, ParkedShard};

/// The result of an eviction.
#[derive(Debug, Default)]
#[non_exhaustive]
#[must_use = "the models and shards that were parked are in it"]
pub struct EvictionReport {
    /// The models and shards that were evicted.
    pub evicted: Vec<Eviction>,
    /// The models that were parked in host memory, to be woken as they are.
    pub models: Vec<ParkedModel>,
    /// The shards that were parked in host memory and are no model: those that were sealed by
    /// themselves, or evicted on their own.
    pub parked: Vec<ParkedShard>,
    /// The models, by their first shards, and the shards that were not evicted, each with the
    /// reason.
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
    if victim::fate(core, entry) == OnEviction::Never {
        Some("is to stay")
    } else if entry.standing.pinned() {
        Some("is pinned")
    } else if entry.not_quarantined().is_err() {
        Some("is in quarantine")
    } else if victim::fate(core, entry) == OnEviction::Park && is_lost(entry) {
        Some("lies on a lost gpu, and cannot be parked from there")
    } else {
        None
    }
}

fn is_lost(entry: &Entry) -> bool {
    let gpu = entry.state().space().map(|space| Arc::clone(space.gpu()));
    gpu.is_some_and(|gpu| gpu.lost().is_some())
}

/// The error for a shard that other calls use.
pub(crate) fn occupied(entry: &Entry, who: Occupied) -> VramError {
    in_use(entry, who.into())
}

/// Carries out a plan. Refuses it if something of it may no longer be evicted. Waits for calls that
/// use it.
pub fn evict(core: &Core, plan: &EvictionPlan) -> Result<EvictionReport, VramError> {
    core.check_open()?;
    let mut all = Vec::with_capacity(plan.evictions.len());
    for eviction in &plan.evictions {
        let outdated = |why| VramError::PlanOutdated { shard: eviction.shard_id.clone(), why };
        let entry = core.registry.get(&eviction.shard_id).ok_or_else(|| outdated("is gone"))?;
        if entry.state().gpu_index() != eviction.gpu {
            return Err(outdated("has moved"));
        }
        let entries = together(core, &entry);
        if u64::try_from(entries.len()) != Ok(eviction.shard_count) {
            return Err(outdated("is of a model with other shards now"));
        }
        if victim::by_gpu(&entries) != eviction.by_gpu {
            return Err(outdated("has moved"));
        }
        for entry in &entries {
            let leased = || (entry.gate.leases() > 0).then_some("is leased");
            if let Some(why) = stays(core, entry).or_else(leased) {
                return Err(VramError::PlanOutdated { shard: entry.id.clone(), why });
            }
        }
        all.push(entries);
    }
    let mut report = EvictionReport::default();
    for (eviction, entries) in plan.evictions.iter().zip(all) {
        let mut gates: Vec<_> = entries.iter().map(|entry| (&**entry, &entry.gate)).collect();
        gates.sort_unstable_by(|(one, _), (other, _)| one.id.cmp(&other.id));
        let outcome = gate::exclusive_all(&gates, Patience::ForCalls)
            .map_err(|(entry, refusal)| in_use(entry, refusal.for_ever()))
            .and_then(|_passes| evict_together(core, &entries, eviction, None));
        report.record(eviction, outcome);
    }
    Ok(report)
}

/// Evicts what was chosen to make room, without waiting: all of it, or nothing if a part of it is in
/// use or may no longer go. If the eviction of one model or shard fails, the rest stay as well.
pub(crate) fn evict_now(
    core: &Core,
    victims: &[&Victim],
    evicted_for: Option<&Arc<EvictedFor>>,
) -> EvictionReport {
    let mut report = EvictionReport::default();
    let mut passes = Vec::with_capacity(victims.len());
    for victim in victims {
        for entry in &victim.entries {
            let Ok(pass) = entry.gate.try_exclusive() else { return report };
            passes.push(pass);
        }
        if !victim.may_go(core) {
            return report;
        }
    }
    for victim in victims {
        let eviction = victim.eviction();
        let outcome = evict_together(core, &victim.entries, &eviction, evicted_for);
        report.record(&eviction, outcome);
        if !report.is_complete() {
            break;
        }
    }
    report
}

/// What became of evicted shards.
struct Went {
    /// Bytes that became free.
    bytes: ByteLen,
    model_id: Option<Arc<str>>,
    /// The shards, if they were parked.
    parked: Option<Vec<ParkedShard>>,
}

impl EvictionReport {
    fn record(&mut self, eviction: &Eviction, outcome: Result<Went, VramError>) {
        let Went { bytes, model_id, parked } = match outcome {
            Ok(went) => went,
            Err(error) => {
                self.kept.push((eviction.shard_id.clone(), error));
                return;
            }
        };
        tracing::info!(
            shard = %eviction.shard_id,
            shards = eviction.shard_count,
            gpu = eviction.gpu,
            bytes = bytes.get(),
            parked = parked.is_some(),
            "evicted"
        );
        self.bytes = self.bytes.saturating_add(bytes);
        self.evicted.push(Eviction { bytes, ..eviction.clone() });
        let Some(shards) = parked else { return };
        match ParkedModel::of(&model_id.unwrap_or_else(|| Arc::clone(&eviction.model_id)), shards) {
            Ok(model) => self.models.push(model),
            Err(shards) => self.parked.extend(shards),
        }
    }
}

/// Evicts shards that go together: all of them, or none. The caller is exclusive at their gates.
fn evict_together(
    core: &Core,
    entries: &[Arc<Entry>],
    eviction: &Eviction,
    evicted_for: Option<&Arc<EvictedFor>>,
) -> Result<Went, VramError> {
    let Some(first) = entries.first() else {
        return Ok(Went { bytes: ByteLen::ZERO, model_id: None, parked: None });
    };
    let model = victim::model_of(core, first);
    let _going = model.map(Admitted::begin);
    let first_outdated = |why| VramError::PlanOutdated { shard: first.id.clone(), why };
    if model.is_some_and(|model| !model.has_one_call()) {
        return Err(first_outdated("is of a model that another call brings or moves"));
    }
    // A shard of the model may have come back, or moved, since it was listed.
    let now = together(core, first);
    if now.len() != entries.len() || !now.iter().zip(entries).all(|(a, b)| Arc::ptr_eq(a, b)) {
        return Err(first_outdated("is of a model with other shards now"));
    }
    if victim::by_gpu(entries) != eviction.by_gpu {
        return Err(first_outdated("has moved"));
    }
    let mut passes = BTreeMap::new();
    for entry in entries {
        let outdated = |why| VramError::PlanOutdated { shard: entry.id.clone(), why };
        // A shard may have moved, or been found altered, while the call waited.
        let gpu = entry.here()?;
        // Held to the end: no reset takes a shard in between.
        if let Slot::Vacant(vacant) = passes.entry(gpu.index) {
            vacant.insert(gpu.enter()?);
        }
        if let Some(why) = stays(core, entry) {
            return Err(outdated(why));
        }
    }
    let how = victim::fate(core, first);
    let told = |entry: &Entry, (gpu, bytes): (u32, ByteLen)| {
        let (shard, evicted_for) = (entry.id.clone(), evicted_for.map(Arc::clone));
        entry.told().emit(EventKind::Evicted { shard, gpu, bytes, how, evicted_for });
    };
    let places = entries.iter().map(|entry| victim::place(entry).unwrap_or_default());
    let places: Vec<_> = places.collect();
    let mut bytes = ByteLen::ZERO;
    let parked = match how {
        OnEviction::Park => {
            // All copies are made before the first shard goes: a failure changes nothing.
            let copies = entries.iter().map(|entry| park::host_copy(core, entry));
            let copies = copies.collect::<Result<Vec<_>, _>>()?;
            let mut parked = Vec::with_capacity(copies.len());
            for (copy, place) in copies.into_iter().zip(places) {
                told(&copy.entry, place);
                parked.push(park::leave_for(core, copy, evicted_for)?);
                bytes = bytes.saturating_add(place.1);
            }
            Some(parked)
        }
        OnEviction::Free => {
            for (entry, place) in entries.iter().zip(places) {
                match free::free_entry_for(core, entry, || told(entry, place)) {
                    Ok(receipt) => bytes = bytes.saturating_add(receipt.bytes),
                    // Freed, and the bytes stay counted; this was logged where they were set aside.
                    Err(VramError::NotReturned { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            None
        }
        // `Never`. Each other kind evicts the shards and is handled above.
        _ => return Err(first_outdated("is to stay")),
    };
    if victim::model_of(core, first).is_some() {
        let shards = eviction.shard_count;
        let evicted_for = evicted_for.map(Arc::clone);
        let kind = EventKind::ModelEvicted { shards, bytes, how, evicted_for };
        first.told().tell_model(core.events.now(), kind);
    }
    Ok(Went { bytes, model_id: Some(Arc::clone(&first.holder().model_id)), parked })
}

/// What would have to be evicted so that `bytes` are free in one piece. Evicts nothing.
pub fn plan_eviction(core: &Core, gpu: u32, bytes: ByteLen) -> Result<EvictionPlan, VramError> {
    core.check_open()?;
    let gpus = [Arc::clone(core.gpu(gpu)?)];
    let [only] = &gpus;
    only.ready()?;
    plan_for(core, &gpus, &[bytes])
}

/// What would have to be evicted so that pieces of these lengths can be placed on these GPUs, in this
/// order. Evicts nothing.
pub(crate) fn plan_for(
    core: &Core,
    gpus: &[Arc<Gpu>],
    lens: &[ByteLen],
) -> Result<EvictionPlan, VramError> {
    if core.eviction.is_none() {
        return Err(VramError::config("no eviction policy was given to the builder"));
    }
    let (goal, room) = (Goal::Pieces(lens), RoomMaking::none(u32::MAX));
    match plan::plan_for(core, gpus, goal, room) {
        (Advice::Evict(plan), _) => Ok(plan),
        (advice, busy) => {
            let shortfall = holders::shortfall_of(gpus, goal);
            let shortfall = holders::with_holders(core, shortfall, gpus);
            Err(VramError::InsufficientVram(Box::new(shortfall.advised(advice, busy))))
        }
    }
}
