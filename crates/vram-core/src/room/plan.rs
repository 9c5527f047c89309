//! Computes which shards would have to be evicted, on copies of the arenas and in the policy's
//! order.

use core::panic::AssertUnwindSafe;
use std::collections::{BTreeMap, HashSet};
use std::panic::catch_unwind;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::OnEviction;
use vram_id::ShardId;
use vram_space::{DryRun, Gpu};

use crate::error::{AfterAll, BusyShards, Eviction, EvictionPlan};
use crate::parts::{Candidate, Core, EvictionPolicy};
use crate::room::victim::{Listed, Victim};
use crate::room::{Goal, RoomMaking, holders};
use crate::shard::Occupied;
use crate::sync::lock;

/// Plans of more victims than the first, for which their number times that of their shards is more
/// than the second, are carried out as the policy ranks them, without checking whether one of them
/// could stay after all: each check costs as much as the plan.
const ALWAYS_PRUNED_MAX: usize = 8;
const PRUNED_MAX: usize = 1 << 20;

/// What may be evicted, as the policy ranked it once. Plans are made from it as often as needed:
/// each looks again at where the shards lie, and which of them may still go.
#[derive(Debug)]
pub(crate) struct Ranking {
    /// In the order of eviction.
    victims: Vec<Victim>,
    /// What is leased, which the policy does not see.
    leased: BusyShards,
    /// What had been placed on these GPUs when the shards were listed.
    placed: u64,
    /// The number of shards that were looked at.
    pub(crate) looked_at: usize,
    /// Whether a call was bringing, moving or taking away a model.
    restless: bool,
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

/// What a refusal says of evictions.
#[derive(Debug, Default)]
pub(crate) enum Advice {
    /// This would help.
    Evict(EvictionPlan),
    /// Nothing would: this is missing even so.
    Short(AfterAll),
    /// There is no policy, or not even empty GPUs would do.
    #[default]
    None,
}

/// The victims of one plan.
pub(crate) struct Planned<'a> {
    pub(crate) victims: Vec<&'a Victim>,
    after: DryRun,
}

impl Ranking {
    /// Ranks everything on these GPUs that may be evicted. `None` without a policy, and for a goal
    /// that even empty GPUs do not meet: no shard is looked at then.
    pub(crate) fn of(
        core: &Core,
        gpus: &[Arc<Gpu>],
        goal: Goal<'_>,
        room: RoomMaking<'_>,
    ) -> Option<Self> {
        let policy = core.eviction.as_ref().filter(|_| !exceeds(gpus, goal))?;
        let placed = placed(gpus);
        let Listed { victims, leased, looked_at, restless } = Listed::on(core, gpus, room);
        let (candidates, mut rest): (Vec<_>, Vec<_>) =
            victims.into_iter().map(|one| (one.candidate.clone(), Some(one))).unzip();
        let order = ranking(policy.as_ref(), &candidates);
        let ranked = order.into_iter().filter_map(|position| rest.get_mut(position)?.take());
        Some(Self { victims: ranked.collect(), leased, placed, looked_at, restless })
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
        lack.restless = self.restless;
        let mut dry_run = plan.now.clone();
        let mut freed = ByteLen::ZERO;
        let mut ranked = self.victims.iter();
        let mut park_room = park_room(core);
        let least = goal.least(gpus);
        // Placing all pieces costs much: after it has failed it is tried again when an eighth more
        // victims are chosen, and the number of them that is needed is found between the two.
        let (mut failed_at, mut next_at) = (0, 0);
        loop {
            let count = plan.chosen.len();
            if count >= next_at && goal.may_be_met(least, &dry_run, freed) {
                if goal.is_met(&dry_run, freed) {
                    break;
                }
                failed_at = count;
                next_at = count.saturating_add(count.div_ceil(8)).max(count.saturating_add(1));
            }
            let Some(victim) = ranked.next() else {
                // All of them, if that was not tried.
                if count > failed_at && goal.is_met(&dry_run, freed) {
                    break;
                }
                // Shards were listed one by one: one that came meanwhile may be missing.
                lack.outdated |= self.restless || placed(gpus) != self.placed;
                return Err(lack);
            };
            if !victim.may_go(core) {
                lack.outdated = true;
                continue;
            }
            if let Choose::Idle { except } = choose {
                if except.contains(victim.id()) {
                    continue;
                }
                if let Some((entry, who)) = victim.occupied() {
                    lack.busy.add(&entry.id, &victim.candidate.model_id, victim.here);
                    lack.restless |= matches!(who, Occupied::Exclusive | Occupied::Queue(_));
                    continue;
                }
            }
            if victim.candidate.on_eviction == OnEviction::Park {
                let Some(rest) = park_room.checked_sub(victim.park_len()) else { continue };
                park_room = rest;
            }
            if victim.leave(&mut dry_run) {
                freed = freed.saturating_add(victim.here);
                plan.chosen.push(victim);
            } else {
                // It moved after the arenas were copied.
                lack.restless = true;
                dry_run = plan.result().0;
            }
        }
        plan.shorten(goal, failed_at);
        plan.prune(goal);
        let (after, _) = plan.result();
        Ok(Planned { victims: plan.chosen, after })
    }

    /// What is missing after everything has gone that may go, whether calls use it now or not.
    pub(crate) fn after_all(
        &self,
        core: &Core,
        gpus: &[Arc<Gpu>],
        goal: Goal<'_>,
        except: &HashSet<ShardId>,
    ) -> AfterAll {
        let (mut park_room, mut not_parked) = (park_room(core), ByteLen::ZERO);
        let mut chosen = Vec::new();
        let mut gone: BTreeMap<_, (ByteLen, u64)> = BTreeMap::new();
        for victim in &self.victims {
            if except.contains(victim.id()) || !victim.may_go(core) {
                continue;
            }
            if victim.candidate.on_eviction == OnEviction::Park {
                let needed = victim.park_len();
                let Some(rest) = park_room.checked_sub(needed) else {
                    not_parked = not_parked.saturating_add(needed);
                    continue;
                };
                park_room = rest;
            }
            for (entry, bytes) in victim.here_on(gpus) {
                let (sum, count) = gone.entry(entry.holder().clone()).or_default();
                *sum = sum.saturating_add(bytes);
                *count = count.saturating_add(1);
            }
            chosen.push(victim);
        }
        let (after, _) = Planning { now: DryRun::of(gpus), chosen }.result();
        AfterAll {
            room: after.room(),
            largest_hole: after.largest_hole(),
            missing: goal.needed(gpus).saturating_sub(after.room()),
            not_parked: not_parked.saturating_sub(park_room),
            held_by: holders::largest(core, gpus, &gone),
        }
    }

    pub(crate) const fn leased(&self) -> &BusyShards {
        &self.leased
    }

    /// What to evict, also if calls use some of it now.
    pub(crate) fn advice(
        &self,
        core: &Core,
        gpus: &[Arc<Gpu>],
        goal: Goal<'_>,
        except: &HashSet<ShardId>,
    ) -> Advice {
        match self.plan(core, gpus, goal, &Choose::All) {
            Ok(plan) => Advice::Evict(plan.into_plan()),
            Err(_no_plan) => Advice::Short(self.after_all(core, gpus, goal, except)),
        }
    }
}

impl Planned<'_> {
    pub(crate) fn into_plan(self) -> EvictionPlan {
        let evictions: Vec<_> = self.victims.iter().map(|victim| victim.eviction()).collect();
        let sum = |sum: ByteLen, one: &Eviction| sum.saturating_add(one.bytes);
        let bytes = evictions.iter().fold(ByteLen::ZERO, sum);
        EvictionPlan { evictions, bytes, after: self.after.rooms() }
    }
}

/// What to evict so that a goal is met on these GPUs, also if calls use some of it now.
pub(crate) fn plan_for(
    core: &Core,
    gpus: &[Arc<Gpu>],
    goal: Goal<'_>,
    room: RoomMaking<'_>,
) -> (Advice, BusyShards) {
    let ranking = Ranking::of(core, gpus, goal, room);
    ranking.map_or_else(Default::default, |ranking| {
        (ranking.advice(core, gpus, goal, &HashSet::new()), ranking.leased.clone())
    })
}

/// Whether a goal needs more bytes than these GPUs have.
fn exceeds(gpus: &[Arc<Gpu>], goal: Goal<'_>) -> bool {
    let total = |gpu: &Arc<Gpu>| {
        // The last granule may be short.
        let total = gpu.ledger.capacity().total;
        total.round_up(gpu.granule()).unwrap_or(total)
    };
    let sum = gpus.iter().fold(ByteLen::ZERO, |sum, gpu| sum.saturating_add(total(gpu)));
    goal.needed(gpus) > sum
}

/// How many pieces were placed on these GPUs so far.
fn placed(gpus: &[Arc<Gpu>]) -> u64 {
    let counts = gpus.iter().map(|gpu| lock(&gpu.arena).placed_count());
    counts.fold(0, u64::wrapping_add)
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
    /// Keeps no more victims than the first that meet the goal; `failed_at` of them do not.
    fn shorten(&mut self, goal: Goal<'_>, failed_at: usize) {
        let (mut fails, mut meets) = (failed_at, self.chosen.len());
        while meets.saturating_sub(fails) > 1 {
            let middle = fails.midpoint(meets);
            let (dry_run, freed) = self.result_of(middle);
            if goal.is_met(&dry_run, freed) {
                meets = middle;
            } else {
                fails = middle;
            }
        }
        self.chosen.truncate(meets);
    }

    /// Removes shards from the plan that do not have to be evicted after all, the last ranked
    /// first: the hole that one shard leaves can make the evictions before it unnecessary.
    fn prune(&mut self, goal: Goal<'_>) {
        let shards: usize = self.chosen.iter().map(|victim| victim.entries.len()).sum();
        let count = self.chosen.len();
        if count > ALWAYS_PRUNED_MAX && count.saturating_mul(shards) > PRUNED_MAX {
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
        self.result_of(self.chosen.len())
    }

    /// The same after the first `count` of them.
    fn result_of(&self, count: usize) -> (DryRun, ByteLen) {
        let mut dry_run = self.now.clone();
        let mut freed = ByteLen::ZERO;
        for victim in self.chosen.iter().take(count) {
            if victim.leave(&mut dry_run) {
                freed = freed.saturating_add(victim.here);
            }
        }
        (dry_run, freed)
    }
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
