//! Moves whole models: every shard of a [`ModelHandle`], or none.
//!
//! Each operation has two halves. The first takes all resources and copies all shards, verified,
//! while each shard still lies where it was. If it fails, the copies are dropped, and no shard has
//! changed. The second makes all copies count, and cannot fail.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::EventKind;
use vram_files::CancelToken;
use vram_space::{Gpu, Space, SpaceError};

use crate::error::VramError;
use crate::models::admit::{self, Leased};
use crate::models::each::{Stop, each_piece, each_run, lens_of};
use crate::models::telling;
use crate::models::together::{Wait, exclusive_all};
use crate::models::{
    CallOptions, ModelHandle, ModelPiece, ParkedModel, ParkedPiece, WakeModelError,
    WakeModelRequest,
};
use crate::moves::{migrate, wake};
use crate::parts::Core;
use crate::parts::core::in_use;
use crate::parts::gpus::caught;
use crate::resident::early_lease::EarlyLease;
use crate::resident::{Verdict, Verify, lease, verify_run};
use crate::room::{Goal, RoomMaking, make_room, park};
use crate::shard::{Arrived, Entry, ParkedShard, SealedShard};

/// The result of verifying a model.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "an altered shard is reported here, not as an error"]
pub struct ModelVerdict {
    /// Whether every shard is sound.
    pub sound: bool,
    /// The verdicts on all shards, in the order of the plan.
    pub shards: Vec<Verdict>,
}

/// The model with these handles.
#[must_use]
pub fn refreshed(model: &ModelHandle, shards: Vec<SealedShard>) -> ModelHandle {
    let pieces = model.pieces.iter().zip(shards);
    let pieces = pieces.map(|(piece, shard)| ModelPiece { piece: piece.piece.clone(), shard });
    ModelHandle { model_id: Arc::clone(&model.model_id), pieces: pieces.collect() }
}

/// Moves all shards of a model to a GPU, or none.
pub fn migrate_model(
    core: &Core,
    model: &ModelHandle,
    gpu: u32,
    options: CallOptions<'_>,
) -> Result<Vec<SealedShard>, VramError> {
    let target = Arc::clone(core.gpu(gpu)?);
    exclusive_all(core, model, Wait::within(options.timeout), |entries| {
        let _moving = entries.first().and_then(|entry| entry.begin_on_model());
        let mut leaving = Vec::new();
        for entry in entries {
            entry.not_quarantined()?;
            let view = entry.view()?;
            if view.gpu.index != target.index {
                leaving.push((&**entry, view));
            }
        }
        let lens: Vec<_> = leaving.iter().map(|(entry, _)| entry.plaintext_len).collect();
        let spaces = place_all_for(core, entries, &lens, &target)?;
        let leaving =
            leaving.into_iter().zip(spaces).map(|((entry, view), space)| (entry, view, space));
        let moved = each_piece(core, &lens, leaving, options.cancel, |_, (entry, view, space)| {
            Ok((entry, migrate::copy_to(core, entry, &view, space)?))
        })?;
        let (shards, bytes) = telling::sum(moved.iter().map(|(entry, _)| entry.plaintext_len));
        migrate::settle_all(core, moved)?;
        if shards > 0 {
            telling::tell(core, entries, EventKind::ModelMoved { to: target.index, shards, bytes });
        }
        Ok(core.handles_of(entries))
    })
}

/// Finds a place for each of these shards of a model. Nothing is evicted for them; the refusal states
/// what would help.
fn place_all_for(
    core: &Core,
    entries: &[Arc<Entry>],
    lens: &[ByteLen],
    target: &Arc<Gpu>,
) -> Result<Vec<Space>, VramError> {
    let priority = entries.iter().map(|entry| entry.standing.priority).min().unwrap_or(0);
    let waking = entries.first().and_then(|entry| Some(entry.member()?.model.number));
    let room = RoomMaking { waking, ..RoomMaking::none(priority) };
    let gpus = core::slice::from_ref(target);
    let goal = Goal::Pieces(lens);
    make_room::with_room(core, gpus, goal, room, || {
        admit::fits_as_a_whole(gpus, goal.needed(gpus))?;
        let placing = target.begin_placing()?;
        lens.iter().map(|len| Ok(placing.place(*len)?)).collect()
    })
}

/// Copies all shards of a parked model to GPUs and verifies them there. No shard is resident yet.
fn wake_all(
    core: &Core,
    parked: &ParkedModel,
    request: WakeModelRequest<'_>,
) -> Result<Vec<Arrived>, VramError> {
    let gpus = admit::choose(core, request.gpus)?;
    for piece in &parked.pieces {
        wake::check_own(core, &piece.parked)?;
    }
    let lens: Vec<_> = parked.pieces.iter().map(|piece| piece.parked.plaintext_len()).collect();
    let entries = || parked.pieces.iter().map(|piece| &piece.parked.copy.entry);
    let first = entries().next();
    let room = RoomMaking {
        evicts: request.evicts,
        priority: entries().map(|entry| entry.standing.priority).min().unwrap_or(0),
        asker: first.map(|entry| (&entry.holder().model_id, entry.holder().owner.as_ref())),
        waking: first.and_then(|entry| Some(entry.member()?.model.number)),
    };
    let goal = Goal::Pieces(&lens);
    let spaces = make_room::with_room(core, &gpus, goal, room, || {
        admit::fits_as_a_whole(&gpus, goal.needed(&gpus))?;
        let placing = admit::begin_placing(&gpus);
        let place = |len: &ByteLen| {
            let mut refusal = None;
            let space = placing.iter().find_map(|gpu| {
                let placed =
                    gpu.as_ref().map_err(SpaceError::clone).and_then(|gpu| gpu.place(*len));
                placed.map_err(|error| refusal.get_or_insert(VramError::from(error)).clone()).ok()
            });
            let unknown = || VramError::UnknownGpu { gpu: 0, count: core.gpu_count() };
            space.ok_or_else(|| refusal.unwrap_or_else(unknown))
        };
        lens.iter().map(place).collect::<Result<Vec<_>, _>>()
    })?;
    let pieces = parked.pieces.iter().zip(spaces);
    each_piece(core, &lens, pieces, request.cancel, |_, (piece, space)| {
        wake::copy_into(core, &piece.parked.copy, space)
    })
}

/// The model with a fresh handle of each of its shards.
pub fn refresh(core: &Core, model: &ModelHandle) -> Result<ModelHandle, VramError> {
    core.check_open()?;
    let pieces = model.pieces.iter().map(|made| {
        core.marker.check(&made.shard)?;
        let id = &made.shard.shard_id;
        // One that is stale is what this call is for.
        let known =
            core.registry.find(id).map(|entry| entry.state().check_current(&entry, &made.shard));
        if let Some(Err(altered @ VramError::HandleAltered { .. })) = known {
            return Err(altered);
        }
        let shard = core.handle_of(id).ok_or_else(|| core.why_not(id))?;
        Ok(ModelPiece { piece: made.piece.clone(), shard })
    });
    let pieces = pieces.collect::<Result<_, VramError>>()?;
    Ok(ModelHandle { model_id: Arc::clone(&model.model_id), pieces })
}

/// Parks all shards of a model, or none.
pub fn park(
    core: &Core,
    model: &ModelHandle,
    options: CallOptions<'_>,
) -> Result<ParkedModel, VramError> {
    let shards = exclusive_all(core, model, Wait::within(options.timeout), |entries| {
        // Held to the end: no reset takes one of the shards after some have left.
        let passes = entries.iter().map(|entry| Ok(entry.here()?.enter()?));
        let _passes = passes.collect::<Result<Vec<_>, VramError>>()?;
        let _going = entries.first().and_then(|entry| entry.begin_on_model());
        let lens = lens_of(entries);
        let copies = each_piece(core, &lens, entries, options.cancel, |_, entry| {
            park::host_copy(core, entry)
        })?;
        // Wiping what they leave takes as long as writing it.
        let parked = each_piece(core, &lens, copies, None, |_, copy| park::leave(core, copy))?;
        let (shards, bytes) = telling::sum(parked.iter().map(ParkedShard::host_len));
        telling::tell(core, entries, EventKind::ModelParked { shards, bytes });
        Ok(parked)
    })?;
    let pieces = model.pieces.iter().zip(shards);
    let pieces = pieces.map(|(piece, parked)| ParkedPiece { piece: piece.piece.clone(), parked });
    Ok(ParkedModel { model_id: Arc::clone(&model.model_id), pieces: pieces.collect() })
}

/// Wakes all shards of a model. If one fails, none is woken, and the parked model is returned
/// unchanged.
pub fn wake(
    core: &Core,
    parked: ParkedModel,
    request: WakeModelRequest<'_>,
) -> Result<ModelHandle, WakeModelError> {
    wake_as_asked(core, parked, request).map(|(model, _no_leases)| model)
}

/// Like [`wake`](fn@wake), with a lease of every shard from the moment in which it arrives.
pub fn wake_leased(
    core: &Core,
    parked: ParkedModel,
    request: WakeModelRequest<'_>,
) -> Result<Leased, WakeModelError> {
    wake_as_asked(core, parked, WakeModelRequest { leased: true, ..request })
}

fn wake_as_asked(
    core: &Core,
    parked: ParkedModel,
    request: WakeModelRequest<'_>,
) -> Result<Leased, WakeModelError> {
    let entries = || parked.pieces.iter().map(|piece| &piece.parked.copy.entry);
    let woken = lease::holder(request.holder).and_then(|holder| {
        let copies = caught(core, request.gpus, || wake_all(core, &parked, request))?;
        let early = entries().filter(|_| request.leased);
        let early = early.map(|entry| EarlyLease::of(core, entry, holder.as_ref()));
        let early = early.collect::<Result<Vec<_>, _>>()?;
        let _waking = entries().next().and_then(|entry| entry.begin_on_model());
        let coming = entries().map(|entry| &**entry).zip(copies).collect();
        let (shards, bytes) = telling::sum(entries().map(|entry| entry.plaintext_len));
        let told = Some(EventKind::ModelWoken { shards, bytes });
        let woken = wake::arrive_all(core, coming, &mut [], told)?;
        let leases = early.into_iter().filter_map(|lease| lease.begin(core));
        Ok((woken, leases.collect()))
    });
    let (woken, leases) = match woken {
        Ok(woken) => woken,
        Err(error) => return Err(WakeModelError::new(parked, error)),
    };
    let ParkedModel { model_id, pieces } = parked;
    let pieces = pieces.into_iter().zip(woken);
    let pieces = pieces.map(|(piece, shard)| ModelPiece { piece: piece.piece, shard }).collect();
    Ok((ModelHandle { model_id, pieces }, leases))
}

/// Pins all shards of a model, or unpins them: all, or none.
pub fn set_pinned(core: &Core, model: &ModelHandle, pinned: bool) -> Result<(), VramError> {
    let named: Result<Vec<_>, VramError> =
        model.shards().map(|shard| Ok((core.resolve(shard)?, shard))).collect();
    let mut named = named?;
    named.sort_unstable_by(|(one, _), (other, _)| one.id.cmp(&other.id));
    // Inside all gates: a call that evicts one of them has finished, or will see the pin.
    let mut passes = Vec::with_capacity(named.len());
    for (entry, shard) in &named {
        passes.push(entry.gate.shared().map_err(|busy| in_use(entry, busy))?);
        core.still_good(entry, shard)?;
    }
    for (entry, _) in &named {
        entry.standing.set_pinned(pinned);
    }
    Ok(())
}

/// Verifies all shards of a model.
pub fn verify(
    core: &Core,
    model: &ModelHandle,
    level: Verify,
    cancel: Option<&CancelToken>,
) -> Result<ModelVerdict, VramError> {
    let lens: Vec<_> = model.pieces.iter().map(|piece| piece.piece.len).collect();
    let stop = Stop::new(&lens, cancel);
    let shards = each_run(core, &lens, model.shards(), |first, run, failed| {
        verify_run::verify(core, &run, level, &stop.run(first, failed))
    })?;
    Ok(ModelVerdict { sound: shards.iter().all(|verdict| verdict.sound), shards })
}

/// The number of device bytes that were checked.
#[must_use]
pub fn checked_bytes(verdict: &ModelVerdict) -> u64 {
    let add = |sum: u64, one: &Verdict| sum.saturating_add(one.checked_bytes.get());
    verdict.shards.iter().fold(0, add)
}
