//! The facade: every operation, and what it promises. Each is carried out in a file of its own.

mod events;
mod parts;

use core::fmt;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_gpu::DeviceInfo;
use vram_seal::ContentDigest;

use crate::builder::VramManagerBuilder;
use crate::call::Call;
use crate::error::VramError;
use crate::free::FreedReceipt;
use crate::id::ShardId;
use crate::report::{GpuCapacity, Report};
use crate::request::SealRequest;
use crate::shard::SealedShard;
use crate::verify::{Verdict, Verify};

pub(crate) use parts::{Core, in_use};

/// Keeps model shards resident in GPU memory, accounted for, and provably what was sealed.
///
/// Every call takes `&self`, may come from any thread, and blocks until it is done; share the
/// manager in an [`Arc`]. An async caller uses its runtime's `spawn_blocking`. A failed call changes
/// nothing, except what the failure itself revealed and its error names.
///
/// Dropping the manager frees everything that is resident, wiped first: video memory does not
/// outlive the process that holds it.
pub struct VramManager {
    pub(crate) core: Arc<Core>,
}

impl VramManager {
    /// A manager over one GPU in host memory, of `total` bytes, with a fresh random key. For tests
    /// and trials: host memory is taken as it is first written.
    ///
    /// # Errors
    ///
    /// [`VramError::Config`] above 2^48 − 1 bytes; [`VramError::Key`] if the operating system gives
    /// no random bytes.
    pub fn new_mock(total: usize) -> Result<Self, VramError> {
        Self::new_mock_multi_gpu(vec![total])
    }

    /// A manager over several GPUs in host memory: GPU `i` has `capacities[i]` bytes.
    ///
    /// # Errors
    ///
    /// As [`new_mock`](Self::new_mock); [`VramError::Config`] for an empty list.
    pub fn new_mock_multi_gpu(capacities: Vec<usize>) -> Result<Self, VramError> {
        let mut builder = Self::builder();
        for capacity in capacities {
            builder = builder.host_device(ByteLen::from_usize(capacity));
        }
        builder.build()
    }

    /// A manager put together piece by piece.
    pub fn builder() -> VramManagerBuilder {
        VramManagerBuilder::new()
    }

    /// Seals `data` onto a GPU, encrypted, and keeps it resident there. The short form of
    /// [`seal`](Self::seal).
    ///
    /// # Arguments
    ///
    /// * `model_id`: 1 to 1024 bytes of UTF-8; taken as it is, nothing is normalised.
    /// * `gpu_index`: from 0 to one below [`gpu_count`](Self::gpu_count).
    /// * `data`: of any length from 0 to what the GPU has room for.
    ///
    /// # Errors
    ///
    /// [`VramError::InsufficientVram`], [`VramError::UnknownGpu`], [`VramError::Seal`] for the
    /// model id, [`VramError::LimitExceeded`], [`VramError::WriteNotKept`],
    /// [`VramError::HostMemory`], [`VramError::Device`], [`VramError::DeviceLost`]. Nothing is
    /// resident then, and everything taken was given back.
    pub fn seal_model(
        &self,
        model_id: &str,
        gpu_index: u32,
        data: &[u8],
    ) -> Result<SealedShard, VramError> {
        self.seal(SealRequest::new(model_id, gpu_index), data)
    }

    /// Seals `data` as the request says, and keeps it resident.
    ///
    /// # Errors
    ///
    /// As [`seal_model`](Self::seal_model).
    #[tracing::instrument(
        level = "info",
        skip_all,
        fields(gpu = request.gpu, bytes = data.len())
    )]
    #[expect(clippy::needless_pass_by_value, reason = "a request is made for one call")]
    pub fn seal(&self, request: SealRequest, data: &[u8]) -> Result<SealedShard, VramError> {
        let (gpu, len) = (Some(request.gpu), ByteLen::from_usize(data.len()).get());
        self.core.watched(Call::Seal, None, gpu, len, || self.core.seal_slice(&request, data))
    }

    /// All plaintext of a shard: exactly the bytes that were sealed, or an error.
    ///
    /// # Errors
    ///
    /// [`VramError::ShardAltered`] if the device's bytes are not those that were sealed: the shard
    /// is in quarantine from then on, and refused with [`VramError::Quarantined`]. Those of a bad
    /// handle: [`VramError::ForeignHandle`], [`VramError::HandleAltered`],
    /// [`VramError::ShardFreed`], [`VramError::StaleHandle`]. [`VramError::HostMemory`],
    /// [`VramError::Device`], [`VramError::DeviceLost`].
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn unseal_model(&self, shard: &SealedShard) -> Result<Vec<u8>, VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        self.core.watched(Call::Unseal, id, None, len, || self.core.unseal(shard))
    }

    /// As [`unseal_model`](Self::unseal_model), into the caller's memory, which must have the
    /// shard's length.
    ///
    /// # Errors
    ///
    /// [`VramError::TargetLength`], and a bad handle, with `target` untouched; otherwise as
    /// [`unseal_model`](Self::unseal_model), with `target` zeroed once bytes had passed through it.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn unseal_into(&self, shard: &SealedShard, target: &mut [u8]) -> Result<(), VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        self.core.watched(Call::Unseal, id, None, len, || self.core.unseal_into(shard, target))
    }

    /// As [`unseal_model`](Self::unseal_model), then frees the shard, with nobody in between.
    ///
    /// If the device's bytes do not verify, nothing is freed. If they do and the device refuses to
    /// be wiped, the bytes are returned all the same; what could not be given back stays counted and
    /// shows in the [`report`](Self::report).
    ///
    /// # Errors
    ///
    /// As [`unseal_model`](Self::unseal_model); [`VramError::InUse`].
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn unseal_and_free(&self, shard: &SealedShard) -> Result<Vec<u8>, VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        self.core.watched(Call::UnsealAndFree, id, None, len, || self.core.unseal_and_free(shard))
    }

    /// Frees a shard without opening it, also one in quarantine. Its bytes are wiped first.
    ///
    /// # Errors
    ///
    /// Those of a bad handle; [`VramError::InUse`]; [`VramError::DeviceLost`];
    /// [`VramError::NotReturned`] if the bytes could not be wiped or given back: the shard is gone, and they stay
    /// counted.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id))]
    pub fn free_shard(&self, shard: &SealedShard) -> Result<FreedReceipt, VramError> {
        let (id, work) = (Some(&shard.shard_id), || self.core.free(shard));
        self.core.watched_for(Call::Free, id, None, work, |receipt| receipt.bytes.get())
    }

    /// `length` bytes of plaintext from `offset` on. Only the segments that they lie in are read
    /// and authenticated. An empty read is fine anywhere up to the end.
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
        let work = || self.core.read_range(shard, offset, length);
        self.core.watched(Call::Read, Some(&shard.shard_id), None, length, work)
    }

    /// Fills `target` with the plaintext from `offset` on.
    ///
    /// # Errors
    ///
    /// As [`read_shard_at_offset`](Self::read_shard_at_offset), with `target` untouched if the
    /// range or the handle is refused, and zeroed if bytes had passed through it.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, offset, bytes = target.len()))]
    pub fn read_into(
        &self,
        shard: &SealedShard,
        offset: u64,
        target: &mut [u8],
    ) -> Result<(), VramError> {
        let length = ByteLen::from_usize(target.len()).get();
        let work = || self.core.read_into(shard, offset, target);
        self.core.watched(Call::Read, Some(&shard.shard_id), None, length, work)
    }

    /// Whether a shard is still what was sealed: `Ok(false)` if its device bytes or its handle were
    /// altered. Every segment is checked. Altered device bytes put the shard into quarantine; an
    /// altered handle changes nothing.
    ///
    /// # Errors
    ///
    /// Where it could not be checked: [`VramError::ForeignHandle`], [`VramError::ShardFreed`],
    /// [`VramError::StaleHandle`], [`VramError::HostMemory`], [`VramError::Device`],
    /// [`VramError::DeviceLost`].
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn verify_shard_integrity(&self, shard: &SealedShard) -> Result<bool, VramError> {
        let work = || match self.core.verify(shard, Verify::Segments) {
            Ok(verdict) => Ok((verdict.sound, verdict.checked_bytes)),
            Err(VramError::HandleAltered { .. }) => Ok((false, ByteLen::ZERO)),
            Err(error) => Err(error),
        };
        let bytes = |(_sound, checked): &(bool, ByteLen)| checked.get();
        let (sound, _) =
            self.core.watched_for(Call::Verify, Some(&shard.shard_id), None, work, bytes)?;
        Ok(sound)
    }

    /// As [`verify_shard_integrity`](Self::verify_shard_integrity), in a form that cannot be
    /// ignored by accident.
    ///
    /// # Errors
    ///
    /// [`VramError::ShardAltered`] naming the altered segments, [`VramError::HandleAltered`], and
    /// those of [`verify_shard_integrity`](Self::verify_shard_integrity).
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn ensure_intact(&self, shard: &SealedShard) -> Result<(), VramError> {
        let (id, len) = (Some(&shard.shard_id), shard.plaintext_len);
        self.core.watched(Call::Verify, id, None, len, || {
            let verdict = self.core.verify(shard, Verify::Segments)?;
            if verdict.sound {
                return Ok(());
            }
            Err(VramError::ShardAltered {
                shard: verdict.shard_id,
                segments: verdict.altered.iter().map(|span| span.segment).collect(),
            })
        })
    }

    /// Verifies a shard as thoroughly as asked, and says what was found. Altered device bytes put
    /// it into quarantine. A shard in quarantine can be verified, and is never sound.
    ///
    /// # Errors
    ///
    /// Those of a bad handle; [`VramError::OutOfBounds`] for a range that is not inside the shard;
    /// [`VramError::HostMemory`], [`VramError::Device`], [`VramError::DeviceLost`].
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn verify(&self, shard: &SealedShard, level: Verify) -> Result<Verdict, VramError> {
        let (id, work) = (Some(&shard.shard_id), || self.core.verify(shard, level));
        let bytes = |verdict: &Verdict| verdict.checked_bytes.get();
        self.core.watched_for(Call::Verify, id, None, work, bytes)
    }

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
        self.core.watched(Call::Migrate, id, Some(gpu), len, || self.core.migrate(shard, gpu))
    }

    /// The plain BLAKE3 digest of a shard's content: what `b3sum` prints for the same bytes.
    ///
    /// # Errors
    ///
    /// Those of a bad handle.
    pub fn content_digest(&self, shard: &SealedShard) -> Result<ContentDigest, VramError> {
        let entry = self.core.resolve(shard)?;
        let digest = entry.state().seal.digest;
        Ok(digest)
    }

    /// Fresh handles of all resident shards, in ascending order of their ids.
    #[must_use]
    pub fn shards(&self) -> Vec<SealedShard> {
        let entries = self.core.registry.sorted();
        // One may be freed while the others are listed.
        let resident = entries.iter().filter(|entry| entry.is_resident());
        resident.map(|entry| self.core.handle(entry)).collect()
    }

    /// A fresh handle of one shard, if it is resident.
    #[must_use]
    pub fn shard(&self, id: &ShardId) -> Option<SealedShard> {
        let entry = self.core.registry.get(id).filter(|entry| entry.is_resident())?;
        Some(self.core.handle(&entry))
    }

    /// Fresh handles of all resident shards of a model, in ascending order of their ids.
    #[must_use]
    pub fn shards_of(&self, model_id: &str) -> Vec<SealedShard> {
        let mut shards = self.shards();
        shards.retain(|shard| *shard.model_id == *model_id);
        shards
    }

    /// Bytes of a GPU's budget that are in use or promised.
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`].
    pub fn get_used_vram(&self, gpu: u32) -> Result<usize, VramError> {
        let capacity = self.core.gpu(gpu)?.books();
        Ok(capacity.taken().to_usize().unwrap_or(usize::MAX))
    }

    /// Bytes of a GPU's budget that are neither in use nor promised. For one consistent picture
    /// while other threads are busy, take [`capacity`](Self::capacity).
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`].
    pub fn get_free_vram(&self, gpu: u32) -> Result<usize, VramError> {
        let capacity = self.core.gpu(gpu)?.books();
        Ok(capacity.free().to_usize().unwrap_or(usize::MAX))
    }

    /// All figures of one GPU at one moment.
    ///
    /// # Errors
    ///
    /// [`VramError::UnknownGpu`].
    pub fn capacity(&self, gpu: u32) -> Result<GpuCapacity, VramError> {
        Ok(GpuCapacity::of(self.core.gpu(gpu)?))
    }

    /// How many GPUs there are.
    #[must_use]
    pub fn gpu_count(&self) -> u32 {
        self.core.gpu_count()
    }

    /// Identity and attributes of all GPUs, in order of their index in this manager.
    #[must_use]
    pub fn gpus(&self) -> Vec<DeviceInfo> {
        self.core.gpus.iter().map(|gpu| gpu.device.info().clone()).collect()
    }

    /// What is resident where, and what is left: prints as a table.
    #[must_use]
    pub fn report(&self) -> Report {
        self.core.report()
    }
}

impl Drop for VramManager {
    /// What works in the background lets go first, so that everything is given back here.
    fn drop(&mut self) {
        self.core.scrubbing.end();
    }
}

impl fmt::Debug for VramManager {
    /// Counts only: neither keys nor digests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VramManager")
            .field("gpus", &self.core.gpus.len())
            .field("shards", &self.core.registry.len())
            .finish_non_exhaustive()
    }
}
