//! Resetting a lost GPU: emptied, taken anew, and filled again from copies.
//!
//! ```text
//!   lost: every call on it answers `DeviceLost`, nothing is sent to it
//!    1 wait for the calls that were under way                             they fail fast
//!    2 device.reset(), a new region                                       refused: as lost as before
//!    3 a new life: no handle, view or place of the last one reaches into it
//!    4 its shards leave the books and the arena, each once                without a device call
//!    5 the GPU takes calls again
//!    6 shards come back from backups and images, verified                 same id, next generation
//! ```

pub(crate) mod device;
pub(crate) mod restore;

use core::fmt;
use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::Arc;

use vram_alloc::ByteLen;

use crate::admit::request::GpuChoice;
use crate::backup::Copies;
use crate::error::VramError;
use crate::events::EventKind;
use crate::gpu::Gpu;
use crate::id::ShardId;
use crate::manager::parts::Core;
use crate::park::device_panicked;
use crate::park::wake_error::WakeError;
use crate::registry::{Entry, Seal};
use crate::shard::SealedShard;
use crate::sync::Deadline;

/// How long a reset waits for the calls that are under way, where nobody says otherwise. They fail
/// at their next call to the device, and so wait for sources and sinks alone.
const PATIENCE: Duration = Duration::from_secs(30);

/// What becomes of the shards that a reset GPU held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Restore {
    /// They are gone, and their backups with them.
    Nothing,
    /// Each comes back from its [backup](VramManager::back_up), else from the image that it was last
    /// [exported to](VramManager::export_to), if there is one.
    #[default]
    FromCopies,
}

/// How a GPU is reset.
///
/// ```
/// use core::time::Duration;
/// use vram_residency::{ResetOptions, Restore};
///
/// let options =
///     ResetOptions::new().restore(Restore::FromCopies).elsewhere().within(Duration::from_secs(5));
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct ResetOptions {
    restore: Restore,
    elsewhere: bool,
    force: bool,
    within: Duration,
}

impl Default for ResetOptions {
    fn default() -> Self {
        Self { restore: Restore::default(), elsewhere: false, force: false, within: PATIENCE }
    }
}

impl ResetOptions {
    /// What can be restored is restored, on the GPU that is reset; one that is not lost is left
    /// alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what becomes of the shards that it held.
    pub const fn restore(mut self, restore: Restore) -> Self {
        self.restore = restore;
        self
    }

    /// Lets shards that find no room there come back on other GPUs, those with most room first.
    pub const fn elsewhere(mut self) -> Self {
        self.elsewhere = true;
        self
    }

    /// Also resets a GPU that is not lost and holds shards. They are wiped first, and restored
    /// from copies as if it had been lost. Nothing leased is taken from a GPU that works, whatever
    /// is asked.
    pub const fn force(mut self) -> Self {
        self.force = true;
        self
    }

    /// Sets how long calls that are under way on the GPU are waited for. Default: 30 seconds.
    pub const fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }
}

/// What a reset did.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "shards that could not be placed are parked in here: dropping them gives them up"]
pub struct ResetReport {
    /// The GPU.
    pub gpu: u32,
    /// The shards that are gone, in ascending order of their ids, and why each was not restored.
    pub lost: Vec<LostShard>,
    /// Fresh handles of the shards that came back, in ascending order of their ids.
    pub restored: Vec<SealedShard>,
    /// Shards whose backup is good and found no place, each with the reason: parked, to be woken
    /// where there is room.
    pub parked: Vec<WakeError>,
    /// Bytes that could not be given back before, and can be handed out again.
    pub given_back: ByteLen,
}

/// A shard that is gone with its device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LostShard {
    /// The shard.
    pub shard_id: ShardId,
    /// The model that it was sealed as.
    pub model_id: Arc<str>,
    /// Who it belonged to, if the request said so.
    pub owner: Option<Arc<str>>,
    /// Bytes of plaintext.
    pub bytes: ByteLen,
    /// Why it was not restored.
    pub why: NotRestored,
}

/// Why a shard was not restored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NotRestored {
    /// Nothing was to be restored.
    NotAsked,
    /// There is neither a backup nor an image of it.
    NoCopy,
    /// The file that it was exported to holds another image by now.
    OtherImage,
    /// The copy is damaged, or could not be brought to a GPU.
    Failed(VramError),
}

impl fmt::Display for NotRestored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => f.write_str("nothing was to be restored"),
            Self::NoCopy => f.write_str("there is no copy of it"),
            Self::OtherImage => f.write_str("its file holds another image by now"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for LostShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} is gone: {}", self.shard_id, self.model_id, self.why)
    }
}

/// What is left of a shard whose memory is gone.
pub(crate) struct Remains {
    entry: Arc<Entry>,
    seal: Arc<Seal>,
    generation: u64,
    copies: Copies,
}

pub(crate) fn reset(
    core: &Core,
    gpu: u32,
    options: ResetOptions,
) -> Result<ResetReport, VramError> {
    core.check_open()?;
    let gpu = Arc::clone(core.gpu(gpu)?);
    let busy = |why| VramError::GpuInUse { gpu: gpu.index, why };
    let claim = gpu.health.claim();
    // Once more: whoever closes the manager waits for those who have the claim, and no others.
    core.check_open()?;
    let _claim = claim.ok_or_else(|| busy("another reset of it is under way"))?;
    let deadline = Deadline::within(options.within);
    if gpu.lost().is_some() {
        gpu.quiet(&core.registry, deadline).map_err(busy)?;
    } else {
        gpu.give_up(&core.registry, options.force, deadline)?;
    }
    gpu.begin_anew()?;
    let given_back = gpu.settle_unreturned();
    let remains = let_go(core, &gpu);
    for promise in core.promises.list() {
        promise.forget_stale();
    }
    gpu.health.recover();
    tracing::warn!(gpu = gpu.index, shards = remains.len(), "device reset");

    let mut report = ResetReport {
        gpu: gpu.index,
        lost: Vec::new(),
        restored: Vec::new(),
        parked: Vec::new(),
        given_back,
    };
    for one in remains {
        let entry = Arc::clone(&one.entry);
        let done = catch_unwind(AssertUnwindSafe(|| {
            restore::restore(core, one, &gpu, options, &mut report);
        }));
        if done.is_err() {
            // A clock, say. The others come back all the same, and whoever follows is told.
            let why = device_panicked(core, GpuChoice::One(gpu.index));
            report.give_up(&entry, &gpu, NotRestored::Failed(why));
        }
    }
    core.events.emit(EventKind::DeviceReset {
        gpu: gpu.index,
        lost: report.lost.iter().map(|shard| shard.shard_id.clone()).collect(),
        restored: report.restored.iter().map(|shard| shard.shard_id.clone()).collect(),
    });
    Ok(report)
}

/// Takes the shards of an emptied device out of the registry, and their places out of the
/// books. Nobody else does so meanwhile: every call on them is refused.
fn let_go(core: &Core, gpu: &Gpu) -> Vec<Remains> {
    let mut remains = Vec::new();
    for entry in core.registry.on(gpu) {
        let mut state = entry.state();
        if !state.lies_on(gpu) {
            // Parked meanwhile, by way of its backup.
            continue;
        }
        let space = state.space.take();
        let copies = core::mem::take(&mut state.copies);
        let (seal, generation) = (Arc::clone(&state.seal), state.generation);
        drop(state);
        core.registry.remove(&entry.id);
        // It is of an earlier life: nothing is wiped.
        drop(space);
        remains.push(Remains { entry, seal, generation, copies });
    }
    remains
}
