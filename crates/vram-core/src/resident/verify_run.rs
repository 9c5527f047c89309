//! Verifies shards of a model one after the other: those that lie side by side through one buffer, with
//! one copy from the device.
//!
//! Nothing else differs from verifying each by itself: each is judged by its own tags, and an altered one
//! puts itself into quarantine alone.

use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceRange};
use vram_gpu::Staging;
use vram_seal::Checked;
use vram_space::{Gpu, Lanes, Span, Worker, hull, rest_from};

use crate::error::VramError;
use crate::parts::Core;
use crate::resident::verify::{self, Found, Verdict, Verify};
use crate::shard::gate::SharedPass;
use crate::shard::{Entry, Moment, SealedShard, View};
use crate::transfer::convert::part;
use crate::transfer::kernels::Looked;

/// A shard that this call is inside the gate of.
struct Inside<'a> {
    entry: &'a Entry,
    view: View,
    #[expect(dead_code, reason = "held for its drop")]
    pass: SharedPass<'a>,
}

/// What a run of shards is part of.
pub(crate) trait Progress {
    /// Whether the next shard is begun; `false` ends the run with what it has.
    ///
    /// # Errors
    ///
    /// Why the call ends.
    fn go_on(&self) -> Result<bool, VramError>;

    /// The shard at this position of the run is done.
    fn done(&self, position: usize);
}

/// Verifies these shards, and returns the verdicts in their order, fewer if the progress says so.
///
/// # Errors
///
/// That of the first shard that cannot be verified; those before it were.
pub(crate) fn verify(
    core: &Core,
    run: &[&SealedShard],
    level: Verify,
    progress: &impl Progress,
) -> Result<Vec<Verdict>, VramError> {
    let mut verdicts = Vec::with_capacity(run.len());
    while let Some(rest) = run.get(verdicts.len()..).filter(|rest| !rest.is_empty()) {
        let (these, _) = rest.split_at(neighbours(core, rest, level).clamp(1, rest.len()));
        let known = verdicts.len();
        let mut go_on = || progress.go_on();
        let mut told = |verdict| {
            progress.done(verdicts.len());
            verdicts.push(verdict);
        };
        let together = these.len() > 1
            && go_on()?
            && verify_together(core, these, level, &mut go_on, &mut told)?;
        if !together {
            for shard in these {
                if !go_on()? {
                    break;
                }
                told(verify::verify(core, shard, level)?);
            }
        }
        if verdicts.len().saturating_sub(known) < these.len() {
            break;
        }
    }
    Ok(verdicts)
}

/// Where a shard lies, and on which GPU, if it may be read together with its neighbours: the host looks
/// at all of it, and it shares its memory.
fn place_of(entry: &Entry) -> Option<(Arc<Gpu>, Span)> {
    let state = entry.state();
    let space = state.space().filter(|space| !space.range().is_empty())?;
    let (gpu, span) = (Arc::clone(space.gpu()), Span::of(space)?);
    drop(state);
    // Kernels look where the bytes lie.
    gpu.kernels().is_none().then_some((gpu, span))
}

/// How many of these shards, from the first on, lie so that one copy takes them. It takes no gate: they
/// may be elsewhere a moment later.
fn neighbours(core: &Core, run: &[&SealedShard], level: Verify) -> usize {
    if !level.is_of_all() {
        return 1;
    }
    let mut places = run.iter().map(|shard| place_of(&*core.registry.find(&shard.shard_id)?));
    let Some(Some((gpu, mut span))) = places.next() else { return 1 };
    let mut count = 1_usize;
    for place in places {
        let next = place.filter(|(other, _)| Arc::ptr_eq(&gpu, other));
        let Some(wider) = next.and_then(|(_, next)| span.joined(next, &gpu)) else { break };
        (count, span) = (count.saturating_add(1), wider);
    }
    count
}

/// Verifies neighbours by one copy, and returns whether it did; `false`, with nothing done, if one of them
/// is not as it seemed, is in use, or there is no memory for all: each by itself says why, or waits.
fn verify_together(
    core: &Core,
    these: &[&SealedShard],
    level: Verify,
    go_on: &mut impl FnMut() -> Result<bool, VramError>,
    told: &mut impl FnMut(Verdict),
) -> Result<bool, VramError> {
    let Ok(entries) = these.iter().map(|shard| core.resolve(shard)).collect::<Result<Vec<_>, _>>()
    else {
        return Ok(false);
    };
    let mut inside = Vec::with_capacity(entries.len());
    let mut whole: Option<Span> = None;
    for (entry, shard) in entries.iter().zip(these) {
        // Without waiting: who waits for one of them waits for no other.
        let Ok(pass) = entry.gate.try_shared() else { return Ok(false) };
        let place = place_of(entry).filter(|_| core.still_good(entry, shard).is_ok());
        let (Some((gpu, span)), Ok(view)) = (place, entry.view()) else { return Ok(false) };
        let first: Option<&Inside<'_>> = inside.first();
        let same = first.is_none_or(|first| Arc::ptr_eq(&first.view.gpu, &view.gpu));
        let wider = whole.map_or(Some(span), |whole| whole.joined(span, &gpu));
        if !same || wider.is_none() {
            return Ok(false);
        }
        whole = wider;
        inside.push(Inside { entry, view, pass });
    }
    let gpu = inside.first().map(|first| Arc::clone(&first.view.gpu));
    let lanes = gpu.as_ref().zip(whole).and_then(|(gpu, whole)| whole.try_lanes(gpu).ok());
    let Some(lanes) = lanes else { return Ok(false) };
    let mut read = Read::new(core, &inside, &lanes)?;
    for (position, one) in inside.iter().enumerate() {
        if position > 0 && !go_on()? {
            break;
        }
        told(read.judge(core, one, level)?);
    }
    Ok(true)
}

/// Neighbours as they lay on the device. The buffer goes back, wiped, when this is dropped.
struct Read<'l> {
    began: Moment,
    whole: DeviceRange,
    /// Until it is put back.
    staging: Option<Staging>,
    worker: Worker<'l>,
}

impl<'l> Read<'l> {
    fn new(core: &Core, these: &[Inside<'_>], lanes: &'l Lanes<'l>) -> Result<Self, VramError> {
        let began = Moment::now(&*core.clock);
        let whole = hull(these.iter().map(|one| one.view.range));
        let whole = whole.ok_or(VramError::HostMemory { wanted: ByteLen::ZERO })?;
        let memory = these.first().map(|first| first.view.memory()).transpose()?;
        let memory = memory.ok_or(VramError::HostMemory { wanted: whole.len() })?;
        let mut worker = lanes.worker();
        let staging = Some(worker.read(&**memory, whole)?);
        Ok(Self { began, whole, staging, worker })
    }

    /// Judges one of them by its own part.
    fn judge(
        &mut self,
        core: &Core,
        one: &Inside<'_>,
        level: Verify,
    ) -> Result<Verdict, VramError> {
        let Inside { entry, view, .. } = one;
        let staging = self.staging.as_mut().map(Staging::as_mut_slice).unwrap_or_default();
        let wanted = view.range.len();
        let own = rest_from(staging, self.whole, view.range);
        let own = part(own.ok_or(VramError::HostMemory { wanted })?, wanted)?;
        let (altered, content_differs) = view.altered_in(own, level == Verify::Full)?;
        let looked = Looked { altered, checked: Checked::BY_HOST };
        let (began, checked_bytes) = (self.began, view.range.len());
        Ok(Found { began, looked, checked_bytes, content_differs }
            .verdict(core, entry, view, level))
    }
}

impl Drop for Read<'_> {
    fn drop(&mut self) {
        self.staging.take().into_iter().for_each(|staging| self.worker.put(staging));
    }
}
