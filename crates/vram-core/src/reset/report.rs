//! What a reset is asked for, and what it did.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_id::ShardId;

use crate::error::VramError;
use crate::moves::WakeError;
use crate::reset::PATIENCE;
use crate::shard::SealedShard;

/// What becomes of the shards that a reset GPU held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Restore {
    /// They are gone, and their backups with them.
    Nothing,
    /// Each comes back from its backup (`VramManager::back_up`), else from the image that it was last
    /// exported to (`VramManager::export_to`), if there is one.
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
    /// What can be restored is restored, on the GPU that is reset; one that is not lost is left
    /// alone.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Sets what becomes of the shards that it held.
        [const] fn restore(restore: Restore) => restore = restore;
        /// Lets shards that find no room there come back on other GPUs, those with most room first.
        [const] fn elsewhere() => elsewhere = true;
        /// Also resets a GPU that is not lost and holds shards. They are wiped first, and restored
        /// from copies as if it had been lost. Nothing leased is taken from a GPU that works,
        /// whatever is asked.
        [const] fn force() => force = true;
        /// Sets how long calls that are under way on the GPU are waited for. Default: 30 seconds.
        [const] fn within(time: Duration) => within = time;
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
#[expect(missing_docs, reason = "the names say it")]
pub struct LostShard {
    pub shard_id: ShardId,
    pub model_id: Arc<str>,
    /// Who it belonged to, if the request said so.
    pub owner: Option<Arc<str>>,
    /// Bytes of plaintext.
    pub bytes: ByteLen,
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
