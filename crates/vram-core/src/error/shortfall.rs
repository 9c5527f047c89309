//! Why there is no room for a request, and what would help.

use core::fmt;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_id::ShardId;

use crate::error::{EvictionPlan, ReservationId};

/// The largest number of holders that a [`Shortfall`] names.
pub(crate) const HOLDERS_MAX: usize = 16;

/// The largest number of shards in use that a [`Shortfall`] names.
const BUSY_MAX: usize = 8;

/// How many bytes a request lacks, why, and what would help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} no room for {needed}: room {room}, largest hole {largest_hole}, {headroom} kept free, \
     {foreign} held by others{}{busy}{}",
    Asked { gpu: *gpu, others: *others },
    Largest(holders),
    Helps(plan.as_ref())
)]
#[non_exhaustive]
pub struct Shortfall {
    /// The GPU that was tried; if several were, the one with the most room.
    pub gpu: u32,
    /// How many more GPUs were tried. The figures are then sums over all of them, except
    /// `largest_hole`, which is the largest on any of them.
    pub others: u32,
    /// Bytes that the request needs, in whole granules.
    pub needed: ByteLen,
    /// The most bytes that could be granted: free bytes, less headroom, less what other processes
    /// hold.
    pub room: ByteLen,
    /// The longest piece that could be placed. If it is below `needed` while `room` is enough, the
    /// memory is fragmented.
    pub largest_hole: ByteLen,
    /// Bytes of the budget that other processes hold, according to the driver.
    pub foreign: ByteLen,
    /// Bytes that the configuration keeps free.
    pub headroom: ByteLen,
    /// The holders of the most bytes on these GPUs, at most 16, the largest first. Empty where the
    /// call did not look for holders.
    pub holders: Vec<Holder>,
    /// The shards that could have been evicted if no other call had used them. Empty without an
    /// eviction policy.
    pub busy: BusyShards,
    /// The shards to evict so that the request succeeds, if there is an eviction policy and it
    /// finds a way. Pass the plan to `VramManager::evict` and repeat the request. Calls may still
    /// use some of these shards: `evict` waits for them, and a request does not.
    pub plan: Option<EvictionPlan>,
}

/// A holder of device memory: all shards of one model and one owner, or one reservation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Holder {
    /// The owner, if it was named.
    pub owner: Option<Arc<str>>,
    /// The model; none for a reservation.
    pub model_id: Option<Arc<str>>,
    /// The reservation; none for shards.
    pub reservation: Option<ReservationId>,
    /// The purpose of the reservation, if it was named.
    pub purpose: Option<Arc<str>>,
    /// Bytes held, in whole granules.
    pub bytes: ByteLen,
    /// The number of shards.
    pub shard_count: u64,
    /// How many of these shards are leased.
    pub leased_count: u64,
}

/// Shards that are in use: leased, read, or worked on by another call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct BusyShards {
    /// The first of them, at most 8.
    pub first: Vec<ShardId>,
    /// The number of all of them.
    pub count: u64,
    /// Bytes of all of them, in whole granules.
    pub bytes: ByteLen,
}

impl BusyShards {
    const fn none() -> Self {
        Self { first: Vec::new(), count: 0, bytes: ByteLen::ZERO }
    }

    pub(crate) fn add(&mut self, shard: &ShardId, bytes: ByteLen) {
        if self.first.len() < BUSY_MAX {
            self.first.push(shard.clone());
        }
        self.count = self.count.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Prints what is in use, as a part of a sentence.
impl fmt::Display for BusyShards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first.first(), self.count) {
            (None, _) => Ok(()),
            (Some(one), 1) => write!(f, "; {one} of {} is in use", self.bytes),
            (Some(one), count) => {
                write!(f, "; {count} shards of {} are in use, {one} among them", self.bytes)
            }
        }
    }
}

impl Shortfall {
    /// All figures zero.
    pub(crate) const fn none() -> Self {
        Self {
            gpu: 0,
            others: 0,
            needed: ByteLen::ZERO,
            room: ByteLen::ZERO,
            largest_hole: ByteLen::ZERO,
            foreign: ByteLen::ZERO,
            headroom: ByteLen::ZERO,
            holders: Vec::new(),
            busy: BusyShards::none(),
            plan: None,
        }
    }
}

/// Prints which GPUs were tried.
struct Asked {
    gpu: u32,
    others: u32,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.others {
            0 => write!(f, "gpu {} has", self.gpu),
            others => write!(f, "gpu {} and {others} more have", self.gpu),
        }
    }
}

/// Prints the largest holder.
struct Largest<'a>(&'a [Holder]);

impl fmt::Display for Largest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(holder) = self.0.first() else { return Ok(()) };
        write!(f, "; most is held by ")?;
        match (&holder.model_id, holder.reservation) {
            (Some(model), _) => write!(f, "{model}")?,
            (None, Some(reservation)) => write!(f, "{reservation}")?,
            (None, None) => write!(f, "somebody")?,
        }
        if let Some(owner) = &holder.owner {
            write!(f, " of {owner}")?;
        }
        write!(f, ": {}", holder.bytes)
    }
}

/// Prints what would help.
struct Helps<'a>(Option<&'a EvictionPlan>);

impl fmt::Display for Helps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |plan| write!(f, "; {plan}"))
    }
}
