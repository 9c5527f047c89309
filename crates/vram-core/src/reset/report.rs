//! The options of a reset, and its result.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_id::ShardId;

use crate::error::VramError;
use crate::models::WakeModelError;
use crate::moves::WakeError;
use crate::reset::PATIENCE;
use crate::shard::SealedShard;

/// What a reset does with the shards of the GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Restore {
    /// The shards are dropped, and their backups with them.
    Nothing,
    /// Each shard is restored from its backup (`VramManager::back_up`), otherwise from the image
    /// that it was last exported to (`VramManager::export_to`), if there is one.
    #[default]
    FromCopies,
}

/// The options of a reset.
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
    pub(crate) restore: Restore,
    pub(crate) elsewhere: bool,
    pub(crate) force: bool,
    pub(crate) within: Duration,
}

impl Default for ResetOptions {
    fn default() -> Self {
        Self { restore: Restore::default(), elsewhere: false, force: false, within: PATIENCE }
    }
}

impl ResetOptions {
    /// Restores every shard that has a copy, on the GPU that is reset. A GPU that is not lost is
    /// not reset if it holds shards. The pieces of a model that lay there come back in one moment.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Sets what happens to the shards of the GPU.
        [const] fn restore(restore: Restore) => restore = restore;
        /// Lets shards that do not fit there be restored on other GPUs, those with the most room
        /// first.
        [const] fn elsewhere() => elsewhere = true;
        /// Also resets a GPU that is not lost and holds shards. They are wiped first, and restored
        /// from copies as if the GPU had been lost. A leased shard is never taken from a working
        /// GPU, not even with this option.
        [const] fn force() => force = true;
        /// Sets how long the reset waits for calls that are still running on the GPU, and then, to
        /// restore a shard from an image, for calls that hold all staging memory. Default: 30
        /// seconds each.
        [const] fn within(time: Duration) => within = time;
    }
}

/// The result of a reset.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "shards that could not be placed are parked in here: dropping them gives them up"]
pub struct ResetReport {
    /// The GPU.
    pub gpu: u32,
    /// The shards that are lost, in ascending order of their ids, each with the reason why it was
    /// not restored.
    pub lost: Vec<LostShard>,
    /// Fresh handles of the restored shards, in ascending order of their ids.
    pub restored: Vec<SealedShard>,
    /// Shards that were sealed by themselves, and whose backup is good but found no placement, each
    /// with the reason. They are parked: wake them where there is room.
    pub parked: Vec<WakeError>,
    /// Models of which a piece has a backup but found no placement, each with the reason. All of the
    /// pieces that lay on the GPU and have a copy are parked together, so that no part of them is
    /// resident without the others; pieces on other GPUs stay where they are. Wake them where there
    /// is room.
    pub parked_models: Vec<WakeModelError>,
    /// Bytes that could not be returned before, and can be handed out again.
    pub given_back: ByteLen,
    /// Whether the GPU was lost before. If not, the caller asked by force for the loss of what had no copy.
    pub(crate) was_lost: bool,
}

impl ResetReport {
    pub(crate) fn new(gpu: u32, given_back: ByteLen, was_lost: bool) -> Self {
        let (lost, restored) = (Vec::new(), Vec::new());
        let (parked, parked_models) = (Vec::new(), Vec::new());
        Self { gpu, lost, restored, parked, parked_models, given_back, was_lost }
    }

    /// Puts the shards into the order of their ids, whatever the order in which models came back.
    pub(crate) fn sort(&mut self) {
        self.lost.sort_unstable_by(|a, b| a.shard_id.cmp(&b.shard_id));
        self.restored.sort_unstable_by(|a, b| a.shard_id.cmp(&b.shard_id));
    }
}

/// A shard that was lost with its device.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct LostShard {
    pub shard_id: ShardId,
    pub model_id: Arc<str>,
    /// The owner that the request named, if any.
    pub owner: Option<Arc<str>>,
    /// Bytes of plaintext.
    pub bytes: ByteLen,
    pub why: NotRestored,
}

/// Why a shard was not restored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NotRestored {
    /// The options did not ask to restore shards.
    NotAsked,
    /// The shard has neither a backup nor an image.
    NoCopy,
    /// The file that the shard was exported to holds another image now.
    OtherImage,
    /// The copy is damaged, or could not be written to a GPU.
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
