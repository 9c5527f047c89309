//! Sealing bytes into residence.

use vram_alloc::ByteLen;
use vram_core::error::VramError;
use vram_core::parts::call::Call;
use vram_core::sealing::{
    Reservation, SealOptions, SealRequest, request, reservation, seal, stream,
};
use vram_core::shard::SealedShard;
use vram_files::Source;

use crate::manager::VramManager;

impl VramManager {
    /// Seals `data` onto a GPU, encrypted, and keeps it resident on that GPU. The short form of
    /// [`seal`](Self::seal).
    ///
    /// # Arguments
    ///
    /// * `model_id`: 1 to 1024 bytes of UTF-8; used as it is, nothing is normalised.
    /// * `gpu_index`: from 0 to one below [`gpu_count`](Self::gpu_count).
    /// * `data`: of any length from 0 to what the GPU has room for.
    ///
    /// # Errors
    ///
    /// [`VramError::InsufficientVram`], [`VramError::UnknownGpu`], [`VramError::Seal`] for the
    /// model id, [`VramError::LimitExceeded`], [`VramError::WriteNotKept`],
    /// [`VramError::HostMemory`], [`VramError::Device`], [`VramError::DeviceLost`]. Nothing is
    /// resident then, and the call has released all memory that it took.
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
    /// `data` is copied once, and hashed and encrypted in that copy. Where it lies in a mapping that
    /// others write, the shard is what was read.
    ///
    /// # Errors
    ///
    /// As [`seal_model`](Self::seal_model); in scope Shard besides [`VramError::SourceChanged`] if
    /// `data` changed meanwhile.
    #[tracing::instrument(
        level = "info",
        skip_all,
        fields(gpu = request::gpu_of(&request), bytes = data.len())
    )]
    #[expect(clippy::needless_pass_by_value, reason = "a request is made for one call")]
    pub fn seal(&self, request: SealRequest, data: &[u8]) -> Result<SealedShard, VramError> {
        let (gpu, len) = (Some(request::gpu_of(&request)), ByteLen::from_usize(data.len()).get());
        self.core
            .watched(Call::Seal, None, gpu, len, || seal::seal_slice(&self.core, &request, data))
    }

    /// Seals the bytes of a source, and keeps them resident. Host memory stays within the
    /// configured staging limit for a shard of any size.
    ///
    /// The scope is Segment unless the request names one, and the call reads the source once. In
    /// scope Shard it reads the source twice, and refuses it if it changed in between. A
    /// [`SliceSource`](crate::SliceSource) is sealed like the slice itself.
    ///
    /// # Errors
    ///
    /// As [`seal`](Self::seal); besides, [`VramError::SourceLength`], [`VramError::SourceChanged`]
    /// or [`VramError::Source`]; [`VramError::DigestMismatch`] if the caller expected another
    /// digest; [`VramError::Cancelled`]; [`VramError::Config`] for scope Shard with a source that
    /// can be read only once. Nothing is resident then, and the call has released all memory that
    /// it took.
    ///
    /// # Panics
    ///
    /// If the source or the progress callback panics: with their payload, after the call has
    /// released all memory that it took. The manager stays usable.
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::{FileSource, SealOptions, SealRequest, VramManager};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("weights");
    /// # std::fs::write(&path, b"weights")?;
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let request = SealRequest::new("llama-3-8b", 0);
    /// let shard = manager.seal_from(request, FileSource::open(&path)?, SealOptions::new())?;
    /// assert_eq!(manager.unseal_model(&shard)?, b"weights");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[tracing::instrument(
        level = "info",
        skip_all,
        fields(gpu = request::gpu_of(&request), bytes = source.len())
    )]
    #[expect(clippy::needless_pass_by_value, reason = "a request is made for one call")]
    pub fn seal_from(
        &self,
        request: SealRequest,
        source: impl Source,
        options: SealOptions<'_>,
    ) -> Result<SealedShard, VramError> {
        let gpu = Some(request::gpu_of(&request));
        let work = || stream::seal_source(&self.core, &request, &source, options);
        self.core.watched_for(Call::Seal, None, gpu, work, |shard| shard.plaintext_len)
    }

    /// Seals `data` into reserved bytes. If the call fails, they are reserved as before.
    ///
    /// # Errors
    ///
    /// [`VramError::ReservationExpired`]; [`VramError::ReservationTooSmall`];
    /// [`VramError::ReservationElsewhere`] if the request names another GPU than the reservation;
    /// [`VramError::ForeignReservation`]; [`VramError::InsufficientVram`] if no hole is long
    /// enough, even with enough bytes reserved; otherwise as [`seal`](Self::seal).
    #[tracing::instrument(level = "info", skip_all, fields(gpu = request::gpu_of(&request), bytes = data.len()))]
    #[expect(clippy::needless_pass_by_value, reason = "a request is made for one call")]
    pub fn seal_reserved(
        &self,
        reservation: &mut Reservation,
        request: SealRequest,
        data: &[u8],
    ) -> Result<SealedShard, VramError> {
        let (gpu, len) = (Some(request::gpu_of(&request)), ByteLen::from_usize(data.len()).get());
        self.core.watched(Call::Seal, None, gpu, len, || {
            reservation::seal_reserved(&self.core, reservation, &request, data)
        })
    }
}
