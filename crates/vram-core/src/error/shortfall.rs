//! Why there is no room, and what would help.

use core::fmt;
use std::sync::Arc;

use vram_alloc::ByteLen;

use crate::error::{EvictionPlan, ReservationId};

/// Holders that a [`Shortfall`] names at most.
pub(crate) const HOLDERS_MAX: usize = 16;

/// How much is missing for a request, why, and what would help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} no room for {needed}: room {room}, largest hole {largest_hole}, {headroom} kept free, \
     {foreign} held by others{}{}",
    Asked { gpu: *gpu, others: *others },
    Largest(holders),
    Helps(plan.as_ref())
)]
#[non_exhaustive]
pub struct Shortfall {
    /// The GPU that was asked; the one with most room if several were.
    pub gpu: u32,
    /// How many more GPUs were asked. The figures are then sums over all of them, but for the
    /// hole, which is the largest of any.
    pub others: u32,
    /// Bytes that the request would take, in whole granules.
    pub needed: ByteLen,
    /// Bytes that could be granted, at most: free, less headroom, less what others hold.
    pub room: ByteLen,
    /// The longest piece that could be placed. Below `needed` with room enough: fragmentation.
    pub largest_hole: ByteLen,
    /// Bytes of the budget that other processes hold, according to the driver.
    pub foreign: ByteLen,
    /// Bytes that the configuration keeps free.
    pub headroom: ByteLen,
    /// Who holds most there, at most 16, the largest first. Empty where nobody was asked.
    pub holders: Vec<Holder>,
    /// What could go so that the request succeeds, if there is an eviction policy and it finds a
    /// way: carry it out with `VramManager::evict` and ask again.
    pub plan: Option<EvictionPlan>,
}

/// Somebody who holds room: all shards of one model and one owner, or one reservation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Holder {
    /// Who, if they said so.
    pub owner: Option<Arc<str>>,
    /// The model; none for a reservation.
    pub model_id: Option<Arc<str>>,
    /// The reservation; none for shards.
    pub reservation: Option<ReservationId>,
    /// What the reservation is for, if its holder said so.
    pub purpose: Option<Arc<str>>,
    /// Bytes that they hold, in whole granules.
    pub bytes: ByteLen,
    /// How many shards that is.
    pub shard_count: u64,
    /// Of those: how many are leased.
    pub leased_count: u64,
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
            plan: None,
        }
    }
}

/// Says who was asked.
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

/// Names the largest holder.
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

/// Says what would help.
struct Helps<'a>(Option<&'a EvictionPlan>);

impl fmt::Display for Helps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |plan| write!(f, "; {plan}"))
    }
}
