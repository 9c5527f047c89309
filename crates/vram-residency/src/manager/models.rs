//! Operations on all shards of a model.

use core::time::Duration;

use vram_alloc::{Fit, ModelPlan};
use vram_core::error::VramError;
use vram_core::models::moves::refreshed;
use vram_core::models::{
    AdmitRequest, ModelHandle, ModelSource, ModelVerdict, ParkedModel, PlanReservation,
    ReservePlanRequest, WakeModelError, admit, free, moves, request, reserve, reserve_request,
};
use vram_core::parts::call::Call;
use vram_core::parts::{GpuChoice, gpus};
use vram_core::resident::{Lease, Verify, lease};
use vram_core::room::FreedReceipt;
use vram_space::DryRun;

use crate::manager::VramManager;

impl VramManager {
    /// Makes a whole model resident: one shard for each piece of the plan, or nothing at all.
    ///
    /// The call places all pieces before it reads a byte. It seals each piece as one shard: the
    /// number of the piece in the plan is the shard index, and tensor, part, format and shape are
    /// bound as metadata.
    ///
    /// # Errors
    ///
    /// [`VramError::InsufficientVram`] if a piece finds no room on any GPU of the request;
    /// otherwise as [`seal_from`](Self::seal_from). Nothing is resident then, and the call has
    /// released all memory that it took.
    ///
    /// # Panics
    ///
    /// If the source or the progress callback panics: with their payload, after the call has
    /// released all memory that it took. The manager stays usable.
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::{
    ///     AdmitRequest, ByteLen, GpuChoice, ModelPlan, Piece, SliceSource, VramManager,
    /// };
    ///
    /// let file = SliceSource::new(b"....embeddings.head");
    /// let plan = ModelPlan::new([
    ///     Piece::new("embeddings", 0, 4, ByteLen::new(10)),
    ///     Piece::new("head", 0, 15, ByteLen::new(4)),
    /// ])?;
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let request = AdmitRequest::new("tiny", GpuChoice::MostRoomFirst);
    /// let model = manager.admit(request, &plan, &vec![file])?;
    /// let head = model.tensor("head").next().expect("it is in the plan");
    /// assert_eq!(manager.unseal_model(&head.shard)?, b"head");
    /// manager.free_model(&model)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[tracing::instrument(
        level = "info",
        skip_all,
        fields(pieces = plan.pieces().len(), bytes = plan.total().get())
    )]
    pub fn admit(
        &self,
        request: AdmitRequest<'_>,
        plan: &ModelPlan,
        source: &dyn ModelSource,
    ) -> Result<ModelHandle, VramError> {
        let (gpu, bytes) = (request::gpu_of(&request), plan.total().get());
        let work = || admit::admit(&self.core, request, plan, source);
        self.core.watched(Call::Admit, None, gpu, bytes, work)
    }

    /// Returns the same model with fresh handles, after shards of it were moved, opened or closed.
    ///
    /// # Errors
    ///
    /// [`VramError::ForeignHandle`] or [`VramError::HandleAltered`] for a bad handle,
    /// [`VramError::Parked`] for a shard in host memory, [`VramError::ShardFreed`] if a shard of the
    /// model is gone.
    pub fn refresh_model(&self, model: &ModelHandle) -> Result<ModelHandle, VramError> {
        moves::refresh(&self.core, model)
    }

    /// Frees every shard of a model, or none. The call skips shards that are gone already.
    ///
    /// # Errors
    ///
    /// Those of a bad handle, [`VramError::Parked`], [`VramError::InUse`] and
    /// [`VramError::DeviceLost`] of any shard, with nothing freed. [`VramError::NotReturned`] for
    /// the first shard whose bytes stay counted, after all shards are gone. Only if a device is
    /// lost while the call frees its shards, some of them stay behind on it.
    #[tracing::instrument(level = "info", skip_all, fields(pieces = model.pieces.len()))]
    pub fn free_model(&self, model: &ModelHandle) -> Result<Vec<FreedReceipt>, VramError> {
        let work = || free::free_model(&self.core, model, None);
        self.core.watched_for(Call::FreeModel, None, None, work, |freed| free::freed_bytes(freed))
    }

    /// As [`free_model`](Self::free_model), but waits until all calls and leases on the shards have
    /// ended, at most `timeout`.
    ///
    /// # Errors
    ///
    /// As [`free_model`](Self::free_model), naming the shard that was waited for:
    /// [`VramError::InUse`] if it is still leased after the timeout, [`VramError::TimedOut`] if
    /// other calls still use it.
    #[tracing::instrument(level = "info", skip_all, fields(pieces = model.pieces.len()))]
    pub fn free_model_within(
        &self,
        model: &ModelHandle,
        timeout: Duration,
    ) -> Result<Vec<FreedReceipt>, VramError> {
        let work = || free::free_model(&self.core, model, Some(timeout));
        self.core.watched_for(Call::FreeModel, None, None, work, |freed| free::freed_bytes(freed))
    }

    /// Parks every shard of a model, or none: see [`park`](Self::park). Readers of any of them wait
    /// until the last one is in host memory.
    ///
    /// # Errors
    ///
    /// As [`park`](Self::park), for the first shard that cannot be parked. Every shard is then
    /// where it was.
    #[tracing::instrument(level = "info", skip_all, fields(pieces = model.pieces.len()))]
    pub fn park_model(&self, model: &ModelHandle) -> Result<ParkedModel, VramError> {
        let work = || moves::park(&self.core, model, None);
        self.core.watched(Call::ParkModel, None, None, model.total().get(), work)
    }

    /// As [`park_model`](Self::park_model), but waits for other users as
    /// [`free_model_within`](Self::free_model_within) does.
    ///
    /// # Errors
    ///
    /// As [`park_model`](Self::park_model) and [`free_model_within`](Self::free_model_within).
    #[tracing::instrument(level = "info", skip_all, fields(pieces = model.pieces.len()))]
    pub fn park_model_within(
        &self,
        model: &ModelHandle,
        timeout: Duration,
    ) -> Result<ParkedModel, VramError> {
        let work = || moves::park(&self.core, model, Some(timeout));
        self.core.watched(Call::ParkModel, None, None, model.total().get(), work)
    }

    /// Makes every shard of a parked model resident again, or none: see [`wake`](Self::wake). The
    /// call places all shards before it writes the first.
    ///
    /// # Errors
    ///
    /// [`WakeModelError`] with the parked model, as it was, and the reason: as
    /// [`wake`](Self::wake), for the first shard that cannot be woken.
    #[tracing::instrument(level = "info", skip_all, fields(pieces = parked.pieces.len()))]
    pub fn wake_model(
        &self,
        parked: ParkedModel,
        gpus: GpuChoice,
    ) -> Result<ModelHandle, WakeModelError> {
        let work = || moves::wake(&self.core, parked, gpus);
        let bytes = |model: &ModelHandle| model.total().get();
        self.core.watched_for(Call::WakeModel, None, gpus::named(gpus), work, bytes)
    }

    /// Moves every shard of a model to one GPU, or none: see
    /// [`migrate_shard`](Self::migrate_shard). The target needs room for all shards that are not on
    /// it yet; the call frees the old places once every shard has arrived.
    ///
    /// # Errors
    ///
    /// As [`migrate_shard`](Self::migrate_shard), for the first shard that cannot be moved. Every
    /// shard is then where it was.
    #[tracing::instrument(level = "info", skip_all, fields(pieces = model.pieces.len(), gpu))]
    pub fn migrate_model(&self, model: &ModelHandle, gpu: u32) -> Result<ModelHandle, VramError> {
        let work = || moves::migrate_model(&self.core, model, gpu, None);
        let bytes = model.total().get();
        let shards = self.core.watched(Call::MigrateModel, None, Some(gpu), bytes, work)?;
        Ok(refreshed(model, shards))
    }

    /// As [`migrate_model`](Self::migrate_model), but waits for other users as
    /// [`free_model_within`](Self::free_model_within) does.
    ///
    /// # Errors
    ///
    /// As [`migrate_model`](Self::migrate_model) and
    /// [`free_model_within`](Self::free_model_within).
    #[tracing::instrument(level = "info", skip_all, fields(pieces = model.pieces.len(), gpu))]
    pub fn migrate_model_within(
        &self,
        model: &ModelHandle,
        gpu: u32,
        timeout: Duration,
    ) -> Result<ModelHandle, VramError> {
        let work = || moves::migrate_model(&self.core, model, gpu, Some(timeout));
        let bytes = model.total().get();
        let shards = self.core.watched(Call::MigrateModel, None, Some(gpu), bytes, work)?;
        Ok(refreshed(model, shards))
    }

    /// Verifies every shard of a model as thoroughly as asked: see [`verify`](Self::verify).
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify), for the first shard that cannot be verified. An altered shard
    /// is a verdict, not an error.
    #[tracing::instrument(level = "info", skip_all, fields(pieces = model.pieces.len()))]
    pub fn verify_model(
        &self,
        model: &ModelHandle,
        level: Verify,
    ) -> Result<ModelVerdict, VramError> {
        let work = || moves::verify(&self.core, model, level);
        self.core.watched_for(Call::VerifyModel, None, None, work, moves::checked_bytes)
    }

    /// Takes a lease of every shard of a model, in the order of its plan, or of none.
    ///
    /// # Errors
    ///
    /// As [`lease`](Self::lease), for the first shard that refuses.
    #[tracing::instrument(level = "info", skip_all, fields(pieces = model.pieces.len()))]
    pub fn lease_model(&self, model: &ModelHandle) -> Result<Vec<Lease>, VramError> {
        let leased = |shard| lease::lease(&self.core, shard, None);
        let work = || model.shards().map(leased).collect();
        self.core.watched(Call::LeaseModel, None, None, model.total().get(), work)
    }

    /// As [`lease_model`](Self::lease_model), for a named holder: see [`lease_as`](Self::lease_as).
    ///
    /// # Errors
    ///
    /// As [`lease_as`](Self::lease_as), for the first shard that refuses.
    #[tracing::instrument(level = "info", skip_all, fields(pieces = model.pieces.len()))]
    pub fn lease_model_as(
        &self,
        model: &ModelHandle,
        holder: &str,
    ) -> Result<Vec<Lease>, VramError> {
        let work = || {
            let holder = lease::holder(holder)?;
            let leased = |shard| lease::lease_as(&self.core, shard, holder.clone(), None);
            model.shards().map(leased).collect()
        };
        self.core.watched(Call::LeaseModel, None, None, model.total().get(), work)
    }

    /// Computes whether a model would fit now, before a byte of it is loaded. The answer is exact:
    /// [`admit`](Self::admit) finds room for every piece exactly if the answer says so and nothing
    /// changes in between. To hold the room, call [`reserve_plan`](Self::reserve_plan).
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`]; [`VramError::DeviceLost`] if every GPU of the choice is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::{ByteLen, GpuChoice, ModelPlan, Piece, VramManager};
    ///
    /// let plan = ModelPlan::new([Piece::new("embeddings", 0, 0, ByteLen::new(1 << 20))])?;
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// assert!(manager.fits(&plan, GpuChoice::One(0))?.is_yes());
    ///
    /// let _other = manager.seal_model("other", 0, b"1")?;
    /// let answer = manager.fits(&plan, GpuChoice::One(0))?;
    /// assert!(answer.to_string().starts_with("the model needs 1.0 MiB"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fits(&self, plan: &ModelPlan, gpus: GpuChoice) -> Result<Fit, VramError> {
        let gpus = admit::choose(&self.core, gpus)?;
        Ok(DryRun::of(&gpus).fit(plan))
    }

    /// Holds a place for every piece of a plan, or for none.
    ///
    /// # Errors
    ///
    /// [`VramError::InsufficientVram`], [`VramError::UnknownGpu`], [`VramError::LimitExceeded`],
    /// [`VramError::DeviceLost`]. Nothing is held then.
    pub fn reserve_plan(
        &self,
        plan: &ModelPlan,
        gpus: GpuChoice,
    ) -> Result<PlanReservation, VramError> {
        self.reserve_plan_with(plan, ReservePlanRequest::new(gpus))
    }

    /// As [`reserve_plan`](Self::reserve_plan), with an owner, a purpose, an expiry.
    ///
    /// # Errors
    ///
    /// As [`reserve_plan`](Self::reserve_plan).
    #[tracing::instrument(
        level = "info",
        skip_all,
        fields(pieces = plan.pieces().len(), bytes = plan.total().get())
    )]
    pub fn reserve_plan_with(
        &self,
        plan: &ModelPlan,
        request: ReservePlanRequest,
    ) -> Result<PlanReservation, VramError> {
        let (gpu, bytes) = (reserve_request::gpu_of(&request), plan.total().get());
        self.core.watched(Call::Reserve, None, gpu, bytes, || {
            reserve::reserve_plan(&self.core, plan, request)
        })
    }

    /// As [`admit`](Self::admit), into the reserved places; the request's choice of GPUs has no
    /// effect. If the call fails, the places are reserved as before.
    ///
    /// # Errors
    ///
    /// [`VramError::ReservationExpired`], also for a reservation that was used before;
    /// [`VramError::ForeignReservation`]; otherwise as [`admit`](Self::admit), but never for lack
    /// of room.
    ///
    /// # Panics
    ///
    /// As [`admit`](Self::admit).
    #[tracing::instrument(
        level = "info",
        skip_all,
        fields(pieces = reservation.plan().pieces().len(), bytes = reservation.plan().total().get())
    )]
    pub fn admit_reserved(
        &self,
        reservation: &mut PlanReservation,
        request: AdmitRequest<'_>,
        source: &dyn ModelSource,
    ) -> Result<ModelHandle, VramError> {
        let bytes = reservation.plan().total().get();
        self.core.watched(Call::Admit, None, None, bytes, || {
            reserve::admit_reserved(&self.core, reservation, request, source)
        })
    }
}
