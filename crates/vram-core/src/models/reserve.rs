//! Plans that hold their places: what fits now still fits later.

use core::time::Duration;

use vram_alloc::{ByteLen, ModelPlan};

use crate::error::{ReservationId, VramError};
use crate::models::{AdmitRequest, ModelHandle, ModelSource, Placed, ReservePlanRequest, admit};
use crate::parts::{Contents, Core};
use crate::sealing::Held;
use crate::sealing::reservation::held_methods;

/// A place for every piece of a plan, and a seat among the shards: nobody else gets them.
///
/// Like a [`Reservation`](crate::sealing::Reservation) it is owned, gives back what was not used when it is
/// dropped, and may expire.
#[derive(Debug)]
#[must_use = "a reservation that is dropped gives its places back"]
pub struct PlanReservation {
    held: Held,
    pub(crate) plan: ModelPlan,
}

impl PlanReservation {
    held_methods! {
        /// Bytes that were promised: what the pieces take, in whole granules.
        len;
        /// Bytes that are still held: none once the model was admitted, or the time was up.
        remaining;
    }

    /// The plan.
    #[must_use]
    pub const fn plan(&self) -> &ModelPlan {
        &self.plan
    }
}

/// Reserves a place for every piece of a plan, or for none.
pub fn reserve_plan(
    core: &Core,
    plan: &ModelPlan,
    request: ReservePlanRequest,
) -> Result<PlanReservation, VramError> {
    // Holding places evicts nobody; the refusal says what would help.
    let any = AdmitRequest::new("reserved", request.gpus).priority(u32::MAX).evicts(false);
    let placed = admit::place_all(core, &any, plan)?;
    let mut spaces = Vec::with_capacity(placed.len());
    let mut seats = Vec::with_capacity(placed.len());
    let mut len = ByteLen::ZERO;
    for Placed { space, counted, .. } in placed {
        len = len.saturating_add(space.footprint());
        spaces.push(Some(space));
        seats.push(counted);
    }
    let contents = Contents::Places { spaces, seats };
    let promise = core.promises.open(request.terms, len, contents);
    // Only now: whoever waits for the calls under way finds them.
    promise.rest();
    Ok(PlanReservation { held: Held::new(&core.promises, promise), plan: plan.clone() })
}

/// Seals a model into the places that were reserved for it.
pub fn admit_reserved(
    core: &Core,
    reservation: &PlanReservation,
    request: AdmitRequest<'_>,
    source: &dyn ModelSource,
) -> Result<ModelHandle, VramError> {
    core.check_open()?;
    let PlanReservation { held, plan } = reservation;
    held.check(core)?;
    request.check()?;
    // First, so that it looks last, when everything that goes back is back.
    let _refill = Refill { core, held };
    let (spaces, mut seats) = held.promise.take_places()?;
    if spaces.len() != plan.pieces().len() {
        return Err(held.promise.expired());
    }
    while seats.len() < spaces.len() {
        seats.push(core.registry.count_one()?);
    }
    let pieces = (0..).zip(plan.pieces()).zip(spaces).zip(seats);
    let placed = pieces.map(|(((index, piece), space), counted)| {
        let request = request.for_piece(index, piece, space.gpu().index);
        Placed { request, space, counted }
    });
    let placed = placed.collect();
    admit::admit_placed(core, request, plan, source, |_request| Ok(placed))
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
