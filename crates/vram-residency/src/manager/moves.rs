//! Moving, parking, compacting, opening and closing resident shards.

use core::time::Duration;

use vram_core::error::VramError;
use vram_core::moves::{CompactBudget, CompactReport, WakeError, compact, migrate, wake};
use vram_core::parts::call::Call;
use vram_core::resident::reseal;
use vram_core::room::park;
use vram_core::shard::{ParkCapacity, ParkedShard, SealedShard};
use vram_seal::Protection;

use crate::manager::VramManager;

impl VramManager {
    /// Moves a shard to another GPU: the same id, the same bytes. The call verifies every segment
    /// at the target before it wipes and frees the source. If the shard is on that GPU already,
    /// nothing moves and the call succeeds. All handles of the shard stay valid; the returned one
    /// names the new GPU.
    ///
    /// # Errors
    ///
    /// Those of a bad handle; [`VramError::UnknownGpu`]; [`VramError::InsufficientVram`] of the
    /// target; [`VramError::InUse`]; [`VramError::Quarantined`]; [`VramError::ShardAltered`] if the
    /// source was altered (it is in quarantine then); [`VramError::WriteNotKept`] if the bytes that
    /// arrive are not those that were sent; [`VramError::HostMemory`], [`VramError::Device`],
    /// [`VramError::DeviceLost`]. The shard is then where it was.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, gpu, bytes = shard.plaintext_len))]
    pub fn migrate_shard(&self, shard: &SealedShard, gpu: u32) -> Result<SealedShard, VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        self.core
            .watched(Call::Migrate, id, Some(gpu), len, || migrate::migrate(&self.core, shard, gpu))
    }

    /// As [`migrate_shard`](Self::migrate_shard), waiting for leases as
    /// [`free_shard_within`](Self::free_shard_within) does.
    ///
    /// # Errors
    ///
    /// As [`migrate_shard`](Self::migrate_shard), with [`VramError::InUse`] if a lease is still
    /// held when the time is over; [`VramError::TimedOut`] if other calls were still using the
    /// shard.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, gpu))]
    pub fn migrate_shard_within(
        &self,
        shard: &SealedShard,
        gpu: u32,
        timeout: Duration,
    ) -> Result<SealedShard, VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        let work = || migrate::migrate_within(&self.core, shard, gpu, timeout);
        self.core.watched(Call::Migrate, id, Some(gpu), len, work)
    }

    /// Moves a shard from its GPU into host memory, encrypted. The call verifies every segment on
    /// the way, and wipes the device bytes afterwards. On a lost GPU, it takes the shard's
    /// [backup](Self::back_up) instead, if there is one.
    ///
    /// The returned [`ParkedShard`] owns the shard from then on: [`wake`](Self::wake) makes it
    /// resident again, dropping it frees it. Until then, handles answer [`VramError::Parked`].
    ///
    /// # Errors
    ///
    /// Those of a bad handle; [`VramError::InUse`]; [`VramError::Quarantined`];
    /// [`VramError::ParkLimit`]; [`VramError::ShardAltered`] if the device bytes are not those
    /// that were sealed (the shard is in quarantine then); [`VramError::Seal`] if the key of an
    /// Authenticated shard is no longer in the ring; [`VramError::HostMemory`],
    /// [`VramError::Device`], [`VramError::DeviceLost`]. The shard is then where it was.
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::VramManager;
    ///
    /// let manager = VramManager::new_mock_multi_gpu(vec![1 << 20, 1 << 20])?;
    /// let shard = manager.seal_model("llama-3-8b", 0, b"weights")?;
    /// let parked = manager.park(&shard)?;
    /// assert_eq!(manager.get_used_vram(0)?, 0);
    ///
    /// let shard = manager.wake(parked, 1)?;
    /// assert_eq!(manager.unseal_model(&shard)?, b"weights");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn park(&self, shard: &SealedShard) -> Result<ParkedShard, VramError> {
        let (id, work) = (Some(&shard.shard_id), || park::park(&self.core, shard));
        self.core.watched(Call::Park, id, None, shard.plaintext_len, work)
    }

    /// Makes a parked shard resident again, on any GPU: the same id, the same seal, the same bytes.
    /// The call always verifies every segment in device memory. Handles made before parking are
    /// valid again; addresses are not: the shard may lie elsewhere, on the same GPU too. Take the
    /// address from a new [`Lease`](crate::Lease).
    ///
    /// # Errors
    ///
    /// [`WakeError`] with the parked shard, as it was, and the reason: [`VramError::ForeignHandle`]
    /// if another manager parked it; [`VramError::UnknownGpu`]; [`VramError::InsufficientVram`];
    /// [`VramError::ParkedAltered`] if the host copy is not what was parked;
    /// [`VramError::WriteNotKept`] if the bytes that arrive are not those that were sent;
    /// [`VramError::HostMemory`], [`VramError::Device`], [`VramError::DeviceLost`].
    #[tracing::instrument(level = "info", skip_all, fields(shard = %parked.shard_id(), gpu, bytes = parked.plaintext_len().get()))]
    pub fn wake(&self, parked: ParkedShard, gpu: u32) -> Result<SealedShard, WakeError> {
        let (id, bytes) = (parked.shard_id().clone(), parked.plaintext_len().get());
        self.core.watched(Call::Wake, Some(&id), Some(gpu), bytes, || {
            wake::wake(&self.core, parked, gpu)
        })
    }

    /// How much host memory parked shards may use, and how much they use now.
    #[must_use]
    pub fn park_capacity(&self) -> ParkCapacity {
        self.core.park_capacity()
    }

    /// Moves the shards of a GPU together, so that its holes join. Leased, quarantined and reserved
    /// places stay as they are. Other calls run meanwhile; calls on the shard that is being moved
    /// wait for it. Compaction waits for none of them: a shard that is in use is passed over, tried
    /// once more at the end, and named in the report if it is still in use. All handles stay valid.
    ///
    /// Sliding a shard over a part of itself takes host memory of its length, counted like that of
    /// parked shards; without that memory the shard is skipped.
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`]; [`VramError::DeviceLost`] before anything was moved. A shard that
    /// cannot be moved is skipped and named in the report.
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::{ByteLen, CompactBudget, VramManager};
    ///
    /// let manager = VramManager::new_mock(4096)?;
    /// let shards: Result<Vec<_>, _> =
    ///     (0..4_u8).map(|n| manager.seal_model("tensor", 0, &[n; 1024])).collect();
    /// let shards = shards?;
    /// manager.free_shard(&shards[0])?;
    /// manager.free_shard(&shards[2])?;
    /// assert_eq!(manager.capacity(0)?.largest_hole.get(), 1024);
    ///
    /// let report = manager.compact(0, CompactBudget::new())?;
    /// assert_eq!(report.largest_hole.get(), 2048);
    /// assert_eq!(manager.unseal_model(&shards[1])?, [1; 1024]);
    /// # Ok::<(), vram_residency::VramError>(())
    /// ```
    #[tracing::instrument(level = "info", skip_all, fields(gpu))]
    pub fn compact(&self, gpu: u32, budget: CompactBudget) -> Result<CompactReport, VramError> {
        let work = || compact::compact(&self.core, gpu, budget);
        let moved = |report: &CompactReport| report.moved_bytes.get();
        self.core.watched_for(Call::Compact, None, Some(gpu), work, moved)
    }

    /// Turns an Encrypted shard into an Authenticated one on the same GPU: from then on its
    /// plaintext lies in device memory, and alterations are still found. All or nothing. The call
    /// seals the shard anew: older handles answer [`VramError::StaleHandle`]. An Authenticated
    /// shard stays as it is.
    ///
    /// The call writes beside the old copy if there is room for a second one, and in place
    /// otherwise.
    ///
    /// # Errors
    ///
    /// Those of a bad handle; [`VramError::InUse`]; [`VramError::Quarantined`];
    /// [`VramError::ShardAltered`] if the device bytes are not those that were sealed (the shard is
    /// in quarantine then); [`VramError::WriteNotKept`]; [`VramError::Seal`] if the shard's key is
    /// no longer in the ring; [`VramError::HostMemory`], [`VramError::Device`],
    /// [`VramError::DeviceLost`]. The shard is then as it was.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn open_resident(&self, shard: &SealedShard) -> Result<SealedShard, VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        self.core.watched(Call::Open, id, None, len, || {
            reseal::change_protection(&self.core, shard, Protection::Authenticated)
        })
    }

    /// Turns an Authenticated shard into an Encrypted one on the same GPU, the reverse of
    /// [`open_resident`](Self::open_resident). The cipher and scope are those that it was sealed
    /// with, or would have been. Its record is then byte for byte what it was before it was opened.
    /// The call overwrites the plaintext in device memory.
    ///
    /// # Errors
    ///
    /// As [`open_resident`](Self::open_resident). The shard is then as it was.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn close_resident(&self, shard: &SealedShard) -> Result<SealedShard, VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        self.core.watched(Call::CloseResident, id, None, len, || {
            reseal::change_protection(&self.core, shard, Protection::Encrypted)
        })
    }
}
