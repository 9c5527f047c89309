//! Bringing whole models in, and holding places for them.

use vram_alloc::{Fit, ModelPlan};
use vram_core::error::VramError;
use vram_core::models::{
    AdmitRequest, ModelHandle, ModelSource, PlanReservation, ReservePlanRequest, admit, request,
    reserve, reserve_request,
};
use vram_core::parts::GpuChoice;
use vram_core::parts::call::Call;
use vram_core::resident::Lease;
use vram_space::{DryRun, Placements};

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

    /// As [`admit`](Self::admit), with a lease of every shard, in the order of the plan: no other
    /// request evicts, moves or frees one of them between admission and use. An Authenticated model
    /// is read back in full before, since kernels read leased shards unchecked.
    ///
    /// # Errors
    ///
    /// As [`admit`](Self::admit).
    ///
    /// # Panics
    ///
    /// As [`admit`](Self::admit).
    #[tracing::instrument(
        level = "info",
        skip_all,
        fields(pieces = plan.pieces().len(), bytes = plan.total().get())
    )]
    pub fn admit_leased(
        &self,
        request: AdmitRequest<'_>,
        plan: &ModelPlan,
        source: &dyn ModelSource,
    ) -> Result<(ModelHandle, Vec<Lease>), VramError> {
        let (gpu, bytes) = (request::gpu_of(&request), plan.total().get());
        let work = || admit::admit_leased(&self.core, request, plan, source);
        self.core.watched(Call::Admit, None, gpu, bytes, work)
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

    /// Computes where each piece of a plan would lie, and what the GPUs would have left. A dry run:
    /// [`admit`](Self::admit) with the same choice gives exactly these places if nothing changes in
    /// between. For a manager that does not exist yet: [`VramManagerBuilder::placements`].
    ///
    /// # Errors
    ///
    /// As [`fits`](Self::fits). A plan that does not fit is an answer, not an error.
    ///
    /// [`VramManagerBuilder::placements`]: crate::VramManagerBuilder::placements
    pub fn placements(&self, plan: &ModelPlan, gpus: GpuChoice) -> Result<Placements, VramError> {
        let gpus = admit::choose(&self.core, gpus)?;
        Ok(DryRun::of(&gpus).placements(plan))
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

    /// As [`admit_reserved`](Self::admit_reserved), with leases as
    /// [`admit_leased`](Self::admit_leased) takes them.
    ///
    /// # Errors
    ///
    /// As [`admit_reserved`](Self::admit_reserved).
    ///
    /// # Panics
    ///
    /// As [`admit`](Self::admit).
    #[tracing::instrument(
        level = "info",
        skip_all,
        fields(pieces = reservation.plan().pieces().len(), bytes = reservation.plan().total().get())
    )]
    pub fn admit_reserved_leased(
        &self,
        reservation: &mut PlanReservation,
        request: AdmitRequest<'_>,
        source: &dyn ModelSource,
    ) -> Result<(ModelHandle, Vec<Lease>), VramError> {
        let bytes = reservation.plan().total().get();
        self.core.watched(Call::Admit, None, None, bytes, || {
            reserve::admit_reserved_leased(&self.core, reservation, request, source)
        })
    }
}
