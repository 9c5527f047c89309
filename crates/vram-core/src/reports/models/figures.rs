//! Figures by model for monitoring: a bounded number of models, and all others together.

use core::time::Duration;
use std::sync::Arc;

use vram_alloc::ByteLen;

use crate::parts::Core;
use crate::reports::models::LeaseReport;
use crate::shard::{CountedLease, Holding, ModelCounts};

/// The models with the most bytes that are listed for each GPU.
const LISTED_MAX: usize = 16;

/// What lies on the GPUs of one model and owner, or of many together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ModelFigures {
    /// Device bytes.
    pub bytes: ByteLen,
    /// Shards that lie on a GPU.
    pub shard_count: u64,
    /// Those of them that are leased.
    pub leased_count: u64,
    /// The age of the oldest lease.
    pub oldest_lease: Option<Duration>,
    /// The longest time for which no check has found a shard sound, over all that can be read.
    pub oldest_unverified: Option<Duration>,
}

/// One model and owner in `Metrics`: all admissions of it, and shards sealed by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct ModelMetrics {
    pub model_id: Arc<str>,
    /// The owner that the request named, if any.
    pub owner: Option<Arc<str>>,
    pub figures: ModelFigures,
}

/// Everything in `Metrics` that is about models and leases.
pub(crate) struct ByModel {
    pub(crate) counts: ModelCounts,
    pub(crate) listed: Vec<ModelMetrics>,
    pub(crate) others: ModelFigures,
    pub(crate) lease_count: u64,
    pub(crate) oldest_lease: Option<LeaseReport>,
}

impl ModelFigures {
    fn of(holding: &Holding, now: Duration) -> Self {
        let oldest = holding.oldest_lease.as_ref();
        Self {
            bytes: holding.sum.bytes,
            shard_count: holding.sum.shard_count,
            leased_count: holding.sum.leased_count,
            oldest_lease: oldest.map(|oldest| now.saturating_sub(oldest.leased.since)),
            oldest_unverified: holding.unverified_since.map(|since| now.saturating_sub(since)),
        }
    }
}

/// The number of leases that exist, and the one that began first; those of shards that are gone
/// among them.
pub(crate) fn leases(core: &Core, now: Duration) -> (u64, Option<LeaseReport>) {
    let (count, oldest) = core.registry.census.leases();
    let oldest = oldest.map(|oldest| {
        let CountedLease { leased, shard, of } = oldest;
        LeaseReport::new(&shard, &of.whose(), leased, now)
    });
    (u64::try_from(count).unwrap_or(u64::MAX), oldest)
}

/// The figures by model. They cost the same however many shards and models there are, but for the
/// count of models.
pub(crate) fn by_model(core: &Core, now: Duration) -> ByModel {
    let readable: Vec<bool> = core.gpus.iter().map(|gpu| gpu.ready().is_ok()).collect();
    let census = &core.registry.census;
    let all = census.holdings(LISTED_MAX, &readable);
    let (lease_count, oldest_lease) = leases(core, now);
    let listed = all.listed.into_iter().map(|(holder, holding)| ModelMetrics {
        figures: ModelFigures::of(&holding, now),
        model_id: holder.model_id,
        owner: holder.owner,
    });
    ByModel {
        counts: census.models.counts(),
        listed: listed.collect(),
        others: ModelFigures::of(&all.others, now),
        lease_count,
        oldest_lease,
    }
}
