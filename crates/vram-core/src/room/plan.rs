//! Computes which shards would have to be evicted, on copies of the arenas and in the policy's
//! order.

use core::panic::AssertUnwindSafe;
use std::collections::HashSet;
use std::panic::catch_unwind;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::OnEviction;
use vram_space::{DryRun, Gpu};

use crate::error::{Eviction, EvictionPlan};
use crate::parts::{Candidate, Core, EvictionPolicy};
use crate::room::{Goal, evict};
use crate::shard::Entry;
use crate::transfer::host::needed;

/// Plans with more shards than this are carried out as the policy ranks them, without checking
/// whether one of them could stay after all: each check costs as much as the plan.
const PRUNED_MAX: usize = 256;

/// The shards to evict so that a goal is met on these GPUs. `None` without a policy, and if no
/// eviction helps.
pub(crate) fn plan_for(
    core: &Core,
    gpus: &[Arc<Gpu>],
    goal: Goal<'_>,
    priority_max: u32,
) -> Option<EvictionPlan> {
    let policy = core.eviction.as_ref()?;
    let now = DryRun::of(gpus);
    let (candidates, entries) = candidates(core, gpus, priority_max);
    let mut plan = Planning { now, chosen: Vec::new() };
    let mut dry_run = plan.now.clone();
    let mut freed = ByteLen::ZERO;
    let mut ranked = ranking(policy.as_ref(), &candidates).into_iter();
    let mut park_room = park_room(core);
    while !goal.is_met(&dry_run, freed) {
        let position = ranked.next()?;
        let (Some(candidate), Some(entry)) = (candidates.get(position), entries.get(position))
        else {
            continue;
        };
        if candidate.on_eviction == OnEviction::Park {
            let Some(rest) = park_room.checked_sub(entry.park_len()) else { continue };
            park_room = rest;
        }
        if remove(&mut dry_run, entry) {
            freed = freed.saturating_add(candidate.bytes);
            plan.chosen.push((candidate, entry));
        }
    }
    plan.prune(goal);
    let (after, bytes) = plan.result();
    let evictions = plan.chosen.iter().map(|(candidate, _)| Eviction {
        shard_id: candidate.shard_id.clone(),
        model_id: Arc::clone(&candidate.model_id),
        owner: candidate.owner.clone(),
        gpu: candidate.gpu,
        bytes: candidate.bytes,
        how: candidate.on_eviction,
    });
    Some(EvictionPlan { evictions: evictions.collect(), bytes, after: after.rooms() })
}

/// All shards on these GPUs that may be evicted, in ascending order of their ids.
fn candidates(
    core: &Core,
    gpus: &[Arc<Gpu>],
    priority_max: u32,
) -> (Vec<Candidate>, Vec<Arc<Entry>>) {
    let now = core.clock.monotonic();
    let mut found = (Vec::new(), Vec::new());
    for entry in gpus.iter().flat_map(|gpu| core.registry.on(gpu.index)) {
        let standing = &entry.standing;
        if evict::cannot_go(core, &entry).is_some() || standing.claim.priority > priority_max {
            continue;
        }
        let place = entry.state().space().map(|space| (space.gpu().index, space.footprint()));
        let Some((gpu, bytes)) = place else { continue };
        if bytes.is_zero() || !gpus.iter().any(|one| one.index == gpu) {
            continue;
        }
        found.0.push(Candidate {
            shard_id: entry.id.clone(),
            model_id: Arc::clone(&entry.sealed_as.model_id),
            owner: entry.holder.owner.clone(),
            gpu,
            bytes,
            priority: standing.claim.priority,
            cost: standing.claim.cost,
            idle: now.saturating_sub(standing.last_used()),
            last_use: standing.use_number(),
            on_eviction: fate(core, &entry),
        });
        found.1.push(entry);
    }
    found
}

/// What eviction does with a shard.
pub(crate) fn fate(core: &Core, entry: &Entry) -> OnEviction {
    entry.standing.claim.on_eviction.unwrap_or(core.on_eviction)
}

fn park_room(core: &Core) -> ByteLen {
    let capacity = core.registry.parked.capacity();
    capacity.limit.saturating_sub(capacity.used)
}

/// A plan that is being computed.
struct Planning<'a> {
    now: DryRun,
    chosen: Vec<(&'a Candidate, &'a Arc<Entry>)>,
}

impl Planning<'_> {
    /// Removes shards from the plan that do not have to be evicted after all, the last ranked
    /// first: the hole that one shard leaves can make the evictions before it unnecessary.
    fn prune(&mut self, goal: Goal<'_>) {
        if self.chosen.len() > PRUNED_MAX {
            return;
        }
        // The last shard is needed: without it the goal was not met.
        for position in (0..self.chosen.len().saturating_sub(1)).rev() {
            let spared = self.chosen.remove(position);
            let (dry_run, freed) = self.result();
            if !goal.is_met(&dry_run, freed) {
                self.chosen.insert(position, spared);
            }
        }
    }

    /// The arenas, and the freed bytes, after all chosen shards were evicted.
    fn result(&self) -> (DryRun, ByteLen) {
        let mut dry_run = self.now.clone();
        let mut freed = ByteLen::ZERO;
        for (candidate, entry) in &self.chosen {
            if remove(&mut dry_run, entry) {
                freed = freed.saturating_add(candidate.bytes);
            }
        }
        (dry_run, freed)
    }
}

/// Removes a shard from a dry run. Returns false if the shard is no longer there.
fn remove(dry_run: &mut DryRun, entry: &Entry) -> bool {
    entry.state().space().is_some_and(|space| space.remove_from(dry_run))
}

/// The policy's answer, without positions that do not exist or appear twice.
fn ranking(policy: &dyn EvictionPolicy, candidates: &[Candidate]) -> Vec<usize> {
    let Ok(ranked) = catch_unwind(AssertUnwindSafe(|| policy.rank(candidates))) else {
        tracing::error!(?policy, "the eviction policy panicked, nothing is evicted");
        return Vec::new();
    };
    let mut seen = HashSet::new();
    ranked.into_iter().filter(|at| *at < candidates.len() && seen.insert(*at)).collect()
}

impl Entry {
    /// Host bytes that parking this shard takes.
    fn park_len(&self) -> ByteLen {
        needed(&self.state().seal, self.plaintext_len)
    }
}
