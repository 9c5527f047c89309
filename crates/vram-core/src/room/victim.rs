//! What goes together when room is made: a model, or one shard.

use core::time::Duration;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::{EvictedFor, OnEviction};
use vram_id::ShardId;
use vram_space::{DryRun, Gpu};

use crate::error::{BusyShards, Eviction};
use crate::parts::{Candidate, Core, EvictionUnit};
use crate::room::{RoomMaking, evict};
use crate::shard::{Admitted, Entry, Occupied};
use crate::transfer::host::needed;

/// A model or a shard that may be evicted.
#[derive(Debug)]
pub(crate) struct Victim {
    /// Its shards that lie on GPUs, in the order of its plan.
    pub(crate) entries: Vec<Arc<Entry>>,
    /// Where each of them lies.
    lies_on: Vec<u32>,
    by_gpu: Vec<(u32, ByteLen)>,
    /// The number of calls on the model that had begun when it was listed; `None` for a shard that
    /// goes alone.
    begun: Option<u64>,
    /// Bytes that it frees on the GPUs that need room.
    pub(crate) here: ByteLen,
    pub(crate) candidate: Candidate,
}

/// Everything that could make room on some GPUs.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    pub(crate) victims: Vec<Victim>,
    /// What is leased, which a policy does not see.
    pub(crate) leased: BusyShards,
    /// The number of shards that were looked at.
    pub(crate) looked_at: usize,
    /// Whether a call brings, moves or takes away one of the models now.
    pub(crate) restless: bool,
}

/// The model that a shard goes with; `None` if it goes alone.
pub(crate) fn model_of<'e>(core: &Core, entry: &'e Entry) -> Option<&'e Arc<Admitted>> {
    let member = entry.member().filter(|_| core.eviction_unit == EvictionUnit::Model);
    member.map(|member| &member.model)
}

/// The shards that go with this one, itself among them: those that lie on GPUs.
pub(crate) fn together(core: &Core, entry: &Arc<Entry>) -> Vec<Arc<Entry>> {
    match model_of(core, entry) {
        Some(model) => model.shards().iter().filter_map(|id| core.registry.get(id)).collect(),
        None => vec![Arc::clone(entry)],
    }
}

impl Listed {
    /// Everything on these GPUs that may be evicted for a request.
    pub(crate) fn on(core: &Core, gpus: &[Arc<Gpu>], room: RoomMaking<'_>) -> Self {
        let now = core.clock.monotonic();
        let mut listed = Self::default();
        let mut models = HashSet::new();
        for entry in gpus.iter().flat_map(|gpu| core.registry.on(gpu.index)) {
            listed.looked_at = listed.looked_at.saturating_add(1);
            let number = entry.member().map(|member| member.model.number);
            if room.waking.is_some() && room.waking == number {
                continue;
            }
            let Some(model) = model_of(core, &entry) else {
                listed.add(core, gpus, room, now, (vec![entry], None));
                continue;
            };
            if !models.insert(model.number) {
                continue;
            }
            let Some(begun) = model.at_rest() else {
                listed.restless = true;
                continue;
            };
            let entries = together(core, &entry);
            listed.looked_at = listed.looked_at.saturating_add(entries.len());
            if model.at_rest() == Some(begun) {
                listed.add(core, gpus, room, now, (entries, Some(begun)));
            } else {
                listed.restless = true;
            }
        }
        listed
    }

    /// Adds shards that go together, if all of them may.
    fn add(
        &mut self,
        core: &Core,
        gpus: &[Arc<Gpu>],
        room: RoomMaking<'_>,
        now: Duration,
        (entries, begun): (Vec<Arc<Entry>>, Option<u64>),
    ) {
        let stays = |entry: &Arc<Entry>| {
            entry.standing.priority > room.priority || evict::stays(core, entry).is_some()
        };
        let Some(first) = entries.first().filter(|_| !entries.iter().any(stays)) else { return };
        let places: Option<Vec<_>> = entries.iter().map(|entry| place(entry)).collect();
        let Some(places) = places else { return };
        let sum = |sum: ByteLen, (_, bytes): &(u32, ByteLen)| sum.saturating_add(*bytes);
        let is_here = |gpu: u32| gpus.iter().any(|one| one.index == gpu);
        let here = places.iter().filter(|(gpu, _)| is_here(*gpu)).fold(ByteLen::ZERO, sum);
        if here.is_zero() {
            return;
        }
        if let Some(leased) = entries.iter().find(|entry| entry.gate.leases() > 0) {
            self.leased.add(&leased.id, &leased.holder().model_id, here);
            return;
        }
        let standing = |entry: &Arc<Entry>| {
            let standing = &entry.standing;
            (standing.claim(), standing.last_used(), standing.use_number())
        };
        let all = || entries.iter().map(standing);
        let candidate = Candidate {
            shard_id: first.id.clone(),
            shard_count: u64::try_from(entries.len()).unwrap_or(u64::MAX),
            model_id: Arc::clone(&first.holder().model_id),
            owner: first.holder().owner.clone(),
            gpu: places.first().map_or(0, |(gpu, _)| *gpu),
            bytes: places.iter().fold(ByteLen::ZERO, sum),
            priority: all().map(|(claim, ..)| claim.priority).max().unwrap_or(0),
            cost: all().fold(0, |sum, (claim, ..)| sum.saturating_add(claim.cost)),
            idle: now.saturating_sub(all().map(|(_, used, _)| used).max().unwrap_or_default()),
            last_use: all().map(|(.., number)| number).max().unwrap_or(0),
            on_eviction: fate(core, first),
        };
        let by_gpu = summed(places.iter().copied());
        let lies_on = places.into_iter().map(|(gpu, _)| gpu).collect();
        self.victims.push(Victim { entries, lies_on, by_gpu, begun, here, candidate });
    }
}

impl Victim {
    pub(crate) fn id(&self) -> &ShardId {
        &self.candidate.shard_id
    }

    pub(crate) fn eviction(&self) -> Eviction {
        let Candidate { shard_id, shard_count, model_id, owner, gpu, bytes, on_eviction, .. } =
            &self.candidate;
        Eviction {
            shard_id: shard_id.clone(),
            shard_count: *shard_count,
            model_id: Arc::clone(model_id),
            owner: owner.clone(),
            gpu: *gpu,
            by_gpu: self.by_gpu.clone(),
            bytes: *bytes,
            how: *on_eviction,
        }
    }

    /// Whether every shard lies where it lay when the policy ranked it and may still be evicted, and
    /// no call has brought or moved the model, or one of its shards, since.
    pub(crate) fn may_go(&self, core: &Core) -> bool {
        let may = |(entry, gpu): (&Arc<Entry>, &u32)| {
            place(entry).is_some_and(|(now, _)| now == *gpu) && evict::stays(core, entry).is_none()
        };
        let model = self.entries.first().and_then(|first| model_of(core, first));
        let same = model.is_none_or(|model| model.at_rest() == self.begun);
        same && self.entries.iter().zip(&self.lies_on).all(may)
    }

    /// Its shards on these GPUs, and the bytes that each takes there.
    pub(crate) fn here_on(&self, gpus: &[Arc<Gpu>]) -> impl Iterator<Item = (&Entry, ByteLen)> {
        self.entries.iter().filter_map(|entry| {
            let (gpu, bytes) = place(entry)?;
            gpus.iter().any(|one| one.index == gpu).then_some((&**entry, bytes))
        })
    }

    /// The first of its shards that a call uses now.
    pub(crate) fn occupied(&self) -> Option<(&Entry, Occupied)> {
        self.entries.iter().find_map(|entry| Some((&**entry, entry.gate.occupant()?)))
    }

    /// Host bytes that parking it takes.
    pub(crate) fn park_len(&self) -> ByteLen {
        let len = |entry: &Arc<Entry>| needed(&entry.state().seal, entry.plaintext_len);
        self.entries.iter().fold(ByteLen::ZERO, |sum, entry| sum.saturating_add(len(entry)))
    }

    /// Removes it from a dry run. Returns false if one of its shards is not where it lay; then the
    /// dry run is of no use any more.
    pub(crate) fn leave(&self, dry_run: &mut DryRun) -> bool {
        self.entries.iter().zip(&self.lies_on).all(|(entry, gpu)| {
            !dry_run.covers(*gpu)
                || entry.state().space().is_some_and(|space| space.remove_from(dry_run))
        })
    }
}

impl RoomMaking<'_> {
    /// The request, as those learn it who go for it.
    pub(crate) fn evicted_for(self) -> Option<Arc<EvictedFor>> {
        let (model_id, owner) = self.asker?;
        Some(Arc::new(EvictedFor::new(Arc::clone(model_id), owner.map(Arc::clone))))
    }
}

/// The GPU that a shard lies on, and the bytes that it takes there.
pub(crate) fn place(entry: &Entry) -> Option<(u32, ByteLen)> {
    entry.state().space().map(|space| (space.gpu().index, space.footprint()))
}

/// The bytes of shards on each GPU, in ascending order of the GPUs.
pub(crate) fn by_gpu(entries: &[Arc<Entry>]) -> Vec<(u32, ByteLen)> {
    summed(entries.iter().filter_map(|entry| place(entry)))
}

fn summed(places: impl Iterator<Item = (u32, ByteLen)>) -> Vec<(u32, ByteLen)> {
    let mut sums: BTreeMap<u32, ByteLen> = BTreeMap::new();
    for (gpu, bytes) in places {
        let sum = sums.entry(gpu).or_default();
        *sum = sum.saturating_add(bytes);
    }
    sums.into_iter().collect()
}

/// What eviction does with a shard.
pub(crate) fn fate(core: &Core, entry: &Entry) -> OnEviction {
    entry.standing.claim().on_eviction.unwrap_or(core.on_eviction)
}
