//! Operations on one shard: reading, leasing, freeing and finding it.

use core::time::Duration;
use std::io::Write;

use vram_alloc::ByteLen;
use vram_core::error::VramError;
use vram_core::parts::call::Call;
use vram_core::resident::{Lease, lease, read};
use vram_core::room::{FreedReceipt, free};
use vram_core::sealing::stream;
use vram_core::shard::SealedShard;
use vram_id::ShardId;
use vram_seal::ContentDigest;

use crate::manager::VramManager;

impl VramManager {
    /// Returns all plaintext of a shard: exactly the bytes that were sealed, or an error. Every
    /// segment's tag is checked (*sound*); against a holder of the key, who can make other bytes
    /// for the same tags, verify at level [`Verify::Full`](crate::Verify::Full) as well.
    ///
    /// # Errors
    ///
    /// [`VramError::ShardAltered`] if the device's bytes are not those that were sealed: the shard
    /// is in quarantine from then on, and later calls answer [`VramError::Quarantined`]. Those of a
    /// bad handle: [`VramError::ForeignHandle`], [`VramError::HandleAltered`],
    /// [`VramError::ShardFreed`], [`VramError::StaleHandle`]. [`VramError::HostMemory`],
    /// [`VramError::Device`], [`VramError::DeviceLost`].
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn unseal_model(&self, shard: &SealedShard) -> Result<Vec<u8>, VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        self.core.watched(Call::Unseal, id, None, len, || read::unseal(&self.core, shard))
    }

    /// As [`unseal_model`](Self::unseal_model), into the caller's memory, which must have the
    /// shard's length.
    ///
    /// `target` must be private until the call returns: segments are decrypted there before their
    /// tags are checked. In a mapping that another process reads, or memory that a device reads,
    /// unverified bytes could be seen; use [`unseal_to`](Self::unseal_to) there.
    ///
    /// # Errors
    ///
    /// [`VramError::TargetLength`], and those of a bad handle, with `target` untouched; otherwise
    /// as [`unseal_model`](Self::unseal_model), with `target` zeroed if the call had written bytes
    /// to it.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn unseal_into(&self, shard: &SealedShard, target: &mut [u8]) -> Result<(), VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        self.core
            .watched(Call::Unseal, id, None, len, || read::unseal_into(&self.core, shard, target))
    }

    /// Writes all plaintext of a shard to `sink`, in order. The call writes only authenticated
    /// bytes; host memory stays bounded. Other calls can read the shard meanwhile. Calls that free
    /// or move it wait until the sink is done, so a slow sink delays them.
    ///
    /// # Errors
    ///
    /// As [`unseal_model`](Self::unseal_model), and [`VramError::Io`] if the sink fails. The sink
    /// has then received a prefix of the plaintext, authenticated like all of it.
    ///
    /// # Panics
    ///
    /// If the sink panics. The manager stays usable.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn unseal_to(&self, shard: &SealedShard, mut sink: impl Write) -> Result<(), VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        let work = || stream::unseal_to(&self.core, shard, &mut sink);
        self.core.watched(Call::Unseal, id, None, len, work)
    }

    /// As [`unseal_model`](Self::unseal_model), then frees the shard. No other call runs on the
    /// shard in between.
    ///
    /// If the device's bytes do not verify, nothing is freed. If they verify and the device fails
    /// to wipe them, the call returns the plaintext all the same. Bytes that could not be returned
    /// to the device stay counted and appear in the [`report`](Self::report).
    ///
    /// # Errors
    ///
    /// As [`unseal_model`](Self::unseal_model); [`VramError::InUse`].
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn unseal_and_free(&self, shard: &SealedShard) -> Result<Vec<u8>, VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        self.core.watched(Call::UnsealAndFree, id, None, len, || {
            free::unseal_and_free(&self.core, shard)
        })
    }

    /// Frees a shard without opening it, also one in quarantine. The call wipes its bytes first.
    ///
    /// # Errors
    ///
    /// Those of a bad handle; [`VramError::InUse`]; [`VramError::DeviceLost`];
    /// [`VramError::NotReturned`] if the bytes could not be wiped or returned to the device: the
    /// shard is gone, and its bytes stay counted.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id))]
    pub fn free_shard(&self, shard: &SealedShard) -> Result<FreedReceipt, VramError> {
        let (id, work) = (Some(&shard.shard_id), || free::free(&self.core, shard));
        self.core.watched_for(Call::Free, id, None, work, |receipt| receipt.bytes.get())
    }

    /// As [`free_shard`](Self::free_shard), waiting for leases to end, but no longer than
    /// `timeout`. Other calls use the shard meanwhile, and can take new leases, for which this call
    /// waits too.
    ///
    /// # Errors
    ///
    /// As [`free_shard`](Self::free_shard), with [`VramError::InUse`] if a lease is still held when
    /// the time is over; [`VramError::TimedOut`] if other calls were still using the shard.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id))]
    pub fn free_shard_within(
        &self,
        shard: &SealedShard,
        timeout: Duration,
    ) -> Result<FreedReceipt, VramError> {
        let (id, work) = (&shard.shard_id, || free::free_within(&self.core, shard, timeout));
        self.core.watched_for(Call::Free, Some(id), None, work, |receipt| receipt.bytes.get())
    }

    /// Returns `length` bytes of plaintext, starting at `offset`. The call reads and authenticates
    /// only the segments that hold them. An empty read is allowed anywhere up to the end.
    ///
    /// # Errors
    ///
    /// [`VramError::OutOfBounds`] if the range does not lie inside the shard, else as
    /// [`unseal_model`](Self::unseal_model).
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, offset, bytes = length))]
    pub fn read_shard_at_offset(
        &self,
        shard: &SealedShard,
        offset: usize,
        length: usize,
    ) -> Result<Vec<u8>, VramError> {
        let wide = |value: usize| ByteLen::from_usize(value).get();
        let (offset, length) = (wide(offset), wide(length));
        let work = || read::read_range(&self.core, shard, offset, length);
        self.core.watched(Call::Read, Some(&shard.shard_id), None, length, work)
    }

    /// Fills `target` with the plaintext that starts at `offset`.
    ///
    /// `target` must be private until the call returns, as for
    /// [`unseal_into`](Self::unseal_into): segments that are wanted whole are decrypted there before
    /// their tags are checked.
    ///
    /// # Errors
    ///
    /// As [`read_shard_at_offset`](Self::read_shard_at_offset), with `target` untouched if the
    /// range or the handle is refused, and zeroed if the call had written bytes to it.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, offset, bytes = target.len()))]
    pub fn read_into(
        &self,
        shard: &SealedShard,
        offset: u64,
        target: &mut [u8],
    ) -> Result<(), VramError> {
        let length = ByteLen::from_usize(target.len()).get();
        let work = || read::read_into(&self.core, shard, offset, target);
        self.core.watched(Call::Read, Some(&shard.shard_id), None, length, work)
    }

    /// Takes a lease of a shard. Waits for a call that is moving or freeing it.
    ///
    /// An Authenticated shard that was never verified in full is verified first: kernels will read
    /// it unchecked.
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
        self.core.watched(Call::Lease, id, None, len, || lease::lease(&self.core, shard, None))
    }

    /// As [`lease`](Self::lease), waiting for other calls no longer than `timeout`. The time of the
    /// verification before a first lease does not count.
    ///
    /// # Errors
    ///
    /// As [`lease`](Self::lease); [`VramError::TimedOut`].
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id))]
    pub fn lease_within(&self, shard: &SealedShard, timeout: Duration) -> Result<Lease, VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        self.core
            .watched(Call::Lease, id, None, len, || lease::lease(&self.core, shard, Some(timeout)))
    }

    /// As [`lease`](Self::lease), for a named holder: a worker, a request, a process. Errors of calls
    /// that the lease keeps from the shard, reports and metrics name the holder of the oldest lease
    /// and its age. An empty name names nobody.
    ///
    /// # Errors
    ///
    /// As [`lease`](Self::lease); [`VramError::LimitExceeded`] for a name of more than 1024 bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::VramManager;
    ///
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let shard = manager.seal_model("llama", 0, b"weights")?;
    /// let lease = manager.lease_as(&shard, "worker-7")?;
    /// assert_eq!(lease.holder(), Some("worker-7"));
    ///
    /// let refused = manager.free_shard(&shard).unwrap_err().to_string();
    /// assert!(refused.contains("one lease is out for") && refused.contains("worker-7"));
    /// # Ok::<(), vram_residency::VramError>(())
    /// ```
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id))]
    pub fn lease_as(&self, shard: &SealedShard, holder: &str) -> Result<Lease, VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        self.core.watched(Call::Lease, id, None, len, || {
            lease::lease_as(&self.core, shard, lease::holder(holder)?, None)
        })
    }

    /// Protects a shard from eviction until it is unpinned. Calls that name the shard can still
    /// free and move it. Pinning twice is the same as once.
    ///
    /// # Errors
    ///
    /// Those of a bad handle.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id))]
    pub fn pin(&self, shard: &SealedShard) -> Result<(), VramError> {
        let work = || lease::set_pinned(&self.core, shard, true);
        self.core.watched(Call::Pin, Some(&shard.shard_id), None, 0, work)
    }

    /// Lets a shard be evicted again.
    ///
    /// # Errors
    ///
    /// Those of a bad handle.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id))]
    pub fn unpin(&self, shard: &SealedShard) -> Result<(), VramError> {
        let work = || lease::set_pinned(&self.core, shard, false);
        self.core.watched(Call::Pin, Some(&shard.shard_id), None, 0, work)
    }

    /// The plain BLAKE3 digest of a shard's content: what `b3sum` prints for the same bytes.
    ///
    /// # Errors
    ///
    /// Those of a bad handle.
    pub fn content_digest(&self, shard: &SealedShard) -> Result<ContentDigest, VramError> {
        read::content_digest(&self.core, shard)
    }

    /// Fresh handles of all resident shards, in ascending order of their ids.
    #[must_use]
    pub fn shards(&self) -> Vec<SealedShard> {
        self.core.handles()
    }

    /// A fresh handle of one shard, if it is resident.
    #[must_use]
    pub fn shard(&self, id: &ShardId) -> Option<SealedShard> {
        self.core.handle_of(id)
    }

    /// Fresh handles of all resident shards of a model, in ascending order of their ids.
    #[must_use]
    pub fn shards_of(&self, model_id: &str) -> Vec<SealedShard> {
        let mut shards = self.shards();
        shards.retain(|shard| *shard.model_id == *model_id);
        shards
    }
}
