//! What a manager holds, by model: how much of each is there, who uses it, and how old that is.

pub mod figures;
pub mod lines;
pub mod ticket;

pub use self::figures::{ModelFigures, ModelMetrics};

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::{PieceName, Whose};
use vram_id::ShardId;

use crate::parts::Core;
use crate::shard::{Admitted, Entry, Leased, Place, ShardState};

/// How much of a model is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ModelState {
    /// Every piece lies on a GPU.
    Whole,
    /// Some pieces are gone, parked by themselves, or being restored.
    Partial,
    /// Every piece is parked.
    Parked,
    /// A call brings, moves or takes away the whole model now: the figures are of no one moment.
    UnderWay,
    /// The shards were sealed one by one: nothing says which of them belong together.
    Single,
}

impl ModelState {
    /// A stable name, for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Partial => "partial",
            Self::Parked => "parked",
            Self::UnderWay => "under way",
            Self::Single => "single",
        }
    }
}

/// One model that was admitted, or the shards of one model id and owner that were sealed by
/// themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ModelReport {
    /// The model that the shards were sealed as.
    pub model_id: Arc<str>,
    /// The owner that the request named, if any.
    pub owner: Option<Arc<str>>,
    /// The number of the admission, as in events; `None` for shards that were sealed by themselves.
    pub admission: Option<u64>,
    /// How much of it is there.
    pub state: ModelState,
    /// The GPUs that hold pieces, in ascending order.
    pub gpus: Vec<u32>,
    /// The number of pieces in its plan; of shards that were sealed by themselves, their number.
    pub pieces: u64,
    /// Pieces that lie on a GPU, lost ones included.
    pub resident: u64,
    /// Pieces on a GPU that is lost.
    pub lost: u64,
    /// Pieces that are parked.
    pub parked: u64,
    /// Pieces that were found altered.
    pub quarantined: u64,
    /// Device bytes that the pieces take.
    pub bytes: ByteLen,
    /// Host bytes that parked pieces take.
    pub host_bytes: ByteLen,
    /// Leases of all pieces. Those of a piece that a reset took away, which its holder still has,
    /// are in `Report::lease_count` and the metrics alone.
    pub lease_count: u64,
    /// The lease that began first.
    pub oldest_lease: Option<LeaseReport>,
    /// Pieces that are pinned.
    pub pinned: u64,
    /// The longest time for which no check has found a piece sound, over all pieces that can be
    /// read.
    pub oldest_unverified: Option<Duration>,
}

/// A lease, and the shard that it keeps in use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LeaseReport {
    /// The shard.
    pub shard_id: ShardId,
    /// The model that the shard was sealed as.
    pub model_id: Arc<str>,
    /// The owner of the shard, if any.
    pub owner: Option<Arc<str>>,
    /// The piece of the model, if the shard was admitted with one.
    pub piece: Option<PieceName>,
    /// The name that the program gave for the holder of the lease; `None` if it gave none.
    pub holder: Option<Arc<str>>,
    /// Time since the lease began, by the manager's monotonic clock.
    pub age: Duration,
}

impl LeaseReport {
    pub(crate) fn new(shard: &ShardId, of: &Whose, leased: Leased, now: Duration) -> Self {
        Self {
            shard_id: shard.clone(),
            model_id: Arc::clone(&of.model_id),
            owner: of.owner.clone(),
            piece: of.piece.clone(),
            holder: leased.holder,
            age: now.saturating_sub(leased.since),
        }
    }
}

/// All models, in ascending order of model id, owner and admission.
pub fn models(core: &Core) -> Vec<ModelReport> {
    let lost = core.lost_gpus();
    look(core, &core.registry.all(), &lost)
}

/// What is known of one model after a look at some of its shards.
struct Seen {
    report: ModelReport,
    model: Option<(Arc<Admitted>, Option<u64>)>,
    oldest: Option<(Leased, Arc<Entry>)>,
}

impl Seen {
    /// The model of a shard; nothing is counted yet. Calls on the whole model that run now, or begin
    /// before [`end`](Self::end), are noticed there.
    fn begin(entry: &Entry) -> Self {
        let model = entry.member().map(|member| &member.model);
        let report = ModelReport {
            model_id: Arc::clone(&entry.holder().model_id),
            owner: entry.holder().owner.clone(),
            admission: model.map(|model| model.number),
            state: ModelState::Single,
            gpus: Vec::new(),
            pieces: model.map_or(0, |model| ByteLen::from_usize(model.plan.pieces().len()).get()),
            resident: 0,
            lost: 0,
            parked: 0,
            quarantined: 0,
            bytes: ByteLen::ZERO,
            host_bytes: ByteLen::ZERO,
            lease_count: 0,
            oldest_lease: None,
            pinned: 0,
            oldest_unverified: None,
        };
        Self {
            report,
            model: model.map(|model| (Arc::clone(model), model.at_rest())),
            oldest: None,
        }
    }

    fn add(&mut self, entry: &Arc<Entry>, lost: &[u32], now: Duration) {
        let state = entry.state();
        let there = state.place().state();
        if !there.is_on_gpu() && there != ShardState::Parked {
            return;
        }
        let standing = state.standing(lost);
        let report = &mut self.report;
        if report.admission.is_none() {
            count(&mut report.pieces);
        }
        match (state.space(), state.place()) {
            (Some(space), _) => {
                count(&mut report.resident);
                report.gpus.push(space.gpu().index);
                report.bytes = report.bytes.saturating_add(space.footprint());
                if state.quarantine.is_some() {
                    count(&mut report.quarantined);
                } else if standing == ShardState::Resident {
                    let age = state.ages.unverified_for(now);
                    report.oldest_unverified = report.oldest_unverified.max(Some(age));
                }
            }
            (None, Place::Parked { host_len, .. }) => {
                count(&mut report.parked);
                report.host_bytes = report.host_bytes.saturating_add(*host_len);
            }
            _ => {}
        }
        drop(state);
        if standing == ShardState::Lost {
            count(&mut report.lost);
        }
        if entry.standing.pinned() {
            count(&mut report.pinned);
        }
        let (leases, oldest) = entry.gate.lease_figures();
        let leases = u64::try_from(leases).unwrap_or(u64::MAX);
        report.lease_count = report.lease_count.saturating_add(leases);
        if let Some(leased) = oldest
            && self.oldest.as_ref().is_none_or(|(oldest, _)| leased < *oldest)
        {
            self.oldest = Some((leased, Arc::clone(entry)));
        }
    }

    fn end(self, now: Duration) -> ModelReport {
        let Self { mut report, model, oldest } = self;
        report.gpus.sort_unstable();
        report.gpus.dedup();
        report.oldest_lease = oldest
            .map(|(leased, entry)| LeaseReport::new(&entry.id, &entry.of.whose(), leased, now));
        if let Some((model, before)) = model {
            report.state = if before.is_none() || model.at_rest() != before {
                ModelState::UnderWay
            } else if report.resident == report.pieces {
                ModelState::Whole
            } else if report.parked == report.pieces {
                ModelState::Parked
            } else {
                ModelState::Partial
            };
        }
        report
    }
}

/// The models of these shards, each looked at once.
pub(crate) fn look(core: &Core, entries: &[Arc<Entry>], lost: &[u32]) -> Vec<ModelReport> {
    let now = core.clock.monotonic();
    let mut numbers = BTreeMap::new();
    let mut all: Vec<Seen> = Vec::new();
    // Begun for all models before any shard is looked at.
    let mut of = Vec::with_capacity(entries.len());
    for entry in entries {
        let next = all.len();
        let number = *numbers.entry(KeyOf::from(&**entry)).or_insert(next);
        if number == next {
            all.push(Seen::begin(entry));
        }
        of.push(number);
    }
    for (entry, number) in entries.iter().zip(of).filter(|(entry, _)| entry.member().is_none()) {
        if let Some(seen) = all.get_mut(number) {
            seen.add(entry, lost, now);
        }
    }
    // A model that arrived while its shards were listed is in the list in part: all are looked at.
    for seen in &mut all {
        let Some((model, _)) = &seen.model else { continue };
        for id in Arc::clone(model).shards() {
            if let Some(entry) = core.registry.find(id) {
                seen.add(&entry, lost, now);
            }
        }
    }
    let sorted = numbers.into_values();
    let mut all: Vec<Option<Seen>> = all.into_iter().map(Some).collect();
    let sorted = sorted.filter_map(|number| all.get_mut(number)?.take());
    // A shard that went while this call looked leaves nothing behind.
    let reports = sorted.map(|seen| seen.end(now));
    reports.filter(|report| report.admission.is_some() || report.pieces > 0).collect()
}

/// What distinguishes one model from another, in the order of listings.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct KeyOf<'a> {
    model_id: &'a str,
    owner: Option<&'a str>,
    admission: Option<u64>,
}

impl<'a> From<&'a Entry> for KeyOf<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            model_id: &entry.holder().model_id,
            owner: entry.holder().owner.as_deref(),
            admission: entry.member().map(|member| member.model.number),
        }
    }
}

fn count(number: &mut u64) {
    *number = number.saturating_add(1);
}

#[cfg(test)]
mod tests {
    use vram_alloc::{ModelPlan, Piece};
    use vram_files::SliceSource;
    use vram_id::SystemClock;

    use super::*;
    use crate::models::{AdmitRequest, admit};
    use crate::parts::GpuChoice;
    use crate::parts::core::testing;

    #[test]
    fn a_model_that_a_call_moves_now_is_called_neither_whole_nor_partial() {
        let core = testing::core(Arc::new(SystemClock));
        let plan = ModelPlan::new([Piece::new("a", 0, 0, ByteLen::new(3))]).unwrap();
        let request = AdmitRequest::new("m", GpuChoice::One(0));
        let model = admit::admit(&core, request, &plan, &vec![SliceSource::new(b"abc")]).unwrap();
        let entry = core.resolve(&model.pieces[0].shard).unwrap();
        let admitted = &entry.member().unwrap().model;
        let state = || models(&core)[0].state;
        assert_eq!(state(), ModelState::Whole);
        let call = admitted.begin();
        assert_eq!(state(), ModelState::UnderWay);
        drop(call);
        assert_eq!(state(), ModelState::Whole);

        // It arrived after its shards were listed: all of them are looked at.
        let listed = [Arc::clone(&entry)];
        let plan = [Piece::new("a", 0, 0, ByteLen::new(1)), Piece::new("b", 0, 1, ByteLen::new(2))];
        let plan = ModelPlan::new(plan).unwrap();
        let request = AdmitRequest::new("n", GpuChoice::One(0));
        let two = admit::admit(&core, request, &plan, &vec![SliceSource::new(b"abc")]).unwrap();
        let second = core.resolve(&two.pieces[1].shard).unwrap();
        let found = look(&core, &[second], &[]);
        assert_eq!((found[0].state, found[0].resident), (ModelState::Whole, 2));
        assert_eq!(look(&core, &listed, &[]).len(), 1);

        // A call that began and ended during the look.
        let mut seen = Seen::begin(&entry);
        drop(admitted.begin());
        seen.add(&entry, &[], Duration::ZERO);
        assert_eq!(seen.end(Duration::ZERO).state, ModelState::UnderWay);
    }
}
