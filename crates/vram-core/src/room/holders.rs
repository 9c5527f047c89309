//! Reports what is missing, which holders have it, and what would make room.

use std::collections::BTreeMap;
use std::sync::Arc;

use vram_alloc::{Alignment, ByteLen};
use vram_space::Gpu;

use crate::error::shortfall::HOLDERS_MAX;
use crate::error::{Holder, Shortfall};
use crate::parts::Core;
use crate::room::Goal;
use crate::shard::HeldBy;

impl Goal<'_> {
    /// Bytes that the goal needs on these GPUs at least, in whole granules of theirs.
    pub(crate) fn needed(self, gpus: &[Arc<Gpu>]) -> ByteLen {
        let granule = gpus.iter().map(|gpu| gpu.granule()).min().unwrap_or(Alignment::GRANULE);
        let whole = |len: ByteLen| len.round_up(granule).unwrap_or(len);
        match self {
            Self::Pieces(lens) => {
                lens.iter().fold(ByteLen::ZERO, |sum, len| sum.saturating_add(whole(*len)))
            }
            Self::Room(bytes) | Self::Freed(bytes) => whole(bytes),
        }
    }
}

/// Adds the largest holders on the GPUs that were tried to a shortfall.
pub(crate) fn with_holders(core: &Core, mut shortfall: Shortfall, gpus: &[Arc<Gpu>]) -> Shortfall {
    shortfall.holders = largest(core, gpus, &BTreeMap::new());
    shortfall
}

/// The largest holders on some GPUs after this much has gone.
pub(crate) fn largest(
    core: &Core,
    gpus: &[Arc<Gpu>],
    gone: &BTreeMap<HeldBy, (ByteLen, u64)>,
) -> Vec<Holder> {
    let indices: Vec<u32> = gpus.iter().map(|gpu| gpu.index).collect();
    // Of those that are left, any may be among the largest.
    let count = if gone.is_empty() { HOLDERS_MAX } else { usize::MAX };
    let largest = core.registry.census.largest(&indices, count).into_iter();
    let models = largest.map(|(held_by, sum)| {
        let (bytes, shards) = gone.get(&held_by).copied().unwrap_or_default();
        Holder {
            owner: held_by.owner,
            model_id: Some(held_by.model_id),
            bytes: sum.bytes.saturating_sub(bytes),
            shard_count: sum.shard_count.saturating_sub(shards),
            leased_count: sum.leased_count,
            ..Holder::default()
        }
    });
    let promised = core.promises.list().into_iter().map(|promise| {
        let bytes = gpus
            .iter()
            .fold(ByteLen::ZERO, |sum, gpu| sum.saturating_add(promise.remaining_on(gpu.index)));
        Holder {
            owner: promise.owner.clone(),
            reservation: Some(promise.id),
            purpose: promise.purpose.clone(),
            bytes,
            ..Holder::default()
        }
    });
    let mut holders: Vec<_> =
        models.chain(promised).filter(|holder| !holder.bytes.is_zero()).collect();
    holders.sort_by_key(|holder| core::cmp::Reverse(holder.bytes));
    holders.truncate(HOLDERS_MAX);
    holders
}

/// The shortfall of several GPUs together; it names the first of them.
pub(crate) fn shortfall_of(gpus: &[Arc<Gpu>], goal: Goal<'_>) -> Shortfall {
    let mut sum = Shortfall {
        gpu: gpus.first().map_or(0, |gpu| gpu.index),
        others: u32::try_from(gpus.len()).unwrap_or(u32::MAX).saturating_sub(1),
        needed: goal.needed(gpus),
        ..Shortfall::none()
    };
    for gpu in gpus {
        let (capacity, report) = gpu.figures();
        sum.room = sum.room.saturating_add(capacity.room());
        sum.largest_hole = sum.largest_hole.max(report.largest_hole);
        sum.foreign = sum.foreign.saturating_add(capacity.foreign);
        sum.headroom = sum.headroom.saturating_add(capacity.headroom);
        let most = capacity.total.saturating_sub(capacity.headroom);
        sum.most = sum.most.saturating_add(most);
    }
    sum
}
