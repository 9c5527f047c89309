//! Admits a whole model: every piece of its plan becomes resident, or none does.
//!
//! ```text
//!  admit(request, plan, source)
//!   1 every piece is placed and counted, in the order of the plan    nothing is read yet
//!   2 small pieces are sealed in parallel, a run of neighbours a thread
//!   3 large pieces are sealed one after the other, all threads inside each
//!   4 the source confirms that it did not change
//!   5 all shards become resident
//! ```
//!
//! After any failure, all placements, slots and device bytes are returned, wiped.

pub mod images;
mod job;

use core::sync::atomic::Ordering;
use std::sync::Arc;

use vram_alloc::{ByteLen, ModelPlan, Piece};
use vram_seal::Protection;
use vram_space::{Gpu, Placing, Space, SpaceError};

use crate::error::{EvictionPlan, VramError};
use crate::models::admit::job::Job;
use crate::models::each::each_run;
use crate::models::{AdmitRequest, ModelHandle, ModelPiece, ModelSource};
use crate::parts::{Core, GpuChoice};
use crate::resident::Lease;
use crate::resident::lease::check_holder;
use crate::room::{Goal, evict, holders, make_room};
use crate::sealing::entry::Ready;
use crate::sealing::{SealRequest, entry, place};
use crate::shard::seal::check_piece;
use crate::shard::{Admitted, Counted};
use crate::transfer::ReadBack;

/// The place of a piece.
pub(crate) struct Placed {
    pub(crate) space: Space,
    pub(crate) counted: Counted,
}

/// A model, and the leases of its shards in the order of its plan.
pub type Leased = (ModelHandle, Vec<Lease>);

/// Seals all pieces of a model, or none.
pub fn admit(
    core: &Core,
    request: AdmitRequest<'_>,
    plan: &ModelPlan,
    source: &dyn ModelSource,
) -> Result<ModelHandle, VramError> {
    let placed = |request: &AdmitRequest<'_>| place_all(core, request, plan);
    admit_placed(core, request, plan, source, placed).map(|(model, _no_leases)| model)
}

/// Like [`admit`](fn@admit), with a lease of every shard from the moment in which it arrives.
pub fn admit_leased(
    core: &Core,
    request: AdmitRequest<'_>,
    plan: &ModelPlan,
    source: &dyn ModelSource,
) -> Result<Leased, VramError> {
    admit_placed(core, leased(request), plan, source, |request| place_all(core, request, plan))
}

/// The request with leases. Kernels read a leased Authenticated shard unchecked, so all of it is
/// read back before.
pub(crate) fn leased(mut request: AdmitRequest<'_>) -> AdmitRequest<'_> {
    request.leased = true;
    if request.common.protection == Protection::Authenticated {
        request.common.read_back = Some(ReadBack::Full);
    }
    request
}

/// Like [`admit`](fn@admit), into the placements that `place` finds.
pub(crate) fn admit_placed(
    core: &Core,
    mut request: AdmitRequest<'_>,
    plan: &ModelPlan,
    source: &dyn ModelSource,
    place: impl FnOnce(&AdmitRequest<'_>) -> Result<Vec<Placed>, VramError>,
) -> Result<Leased, VramError> {
    check_holder(request.holder.as_ref())?;
    let watch = core::mem::take(&mut request.watch).begin(plan.total())?;
    let model = numbered(core, plan, &request.common);
    request.admitted = Some(Arc::clone(&model));
    let placed = place(&request)?;
    name_shards(core, &model);
    let job = Job::new(core, &request, source, &watch);
    // Cancelled through the watch, which the progress callback can do too.
    let work = plan.pieces().iter().zip(placed);
    let ready = each_run(core, &lens(plan), work, |first, run, stop| job.seal(first, run, stop))?;
    source.finish().map_err(|error| error.while_sealing(&request.common.sealed_as.model_id))?;
    // Called before any shard is resident: a callback that panics must not leave shards behind.
    watch.finish();
    let holder = request.holder.as_ref();
    let early = ready.iter().filter(|_| request.leased).map(|one| one.early_lease(core, holder));
    let early = early.collect::<Result<Vec<_>, _>>()?;
    let handle = arrive(core, &request, &model, ready)?;
    let leases = early.into_iter().filter_map(|lease| lease.begin(core)).collect();
    Ok((handle, leases))
}

/// A model that is being admitted.
fn numbered(core: &Core, plan: &ModelPlan, request: &SealRequest) -> Arc<Admitted> {
    let number = core.admissions.fetch_add(1, Ordering::Relaxed);
    Arc::new(Admitted::new(number, plan.clone(), request.holder()))
}

/// Names the shards of a model, in ascending order: their states are locked in this order when they
/// arrive.
fn name_shards(core: &Core, model: &Admitted) {
    model.consists_of(core.ids.next_many(&*core.clock, model.plan.pieces().len()));
}

/// Makes all shards of a model resident, in one moment.
fn arrive(
    core: &Core,
    request: &AdmitRequest<'_>,
    model: &Arc<Admitted>,
    ready: Vec<Ready>,
) -> Result<ModelHandle, VramError> {
    let _arriving = model.begin();
    let shards = entry::publish_all(core, ready)?;
    let pieces = model.plan.pieces().iter().zip(shards);
    let pieces = pieces.map(|(piece, shard)| ModelPiece { piece: piece.clone(), shard }).collect();
    let model_id = Arc::clone(&request.common.sealed_as.model_id);
    Ok(ModelHandle { model_id, pieces })
}

/// Takes room for every piece, in the order of the plan.
pub(crate) fn place_all(
    core: &Core,
    request: &AdmitRequest<'_>,
    plan: &ModelPlan,
) -> Result<Vec<Placed>, VramError> {
    let gpus = choose(core, request.gpus)?;
    make_room::with_room(
        core,
        &gpus,
        Goal::Pieces(&lens(plan)),
        request.common.room_making(),
        || place_all_once(core, request, plan),
    )
}

/// Like [`place_all`](Self::place_all), without making room.
fn place_all_once(
    core: &Core,
    request: &AdmitRequest<'_>,
    plan: &ModelPlan,
) -> Result<Vec<Placed>, VramError> {
    let gpus = choose(core, request.gpus)?;
    fits_as_a_whole(&gpus, plan.footprint())?;
    request.check()?;
    let placing = begin_placing(&gpus);
    plan.pieces().iter().map(|piece| place_piece(core, piece, &placing)).collect()
}

/// A call that places on each of these GPUs, or why there is none.
pub(crate) fn begin_placing(gpus: &[Arc<Gpu>]) -> Vec<Result<Placing, SpaceError>> {
    gpus.iter().map(Gpu::begin_placing).collect()
}

/// Refuses a model that is too large for these GPUs as a whole, before any piece is placed: the figures
/// of one piece in the middle would say nothing.
///
/// # Errors
///
/// [`VramError::InsufficientVram`].
pub(crate) fn fits_as_a_whole(gpus: &[Arc<Gpu>], footprint: ByteLen) -> Result<(), VramError> {
    let whole = holders::shortfall_of(gpus, Goal::Room(footprint));
    // The last granule of a region may be short, which a plan does not account for.
    let slack = ByteLen::new(256).checked_mul(u64::from(whole.others).saturating_add(1));
    if footprint > whole.room.saturating_add(slack.unwrap_or(ByteLen::ZERO)) {
        return Err(VramError::InsufficientVram(Box::new(whole)));
    }
    Ok(())
}

/// The GPUs to try for each piece, in this order.
pub fn choose(core: &Core, choice: GpuChoice) -> Result<Vec<Arc<Gpu>>, VramError> {
    core.check_open()?;
    let usable = match choice {
        GpuChoice::One(index) => vec![Arc::clone(core.gpu(index)?)],
        GpuChoice::MostRoomFirst => {
            // A lost GPU has no room; if all GPUs are lost, the error of the first is returned.
            let mut usable: Vec<_> =
                core.gpus.iter().filter(|gpu| gpu.lost().is_none()).map(Arc::clone).collect();
            if usable.is_empty() {
                usable.extend(core.gpus.first().map(Arc::clone));
            }
            usable.sort_by_cached_key(|gpu| {
                let room = gpu.books().room();
                (core::cmp::Reverse(room), gpu.index)
            });
            usable
        }
    };
    // A GPU without an alternative must be usable, even for a plan without pieces.
    if let [only] = usable.as_slice() {
        only.ready()?;
    }
    Ok(usable)
}

fn place_piece(
    core: &Core,
    piece: &Piece,
    placing: &[Result<Placing, SpaceError>],
) -> Result<Placed, VramError> {
    check_piece(piece)?;
    let mut refusal = None;
    for gpu in placing {
        let placed = place::admissible_len(core, piece.len).and_then(|counted| {
            let space = gpu.as_ref().map_err(SpaceError::clone)?.place(piece.len)?;
            Ok(Placed { space, counted })
        });
        match placed {
            Ok(placed) => return Ok(placed),
            // Return the first refusal: it is that of the GPU with the most room.
            Err(error @ VramError::InsufficientVram(_)) => {
                refusal.get_or_insert(error);
            }
            // The device was lost meanwhile: try another GPU.
            Err(error @ VramError::DeviceLost { .. }) if placing.len() > 1 => {
                refusal.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(refusal.unwrap_or(VramError::UnknownGpu { gpu: 0, count: core.gpu_count() }))
}

/// The lengths of the pieces, in the order of the plan.
fn lens(plan: &ModelPlan) -> Vec<ByteLen> {
    plan.pieces().iter().map(|piece| piece.len).collect()
}

/// What would have to be evicted so that a plan fits on these GPUs. Evicts nothing.
pub fn plan_eviction(
    core: &Core,
    plan: &ModelPlan,
    gpus: GpuChoice,
) -> Result<EvictionPlan, VramError> {
    evict::plan_for(core, &choose(core, gpus)?, &lens(plan))
}
