//! Exporting and importing sealed images.

use std::io::{Read, Write};
use std::path::Path;

use vram_alloc::ModelPlan;
use vram_core::error::VramError;
use vram_core::models::{AdmitRequest, ModelImport, admit};
use vram_core::moves::{ExportOptions, ImportRequest, export, import, import_request};
use vram_core::parts::call::Call;
use vram_core::shard::SealedShard;
use vram_files::ImageReport;
use vram_seal::Protection;

use crate::manager::VramManager;

impl VramManager {
    /// Writes a shard to `sink` as a sealed image, encrypted. The shard stays resident. The call
    /// verifies every segment before it writes a byte of it; host memory stays bounded. Other calls
    /// can read the shard meanwhile; calls that free or move it wait until the sink is done.
    ///
    /// # Errors
    ///
    /// Those of a bad handle; [`VramError::Quarantined`]; [`VramError::ShardAltered`] if the device
    /// bytes are not those that were sealed (the shard is in quarantine then); [`VramError::Io`] if
    /// the sink fails; [`VramError::Seal`] if the key of an Authenticated shard is no longer in the
    /// ring; [`VramError::HostMemory`], [`VramError::Device`], [`VramError::DeviceLost`]. The sink
    /// has then received the start of an image, which no import accepts.
    ///
    /// # Panics
    ///
    /// If the sink panics. The manager stays usable.
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::{ByteLen, ImportRequest, SealKey, VramManager};
    ///
    /// let node = |key| VramManager::builder().host_device(ByteLen::MIB).key(key).build();
    /// let here = node(SealKey::from_bytes(&[7; 32]))?;
    /// let shard = here.seal_model("llama-3-8b", 0, b"weights")?;
    /// let mut image = Vec::new();
    /// here.export(&shard, &mut image)?;
    ///
    /// let there = node(SealKey::from_bytes(&[7; 32]))?;
    /// let shard = there.import(ImportRequest::new("llama-3-8b", 0), image.as_slice())?;
    /// assert_eq!(there.unseal_model(&shard)?, b"weights");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn export(&self, shard: &SealedShard, sink: impl Write) -> Result<ImageReport, VramError> {
        self.export_with(shard, sink, ExportOptions::new())
    }

    /// As [`export`](Self::export), with options.
    ///
    /// # Errors
    ///
    /// As [`export`](Self::export); [`VramError::Cancelled`].
    ///
    /// # Panics
    ///
    /// If the sink or the progress callback panics. The manager stays usable.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn export_with(
        &self,
        shard: &SealedShard,
        mut sink: impl Write,
        options: ExportOptions<'_>,
    ) -> Result<ImageReport, VramError> {
        let (id, len) = (&shard.shard_id, shard.plaintext_len);
        let work = || export::export_with(&self.core, shard, &mut sink, options);
        self.core.watched(Call::Export, Some(id), None, len, work)
    }

    /// Writes a shard to a file as a sealed image. The file appears under its name whole and
    /// synced, or not at all; an image with plaintext is readable by its owner alone (mode 0600).
    /// The manager remembers the last exported file of each shard: [`reset_gpu`](Self::reset_gpu)
    /// restores the shard from it, if the file still exists and is still that image.
    ///
    /// # Errors
    ///
    /// As [`export_with`](Self::export_with); [`VramError::Io`] naming the file. No file is left
    /// behind then.
    ///
    /// # Panics
    ///
    /// If the progress callback panics; no file is left behind.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn export_to(
        &self,
        shard: &SealedShard,
        target: impl AsRef<Path>,
        options: ExportOptions<'_>,
    ) -> Result<ImageReport, VramError> {
        let (id, len) = (&shard.shard_id, shard.plaintext_len);
        let work = || export::export_to(&self.core, shard, target.as_ref(), options);
        self.core.watched(Call::Export, Some(id), None, len, work)
    }

    /// Reads a sealed image and makes its shard resident, under a new id. The call reads the image
    /// once, in order, with bounded host memory. Nothing is resident before every segment was
    /// verified in the image and again in device memory.
    ///
    /// # Errors
    ///
    /// [`VramError::Seal`] if it is no sealed image, of another key, model, context or revision,
    /// altered, cut short or longer than it states; [`VramError::Io`] if it cannot be read;
    /// [`VramError::DigestMismatch`]; [`VramError::UnknownGpu`]; [`VramError::InsufficientVram`];
    /// [`VramError::LimitExceeded`]; [`VramError::WriteNotKept`]; [`VramError::Cancelled`];
    /// [`VramError::HostMemory`], [`VramError::Device`], [`VramError::DeviceLost`]. Nothing is
    /// resident then, and the call has released all memory that it took.
    ///
    /// # Panics
    ///
    /// If the reader or the progress callback panics: with their payload, after the call has
    /// released all memory that it took. The manager stays usable.
    #[tracing::instrument(level = "info", skip_all, fields(gpu = import_request::gpu_of(&request)))]
    pub fn import(
        &self,
        request: ImportRequest<'_>,
        mut image: impl Read + Send,
    ) -> Result<SealedShard, VramError> {
        let gpu = Some(import_request::gpu_of(&request));
        let work = || import::import(&self.core, request, &mut image);
        self.core.watched_for(Call::Import, None, gpu, work, |shard| shard.plaintext_len)
    }

    /// As [`import`](Self::import), from a file.
    ///
    /// # Errors
    ///
    /// As [`import`](Self::import), with [`VramError::Image`] naming the file in place of
    /// [`VramError::Seal`].
    ///
    /// # Panics
    ///
    /// If the progress callback panics, after the call has released all memory that it took.
    #[tracing::instrument(level = "info", skip_all, fields(gpu = import_request::gpu_of(&request)))]
    pub fn import_from(
        &self,
        request: ImportRequest<'_>,
        image: impl AsRef<Path>,
    ) -> Result<SealedShard, VramError> {
        let gpu = Some(import_request::gpu_of(&request));
        let work = || import::import_from(&self.core, request, image.as_ref());
        self.core.watched_for(Call::Import, None, gpu, work, |shard| shard.plaintext_len)
    }

    /// Begins to import a whole model from sealed images, such as those of a store. The call places
    /// every piece of the plan before any image is read; nothing is resident before
    /// [`ModelImport::finish`], and dropping the import returns all memory that it took.
    ///
    /// Of the request, model, context and revision must be those of the images, and the protection is
    /// what the shards become; suite and segment size are those of the images.
    ///
    /// # Arguments
    ///
    /// * `plan`: one piece for each image; the number of its file is the image's shard number.
    /// * `sealed`: the protection of the images.
    ///
    /// # Errors
    ///
    /// [`VramError::InsufficientVram`] if a piece finds no room on any GPU of the request;
    /// [`VramError::Cancelled`]; [`VramError::LimitExceeded`]. Nothing is taken then.
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::{
    ///     AdmitRequest, ByteLen, GpuChoice, ModelPlan, Piece, Protection, SealRequest, VramManager,
    /// };
    ///
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let mut images = Vec::new();
    /// for (index, bytes) in [(0, b"first"), (1, b"other")] {
    ///     let shard = manager.seal(SealRequest::new("tiny", 0).shard_index(index), bytes)?;
    ///     images.push(Vec::new());
    ///     manager.export(&shard, images.last_mut().expect("just pushed"))?;
    /// }
    ///
    /// let piece = |file: u32| Piece::new(format!("shard {file}"), file, 0, ByteLen::new(5));
    /// let plan = ModelPlan::new([piece(0), piece(1)])?;
    /// let request = AdmitRequest::new("tiny", GpuChoice::MostRoomFirst);
    /// let mut import = manager.import_model(request, &plan, Protection::Encrypted)?;
    /// for image in &images {
    ///     import.import(image.as_slice())?;
    /// }
    /// let model = import.finish()?;
    /// assert_eq!(manager.unseal_model(&model.pieces[1].shard)?, b"other");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn import_model<'a>(
        &'a self,
        request: AdmitRequest<'a>,
        plan: &ModelPlan,
        sealed: Protection,
    ) -> Result<ModelImport<'a>, VramError> {
        admit::images::begin(&self.core, request, plan, sealed)
    }
}
