//! Exporting a shard as a sealed image: portable to any node that has the key.
//!
//! ```text
//!  Encrypted, or plaintext asked for by name     Authenticated
//!   1 record and table, as they are               1 every segment opened and hashed
//!   2 each run of segments: read, opened,         2 a trial of the new seal → record and table
//!     and only then written                       3 each run: opened, sealed anew, written
//! ```

use core::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vram_alloc::{ByteLen, ByteRange};
use vram_seal::{ImageLayout, Protection, image};
use zeroize::Zeroizing;

use crate::call::Call;
use crate::cancel::CancelToken;
use crate::error::VramError;
use crate::events::EventKind;
use crate::id::ShardId;
use crate::image::ImageReport;
use crate::manager::{Core, VramManager};
use crate::outward::Outward;
use crate::progress::{Progress, ProgressFn, Watch};
use crate::read::zeroed;
use crate::registry::{Entry, Seal, View};
use crate::shard::SealedShard;
use crate::transition::convert::Convert;
use crate::transition::{Anew, altered};
use crate::whole_file::{Inputs, Overwrite, WholeFile};

/// Sealed bytes that are handed to a writer at a time, where limits and segments allow.
const CHUNK_LEN: u64 = 8 << 20;

/// How a shard is exported.
///
/// ```
/// use vram_residency::{ExportOptions, Overwrite};
///
/// let options = ExportOptions::new()
///     .overwrite(Overwrite::Replace)
///     .progress(|progress| eprintln!("{} of {}", progress.done, progress.total));
/// ```
#[derive(Default)]
pub struct ExportOptions<'a> {
    plaintext: bool,
    overwrite: Overwrite,
    inputs: Vec<PathBuf>,
    progress: Option<Box<ProgressFn<'a>>>,
    cancel: Option<CancelToken>,
}

impl<'a> ExportOptions<'a> {
    /// Encrypted, without overwriting, nobody told.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Exports an Authenticated shard as it is: **its plaintext is in the image**. Otherwise it is
    /// encrypted for the export. Without meaning for an Encrypted shard.
    #[must_use]
    pub const fn plaintext(mut self) -> Self {
        self.plaintext = true;
        self
    }

    /// Sets what happens if the name of the file to be written is taken.
    #[must_use]
    pub const fn overwrite(mut self, overwrite: Overwrite) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Names a file that must not be replaced, such as a key file: a target that turns out to be
    /// that file is refused.
    #[must_use]
    pub fn input(mut self, path: impl Into<PathBuf>) -> Self {
        self.inputs.push(path.into());
        self
    }

    /// Sets who is told how far the call has come. If it panics, the call ends with that panic, and
    /// no file is left behind.
    #[must_use]
    pub fn progress(mut self, callback: impl FnMut(Progress) + Send + 'a) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Sets the token that ends the call early.
    #[must_use]
    pub fn cancel(mut self, token: CancelToken) -> Self {
        self.cancel = Some(token);
        self
    }
}

impl fmt::Debug for ExportOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportOptions")
            .field("plaintext", &self.plaintext)
            .field("overwrite", &self.overwrite)
            .field("inputs", &self.inputs)
            .field("progress", &self.progress.is_some())
            .field("cancel", &self.cancel)
            .finish()
    }
}

impl VramManager {
    /// Writes a shard to `sink` as a sealed image, encrypted. The shard stays resident. Every
    /// segment is verified before a byte of it is written; host memory stays bounded. Others can
    /// read the shard meanwhile, and it is not freed or moved before the sink is done.
    ///
    /// # Errors
    ///
    /// Those of a bad handle; [`VramError::Quarantined`]; [`VramError::ShardAltered`] if the device
    /// bytes are not those that were sealed (the shard is in quarantine then); [`VramError::Io`] if
    /// the sink fails; [`VramError::Seal`] if the key of an Authenticated shard is no longer in the
    /// ring; [`VramError::HostMemory`], [`VramError::Device`], [`VramError::DeviceLost`]. The sink
    /// has then had the start of an image, which no import accepts.
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
    /// let here = node(SealKey::from_bytes([7; 32]))?;
    /// let shard = here.seal_model("llama-3-8b", 0, b"weights")?;
    /// let mut image = Vec::new();
    /// here.export(&shard, &mut image)?;
    ///
    /// let there = node(SealKey::from_bytes([7; 32]))?;
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
        self.core.watched(Call::Export, Some(id), None, len, || {
            let (report, gpu) = self.core.export(shard, &mut sink, options)?;
            self.core.exported(id, gpu, &report);
            Ok(report)
        })
    }

    /// Writes a shard to a file as a sealed image. The file appears under its name whole and
    /// synced, or not at all; one with plaintext is for its owner alone (mode 0600). The manager
    /// remembers the last one of each shard: [`reset_gpu`](Self::reset_gpu) brings the shard back
    /// from it, if it is still there and still that image.
    ///
    /// # Errors
    ///
    /// As [`export_with`](Self::export_with); [`VramError::Io`] naming the file. Nothing is left
    /// behind then.
    ///
    /// # Panics
    ///
    /// If the progress callback panics; nothing is left behind.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn export_to(
        &self,
        shard: &SealedShard,
        target: impl AsRef<Path>,
        options: ExportOptions<'_>,
    ) -> Result<ImageReport, VramError> {
        let target = target.as_ref();
        let failed = |action| {
            move |error: io::Error| VramError::Io {
                action,
                path: Some(target.to_path_buf()),
                source: Arc::new(error),
            }
        };
        let (id, len) = (&shard.shard_id, shard.plaintext_len);
        self.core.watched(Call::Export, Some(id), None, len, || {
            // A bad handle costs no file.
            self.core.resolve(shard)?;
            let permissions = if options.plaintext { 0o600 } else { 0o666 };
            let inputs = Inputs::default().with_paths(&options.inputs);
            let file = WholeFile::create(target, permissions, options.overwrite, inputs)
                .map_err(failed("create the sealed image"))?;
            let exported = self.core.export(shard, &mut file.file(), options);
            let (report, gpu) = exported.map_err(|error| match error {
                VramError::Io { action, path: None, source } => {
                    VramError::Io { action, path: Some(target.to_path_buf()), source }
                }
                other => other,
            })?;
            file.publish().map_err(failed("finish the sealed image"))?;
            self.core.exported(id, gpu, &report);
            self.core.remember_export(shard, target, &report.record);
            Ok(report)
        })
    }
}

/// The seal of an image, and what it takes to get its bytes.
struct Plan {
    seal: Arc<Seal>,
    /// For a shard that is sealed anew on the way.
    anew: Option<(vram_seal::Sealer, Vec<vram_seal::SegmentHash>)>,
}

impl Core {
    /// Writes the image of a shard, and says which GPU held it meanwhile.
    fn export(
        &self,
        shard: &SealedShard,
        sink: &mut dyn Write,
        options: ExportOptions<'_>,
    ) -> Result<(ImageReport, u32), VramError> {
        self.shared(shard, |entry| {
            let gpu = entry.view()?.gpu.index;
            Ok((self.export_entry(entry, sink, options)?, gpu))
        })
    }

    /// Tells of an image that is whole.
    fn exported(&self, shard: &ShardId, gpu: u32, report: &ImageReport) {
        let (shard, bytes) = (shard.clone(), report.image_len);
        self.events.emit(EventKind::Exported { shard, gpu, bytes });
    }

    /// Writes the image of a shard. The caller is inside its gate.
    pub(crate) fn export_entry(
        &self,
        entry: &Entry,
        sink: &mut dyn Write,
        options: ExportOptions<'_>,
    ) -> Result<ImageReport, VramError> {
        entry.not_quarantined()?;
        let view = entry.view()?;
        view.gpu.ready()?;
        let watch = Watch::new(entry.plaintext_len, options.progress, options.cancel);
        watch.go_on()?;
        let plan = self.plan_export(entry, &view, options.plaintext)?;
        let head = image::head(&plan.seal.record, plan.seal.opener.tags())?;
        sink.write_all(&head).map_err(sink_failed)?;
        drop(head);
        self.export_data(entry, &view, &plan, sink, &watch)
            .map_err(|error| altered(entry, error))?;
        sink.flush().map_err(sink_failed)?;
        watch.finish();
        let fields = plan.seal.opener.fields().clone();
        let image_len = ByteLen::new(ImageLayout::for_fields(&fields).total_len());
        let (record, digest) = (plan.seal.record.clone(), plan.seal.digest);
        Ok(ImageReport::new(record, fields, digest, image_len))
    }

    fn plan_export(&self, entry: &Entry, view: &View, plaintext: bool) -> Result<Plan, VramError> {
        if view.seal.protection() == Protection::Encrypted || plaintext {
            return Ok(Plan { seal: Arc::clone(&view.seal), anew: None });
        }
        let params = view.seal.params.with_protection(Protection::Encrypted);
        let anew = Anew { params, key: view.seal.key_id() };
        let hashes = self.content_hashes(entry, view)?;
        let seal = self.trial(entry, view, anew, &hashes);
        let seal = Arc::new(seal.map_err(|error| altered(entry, error))?);
        let sealer = self.sealer(entry, anew, Some(&hashes))?;
        Ok(Plan { seal, anew: Some((sealer, hashes)) })
    }

    /// Writes the sealed bytes, run by run.
    fn export_data(
        &self,
        entry: &Entry,
        view: &View,
        plan: &Plan,
        sink: &mut dyn Write,
        watch: &Watch<'_>,
    ) -> Result<(), VramError> {
        let layout = *view.seal.opener.layout();
        let chunk = ByteLen::new(CHUNK_LEN).min(self.limits.staging_bytes);
        let run = chunk.get().checked_div(layout.segment_size().bytes().get()).unwrap_or(0).max(1);
        let longest = layout.span(&(0..run.min(layout.count()))).map(ByteRange::len);
        let mut buffer = Zeroizing::new(zeroed(longest.unwrap_or(ByteLen::ZERO))?);
        // The record and the table vouch for each of these, so nothing is kept.
        let keep = |_segment, _sealed| Ok(());
        let how = match &plan.anew {
            None => Outward::AsTheyAre,
            Some((sealer, hashes)) => Outward::Anew {
                convert: Convert { from: &view.seal.opener, to: sealer, hashes: Some(hashes) },
                keep: &keep,
            },
        };
        let mut next = 0;
        while next < layout.count() {
            watch.go_on()?;
            // Quarantine may have come meanwhile, through another reader.
            entry.not_quarantined()?;
            let segments = next..next.saturating_add(run).min(layout.count());
            next = segments.end;
            let wanted = layout.span(&segments).map_or(ByteLen::ZERO, ByteRange::len);
            let bytes = wanted.to_usize().and_then(|len| buffer.get_mut(..len));
            let bytes = bytes.ok_or(VramError::HostMemory { wanted })?;
            view.copy_out(segments, bytes, &how)?;
            sink.write_all(bytes).map_err(sink_failed)?;
            watch.advance(wanted);
        }
        Ok(())
    }
}

fn sink_failed(error: io::Error) -> VramError {
    VramError::Io { action: "write the sealed image", path: None, source: Arc::new(error) }
}
