//! Which shards are evicted first: a small trait, and three implementations.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::OnEviction;
use vram_id::ShardId;

/// What goes when room is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EvictionUnit {
    /// A whole model, as it was admitted; a shard that was sealed by itself goes alone. No model is
    /// left on a GPU without some of its shards.
    #[default]
    Model,
    /// Each shard on its own, whatever it belongs to.
    Shard,
}

/// Decides which models and shards are evicted to make room for others.
///
/// The candidates are all models that may be evicted, and all shards that were sealed by themselves
/// and may be evicted; with [`EvictionUnit::Shard`], all such shards. A model of which a shard is
/// leased, pinned or in quarantine is not among them, nor are those whose owner wants them to stay. A request asks the
/// policy once and keeps its order: candidates that went meanwhile, or that calls use now, are
/// passed over. It asks again if shards have come since and the order finds no way. No lock is held while a policy runs. Mistakes of a policy have no other effect: positions that do not exist and
/// positions named twice are ignored, and a panic counts as an empty answer.
pub trait EvictionPolicy: Send + Sync + fmt::Debug {
    /// Positions among the candidates, in the order of eviction. Shards that are left out stay.
    fn rank(&self, candidates: &[Candidate]) -> Vec<usize>;
}

/// A model or a shard that may be evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct Candidate {
    /// The shard; of a model, its first.
    pub shard_id: ShardId,
    /// The number of shards that go together.
    pub shard_count: u64,
    pub model_id: Arc<str>,
    /// The owner that the request named, if any.
    pub owner: Option<Arc<str>>,
    /// The GPU that the first shard lies on.
    pub gpu: u32,
    /// Bytes that its eviction frees, in whole granules, on all GPUs.
    pub bytes: ByteLen,
    pub priority: u32,
    /// The cost of bringing it back, in its owner's unit: of a model, the sum over its shards.
    pub cost: u64,
    /// The time since it was last read, leased or sealed: of a model, since any of its shards was.
    pub idle: Duration,
    /// The number of that use among all uses: the smaller, the longer ago.
    pub last_use: u64,
    pub on_eviction: OnEviction,
}

impl Candidate {
    /// A shard of priority 0 that was never used and would be freed, for tests of a policy. Its
    /// public fields can be set.
    #[must_use]
    pub fn new(shard_id: ShardId, model_id: &str, bytes: ByteLen) -> Self {
        Self {
            shard_id,
            shard_count: 1,
            model_id: model_id.into(),
            owner: None,
            gpu: 0,
            bytes,
            priority: 0,
            cost: 0,
            idle: Duration::ZERO,
            last_use: 0,
            on_eviction: OnEviction::Free,
        }
    }
}

/// Evicts the model or shard that was unused for longest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lru;

/// Evicts the least important model or shard first; among equals, the one that was unused for longest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Priority;

/// Evicts the model or shard that costs least to bring back for its size first; among equals, the one that
/// was unused for longest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostPerByte;

impl EvictionPolicy for Lru {
    fn rank(&self, candidates: &[Candidate]) -> Vec<usize> {
        sorted(candidates, |a, b| a.last_use.cmp(&b.last_use))
    }
}

impl EvictionPolicy for Priority {
    fn rank(&self, candidates: &[Candidate]) -> Vec<usize> {
        sorted(candidates, |a, b| (a.priority, a.last_use).cmp(&(b.priority, b.last_use)))
    }
}

impl EvictionPolicy for CostPerByte {
    fn rank(&self, candidates: &[Candidate]) -> Vec<usize> {
        // Compares a.cost / a.bytes with b.cost / b.bytes, without dividing.
        let over =
            |cost: u64, bytes: ByteLen| u128::from(cost).saturating_mul(u128::from(bytes.get()));
        sorted(candidates, |a, b| {
            over(a.cost, b.bytes)
                .cmp(&over(b.cost, a.bytes))
                .then_with(|| a.last_use.cmp(&b.last_use))
        })
    }
}

/// All positions in an order; the shard's id decides between equals, so that a run is repeatable.
fn sorted(
    candidates: &[Candidate],
    compare: impl Fn(&Candidate, &Candidate) -> core::cmp::Ordering,
) -> Vec<usize> {
    let mut positions: Vec<(usize, &Candidate)> = candidates.iter().enumerate().collect();
    positions.sort_by(|(_, a), (_, b)| compare(a, b).then_with(|| a.shard_id.cmp(&b.shard_id)));
    positions.into_iter().map(|(position, _)| position).collect()
}

#[cfg(test)]
mod tests {
    use vram_id::IdSource;
    use vram_id::SystemClock;

    use super::*;

    fn candidate(bytes: u64, priority: u32, cost: u64, last_use: u64) -> Candidate {
        let id = IdSource::Process.next(&SystemClock);
        let plain = Candidate::new(id, "model", ByteLen::new(bytes));
        Candidate { priority, cost, last_use, ..plain }
    }

    #[test]
    fn each_policy_ranks_by_its_name_and_then_by_use() {
        let all = [
            candidate(100, 2, 10, 4),
            candidate(1000, 1, 10, 3),
            candidate(100, 1, 10, 2),
            candidate(1000, 3, 0, 1),
        ];
        assert_eq!(Lru.rank(&all), [3, 2, 1, 0]);
        assert_eq!(Priority.rank(&all), [2, 1, 0, 3]);
        assert_eq!(CostPerByte.rank(&all), [3, 1, 2, 0]);
        assert!(Lru.rank(&[]).is_empty());
    }

    #[test]
    fn cost_per_byte_does_not_overflow_and_ranks_the_empty_last() {
        let all = [
            candidate(u64::MAX, 0, u64::MAX, 1),
            candidate(1, 0, u64::MAX, 2),
            candidate(u64::MAX, 0, 1, 3),
        ];
        assert_eq!(CostPerByte.rank(&all), [2, 0, 1]);
    }
}
