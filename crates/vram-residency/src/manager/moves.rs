//! Changing where and how a shard lies.

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
    /// Moves a shard to another GPU: the same id, the same bytes. Every segment is verified at the
    /// target before the source is wiped and freed. To the GPU it is on: fine, nothing moves. All
    /// handles of the shard stay good; the one returned knows the new GPU.
    ///
    /// # Errors
    ///
    /// Those of a bad handle; [`VramError::UnknownGpu`]; [`VramError::InsufficientVram`] of the
    /// target; [`VramError::InUse`]; [`VramError::Quarantined`]; [`VramError::ShardAltered`] if the
    /// source was altered (it is in quarantine then); [`VramError::WriteNotKept`] if the bytes do
    /// not arrive as they were sent; [`VramError::HostMemory`], [`VramError::Device`],
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
    /// As [`migrate_shard`](Self::migrate_shard), with [`VramError::InUse`] if a lease is still out
    /// then; [`VramError::TimedOut`] if other calls were still using it.
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

    /// Takes a shard off its GPU and into host memory, encrypted. Every segment is verified on the
    /// way, and the device bytes are wiped afterwards. Of a GPU that is lost, the shard's
    /// [backup](Self::back_up) is taken, if there is one.
    ///
    /// The value that comes out is the shard from then on: [`wake`](Self::wake) makes it resident
    /// again, dropping it gives it up. Handles answer [`VramError::Parked`] meanwhile.
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

    /// Makes a parked shard resident again, on any GPU: the same id, the same seal, the same
    /// bytes. Every segment is verified where it arrived, always. Handles from before it was parked
    /// are good again.
    ///
    /// # Errors
    ///
    /// [`WakeError`] with the parked shard, as it was, and the reason:
    /// [`VramError::ForeignHandle`] if another manager parked it; [`VramError::UnknownGpu`];
    /// [`VramError::InsufficientVram`]; [`VramError::ParkedAltered`] if the host copy is not what
    /// was parked; [`VramError::WriteNotKept`] if it does not arrive as it was sent;
    /// [`VramError::HostMemory`], [`VramError::Device`], [`VramError::DeviceLost`].
    #[tracing::instrument(level = "info", skip_all, fields(shard = %parked.shard_id(), gpu, bytes = parked.plaintext_len().get()))]
    pub fn wake(&self, parked: ParkedShard, gpu: u32) -> Result<SealedShard, WakeError> {
        let (id, bytes) = (parked.shard_id().clone(), parked.plaintext_len().get());
        self.core.watched(Call::Wake, Some(&id), Some(gpu), bytes, || {
            wake::wake(&self.core, parked, gpu)
        })
    }

    /// How much host memory parked shards may take, and do.
    #[must_use]
    pub fn park_capacity(&self) -> ParkCapacity {
        self.core.park_capacity()
    }

    /// Moves the shards of a GPU together, so that its holes join. Leased, quarantined and reserved
    /// places stay as they are. Other calls go on meanwhile; those on the shard that is being moved
    /// wait for it. All handles stay good.
    ///
    /// Sliding a shard over a part of itself takes host memory of its length, counted like that of
    /// parked shards; without it the shard is skipped.
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

    /// Turns an Encrypted shard into an Authenticated one on the same GPU: its plaintext lies in
    /// device memory from then on, watched over. All or nothing. The shard is sealed anew: handles
    /// from before are answered with [`VramError::StaleHandle`]. An Authenticated shard stays as
    /// it is.
    ///
    /// Done beside the old copy where there is room for a second one, in place otherwise.
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
    /// [`open_resident`](Self::open_resident): with the cipher and scope that it was sealed with,
    /// or would have been. Its record is then byte for byte what it was before it was opened. The
    /// plaintext in device memory is overwritten.
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
