//! Making room: which shards would have to go, what there would be then, and letting them go.

mod plan;

use core::fmt;
use std::sync::Arc;

use vram_alloc::ByteLen;

use crate::builder::VramManagerBuilder;
use crate::call::Call;
use crate::error::VramError;
use crate::events::EventKind;
use crate::gpu::Gpu;
use crate::id::ShardId;
use crate::manager::{Core, VramManager, in_use};
use crate::parked::ParkedShard;
use crate::policy::EvictionPolicy;
use crate::registry::Entry;
use crate::shortfall::Shortfall;
use crate::space::Space;
use crate::standing::OnEviction;
use crate::sync::lock;

pub(crate) use plan::Goal;

/// What would have to go so that something fits, and what there would be then. A dry run: nothing
/// has happened. Exact, as long as nothing else changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[must_use = "a plan does nothing until it is carried out"]
pub struct EvictionPlan {
    /// The shards that would go, in this order. None if there is room already.
    pub evictions: Vec<Eviction>,
    /// Bytes that would come back.
    pub bytes: ByteLen,
    /// What there would be on each GPU that was looked at.
    pub after: Vec<RoomAfter>,
}

/// A shard that goes to make room.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Eviction {
    /// The shard.
    pub shard_id: ShardId,
    /// The model that it was sealed as.
    pub model_id: Arc<str>,
    /// Who it belongs to, if the request said so.
    pub owner: Option<Arc<str>>,
    /// The GPU that holds it.
    pub gpu: u32,
    /// Bytes that come back; in a report zero, if they could not be wiped or given back.
    pub bytes: ByteLen,
    /// What becomes of it.
    pub how: OnEviction,
}

/// What there would be on a GPU after an eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct RoomAfter {
    /// The GPU.
    pub gpu: u32,
    /// Bytes that could be granted.
    pub room: ByteLen,
    /// The longest piece that could be placed, if there is room for it.
    pub largest_hole: ByteLen,
}

impl fmt::Display for EvictionPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.evictions.as_slice() {
            [] => f.write_str("nothing has to go"),
            [one] => write!(
                f,
                "evicting {} of {} makes {} of room",
                one.shard_id, one.model_id, self.bytes
            ),
            many => write!(f, "evicting {} shards makes {} of room", many.len(), self.bytes),
        }
    }
}

/// What an eviction did.
#[derive(Debug, Default)]
#[non_exhaustive]
#[must_use = "the shards that were parked are in it"]
pub struct EvictionReport {
    /// The shards that went.
    pub evicted: Vec<Eviction>,
    /// Those of them that were parked, in host memory.
    pub parked: Vec<ParkedShard>,
    /// The shards that did not go, and why.
    pub kept: Vec<(ShardId, VramError)>,
    /// Bytes that came back.
    pub bytes: ByteLen,
}

impl EvictionReport {
    /// Whether everything went that was to go.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.kept.is_empty()
    }
}

impl VramManagerBuilder {
    /// Lets shards be evicted to make room for others, in the order that a policy says. Default:
    /// nothing is evicted.
    ///
    /// Only shards go whose request allows it ([`SealRequest::on_eviction`](crate::SealRequest::on_eviction)),
    /// or all that say nothing, if [`on_eviction`](Self::on_eviction) does.
    pub fn eviction(mut self, policy: impl EvictionPolicy + 'static) -> Self {
        self.eviction = Some(Arc::new(policy));
        self
    }

    /// Sets what becomes of shards whose request says nothing when room is needed for others.
    /// Default: they stay.
    pub fn on_eviction(mut self, on_eviction: OnEviction) -> Self {
        self.on_eviction = on_eviction;
        self
    }
}

impl VramManager {
    /// What would have to go so that a shard of `bytes` finds a place on a GPU. A dry run.
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`]; [`VramError::DeviceLost`]; [`VramError::Config`] without a
    /// policy; [`VramError::InsufficientVram`] if it would not fit whatever may go.
    #[tracing::instrument(level = "info", skip_all, fields(gpu, bytes = bytes.get()))]
    pub fn plan_eviction(&self, gpu: u32, bytes: ByteLen) -> Result<EvictionPlan, VramError> {
        self.core.check_open()?;
        let gpus = [Arc::clone(self.core.gpu(gpu)?)];
        let [only] = &gpus;
        only.ready()?;
        if self.core.eviction.is_none() {
            return Err(VramError::config("no eviction policy was given to the builder"));
        }
        let lens = [bytes];
        let plan = self.core.plan_for(&gpus, Goal::Pieces(&lens), u32::MAX);
        plan.ok_or_else(|| {
            let shortfall = Shortfall::of(&gpus, Goal::Pieces(&lens));
            VramError::InsufficientVram(Box::new(self.core.with_holders(shortfall, &gpus)))
        })
    }

    /// Carries out a plan: each shard is parked or freed, as its owner asked.
    ///
    /// What came in use in the meantime stays, and the report says so. Parked shards are in the
    /// report.
    ///
    /// # Errors
    ///
    /// [`VramError::PlanOutdated`] if a shard of the plan cannot go any more: gone, moved, leased,
    /// pinned. Nothing was evicted then: ask for a new plan.
    #[tracing::instrument(level = "info", skip_all, fields(shards = plan.evictions.len(), bytes = plan.bytes.get()))]
    pub fn evict(&self, plan: &EvictionPlan) -> Result<EvictionReport, VramError> {
        let freed = |report: &EvictionReport| report.bytes.get();
        self.core.watched_for(Call::Evict, None, None, || self.core.evict(plan), freed)
    }

    /// Takes the shards that were parked to make room for a request, since this was last asked.
    /// Until then they wait with the manager, in host memory.
    #[must_use = "dropping parked shards gives them up"]
    pub fn take_evicted(&self) -> Vec<ParkedShard> {
        self.core.take_evicted()
    }
}

impl Core {
    /// What was parked to make room, and waits.
    pub(crate) fn take_evicted(&self) -> Vec<ParkedShard> {
        core::mem::take(&mut *lock(&self.evicted))
    }

    /// Why a shard may not be evicted, if it may not.
    fn cannot_go(&self, entry: &Entry) -> Option<&'static str> {
        if self.fate(entry) == OnEviction::Never {
            Some("is to stay")
        } else if entry.standing.pinned() {
            Some("is pinned")
        } else if entry.gate.leases() > 0 {
            Some("is leased")
        } else if entry.not_quarantined().is_err() {
            Some("is in quarantine")
        } else {
            None
        }
    }

    fn evict(&self, plan: &EvictionPlan) -> Result<EvictionReport, VramError> {
        self.check_open()?;
        let mut entries = Vec::with_capacity(plan.evictions.len());
        for eviction in &plan.evictions {
            let outdated = |why| VramError::PlanOutdated { shard: eviction.shard_id.clone(), why };
            let entry = self.registry.get(&eviction.shard_id).ok_or_else(|| outdated("is gone"))?;
            if entry.state().gpu_index() != eviction.gpu {
                return Err(outdated("has moved"));
            }
            if let Some(why) = self.cannot_go(&entry) {
                return Err(outdated(why));
            }
            entries.push(entry);
        }
        Ok(self.evict_all(plan, entries))
    }

    /// Carries out a plan as far as it goes.
    fn evict_all(&self, plan: &EvictionPlan, entries: Vec<Arc<Entry>>) -> EvictionReport {
        let mut report = EvictionReport::default();
        for (eviction, entry) in plan.evictions.iter().zip(entries) {
            match self.evict_entry(&entry, eviction) {
                Ok(parked) => {
                    tracing::info!(
                        shard = %entry.id,
                        gpu = eviction.gpu,
                        bytes = eviction.bytes.get(),
                        parked = parked.is_some(),
                        "evicted"
                    );
                    report.bytes = report.bytes.saturating_add(eviction.bytes);
                    report.parked.extend(parked);
                    report.evicted.push(eviction.clone());
                }
                // It went, and its bytes stay counted: that was logged where they were set aside.
                Err(VramError::NotReturned { .. }) => {
                    report.evicted.push(Eviction { bytes: ByteLen::ZERO, ..eviction.clone() });
                }
                Err(error) => report.kept.push((entry.id.clone(), error)),
            }
        }
        report
    }

    fn evict_entry(
        &self,
        entry: &Arc<Entry>,
        eviction: &Eviction,
    ) -> Result<Option<ParkedShard>, VramError> {
        let outdated = |why| VramError::PlanOutdated { shard: entry.id.clone(), why };
        let _pass = entry.gate.exclusive().map_err(|busy| in_use(entry, busy))?;
        // It may have changed during the wait.
        if entry.view()?.gpu.index != eviction.gpu {
            return Err(outdated("has moved"));
        }
        if let Some(why) = self.cannot_go(entry) {
            return Err(outdated(why));
        }
        let how = self.fate(entry);
        let told = || {
            let (shard, gpu, bytes) = (entry.id.clone(), eviction.gpu, eviction.bytes);
            self.events.emit(EventKind::Evicted { shard, gpu, bytes, how });
        };
        match how {
            OnEviction::Park => {
                let copy = self.host_copy(entry)?;
                told();
                Ok(Some(self.leave(copy)))
            }
            OnEviction::Free => self.free_entry_for(entry, told).map(|_receipt| None),
            // `Never`: no other kind takes a shard away.
            _ => Err(outdated("is to stay")),
        }
    }

    /// Makes room for a request that was refused, if it allows that and a policy finds a way, and
    /// tries it once more. The refusal that comes out says what would help.
    pub(crate) fn with_room<T>(
        &self,
        gpus: &[Arc<Gpu>],
        goal: Goal<'_>,
        room: RoomMaking,
        mut attempt: impl FnMut() -> Result<T, VramError>,
    ) -> Result<T, VramError> {
        let explain = |shortfall: Shortfall| {
            let mut shortfall = self.with_holders(shortfall, gpus);
            shortfall.plan = self.plan_for(gpus, goal, room.priority);
            shortfall
        };
        let shortfall = match attempt() {
            Err(VramError::InsufficientVram(shortfall)) => explain(*shortfall),
            // The books had room, and the driver has not: once more, if somebody gives way there.
            Err(VramError::Device { gpu, source })
                if source.is_out_of_memory()
                    && self.give_way(self.gpu(gpu)?, goal.needed(), room) =>
            {
                return attempt();
            }
            other => return other,
        };
        if room.evicts
            && let Some(plan) = &shortfall.plan
            && self.evict_for_room(plan)
        {
            return match attempt() {
                Err(VramError::InsufficientVram(shortfall)) => {
                    Err(VramError::InsufficientVram(Box::new(explain(*shortfall))))
                }
                other => other,
            };
        }
        Err(VramError::InsufficientVram(Box::new(shortfall)))
    }

    /// Finds a place for a shard that comes from elsewhere. Nothing is evicted for it; the refusal
    /// says what would help.
    pub(crate) fn place_for(&self, entry: &Entry, target: &Arc<Gpu>) -> Result<Space, VramError> {
        let lens = [entry.plaintext_len];
        let room = RoomMaking::none(entry.standing.claim.priority);
        let gpus = core::slice::from_ref(target);
        self.with_room(gpus, Goal::Pieces(&lens), room, || target.place(entry.plaintext_len))
    }

    /// Lets go of some shards where the driver itself had no memory. Says whether any went.
    pub(crate) fn give_way(&self, gpu: &Arc<Gpu>, len: ByteLen, room: RoomMaking) -> bool {
        let gpus = [Arc::clone(gpu)];
        room.evicts
            && self
                .plan_for(&gpus, Goal::Freed(len), room.priority)
                .is_some_and(|plan| self.evict_for_room(&plan))
    }

    /// Carries out a plan, and keeps what was parked. Says whether another attempt is worth it.
    fn evict_for_room(&self, plan: &EvictionPlan) -> bool {
        match self.evict(plan) {
            Ok(report) => {
                for (shard, error) in &report.kept {
                    tracing::warn!(%shard, %error, "could not be evicted");
                }
                lock(&self.evicted).extend(report.parked);
                if self.check_open().is_err() {
                    // Whoever closes it may have looked before.
                    drop(self.take_evicted());
                }
                // Also where nothing had to go: there was room by then.
                true
            }
            Err(error) => {
                tracing::debug!(%error, "no room was made");
                false
            }
        }
    }
}

/// How a request may make room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoomMaking {
    /// Whether others may be evicted for it.
    pub(crate) evicts: bool,
    /// The most important that may go.
    pub(crate) priority: u32,
}

impl RoomMaking {
    /// It only says what would help.
    pub(crate) const fn none(priority: u32) -> Self {
        Self { evicts: false, priority }
    }
}
