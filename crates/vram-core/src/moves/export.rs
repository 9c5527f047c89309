//! Exports a shard as a sealed image, which every node that has the key can import.
//!
//! ```text
//!  Encrypted, or plaintext requested explicitly  Authenticated
//!   1 record and table, as they are               1 every segment opened and hashed
//!   2 each run of segments: read, opened, hashed, 2 a trial of the new seal → record and table
//!     and only then written                       3 each run: opened, sealed anew, written
//!   3 before the last run is written: the
//!     content as a whole against the record
//! ```

use std::io;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vram_alloc::{ByteLen, ByteRange};
use vram_events::EventKind;
use vram_files::{ImageReport, Inputs, Watch, WholeFile};
use vram_seal::{Hashes, ImageLayout, Protection, SealError, image};
use zeroize::Zeroizing;

use crate::error::VramError;
use crate::moves::ExportOptions;
use crate::parts::Core;
use crate::resident::contents::altered;
use crate::resident::{Anew, contents, in_place};
use crate::shard::{Entry, Exported, Seal, SealedShard, View};
use crate::transfer::read::zeroed;
use crate::transfer::{Convert, Outward};

/// The seal of an image, and the parts that are needed to make its bytes.
struct Plan {
    seal: Arc<Seal>,
    /// For a shard that is sealed anew for the export.
    anew: Option<vram_seal::Sealer>,
}

/// Writes the image of a shard, makes it complete, and then appends its event. All of it happens
/// inside the shard's gate and while its GPU is not reset, so that the event comes before those of
/// whatever ends the shard or moves it.
fn export<S: Write>(
    core: &Core,
    shard: &SealedShard,
    mut sink: S,
    options: ExportOptions<'_>,
    complete: impl FnOnce(S) -> Result<Option<PathBuf>, VramError>,
) -> Result<ImageReport, VramError> {
    core.shared(shard, |entry| {
        let view = entry.view()?;
        let report = export_entry(core, entry, &mut sink, options)?;
        let path = complete(sink)?;
        let (at, gpu, bytes) = (core.events.now(), view.gpu.index, report.image_len);
        let exported = path.map(|path| Arc::new(Exported { path, record: report.record.clone() }));
        entry.change(|state, told| {
            state.copies.exported = exported.or_else(|| state.copies.exported.take());
            told.tell(at, EventKind::Exported { shard: entry.id.clone(), gpu, bytes });
        });
        Ok(report)
    })
}

/// Writes the image of a shard. The caller is inside its gate.
pub(crate) fn export_entry(
    core: &Core,
    entry: &Entry,
    sink: &mut dyn Write,
    options: ExportOptions<'_>,
) -> Result<ImageReport, VramError> {
    entry.not_quarantined()?;
    let view = entry.view()?;
    let watch = options.watch.begin(entry.plaintext_len)?;
    let plan = plan_export(core, entry, &view, options.plaintext)?;
    let head = image::head(&plan.seal.record(), plan.seal.opener.tags())?;
    sink.write_all(&head).map_err(sink_failed)?;
    drop(head);
    export_data(core, entry, &view, &plan, sink, &watch).map_err(|error| altered(entry, error))?;
    sink.flush().map_err(sink_failed)?;
    watch.finish();
    let fields = plan.seal.opener.fields().clone();
    let image_len = ByteLen::new(ImageLayout::for_fields(&fields).total_len());
    // The digest of the bytes in the image: they were compared with it.
    let (record, digest) = (plan.seal.record(), plan.seal.digest);
    Ok(ImageReport::new(record, fields, digest, image_len))
}

fn plan_export(
    core: &Core,
    entry: &Entry,
    view: &View,
    plaintext: bool,
) -> Result<Plan, VramError> {
    if view.seal.protection() == Protection::Encrypted || plaintext {
        return Ok(Plan { seal: Arc::clone(&view.seal), anew: None });
    }
    let params = view.seal.params.with_protection(Protection::Encrypted);
    let anew = Anew { params, key: view.seal.key_id() };
    let hashes = Arc::new(contents::content_hashes(entry, view)?);
    let seal = in_place::trial(core, entry, view, anew, &hashes);
    let seal = Arc::new(seal.map_err(|error| altered(entry, error))?);
    let sealer = contents::sealer(core, entry, anew, &hashes)?;
    Ok(Plan { seal, anew: Some(sealer) })
}

/// Writes the sealed bytes, run by run. The last run is written only if the content as a whole is
/// the one that was sealed, so no image is complete without that.
fn export_data(
    core: &Core,
    entry: &Entry,
    view: &View,
    plan: &Plan,
    sink: &mut dyn Write,
    watch: &Watch<'_>,
) -> Result<(), VramError> {
    let layout = *view.seal.opener.layout();
    let run = core.limits.segments_at_once(layout.segment_size().bytes());
    let longest = layout.span(&(0..run.min(layout.count()))).map(ByteRange::len);
    let mut buffer = Zeroizing::new(zeroed(longest.unwrap_or(ByteLen::ZERO))?);
    // The record and the table already cover each of these segments, so nothing is stored.
    let keep = |_segment, _sealed| Ok(());
    let hashes = Hashes::new(&layout)?;
    let how = match &plan.anew {
        None => Outward::AsTheyAre { hashes: Some(&hashes) },
        Some(sealer) => {
            Outward::Anew { convert: Convert { from: &view.seal.opener, to: sealer }, keep: &keep }
        }
    };
    let mut next = 0;
    while next < layout.count() {
        watch.go_on()?;
        // Another reader may have put the shard into quarantine in the meantime.
        entry.not_quarantined()?;
        let segments = next..next.saturating_add(run).min(layout.count());
        next = segments.end;
        let wanted = layout.span(&segments).map_or(ByteLen::ZERO, ByteRange::len);
        let bytes = wanted.to_usize().and_then(|len| buffer.get_mut(..len));
        let bytes = bytes.ok_or(VramError::HostMemory { wanted })?;
        view.copy_out(segments, bytes, &how)?;
        // A sealer that seals anew has compared each segment with hashes that were checked before.
        if next == layout.count() && plan.anew.is_none() {
            check_content(&view.seal, &hashes)?;
        }
        sink.write_all(bytes).map_err(sink_failed)?;
        watch.advance(wanted);
    }
    Ok(())
}

/// Compares the content as a whole with the record: good tags alone do not bind it against a holder
/// of the key.
fn check_content(seal: &Seal, hashes: &Hashes) -> Result<(), SealError> {
    let digest = hashes.check_digest(&seal.opener)?;
    if digest == seal.digest { Ok(()) } else { Err(SealError::DigestMismatch) }
}

fn sink_failed(error: io::Error) -> VramError {
    VramError::Io { action: "write the sealed image", path: None, source: Arc::new(error) }
}

/// Exports a shard to a sink, and emits the event.
pub fn export_with(
    core: &Core,
    shard: &SealedShard,
    sink: &mut dyn Write,
    options: ExportOptions<'_>,
) -> Result<ImageReport, VramError> {
    export(core, shard, sink, options, |_sink| Ok(None))
}

/// Exports a shard to a file, and records its path for a later restore. The file is complete or
/// does not exist.
pub fn export_to(
    core: &Core,
    shard: &SealedShard,
    target: &Path,
    options: ExportOptions<'_>,
) -> Result<ImageReport, VramError> {
    let failed = |action| {
        move |error: io::Error| VramError::Io {
            action,
            path: Some(target.to_path_buf()),
            source: Arc::new(error),
        }
    };
    // Check the handle first: a bad handle must not create a file.
    core.resolve(shard)?;
    let permissions = if options.plaintext { 0o600 } else { 0o666 };
    let file = Inputs::default()
        .with_paths(&options.inputs)
        .and_then(|inputs| WholeFile::create(target, permissions, options.overwrite, inputs))
        .map_err(failed("create the sealed image"))?;
    // The process may have another working directory when the path is used.
    let path = std::path::absolute(target).unwrap_or_else(|_unknown| target.to_path_buf());
    let exported = export(core, shard, file, options, |file| {
        file.publish().map_err(failed("finish the sealed image"))?;
        Ok(Some(path))
    });
    exported.map_err(|error| error.in_file(target))
}
