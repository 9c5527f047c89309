//! Computes which shards would have to be evicted, on copies of the arenas and in the policy's
//! order.

use core::panic::AssertUnwindSafe;
use std::collections::HashSet;
use std::panic::catch_unwind;
use std::sync::Arc;

use vram_alloc::{Alignment, ByteLen};
use vram_events::OnEviction;
use vram_id::ShardId;
use vram_space::{DryRun, Gpu};

use crate::error::{BusyShards, Eviction, EvictionPlan};
use crate::parts::{Candidate, Core, EvictionPolicy};
use crate::room::{Goal, evict};
use crate::shard::{Entry, Occupied};
use crate::sync::lock;
use crate::transfer::host::needed;

/// Plans with more shards than this are carried out as the policy ranks them, without checking
/// whether one of them could stay after all: each check costs as much as the plan.
const PRUNED_MAX: usize = 256;

/// The shards that may be evicted, as the policy ranked them once. Plans are made from it as often
/// as needed: each looks again at where the shards lie, and which of them may still go.
#[derive(Debug)]
pub(crate) struct Ranking {
    /// In the order of eviction.
    victims: Vec<Victim>,
    /// Leased shards, which the policy does not see.
    leased: BusyShards,
    /// What had been placed on these GPUs when the shards were listed.
    placed: u64,
    /// The number of shards that were looked at.
    pub(crate) looked_at: usize,
}

/// A shard that may be evicted.
#[derive(Debug)]
pub(crate) struct Victim {
    pub(crate) entry: Arc<Entry>,
    candidate: Candidate,
}

/// Which victims a plan may name.
pub(crate) enum Choose<'a> {
    /// Each that may be evicted, whether calls use it now or not.
    All,
    /// Only those that no call uses now, and that are not among these.
    Idle { except: &'a HashSet<ShardId> },
}

/// Why no eviction helps.
#[derive(Debug, Default)]
pub(crate) struct NoPlan {
    /// The shards that had to be left out because calls use them.
    pub(crate) busy: BusyShards,
    /// Whether shards came or went since they were ranked.
    pub(crate) outdated: bool,
    /// Whether a plan that is made a moment later may find more. Requests that make room hold the
    /// shards of their plan for a moment, also where they give the plan up.
    pub(crate) restless: bool,
}

/// The victims of one plan.
pub(crate) struct Planned<'a> {
    pub(crate) victims: Vec<&'a Victim>,
    bytes: ByteLen,
    after: DryRun,
}

impl Ranking {
    /// Ranks all shards on these GPUs that may be evicted. `None` without a policy, and for a goal
    /// that even empty GPUs do not meet: no shard is looked at then.
    pub(crate) fn of(
        core: &Core,
        gpus: &[Arc<Gpu>],
        goal: Goal<'_>,
        priority_max: u32,
    ) -> Option<Self> {
        let policy = core.eviction.as_ref().filter(|_| !exceeds(gpus, goal))?;
        let now = core.clock.monotonic();
        let placed = placed(gpus);
        let (mut candidates, mut entries) = (Vec::new(), Vec::new());
        let mut leased = BusyShards::default();
        let listed: Vec<_> = gpus.iter().flat_map(|gpu| core.registry.on(gpu.index)).collect();
        let looked_at = listed.len();
        for entry in listed {
            let standing = &entry.standing;
            if standing.claim.priority > priority_max || evict::stays(core, &entry).is_some() {
                continue;
            }
            let Some((gpu, bytes)) = place(&entry) else { continue };
            if bytes.is_zero() || !gpus.iter().any(|one| one.index == gpu) {
                continue;
            }
            if entry.gate.leases() > 0 {
                leased.add(&entry.id, bytes);
                continue;
            }
            candidates.push(Candidate {
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
            entries.push(Some(entry));
        }
        let order = ranking(policy.as_ref(), &candidates);
        let mut candidates: Vec<_> = candidates.into_iter().map(Some).collect();
        let victim = |position: usize| {
            let candidate = candidates.get_mut(position)?.take()?;
            Some(Victim { entry: entries.get_mut(position)?.take()?, candidate })
        };
        let victims = order.into_iter().filter_map(victim).collect();
        Some(Self { victims, leased, placed, looked_at })
    }

    /// The shards to evict so that a goal is met on these GPUs.
    ///
    /// # Errors
    ///
    /// [`NoPlan`] if the goal is not met once all of them went that may go.
    pub(crate) fn plan(
        &self,
        core: &Core,
        gpus: &[Arc<Gpu>],
        goal: Goal<'_>,
        choose: &Choose<'_>,
    ) -> Result<Planned<'_>, NoPlan> {
        let mut plan = Planning { now: DryRun::of(gpus), chosen: Vec::new() };
        let mut lack = NoPlan { busy: self.leased.clone(), ..NoPlan::default() };
        let mut dry_run = plan.now.clone();
        let mut freed = ByteLen::ZERO;
        let mut ranked = self.victims.iter();
        let mut park_room = park_room(core);
        while !goal.is_met(&dry_run, freed) {
            let Some(victim) = ranked.next() else {
                // Shards were listed one by one: one that came meanwhile may be missing.
                lack.outdated |= placed(gpus) != self.placed;
                return Err(lack);
            };
            let Victim { entry, candidate } = victim;
            if !victim.may_go(core) {
                lack.outdated = true;
                continue;
            }
            if let Choose::Idle { except } = choose {
                if except.contains(&entry.id) {
                    continue;
                }
                if let Some(who) = entry.gate.occupant() {
                    lack.busy.add(&entry.id, candidate.bytes);
                    lack.restless |= matches!(who, Occupied::Exclusive | Occupied::Queue(_));
                    continue;
                }
            }
            if candidate.on_eviction == OnEviction::Park {
                let Some(rest) = park_room.checked_sub(entry.park_len()) else { continue };
                park_room = rest;
            }
            if remove(&mut dry_run, entry) {
                freed = freed.saturating_add(candidate.bytes);
                plan.chosen.push(victim);
            } else {
                // It moved after the arenas were copied.
                lack.restless = true;
            }
        }
        plan.prune(goal);
        let (after, bytes) = plan.result();
        Ok(Planned { victims: plan.chosen, bytes, after })
    }

    pub(crate) const fn leased(&self) -> &BusyShards {
        &self.leased
    }

    /// The shards to evict, also if calls use some of them now, and those that are leased.
    pub(crate) fn advice(
        &self,
        core: &Core,
        gpus: &[Arc<Gpu>],
        goal: Goal<'_>,
    ) -> (Option<EvictionPlan>, BusyShards) {
        let plan = self.plan(core, gpus, goal, &Choose::All).ok();
        (plan.map(Planned::into_plan), self.leased.clone())
    }
}

impl Victim {
    pub(crate) fn eviction(&self) -> Eviction {
        let Candidate { shard_id, model_id, owner, gpu, bytes, on_eviction, .. } = &self.candidate;
        Eviction {
            shard_id: shard_id.clone(),
            model_id: Arc::clone(model_id),
            owner: owner.clone(),
            gpu: *gpu,
            bytes: *bytes,
            how: *on_eviction,
        }
    }

    /// Whether the shard lies where it lay when it was ranked, and may still be evicted.
    pub(crate) fn may_go(&self, core: &Core) -> bool {
        place(&self.entry).is_some_and(|(gpu, _)| gpu == self.candidate.gpu)
            && evict::stays(core, &self.entry).is_none()
    }
}

impl Planned<'_> {
    pub(crate) fn into_plan(self) -> EvictionPlan {
        let evictions = self.victims.iter().map(|victim| victim.eviction()).collect();
        EvictionPlan { evictions, bytes: self.bytes, after: self.after.rooms() }
    }
}

/// The shards to evict so that a goal is met on these GPUs, also if calls use some of them now.
/// `None` without a policy, and if no eviction helps.
pub(crate) fn plan_for(
    core: &Core,
    gpus: &[Arc<Gpu>],
    goal: Goal<'_>,
    priority_max: u32,
) -> (Option<EvictionPlan>, BusyShards) {
    let ranking = Ranking::of(core, gpus, goal, priority_max);
    ranking.map_or_else(Default::default, |ranking| ranking.advice(core, gpus, goal))
}

/// Whether a goal needs more bytes than these GPUs have.
fn exceeds(gpus: &[Arc<Gpu>], goal: Goal<'_>) -> bool {
    let total = |gpu: &Arc<Gpu>| {
        // The last granule may be short.
        let total = gpu.ledger.capacity().total;
        total.round_up(Alignment::GRANULE).unwrap_or(total)
    };
    let sum = gpus.iter().fold(ByteLen::ZERO, |sum, gpu| sum.saturating_add(total(gpu)));
    goal.needed() > sum
}

/// How many pieces were placed on these GPUs so far.
fn placed(gpus: &[Arc<Gpu>]) -> u64 {
    let counts = gpus.iter().map(|gpu| lock(&gpu.arena).placed_count());
    counts.fold(0, u64::wrapping_add)
}

/// The GPU that a shard lies on, and the bytes that it takes there.
fn place(entry: &Entry) -> Option<(u32, ByteLen)> {
    entry.state().space().map(|space| (space.gpu().index, space.footprint()))
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
    chosen: Vec<&'a Victim>,
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
        for victim in &self.chosen {
            if remove(&mut dry_run, &victim.entry) {
                freed = freed.saturating_add(victim.candidate.bytes);
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
