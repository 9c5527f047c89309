//! Frees a shard: wipes it, returns its memory, and reports the result.

use core::fmt;
use core::time::Duration;

use vram_alloc::ByteLen;
use vram_events::EventKind;
use vram_id::{ShardId, Timestamp};

use crate::error::VramError;
use crate::parts::Core;
use crate::resident::{lease, read};
use crate::shard::{Entry, Place, SealedShard, ShardCause};

/// The result of freeing a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct FreedReceipt {
    pub shard_id: ShardId,
    pub gpu: u32,
    /// Bytes that can be handed out again: the shard's length in whole granules.
    pub bytes: ByteLen,
    /// Whether these bytes were overwritten first.
    pub wiped: bool,
    /// The change of the driver's own count of free bytes while the shard's block was returned to
    /// it. This figure is approximate: other processes allocate and free memory meanwhile, and
    /// drivers round. `None` if the driver gives no count, or if the manager holds a region of the
    /// device and keeps it: the driver then does not see that a shard is freed.
    pub driver_delta: Option<i64>,
    pub at: Timestamp,
}

impl fmt::Display for FreedReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wiped = if self.wiped { "wiped" } else { "not wiped" };
        write!(f, "{} freed on gpu {}: {}, {wiped}", self.shard_id, self.gpu, self.bytes)
    }
}

/// Frees a shard without opening it, even if it is in quarantine.
pub fn free(core: &Core, handle: &SealedShard) -> Result<FreedReceipt, VramError> {
    let freed = core.exclusive(handle, |entry| {
        let _pass = entry.here()?.enter()?;
        free_entry(core, entry)
    });
    freed.inspect(|receipt| bring_back(core, receipt))
}

/// Tries again what could not be given back earlier. No gate is held any more.
fn bring_back(core: &Core, receipt: &FreedReceipt) {
    if let Ok(gpu) = core.gpu(receipt.gpu) {
        gpu.bring_back();
    }
}

/// Opens a shard and frees it; no other call uses the shard in between.
pub fn unseal_and_free(core: &Core, handle: &SealedShard) -> Result<Vec<u8>, VramError> {
    core.exclusive(handle, |entry| {
        let _pass = entry.here()?.enter()?;
        let plaintext = read::unseal_entry(core, entry)?;
        match free_entry(core, entry) {
            // The bytes are valid even if the memory could not be returned; that error was logged.
            Ok(_) | Err(VramError::NotReturned { .. } | VramError::DeviceLost { .. }) => {
                Ok(plaintext)
            }
            Err(error) => Err(error),
        }
    })
}

/// Frees a shard. The caller is exclusive at its gate. On a lost device nothing is wiped: its memory
/// went with it.
pub(crate) fn free_entry(core: &Core, entry: &Entry) -> Result<FreedReceipt, VramError> {
    free_entry_for(core, entry, || {})
}

/// Like [`free_entry`](Self::free_entry); `gone` is called once freeing can no longer be refused.
pub(crate) fn free_entry_for(
    core: &Core,
    entry: &Entry,
    gone: impl FnOnce(),
) -> Result<FreedReceipt, VramError> {
    let taken = entry.change(|state, _told| {
        let space = state.go(&entry.id, ShardCause::Free, Place::Gone)?;
        Ok::<_, VramError>((space, core::mem::take(&mut state.copies)))
    });
    let (space, copies) = taken?;
    let space = space.ok_or_else(|| VramError::ShardFreed { shard: entry.id.clone() })?;
    core.registry.remove(&entry.id);
    // Others may hold the entry for a while: its slot and its copies go now.
    drop((copies, entry.take_seat()));
    let gpu = space.gpu().index;
    gone();
    let told = |bytes, wiped| {
        let shard = entry.id.clone();
        entry.told().emit(EventKind::Freed { shard, gpu, bytes, wiped });
    };
    match space.give_back() {
        Ok(returned) => {
            told(returned.bytes, returned.wiped);
            tracing::info!(shard = %entry.id, gpu, bytes = returned.bytes.get(), "freed");
            Ok(FreedReceipt {
                shard_id: entry.id.clone(),
                gpu,
                bytes: returned.bytes,
                wiped: returned.wiped,
                driver_delta: returned.driver_delta,
                at: core.clock.now(),
            })
        }
        Err((bytes, error)) => {
            // The shard is freed all the same.
            told(ByteLen::ZERO, false);
            let (shard, source) = (entry.id.clone(), Box::new(error));
            Err(VramError::NotReturned { shard, gpu, bytes, source })
        }
    }
}

/// Frees a shard, waiting for other calls no longer than `timeout`.
pub fn free_within(
    core: &Core,
    handle: &SealedShard,
    timeout: Duration,
) -> Result<FreedReceipt, VramError> {
    let freed = lease::exclusive_within(core, handle, timeout, |entry| {
        let _pass = entry.here()?.enter()?;
        free_entry(core, entry)
    });
    freed.inspect(|receipt| bring_back(core, receipt))
}
