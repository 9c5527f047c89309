//! Why there is no room for a request, and what would help.

use core::fmt;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_id::ShardId;

use crate::error::{EvictionPlan, ReservationId};

/// The largest number of holders that a [`Shortfall`] names.
pub(crate) const HOLDERS_MAX: usize = 16;

/// The largest number of holders of the rest that are printed.
const NAMED_MAX: usize = 3;

/// The largest number of shards in use that a [`Shortfall`] names.
const BUSY_MAX: usize = 8;

/// How many bytes a request lacks, why, and what would help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} no room for {needed}: room {room}, largest hole {largest_hole}, {headroom} kept free, \
     {foreign} held by others{}{}{busy}{}{}",
    Asked { gpu: *gpu, others: *others },
    Never(*needed, *most),
    Largest(holders),
    Helps(plan.as_ref()),
    Rest(after_all.as_deref())
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
    /// The most bytes that could be granted if nobody else held any: the budgets less headroom. If
    /// `needed` is more, waiting does not help: see [`Shortfall::is_final`].
    pub most: ByteLen,
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
    /// What would be missing even so, if there is an eviction policy and no eviction helps.
    pub after_all: Option<Box<AfterAll>>,
}

/// The state of some GPUs after everything has gone that may go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct AfterAll {
    /// The most bytes that could be granted then, on all of them.
    pub room: ByteLen,
    /// The longest piece that could be placed then, on any of them.
    pub largest_hole: ByteLen,
    /// Bytes that the request would lack then; zero if there would be room, but in pieces.
    pub missing: ByteLen,
    /// Host bytes that are missing to park what else may go: the limit of parked shards stops it.
    pub not_parked: ByteLen,
    /// The holders of the rest, at most 16, the largest first: leased, pinned, of a higher priority,
    /// in quarantine, reserved, or to stay by their owner's word.
    pub held_by: Vec<Holder>,
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

/// Models and shards that are in use: leased, read, or worked on by another call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct BusyShards {
    /// The first of them, at most 8; of a model, the first of its shards that is in use.
    pub first: Vec<ShardId>,
    /// The models of the first of them.
    pub models: Vec<Arc<str>>,
    /// The number of all of them: a model that would go as a whole counts once.
    pub count: u64,
    /// Bytes that all of them hold on the GPUs that were tried, in whole granules.
    pub bytes: ByteLen,
}

impl BusyShards {
    const fn none() -> Self {
        Self { first: Vec::new(), models: Vec::new(), count: 0, bytes: ByteLen::ZERO }
    }

    pub(crate) fn add(&mut self, shard: &ShardId, model_id: &Arc<str>, bytes: ByteLen) {
        if self.first.len() < BUSY_MAX {
            self.first.push(shard.clone());
            self.models.push(Arc::clone(model_id));
        }
        self.count = self.count.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Prints what is in use, as a part of a sentence.
impl fmt::Display for BusyShards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((shard, model)) = self.first.first().zip(self.models.first()) else {
            return Ok(());
        };
        let bytes = self.bytes;
        match self.count {
            0 | 1 => write!(f, "; {model} of {bytes} is in use ({shard})"),
            count => write!(f, "; {count} of {bytes} are in use, {model} among them ({shard})"),
        }
    }
}

impl Shortfall {
    /// Returns true if the request needs more than these GPUs could ever grant.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.needed > self.most
    }

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
            most: ByteLen::ZERO,
            holders: Vec::new(),
            busy: BusyShards::none(),
            plan: None,
            after_all: None,
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

/// Prints that nothing helps.
struct Never(ByteLen, ByteLen);

impl fmt::Display for Never {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(needed, most) = self;
        if needed <= most {
            return Ok(());
        }
        write!(f, "; there are never more than {most}: split it, or give a larger budget")
    }
}

/// Prints the largest holder.
struct Largest<'a>(&'a [Holder]);

impl fmt::Display for Largest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(holder) = self.0.first() else { return Ok(()) };
        write!(f, "; most is held by {holder}")
    }
}

/// Prints who holds how much.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.model_id, self.reservation) {
            (Some(model), _) => f.write_str(model)?,
            (None, Some(reservation)) => write!(f, "{reservation}")?,
            (None, None) => f.write_str("somebody")?,
        }
        if let Some(owner) = &self.owner {
            write!(f, " of {owner}")?;
        }
        write!(f, ": {}", self.bytes)
    }
}

/// Prints what stays although everything has gone that may go.
struct Rest<'a>(Option<&'a AfterAll>);

impl fmt::Display for Rest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(AfterAll { largest_hole, missing, not_parked, held_by, .. }) = self.0 else {
            return Ok(());
        };
        f.write_str("; after everything has gone that may go, ")?;
        if missing.is_zero() {
            write!(f, "the largest hole is {largest_hole}")?;
        } else {
            write!(f, "{missing} are missing")?;
        }
        if !not_parked.is_zero() {
            write!(f, "; {not_parked} of host memory are missing to park more")?;
        }
        for (holder, before) in
            held_by.iter().take(NAMED_MAX).zip(["; the rest is held by ", ", ", ", "])
        {
            write!(f, "{before}{holder}")?;
        }
        match held_by.len().saturating_sub(NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

/// Prints what would help.
struct Helps<'a>(Option<&'a EvictionPlan>);

impl fmt::Display for Helps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |plan| write!(f, "; {plan}"))
    }
}
