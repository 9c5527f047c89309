//! Plans with reserved placements: a plan that fits now still fits later.

use core::time::Duration;

use vram_alloc::{ByteLen, ModelPlan};

use crate::error::{ReservationId, VramError};
use crate::models::admit::Leased;
use crate::models::{AdmitRequest, ModelHandle, ModelSource, Placed, ReservePlanRequest, admit};
use crate::parts::{Contents, Core};
use crate::sealing::HeldPromise;
use crate::sealing::reservation::held_methods;

/// A placement for every piece of a plan, and slots in the count of shards. No other request can
/// take them.
///
/// Like a [`Reservation`](crate::sealing::Reservation) it is owned, returns what was not used when
/// it is dropped, and may expire.
#[derive(Debug)]
#[must_use = "a reservation that is dropped gives its places back"]
pub struct PlanReservation {
    held: HeldPromise,
    pub(crate) plan: ModelPlan,
}

impl PlanReservation {
    held_methods! {
        /// Bytes that were promised: the bytes that the pieces take, in whole granules.
        len;
        /// Bytes that are still held: none after the model was admitted, or after the reservation
        /// expired.
        remaining;
    }

    /// The plan that the placements were reserved for.
    #[must_use]
    pub const fn plan(&self) -> &ModelPlan {
        &self.plan
    }
}

/// Reserves a placement for every piece of a plan, or for none.
pub fn reserve_plan(
    core: &Core,
    plan: &ModelPlan,
    request: ReservePlanRequest,
) -> Result<PlanReservation, VramError> {
    core.check_open()?;
    request.terms.check()?;
    // Reserving placements evicts no shard; the refusal states what would help.
    let any = AdmitRequest::new("reserved", request.gpus).priority(u32::MAX).evicts(false);
    let placed = admit::place_all(core, &any, plan)?;
    let mut spaces = Vec::with_capacity(placed.len());
    let mut seats = Vec::with_capacity(placed.len());
    let mut len = ByteLen::ZERO;
    for Placed { space, counted } in placed {
        len = len.saturating_add(space.footprint());
        spaces.push(Some(space));
        seats.push(counted);
    }
    let contents = Contents::Places { spaces, seats };
    let promise = core.promises.open(request.terms, len, contents);
    // Marks placing as finished only now: a thread that waits for running calls then finds the
    // placements.
    promise.rest();
    Ok(PlanReservation { held: HeldPromise::new(&core.promises, promise), plan: plan.clone() })
}

/// Seals a model into the placements that were reserved for it.
pub fn admit_reserved(
    core: &Core,
    reservation: &PlanReservation,
    request: AdmitRequest<'_>,
    source: &dyn ModelSource,
) -> Result<ModelHandle, VramError> {
    admit_into(core, reservation, request, source).map(|(model, _no_leases)| model)
}

/// Like [`admit_reserved`](fn@admit_reserved), with a lease of every shard from the moment in
/// which it arrives.
pub fn admit_reserved_leased(
    core: &Core,
    reservation: &PlanReservation,
    request: AdmitRequest<'_>,
    source: &dyn ModelSource,
) -> Result<Leased, VramError> {
    admit_into(core, reservation, admit::leased(request), source)
}

fn admit_into(
    core: &Core,
    reservation: &PlanReservation,
    request: AdmitRequest<'_>,
    source: &dyn ModelSource,
) -> Result<Leased, VramError> {
    core.check_open()?;
    let PlanReservation { held, plan } = reservation;
    held.check(core)?;
    request.check()?;
    // Declared first, so that it is dropped last, after all spaces have returned to the promise.
    let _refill = Refill { core, held };
    let (spaces, mut seats) = held.promise.take_places()?;
    if spaces.len() != plan.pieces().len() {
        return Err(held.promise.expired());
    }
    while seats.len() < spaces.len() {
        seats.push(core.registry.count_one()?);
    }
    admit::admit_placed(core, request, plan, source, |_request| {
        let placed = spaces.into_iter().zip(seats);
        Ok(placed.map(|(space, counted)| Placed { space, counted }).collect())
    })
}

/// After a failed attempt, takes slots again for the placements that returned.
struct Refill<'a> {
    core: &'a Core,
    held: &'a HeldPromise,
}

impl Drop for Refill<'_> {
    fn drop(&mut self) {
        // If other calls took the last slots meanwhile, the next attempt takes the missing ones.
        self.held.promise.refill(|| self.core.registry.count_one().ok());
    }
}
