//! Verifies shards of a model one after the other: those that lie side by side through one buffer, with
//! one copy from the device.
//!
//! Nothing else differs from verifying each by itself: each is judged by its own tags, and an altered one
//! puts itself into quarantine alone.

use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceRange};
use vram_gpu::Staging;
use vram_seal::Checked;
use vram_space::{Lanes, Span, Worker, hull, rest_from};

use crate::error::VramError;
use crate::parts::Core;
use crate::parts::core::in_use;
use crate::resident::verify::{self, Found, Verdict, Verify};
use crate::shard::{Entry, Moment, SealedShard, View};
use crate::transfer::convert::part;
use crate::transfer::kernels::Looked;

/// A shard that this call is inside the gate of.
struct Inside<'a> {
    entry: &'a Entry,
    view: View,
    /// Where it lies, if it may be read together with its neighbours.
    span: Option<Span>,
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
/// That of the first shard that cannot be verified. Others may have been.
pub(crate) fn verify(
    core: &Core,
    run: &[&SealedShard],
    level: Verify,
    progress: &impl Progress,
) -> Result<Vec<Verdict>, VramError> {
    let mut verdicts = Vec::with_capacity(run.len());
    if !progress.go_on()? {
        return Ok(verdicts);
    }
    if let [shard] = run {
        verdicts.push(verify::verify(core, shard, level)?);
        progress.done(0);
        return Ok(verdicts);
    }
    let entries = run.iter().map(|shard| core.resolve(shard));
    let entries = entries.collect::<Result<Vec<_>, VramError>>()?;
    // As other calls on several shards: two of them never wait for each other.
    let mut order: Vec<_> = entries.iter().zip(run).collect();
    order.sort_unstable_by(|(one, _), (other, _)| one.id.cmp(&other.id));
    let mut passes = Vec::with_capacity(order.len());
    for (entry, shard) in order {
        passes.push(entry.gate.shared().map_err(|busy| in_use(entry, busy))?);
        core.still_good(entry, shard)?;
    }
    let inside = entries.iter().map(|entry| Inside::new(entry, level));
    let inside = inside.collect::<Result<Vec<_>, VramError>>()?;

    let mut rest = &inside[..];
    while let Some((first, _)) = rest.split_first() {
        let (count, span) = first.neighbours(rest);
        let (these, others) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        let lanes = span.filter(|_| count > 1);
        // Other calls hold the staging memory: each shard needs less.
        let lanes = lanes.and_then(|span| span.lanes(&first.view.gpu).ok());
        let read = lanes.as_ref().map(|lanes| Read::new(core, these, lanes)).transpose()?;
        let mut read = read;
        for one in these {
            if !progress.go_on()? {
                return Ok(verdicts);
            }
            let verdict = match &mut read {
                Some(read) => read.judge(core, one, level)?,
                None => verify::verify_entry(core, one.entry, &one.view, level)?,
            };
            progress.done(verdicts.len());
            verdicts.push(verdict);
        }
        rest = others;
    }
    Ok(verdicts)
}

impl<'a> Inside<'a> {
    fn new(entry: &'a Arc<Entry>, level: Verify) -> Result<Self, VramError> {
        let view = entry.view()?;
        let whole = matches!(level, Verify::Fingerprint | Verify::Segments | Verify::Full);
        // Kernels look where the bytes lie.
        let joins = whole && !view.range.is_empty() && view.kernels().is_none();
        let span = if joins { entry.state().space().and_then(Span::of) } else { None };
        Ok(Self { entry, view, span })
    }

    /// How many of these, of which it is the first, are read together, and where they lie.
    fn neighbours(&self, these: &[Self]) -> (usize, Option<Span>) {
        let (mut count, mut span) = (1_usize, self.span);
        for next in these.iter().skip(1) {
            let gpu = &self.view.gpu;
            let wider = span.zip(next.span).and_then(|(span, next)| span.joined(next, gpu));
            if wider.is_none() || !Arc::ptr_eq(&self.view.gpu, &next.view.gpu) {
                break;
            }
            (count, span) = (count.saturating_add(1), wider);
        }
        (count, span)
    }
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
