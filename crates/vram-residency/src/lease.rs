//! Leases and pins: a shard that somebody works with stays where it is.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_gpu::DeviceAddress;
use vram_seal::Protection;

use crate::call::Call;
use crate::error::VramError;
use crate::free::FreedReceipt;
use crate::gate::Refusal;
use crate::manager::{Core, VramManager, in_use};
use crate::model::ModelHandle;
use crate::registry::{Entry, View};
use crate::shard::SealedShard;
use crate::sync::Deadline;
use crate::verify::Verify;

/// A promise that a shard stays where it is: while a lease of it lives, the shard is not freed,
/// moved, evicted, compacted, opened, closed or sealed anew. Reading and verifying go on.
///
/// It is owned and can go to another thread. Dropping it ends it. It outlives even the manager:
/// then the shard's memory goes back with its last lease.
#[must_use = "a lease ends when it is dropped"]
pub struct Lease {
    entry: Arc<Entry>,
    shard: SealedShard,
    address: Option<DeviceAddress>,
}

impl Lease {
    /// The handle of the shard, as it is while the lease lives.
    #[must_use]
    pub const fn shard(&self) -> &SealedShard {
        &self.shard
    }

    /// The GPU that holds the shard.
    #[must_use]
    pub const fn gpu(&self) -> u32 {
        self.shard.gpu_index
    }

    /// Plaintext bytes of the shard.
    #[must_use]
    pub const fn len(&self) -> ByteLen {
        ByteLen::new(self.shard.plaintext_len)
    }

    /// Whether the shard holds no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len().is_zero()
    }

    /// Where the plaintext of an Authenticated shard lies in device memory, for kernels that read
    /// it there; [`len`](Self::len) bytes of it. All of it was verified before.
    ///
    /// `None` for an Encrypted shard, for one whose device was lost, and for one that was found
    /// altered. The pointer is good as long as the lease lives, for reading alone: what writes
    /// through it is found as tampering. Ask again rather than keep it.
    #[must_use]
    pub fn device_pointer(&self) -> Option<DeviceAddress> {
        let view = self.entry.view().ok()?;
        let sound = self.entry.not_quarantined().is_ok() && view.gpu.ready().is_ok();
        self.address.filter(|_| sound)
    }

    /// Whether the shard is still sound as far as anybody knows: its device is there, and nothing
    /// was found altered. Verifies nothing itself.
    ///
    /// # Errors
    ///
    /// [`VramError::Quarantined`], [`VramError::DeviceLost`], [`VramError::ShardFreed`].
    pub fn ensure_sound(&self) -> Result<(), VramError> {
        self.entry.view()?.gpu.ready()?;
        self.entry.not_quarantined()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("shard", &self.shard).finish_non_exhaustive()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.entry.gate.end_lease();
    }
}

impl VramManager {
    /// Takes out a lease of a shard. Waits for whoever is moving or freeing it just now.
    ///
    /// An Authenticated shard is verified in full first if it never was: kernels will read it
    /// unchecked.
    ///
    /// # Errors
    ///
    /// Those of a bad handle; [`VramError::Quarantined`]; [`VramError::ShardAltered`] if that
    /// verification finds it altered (it is in quarantine then); [`VramError::InUse`] if the calling
    /// thread is moving or freeing the shard itself; [`VramError::HostMemory`],
    /// [`VramError::Device`], [`VramError::DeviceLost`].
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::{Protection, SealRequest, VramError, VramManager};
    ///
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let request = SealRequest::new("llama", 0).protection(Protection::Authenticated);
    /// let shard = manager.seal(request, b"weights")?;
    ///
    /// let lease = manager.lease(&shard)?;
    /// assert!(lease.device_pointer().is_some());
    /// assert!(matches!(manager.free_shard(&shard), Err(VramError::InUse { leases: 1, .. })));
    /// drop(lease);
    /// manager.free_shard(&shard)?;
    /// # Ok::<(), VramError>(())
    /// ```
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id))]
    pub fn lease(&self, shard: &SealedShard) -> Result<Lease, VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        self.core.watched(Call::Lease, id, None, len, || {
            self.core.lease(shard, Deadline::NEVER, Duration::ZERO)
        })
    }

    /// As [`lease`](Self::lease), waiting for others no longer than `timeout`. The verification
    /// before a first lease is not counted.
    ///
    /// # Errors
    ///
    /// As [`lease`](Self::lease); [`VramError::TimedOut`].
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id))]
    pub fn lease_within(&self, shard: &SealedShard, timeout: Duration) -> Result<Lease, VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        self.core.watched(Call::Lease, id, None, len, || {
            self.core.lease(shard, Deadline::within(timeout), timeout)
        })
    }

    /// Takes out a lease of every shard of a model, in the order of its plan, or of none.
    ///
    /// # Errors
    ///
    /// As [`lease`](Self::lease), for the first shard that refuses.
    #[tracing::instrument(level = "info", skip_all, fields(pieces = model.pieces.len()))]
    pub fn lease_model(&self, model: &ModelHandle) -> Result<Vec<Lease>, VramError> {
        let leased = |shard| self.core.lease(shard, Deadline::NEVER, Duration::ZERO);
        let work = || model.shards().map(leased).collect();
        self.core.watched(Call::LeaseModel, None, None, model.total().get(), work)
    }

    /// As [`free_shard`](Self::free_shard), waiting for leases to end, but no longer than `timeout`.
    /// Others use the shard meanwhile, and can take out new leases, which are waited for too.
    ///
    /// # Errors
    ///
    /// As [`free_shard`](Self::free_shard), with [`VramError::InUse`] if a lease is still out then;
    /// [`VramError::TimedOut`] if other calls were still using it.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id))]
    pub fn free_shard_within(
        &self,
        shard: &SealedShard,
        timeout: Duration,
    ) -> Result<FreedReceipt, VramError> {
        let (core, id) = (&self.core, Some(&shard.shard_id));
        let work = || core.exclusive_within(shard, timeout, |entry| core.free_entry(entry));
        core.watched_for(Call::Free, id, None, work, |receipt| receipt.bytes.get())
    }

    /// As [`migrate_shard`](Self::migrate_shard), waiting for leases as
    /// [`free_shard_within`](Self::free_shard_within) does.
    ///
    /// # Errors
    ///
    /// As [`migrate_shard`](Self::migrate_shard), with [`VramError::InUse`] if a lease is still out
    /// then; [`VramError::TimedOut`] if other calls were still using it.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, gpu))]
    pub fn migrate_shard_within(
        &self,
        shard: &SealedShard,
        gpu: u32,
        timeout: Duration,
    ) -> Result<SealedShard, VramError> {
        let (core, id) = (&self.core, Some(&shard.shard_id));
        core.watched(Call::Migrate, id, Some(gpu), shard.plaintext_len, || {
            core.exclusive_within(shard, timeout, |entry| core.migrate_entry(entry, gpu))
        })
    }

    /// Keeps a shard from being evicted, until it is unpinned. It can still be freed and moved by
    /// name. Pinning twice is the same as once.
    ///
    /// # Errors
    ///
    /// Those of a bad handle.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id))]
    pub fn pin(&self, shard: &SealedShard) -> Result<(), VramError> {
        let work = || self.core.set_pinned(shard, true);
        self.core.watched(Call::Pin, Some(&shard.shard_id), None, 0, work)
    }

    /// Lets a shard be evicted again.
    ///
    /// # Errors
    ///
    /// Those of a bad handle.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id))]
    pub fn unpin(&self, shard: &SealedShard) -> Result<(), VramError> {
        let work = || self.core.set_pinned(shard, false);
        self.core.watched(Call::Pin, Some(&shard.shard_id), None, 0, work)
    }
}

impl Core {
    fn lease(
        &self,
        handle: &SealedShard,
        deadline: Deadline,
        timeout: Duration,
    ) -> Result<Lease, VramError> {
        let entry = self.resolve(handle)?;
        let pass = entry.gate.shared_until(deadline);
        let pass = pass.map_err(|refusal| refused(&entry, refusal, timeout))?;
        self.check_open()?;
        let view = entry.view()?;
        entry.check_current(handle)?;
        entry.not_quarantined()?;
        view.gpu.ready()?;
        let plain = view.seal.protection() == Protection::Authenticated;
        if plain && entry.state().ages.last_verified().is_none() {
            let verdict = self.verify_entry(&entry, Verify::Segments)?;
            if !verdict.sound {
                let segments = verdict.altered.iter().map(|span| span.segment).collect();
                return Err(VramError::ShardAltered { shard: entry.id.clone(), segments });
            }
        }
        let address = if plain { address(&view) } else { None };
        let shard = self.handle(&entry);
        entry.gate.lease(&pass);
        drop(pass);
        // From here on dropping it ends the lease.
        let lease = Lease { entry, shard, address };
        self.used(&lease.entry);
        Ok(lease)
    }

    /// Runs `work` on a handle's shard as its only user, waiting for leases up to a time-out.
    pub(crate) fn exclusive_within<T>(
        &self,
        handle: &SealedShard,
        timeout: Duration,
        work: impl FnOnce(&Arc<Entry>) -> Result<T, VramError>,
    ) -> Result<T, VramError> {
        let entry = self.resolve(handle)?;
        let pass = entry.gate.exclusive_until(Deadline::within(timeout));
        let _pass = pass.map_err(|refusal| refused(&entry, refusal, timeout))?;
        self.check_open()?;
        entry.view()?;
        entry.check_current(handle)?;
        work(&entry)
    }

    fn set_pinned(&self, handle: &SealedShard, pinned: bool) -> Result<(), VramError> {
        // Inside the gate: whoever evicts it has either finished or will see this.
        self.shared(handle, |entry| {
            entry.standing.set_pinned(pinned);
            Ok(())
        })
    }

    /// Notes that a shard was used just now.
    pub(crate) fn used(&self, entry: &Entry) {
        let number = self.uses.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        entry.standing.used(self.clock.monotonic(), number.saturating_add(1));
    }
}

/// Where a shard begins in device memory. None where there is no memory to point to: an empty
/// shard on a GPU without a budget.
fn address(view: &View) -> Option<DeviceAddress> {
    let region = view.memory().ok()?.address().get();
    region.checked_add(view.range.start().get()).map(DeviceAddress::new)
}

pub(crate) fn refused(entry: &Entry, refusal: Refusal, waited: Duration) -> VramError {
    match refusal {
        Refusal::Busy(busy) => in_use(entry, busy),
        Refusal::TimedOut => VramError::TimedOut { shard: entry.id.clone(), waited },
    }
}
