//! Makes room for a request that was refused. A request never waits for a shard that is in use: it
//! plans without it.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;

use vram_alloc::ByteLen;
use vram_id::ShardId;
use vram_space::{Gpu, Space};

use crate::error::{BusyShards, Shortfall, VramError};
use crate::parts::Core;
use crate::room::plan::{Advice, Choose, Ranking};
use crate::room::{Goal, RoomMaking, evict, holders, plan};
use crate::shard::{Entry, ParkedModel, ParkedShard};
use crate::sync::lock;

/// The most plans that one request makes. A plan after the first is needed only if another request
/// took the room that was made, or used a shard of the plan: then that one went on.
const PLANS_MAX: u32 = 1024;

/// How often a request tries again because there is room without an eviction.
const RETRIES_MAX: u32 = 64;

/// How often the policy may rank for one request; more often as long as fewer shards than this were
/// looked at.
const RANKINGS_MIN: u32 = 4;
const LOOKS_MAX: usize = 1 << 16;

/// How often a request lets other threads run because they hold shards that it could evict.
const YIELDS_MAX: u32 = 4;

/// Takes everything that was parked to make room, models taken apart into their shards.
pub fn take_evicted(core: &Core) -> Vec<ParkedShard> {
    let evicted = core::mem::take(&mut *lock(&core.evicted));
    evicted.into_shards()
}

/// Takes the models that were parked to make room.
pub fn take_evicted_models(core: &Core) -> Vec<ParkedModel> {
    core::mem::take(&mut lock(&core.evicted).models)
}

/// Makes room for a refused request, if the request allows it and the policy finds a way, and tries
/// the request again, until it succeeds or no shard is left that could go. The refusal that it
/// returns states what would help.
pub(crate) fn with_room<T>(
    core: &Core,
    gpus: &[Arc<Gpu>],
    goal: Goal<'_>,
    room: RoomMaking<'_>,
    mut attempt: impl FnMut() -> Result<T, VramError>,
) -> Result<T, VramError> {
    let mut making = Making::new(core, gpus, goal, room);
    loop {
        match attempt() {
            Err(VramError::InsufficientVram(shortfall)) => {
                if !making.made_room() {
                    return Err(making.refusal(*shortfall));
                }
            }
            // The ledger had room but the driver has no memory: retry once if shards could be
            // evicted there.
            Err(VramError::Device { gpu, source })
                if source.is_out_of_memory()
                    && give_way(core, core.gpu(gpu)?, goal.needed(gpus), room) =>
            {
                return attempt();
            }
            other => return other,
        }
    }
}

/// Finds a placement for a shard that comes from elsewhere. No shard is evicted for it; the refusal
/// states what would help.
pub(crate) fn place_for(core: &Core, entry: &Entry, target: &Arc<Gpu>) -> Result<Space, VramError> {
    let lens = [entry.plaintext_len];
    let waking = entry.member().map(|member| member.model.number);
    let room = RoomMaking { waking, ..RoomMaking::none(entry.standing.priority) };
    let gpus = core::slice::from_ref(target);
    with_room(core, gpus, Goal::Pieces(&lens), room, || Ok(target.place(entry.plaintext_len)?))
}

/// Evicts some shards when the driver itself has no memory. Returns true if a retry is useful.
pub(crate) fn give_way(core: &Core, gpu: &Arc<Gpu>, len: ByteLen, room: RoomMaking<'_>) -> bool {
    Making::new(core, core::slice::from_ref(gpu), Goal::Freed(len), room).made_room()
}

/// A request that makes room.
struct Making<'a> {
    core: &'a Core,
    gpus: &'a [Arc<Gpu>],
    goal: Goal<'a>,
    room: RoomMaking<'a>,
    /// What the policy ranked for an earlier plan.
    ranking: Option<Ranking>,
    plans_left: u32,
    yields_left: u32,
    retries_left: u32,
    /// How often the policy ranked, and how many shards were looked at for that.
    rankings: u32,
    looked_at: usize,
    /// Shards whose eviction failed.
    failed: HashSet<ShardId>,
    /// Shards that were in use when the last plan found no way.
    busy: Option<BusyShards>,
}

impl<'a> Making<'a> {
    fn new(core: &'a Core, gpus: &'a [Arc<Gpu>], goal: Goal<'a>, room: RoomMaking<'a>) -> Self {
        Self {
            core,
            gpus,
            goal,
            room,
            ranking: None,
            plans_left: PLANS_MAX,
            yields_left: YIELDS_MAX,
            retries_left: RETRIES_MAX,
            rankings: 0,
            looked_at: 0,
            failed: HashSet::new(),
            busy: None,
        }
    }

    /// Evicts shards that nobody uses, so that the goal is met. Returns true if it is met, or was
    /// met already, or some shards went: then a retry is useful.
    fn made_room(&mut self) -> bool {
        if !self.room.evicts {
            return false;
        }
        let mut fresh = false;
        while self.plans_left > 0 {
            self.plans_left = self.plans_left.saturating_sub(1);
            fresh |= self.ranking.is_none();
            let Some(ranking) = self.ranking.take().or_else(|| self.rank()) else { return false };
            let choose = Choose::Idle { except: &self.failed };
            match ranking.plan(self.core, self.gpus, self.goal, &choose) {
                Ok(plan) if plan.victims.is_empty() => {
                    // There is room by now, and the request may still lose it to another one.
                    self.ranking = Some(ranking);
                    let left = self.retries_left.checked_sub(1);
                    self.retries_left = left.unwrap_or_default();
                    return left.is_some();
                }
                Ok(plan) => {
                    let asker = self.room.evicted_for();
                    let report = evict::evict_now(self.core, &plan.victims, asker.as_ref());
                    let went = !report.evicted.is_empty();
                    self.keep(report);
                    self.ranking = Some(ranking);
                    if went {
                        return true;
                    }
                }
                // Other shards have come, or leases have ended, since the policy ranked: it ranks
                // once more.
                Err(lack) if (lack.outdated || !fresh) && self.may_rank_again() => {}
                Err(lack) if lack.restless && self.yields_left > 0 => {
                    self.yields_left = self.yields_left.saturating_sub(1);
                    self.ranking = Some(ranking);
                    thread::yield_now();
                }
                Err(lack) => {
                    self.busy = Some(lack.busy);
                    self.ranking = Some(ranking);
                    return false;
                }
            }
        }
        false
    }

    fn rank(&mut self) -> Option<Ranking> {
        let ranking = Ranking::of(self.core, self.gpus, self.goal, self.room)?;
        self.rankings = self.rankings.saturating_add(1);
        self.looked_at = self.looked_at.saturating_add(ranking.looked_at);
        Some(ranking)
    }

    /// Bounds what a refusal costs while other calls place and free shards all the time.
    const fn may_rank_again(&self) -> bool {
        self.rankings < RANKINGS_MIN || self.looked_at < LOOKS_MAX
    }

    /// Keeps what was parked until the program takes it.
    fn keep(&mut self, report: evict::EvictionReport) {
        for (shard, error) in report.kept {
            tracing::warn!(%shard, %error, "could not be evicted");
            self.failed.insert(shard);
        }
        let mut evicted = lock(&self.core.evicted);
        evicted.models.extend(report.models);
        evicted.shards.extend(report.parked);
        drop(evicted);
        if self.core.check_open().is_err() {
            // The thread that closes the manager may have emptied the list before these shards were
            // added.
            drop(take_evicted(self.core));
        }
    }

    /// Adds to a refusal who holds the bytes, who is in use, and what would help. Only a refusal
    /// pays for this.
    fn refusal(self, shortfall: Shortfall) -> VramError {
        let Self { core, gpus, room, .. } = self;
        let (advice, busy) = match (self.ranking, self.busy) {
            // The last plan passed over nothing: another one would find nothing either.
            (Some(ranking), Some(busy)) if busy.count == ranking.leased().count => {
                (Advice::Short(ranking.after_all(core, gpus, self.goal, &self.failed)), busy)
            }
            (Some(ranking), Some(busy)) => {
                (ranking.advice(core, gpus, self.goal, &self.failed), busy)
            }
            _ => plan::plan_for(core, gpus, self.goal, room),
        };
        let shortfall = holders::with_holders(core, shortfall, gpus);
        VramError::InsufficientVram(Box::new(shortfall.advised(advice, busy)))
    }
}

impl Shortfall {
    /// Adds what is in use, and what would help.
    pub(crate) fn advised(mut self, advice: Advice, busy: BusyShards) -> Self {
        self.busy = busy;
        match advice {
            Advice::Evict(plan) => self.plan = Some(plan),
            Advice::Short(rest) => self.after_all = Some(Box::new(rest)),
            Advice::None => {}
        }
        self
    }
}
