//! Plans that hold their places: what fits now still fits later.

use core::time::Duration;

use vram_alloc::{ByteLen, Fit, ModelPlan};

use crate::admit::{AdmitRequest, GpuChoice, Placed};
use crate::call::Call;
use crate::dry_run::DryRun;
use crate::error::VramError;
use crate::manager::{Core, VramManager};
use crate::model::{ModelHandle, ModelSource};
use crate::promise::{Contents, ReservationId, Terms};
use crate::reservation::Held;

/// A request to hold a place for every piece of a plan.
///
/// ```
/// use core::time::Duration;
/// use vram_residency::{GpuChoice, ReservePlanRequest};
///
/// let request = ReservePlanRequest::new(GpuChoice::MostRoomFirst)
///     .owner("pool-1")
///     .expires_in(Duration::from_secs(30));
/// # let _ = request;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ReservePlanRequest {
    gpus: GpuChoice,
    terms: Terms,
}

impl ReservePlanRequest {
    /// A request for places on these GPUs, for as long as they are held.
    pub fn new(gpus: GpuChoice) -> Self {
        Self { gpus, terms: Terms::default() }
    }

    /// Names who reserves, for listings.
    pub fn owner(mut self, owner: &str) -> Self {
        self.terms.owner = Some(owner.into());
        self
    }

    /// Says what for, for listings.
    pub fn purpose(mut self, purpose: &str) -> Self {
        self.terms.purpose = Some(purpose.into());
        self
    }

    /// Sets after how long the places go back by themselves, if they were not used until then.
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.terms.expires_in = Some(time);
        self
    }
}

/// A place for every piece of a plan, and a seat among the shards: nobody else gets them.
///
/// Like a [`Reservation`](crate::Reservation) it is owned, gives back what was not used when it is
/// dropped, and may expire.
#[derive(Debug)]
#[must_use = "a reservation that is dropped gives its places back"]
pub struct PlanReservation {
    held: Held,
    plan: ModelPlan,
}

impl PlanReservation {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> ReservationId {
        self.held.promise.id
    }

    /// The plan.
    #[must_use]
    pub const fn plan(&self) -> &ModelPlan {
        &self.plan
    }

    /// Bytes that were promised: what the pieces take, in whole granules.
    #[must_use]
    pub fn len(&self) -> ByteLen {
        self.held.promise.len
    }

    /// Whether nothing was promised.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len().is_zero()
    }

    /// Bytes that are still held: none once the model was admitted, or the time was up.
    #[must_use]
    pub fn remaining(&self) -> ByteLen {
        self.held.remaining()
    }

    /// How long it lasts yet, zero once it has expired; `None` if it does not expire.
    #[must_use]
    pub fn expires_in(&self) -> Option<Duration> {
        self.held.expires_in()
    }

    /// Makes it last that long from now on; `None` for as long as it is held.
    ///
    /// # Errors
    ///
    /// [`VramError::ReservationExpired`] if it is too late.
    pub fn renew(&mut self, expires_in: Option<Duration>) -> Result<(), VramError> {
        self.held.renew(expires_in)
    }

    /// Gives back what was not used. The same as dropping, said aloud.
    pub fn release(self) {
        drop(self);
    }
}

impl VramManager {
    /// Whether a model would fit now, before a byte of it is loaded. The answer is exact:
    /// [`admit`](Self::admit) finds room for every piece exactly if this says so and nothing
    /// changes in between. To make sure of that, [`reserve_plan`](Self::reserve_plan).
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`]; [`VramError::DeviceLost`] if no GPU of the choice is left.
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
        let gpus = self.core.choose(gpus)?;
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
        let (gpu, bytes) = (request.gpus.named(), plan.total().get());
        self.core.watched(Call::Reserve, None, gpu, bytes, || self.core.reserve_plan(plan, request))
    }

    /// As [`admit`](Self::admit), into the places that were reserved; the request's choice of GPUs
    /// says nothing then. If it fails, they are reserved as before.
    ///
    /// # Errors
    ///
    /// [`VramError::ReservationExpired`], also for a reservation that was used before;
    /// [`VramError::ForeignReservation`]; otherwise as [`admit`](Self::admit), but never for want
    /// of room.
    ///
    /// # Panics
    ///
    /// As [`admit`](Self::admit).
    #[tracing::instrument(
        level = "info",
        skip_all,
        fields(pieces = reservation.plan.pieces().len(), bytes = reservation.plan.total().get())
    )]
    pub fn admit_reserved(
        &self,
        reservation: &mut PlanReservation,
        request: AdmitRequest<'_>,
        source: &dyn ModelSource,
    ) -> Result<ModelHandle, VramError> {
        let bytes = reservation.plan.total().get();
        self.core.watched(Call::Admit, None, None, bytes, || {
            self.core.admit_reserved(reservation, request, source)
        })
    }
}

impl Core {
    fn reserve_plan(
        &self,
        plan: &ModelPlan,
        request: ReservePlanRequest,
    ) -> Result<PlanReservation, VramError> {
        // Holding places evicts nobody; the refusal says what would help.
        let any = AdmitRequest::new("reserved", request.gpus).priority(u32::MAX).evicts(false);
        let placed = self.place_all(&any, plan)?;
        let mut spaces = Vec::with_capacity(placed.len());
        let mut seats = Vec::with_capacity(placed.len());
        let mut len = ByteLen::ZERO;
        for Placed { space, counted, .. } in placed {
            len = len.saturating_add(space.footprint());
            spaces.push(Some(space));
            seats.push(counted);
        }
        let contents = Contents::Places { spaces, seats };
        let promise = self.promises.open(request.terms, len, contents);
        // Only now: whoever waits for the calls under way finds them.
        promise.rest();
        Ok(PlanReservation { held: Held::new(&self.promises, promise), plan: plan.clone() })
    }

    fn admit_reserved(
        &self,
        reservation: &PlanReservation,
        request: AdmitRequest<'_>,
        source: &dyn ModelSource,
    ) -> Result<ModelHandle, VramError> {
        self.check_open()?;
        let PlanReservation { held, plan } = reservation;
        held.check(self)?;
        request.check()?;
        // First, so that it looks last, when everything that goes back is back.
        let _refill = Refill { core: self, held };
        let (spaces, mut seats) = held.promise.take_places()?;
        if spaces.len() != plan.pieces().len() {
            return Err(held.promise.expired());
        }
        while seats.len() < spaces.len() {
            seats.push(self.registry.count_one()?);
        }
        let pieces = (0..).zip(plan.pieces()).zip(spaces).zip(seats);
        let placed = pieces.map(|(((index, piece), space), counted)| {
            let request = request.for_piece(index, piece, space.gpu().index);
            Placed { request, space, counted }
        });
        let placed = placed.collect();
        self.admit_placed(request, plan, source, placed)
    }
}

/// Takes seats again, after an attempt that failed, for the places that came back.
struct Refill<'a> {
    core: &'a Core,
    held: &'a Held,
}

impl Drop for Refill<'_> {
    fn drop(&mut self) {
        // Where others took the last seats meanwhile, the next attempt asks again.
        self.held.promise.refill(|| self.core.registry.count_one().ok());
    }
}
