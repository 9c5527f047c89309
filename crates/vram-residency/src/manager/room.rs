//! Budgets, reservations and eviction.

use vram_alloc::{ByteLen, ModelPlan};
use vram_core::error::{EvictionPlan, VramError};
use vram_core::models::{ParkedModel, admit};
use vram_core::parts::GpuChoice;
use vram_core::parts::call::Call;
use vram_core::reports::{DriverMemory, budget};
use vram_core::room::{EvictionReport, evict, make_room};
use vram_core::sealing::reservation::asked;
use vram_core::sealing::{Reservation, ReservationReport, ReserveRequest, reservation};
use vram_core::shard::ParkedShard;
use vram_space::GpuCapacity;

use crate::manager::VramManager;

impl VramManager {
    /// Lists the models and shards to evict so that a shard of `bytes` finds a place on a GPU. A dry
    /// run. Other calls may use some of them: [`evict`](Self::evict) waits for them.
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`]; [`VramError::DeviceLost`]; [`VramError::Config`] without a
    /// policy; [`VramError::InsufficientVram`] if it would not fit after evicting every shard that
    /// may go.
    #[tracing::instrument(level = "info", skip_all, fields(gpu, bytes = bytes.get()))]
    pub fn plan_eviction(&self, gpu: u32, bytes: ByteLen) -> Result<EvictionPlan, VramError> {
        evict::plan_eviction(&self.core, gpu, bytes)
    }

    /// As [`plan_eviction`](Self::plan_eviction), which asks for no priority, so that [`admit`](Self::admit) finds room for every
    /// piece of a plan.
    ///
    /// # Errors
    ///
    /// As [`plan_eviction`](Self::plan_eviction).
    #[tracing::instrument(level = "info", skip_all, fields(pieces = plan.pieces().len()))]
    pub fn plan_eviction_for(
        &self,
        plan: &ModelPlan,
        gpus: GpuChoice,
    ) -> Result<EvictionPlan, VramError> {
        admit::plan_eviction(&self.core, plan, gpus)
    }

    /// Carries out a plan: each model and each shard is parked or freed, as its owner asked, as a
    /// whole or not at all.
    ///
    /// This call waits, without a deadline, for other calls that use one of the shards; a request
    /// that makes room by itself does not. A shard that was leased, pinned or found altered after
    /// the plan was made stays, and the report says so. The report also holds the parked models and
    /// shards.
    ///
    /// # Errors
    ///
    /// [`VramError::PlanOutdated`] if a shard of the plan can no longer go: freed, moved, leased,
    /// pinned. Nothing was evicted then: ask for a new plan.
    #[tracing::instrument(level = "info", skip_all, fields(shards = plan.evictions.len(), bytes = plan.bytes.get()))]
    pub fn evict(&self, plan: &EvictionPlan) -> Result<EvictionReport, VramError> {
        let freed = |report: &EvictionReport| report.bytes.get();
        self.core.watched_for(Call::Evict, None, None, || evict::evict(&self.core, plan), freed)
    }

    /// Takes the models that were parked to make room for requests since the last call of this
    /// method, to be woken as they are: see [`wake_model_with`](Self::wake_model_with). Until they
    /// are taken, the manager keeps them in host memory.
    #[must_use = "dropping parked models gives them up"]
    pub fn take_evicted_models(&self) -> Vec<ParkedModel> {
        make_room::take_evicted_models(&self.core)
    }

    /// Takes the shards that were parked to make room for requests since the last call of this
    /// method: also those of models that
    /// [`take_evicted_models`](Self::take_evicted_models) did not take before, which this call takes
    /// apart ([`ParkedModel::join`] puts them together). Until they are taken, the manager keeps them
    /// in host memory.
    #[must_use = "dropping parked shards gives them up"]
    pub fn take_evicted(&self) -> Vec<ParkedShard> {
        make_room::take_evicted(&self.core)
    }

    /// Replaces a GPU's budget. It may be less than what is in use: nothing is freed, and the
    /// ledger grants nothing until enough bytes were freed. The memory itself stays with the
    /// manager.
    ///
    /// # Arguments
    ///
    /// * `bytes`: with what the kernels of the device take, as in [`Budget`](crate::Budget). At most
    ///   what the manager took when it was built; for a GPU used block by block, at most what the
    ///   device has.
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`]; [`VramError::LimitExceeded`] above that maximum. The old budget
    /// stays.
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::{ByteLen, VramManager};
    ///
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let shard = manager.seal_model("llama", 0, &[0; 1 << 16])?;
    /// manager.set_budget(0, ByteLen::new(1000))?;
    /// assert!(manager.seal_model("other", 0, b"1").is_err());
    /// assert_eq!(manager.unseal_and_free(&shard)?.len(), 1 << 16);
    /// assert!(manager.seal_model("other", 0, b"1").is_ok());
    /// # Ok::<(), vram_residency::VramError>(())
    /// ```
    #[tracing::instrument(level = "info", skip_all, fields(gpu, bytes = bytes.get()))]
    pub fn set_budget(&self, gpu: u32, bytes: ByteLen) -> Result<(), VramError> {
        let work = || budget::set_budget(&self.core, gpu, bytes);
        self.core.watched(Call::SetBudget, None, Some(gpu), 0, work)
    }

    /// Replaces the bytes of a GPU's budget that are kept free. Any length is accepted.
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`].
    #[tracing::instrument(level = "info", skip_all, fields(gpu, bytes = bytes.get()))]
    pub fn set_headroom(&self, gpu: u32, bytes: ByteLen) -> Result<(), VramError> {
        self.core.watched(Call::SetBudget, None, Some(gpu), 0, || {
            self.core.check_open()?;
            self.core.gpu(gpu)?.ledger.set_headroom(bytes);
            Ok(())
        })
    }

    /// Asks the driver how much of a GPU other processes hold, and records how much of the budget
    /// that is. The ledger does not grant those bytes from then on, until this is called again.
    ///
    /// This matters for a GPU used [block by block](crate::MemoryMode::Blocks), which also asks by
    /// itself when the driver has no memory for a block. A region was taken when the manager was
    /// built, so no other process can take any of it. The driver's own needs count as held by other
    /// processes: contexts, and what it rounds up.
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`]; [`VramError::Device`], [`VramError::DeviceLost`]. The figures
    /// stay as they were then.
    #[tracing::instrument(level = "info", skip_all, fields(gpu))]
    pub fn refresh(&self, gpu: u32) -> Result<DriverMemory, VramError> {
        self.core.watched(Call::Refresh, None, Some(gpu), 0, || budget::refresh(&self.core, gpu))
    }

    /// Reserves bytes of a GPU: no other request gets them until the reservation is dropped.
    ///
    /// # Errors
    ///
    /// [`VramError::InsufficientVram`], [`VramError::UnknownGpu`], [`VramError::DeviceLost`].
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::{ByteLen, SealRequest, VramManager};
    ///
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let mut room = manager.reserve(0, ByteLen::new(1 << 19))?;
    /// assert!(manager.seal_model("late", 0, &[0; 1 << 20]).is_err());
    ///
    /// let shard = manager.seal_reserved(&mut room, SealRequest::new("early", 0), &[0; 1000])?;
    /// assert_eq!(room.remaining().get(), (1 << 19) - 1024);
    /// drop(room);
    /// assert_eq!(manager.get_used_vram(0)?, 1024);
    /// # Ok::<(), vram_residency::VramError>(())
    /// ```
    pub fn reserve(&self, gpu: u32, bytes: ByteLen) -> Result<Reservation, VramError> {
        self.reserve_with(ReserveRequest::new(gpu, bytes))
    }

    /// As [`reserve`](Self::reserve), with an owner, a purpose, an expiry.
    ///
    /// # Errors
    ///
    /// As [`reserve`](Self::reserve).
    #[tracing::instrument(level = "info", skip_all, fields(gpu = asked(&request).0, bytes = asked(&request).1.get()))]
    pub fn reserve_with(&self, request: ReserveRequest) -> Result<Reservation, VramError> {
        let ((gpu, bytes), core) = (asked(&request), &self.core);
        let work = || reservation::reserve(core, request);
        core.watched(Call::Reserve, None, Some(gpu), bytes.get(), work)
    }

    /// All open reservations, in ascending order of their numbers.
    #[must_use]
    pub fn reservations(&self) -> Vec<ReservationReport> {
        reservation::reservations(&self.core)
    }

    /// Bytes of a GPU's budget that are in use or reserved.
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`].
    pub fn get_used_vram(&self, gpu: u32) -> Result<usize, VramError> {
        let capacity = self.core.gpu(gpu)?.books();
        Ok(capacity.taken().to_usize().unwrap_or(usize::MAX))
    }

    /// Bytes of a GPU's budget that are neither in use nor reserved. For figures that agree while
    /// other threads are busy, call [`capacity`](Self::capacity).
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`].
    pub fn get_free_vram(&self, gpu: u32) -> Result<usize, VramError> {
        let capacity = self.core.gpu(gpu)?.books();
        Ok(capacity.free().to_usize().unwrap_or(usize::MAX))
    }

    /// All figures of one GPU at one moment.
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`].
    pub fn capacity(&self, gpu: u32) -> Result<GpuCapacity, VramError> {
        Ok(self.core.gpu(gpu)?.capacity())
    }
}
