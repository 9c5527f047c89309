//! Parking a shard in host memory, and waking it: verified on both ways.
//!
//! ```text
//!  park                                     wake
//!   1 host memory, in the books              1 a placement on any GPU
//!   2 each window: read, open, keep sealed   2 each window: host → staging → device
//!     (Authenticated: encrypt what is kept)    (Authenticated: opened in staging)
//!   3 handles answer `Parked`                3 every segment is opened at the target
//!   4 the device bytes are wiped             4 handles are good again
//! ```
//!
//! The shard keeps its id, its seal and its record: what it is woken as is compared with the very
//! record that it was parked under, so no altered byte comes back as a valid one.

pub(crate) mod host_copy;
pub(crate) mod wake_error;

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;

use vram_alloc::{ByteLen, GpuIndex};
use vram_gpu::GpuError;
use vram_seal::{Protection, SegmentCollector};

use crate::admit::request::GpuChoice;
use crate::age::Moment;
use crate::backup::Backup;
use crate::builder::VramManagerBuilder;
use crate::error::VramError;
use crate::events::EventKind;
use crate::manager::parts::Core;
use crate::outward::Outward;
use crate::park::host_copy::parked_params;
pub use crate::park::wake_error::WakeError;
use crate::parked::{HostCopy, Listed, ParkedShard};
use crate::read::zeroed;
use crate::registry::{Entry, Seal, State, View};
use crate::shard::SealedShard;
use crate::space::Space;
use crate::transition::convert::Convert;
use crate::transition::{Anew, altered};
use crate::{evict, transition};

impl VramManagerBuilder {
    /// Sets how much host memory parked shards may take. Default: no limit.
    pub fn park_limit(mut self, bytes: ByteLen) -> Self {
        self.park_limit = bytes;
        self
    }
}

/// Parks a shard. The caller is exclusive at its gate. On any failure it is where it was.
pub(crate) fn park_entry(core: &Core, entry: &Arc<Entry>) -> Result<ParkedShard, VramError> {
    if entry.view()?.gpu.lost().is_some() {
        // Out of reach there; a backup is all that can be taken anywhere else. In one step: a
        // reset, which asks at no gate, takes what it finds.
        let mut state = entry.state();
        let backup = if state.space.is_some() { state.copies.backup.take() } else { None };
        if let Some(backup) = backup {
            // What was found on the device goes with it: the copy is of before.
            state.quarantine = None;
            let copy = backup.into_copy(Arc::clone(entry));
            let listed = core.registry.list(entry);
            let space = state.vacate(copy.charge.len());
            drop(state);
            return Ok(left(core, copy, listed, space));
        }
    }
    Ok(leave(core, host_copy(core, entry)?))
}

/// Lets a shard that was copied to host memory leave its GPU. The caller is exclusive at its
/// gate, and was when it was copied.
pub(crate) fn leave(core: &Core, copy: HostCopy) -> ParkedShard {
    let listed = core.registry.list(&copy.entry);
    let space = copy.entry.state().vacate(copy.charge.len());
    left(core, copy, listed, space)
}

/// Gives up the place that a shard in host memory had.
fn left(core: &Core, copy: HostCopy, listed: Listed, space: Option<Space>) -> ParkedShard {
    let entry = &copy.entry;
    let gpu = space.as_ref().map_or(u32::MAX, |space| space.gpu().index);
    // The shard is in host memory; what becomes of its place changes nothing about that.
    if let Some(Err((bytes, error))) = space.map(Space::give_back) {
        tracing::error!(shard = %entry.id, bytes = bytes.get(), %error, "parked, but its place could not be wiped and stays counted");
    }
    let (shard, bytes) = (entry.id.clone(), copy.charge.len());
    tracing::info!(%shard, bytes = bytes.get(), "parked");
    core.events.emit(EventKind::Parked { shard, gpu, bytes });
    ParkedShard { copy: Box::new(copy), listed }
}

/// Copies a shard to host memory, encrypted and verified. The shard itself stays as it is.
pub(crate) fn host_copy(core: &Core, entry: &Arc<Entry>) -> Result<HostCopy, VramError> {
    entry.not_quarantined()?;
    let view = entry.view()?;
    view.gpu.ready()?;
    let len = entry.plaintext_len;
    let (needed, count) = (view.needed(len), view.seal.opener.layout().count());
    let charge = core.registry.parked.charge(needed)?;
    let mut bytes = zeroed(len)?;
    let seal = match view.seal.protection() {
        Protection::Encrypted => view
            .copy_out(0..count, &mut bytes, &Outward::AsTheyAre)
            .map(|()| Arc::clone(&view.seal)),
        _ => encrypt_out(core, entry, &view, &mut bytes).map(Arc::new),
    };
    let seal = seal.map_err(|error| altered(entry, error))?;
    let (entry, resident) = (Arc::clone(entry), view.seal);
    Ok(HostCopy { entry, bytes, seal, resident, at: core.clock.now(), charge })
}

/// Fills `out` with the bytes of an Authenticated shard, encrypted.
fn encrypt_out(core: &Core, entry: &Entry, view: &View, out: &mut [u8]) -> Result<Seal, VramError> {
    let params = parked_params(view);
    let sealer = transition::sealer(core, entry, Anew { params, key: view.seal.key_id() }, None)?;
    let collector = SegmentCollector::new(&sealer)?;
    let keep = |segment, sealed| collector.put(segment, sealed);
    let convert = Convert { from: &view.seal.opener, to: &sealer, hashes: None };
    let how = Outward::Anew { convert, keep: &keep };
    view.copy_out(0..sealer.layout().count(), out, &how)?;
    transition::finish_seal(core, view, params, collector.finish(sealer)?)
}

/// Copies a parked shard to a place on a GPU, verified there. It does not count yet.
pub(crate) fn copy_back(core: &Core, parked: &ParkedShard, gpu: u32) -> Result<Space, VramError> {
    core.check_open()?;
    check_own(core, parked)?;
    let mut space = evict::place_for(core, &parked.copy.entry, core.gpu(gpu)?)?;
    copy_into(core, parked, &mut space)?;
    Ok(space)
}

/// # Errors
///
/// [`VramError::ForeignHandle`] if another manager parked the shard.
pub(crate) fn check_own(core: &Core, parked: &ParkedShard) -> Result<(), VramError> {
    if parked.listed.is_in(&core.registry.parked) {
        Ok(())
    } else {
        Err(VramError::ForeignHandle { shard: parked.shard_id().clone() })
    }
}

/// Writes a parked shard to a place on a GPU, and opens every segment there.
pub(crate) fn copy_into(
    core: &Core,
    parked: &ParkedShard,
    space: &mut Space,
) -> Result<(), VramError> {
    space.written()?;
    let view = space.view(Arc::clone(&parked.copy.resident));
    let began = Moment::now(&*core.clock);
    parked.copy.copy_in(&view)?;
    space.verified(began);
    Ok(())
}

/// Lets a parked shard be resident where a verified copy of it lies. The host copy goes, or
/// stays as its backup.
pub(crate) fn return_to(
    core: &Core,
    parked: ParkedShard,
    mut space: Space,
    keep_copy: bool,
) -> SealedShard {
    let (now, verified) = (Moment::now(&*core.clock), space.verified_at());
    let ParkedShard { copy, listed } = parked;
    // Before anybody can find it awake, and park it again.
    listed.woken();
    space.commit();
    let gpu = space.gpu().index;
    let entry = Arc::clone(&copy.entry);
    // Whoever finds it awake waits here, so that nothing is told of it before this. Those who
    // stood here while it was parked leave at once.
    let _pass = entry.gate.exclusive();
    let mut state = entry.state();
    space.rest();
    state.space = Some(space);
    state.parked = false;
    state.host_len = ByteLen::ZERO;
    state.ages.arrived(now, verified);
    if keep_copy {
        state.copies.backup = Some(Backup::of(*copy));
    }
    // Of this very moment: somebody else may park it again in the next.
    let stated = state.stated(&entry);
    drop(state);
    let (shard, bytes) = (entry.id.clone(), entry.plaintext_len);
    tracing::info!(%shard, gpu, bytes = bytes.get(), "woken");
    core.events.emit(EventKind::Woken { shard, gpu, bytes });
    core.marker.handle(stated)
}

/// The answer where a device panicked, which must not take a parked shard with it.
pub(crate) fn device_panicked(core: &Core, gpus: GpuChoice) -> VramError {
    let gpu = match gpus {
        GpuChoice::One(gpu) => gpu,
        GpuChoice::MostRoomFirst => 0,
    };
    let index = core.gpu(gpu).map_or(GpuIndex::new(gpu), |gpu| gpu.device.info().index);
    let name = "the device panicked";
    let source = GpuError::Driver { gpu: index, code: u32::MAX, name, sticky: false };
    VramError::Device { gpu, source: Box::new(source) }
}

impl State {
    /// The shard is in host memory from now on, of so many bytes. The place that it had.
    fn vacate(&mut self, host_len: ByteLen) -> Option<Space> {
        self.parked = true;
        self.host_len = host_len;
        self.space.take()
    }
}

/// Makes a parked shard resident again. On any failure it comes back as it was.
pub(crate) fn wake(core: &Core, parked: ParkedShard, gpu: u32) -> Result<SealedShard, WakeError> {
    // A panic of the device must not take the shard with it.
    let copied = catch_unwind(AssertUnwindSafe(|| copy_back(core, &parked, gpu)));
    let copied = copied.unwrap_or_else(|_panic| Err(device_panicked(core, GpuChoice::One(gpu))));
    match copied {
        Ok(space) => Ok(return_to(core, parked, space, false)),
        Err(error) => Err(WakeError::new(parked, error)),
    }
}
