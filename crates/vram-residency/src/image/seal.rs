//! Writing a sealed image.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_seal::{
    ImageLayout, Protection, SealContext, SealError, SealKey, SealParams, Sealed, Sealer,
    SegmentCollector, Threads, image, merge_digest, parallel,
};
use zeroize::Zeroizing;

use super::feed::Feed;
use super::read::io_failed;
use super::{ImageOptions, ImageReport, segment_buffer};
use crate::error::VramError;
use crate::progress::Watch;
use crate::source::{Access, Source};
use crate::transfer::hashes::Hashes;
use crate::whole_file::WholeFile;

/// Seals the bytes of `source` into a file.
///
/// In scope Shard the source is read twice, and each segment of the second pass is compared with
/// the first before it is encrypted; in scope Segment, and in mode Authenticated, it is read once.
/// The image of an authenticated shard holds plaintext: it is created for its owner alone (mode
/// 0600); others follow the process's mask.
///
/// # Arguments
///
/// * `target`: the file to write. It appears whole, or not at all.
///
/// # Errors
///
/// [`VramError::SourceLength`], [`VramError::SourceChanged`] or [`VramError::Io`] for the source;
/// [`VramError::DigestMismatch`] if another digest was expected; [`VramError::Config`] for a source
/// that can be read only once and scope Shard; [`VramError::Io`] for the target;
/// [`VramError::Cancelled`]; [`VramError::LimitExceeded`]. Nothing is left behind.
///
/// # Panics
///
/// If the source or the progress callback panics, with their payload; nothing is left behind.
#[tracing::instrument(level = "info", skip_all, fields(bytes = source.len()))]
pub fn seal_image(
    key: &SealKey,
    context: &SealContext<'_>,
    params: SealParams,
    source: &dyn Source,
    target: &Path,
    mut options: ImageOptions<'_>,
) -> Result<ImageReport, VramError> {
    let len = ByteLen::new(source.len());
    if let Some(limit) = options.len_max.filter(|limit| len > *limit) {
        let what = "the length of a sealed image's content, in bytes";
        return Err(VramError::LimitExceeded { what, limit: limit.get(), wanted: len.get() });
    }
    let sealer = Sealer::new(key, context, params, len)?;
    if sealer.needs_digest_first() && source.access() == Access::Sequential {
        return Err(VramError::config(
            "scope Shard reads its source twice, and this one can be read only once: use scope \
             Segment",
        ));
    }
    let permissions = match params.protection() {
        Protection::Authenticated => 0o600,
        _ => 0o666,
    };
    let file = WholeFile::create(target, permissions, options.overwrite)
        .map_err(|error| io_failed("create the sealed image", target, error))?;
    let name = target.display().to_string();
    let job = Job { source, threads: options.threads_for(sealer.layout()), name: &name };
    let total = if sealer.needs_digest_first() { len.saturating_add(len) } else { len };
    let watch = options.watch(total);

    let made = job.run(sealer, &file, options.expected_digest, &watch, target)?;
    let head = image::head(&made.record, &made.tags)?;
    file.file()
        .write_all_at(&head, 0)
        .map_err(|error| io_failed("write the sealed image", target, error))?;
    // Before the file has its name: a callback that panics must not leave one behind.
    watch.finish();
    file.publish().map_err(|error| io_failed("finish the sealed image", target, error))?;

    let fields = made.record.parse_unauthenticated()?;
    let image_len = ByteLen::new(ImageLayout::for_fields(&fields).total_len());
    Ok(ImageReport { record: made.record, fields, digest: made.digest, image_len })
}

/// What both passes over the source need.
struct Job<'a> {
    source: &'a dyn Source,
    threads: Threads,
    /// What errors call the content.
    name: &'a str,
}

impl Job<'_> {
    fn run(
        &self,
        mut sealer: Sealer,
        file: &WholeFile,
        expected: Option<vram_seal::ContentDigest>,
        watch: &Watch<'_>,
        target: &Path,
    ) -> Result<Sealed, VramError> {
        let mismatch = |expected: vram_seal::ContentDigest, found| VramError::DigestMismatch {
            model_id: Arc::from(self.name),
            expected: Box::new(expected),
            found: Box::new(found),
        };
        let mut first_pass = None;
        if sealer.needs_digest_first() {
            let hashes = self.hash(&sealer, watch)?;
            // Known before the first byte is written: a wrong file costs one pass, not two.
            let digest = merge_digest(&hashes, sealer.layout())?;
            if let Some(expected) = expected.filter(|expected| *expected != digest) {
                return Err(mismatch(expected, digest));
            }
            sealer.fix(&hashes)?;
            first_pass = Some(hashes);
        }

        let layout = *sealer.layout();
        let data_offset = ImageLayout::for_fields(sealer.fields()).data_offset();
        let feed = Feed::new(self.source, layout);
        let collector = SegmentCollector::new(&sealer)?;
        let work = |buffer: &mut Zeroizing<Vec<u8>>, queued| -> Result<(), VramError> {
            watch.go_on()?;
            let (segment, len) =
                feed.fill(queued, buffer).map_err(|error| error.while_sealing(self.name))?;
            let bytes = buffer.get_mut(..len).unwrap_or_default();
            let index = usize::try_from(segment).unwrap_or(usize::MAX);
            let outcome = match first_pass.as_ref().and_then(|hashes| hashes.get(index)) {
                Some(hash) => sealer.seal_segment_checked(segment, bytes, hash),
                None => sealer.seal_segment(segment, bytes),
            };
            let done = outcome.map_err(|error| match error {
                SealError::SourceChanged { segment } => {
                    VramError::SourceChanged { model_id: Arc::from(self.name), segment }
                }
                other => other.into(),
            })?;
            let start = layout.range(segment).map_or(0, |range| range.start().get());
            file.file()
                .write_all_at(bytes, data_offset.saturating_add(start))
                .map_err(|error| io_failed("write the sealed image", target, error))?;
            collector.put(segment, done)?;
            watch.advance(ByteLen::from_usize(len));
            Ok(())
        };
        parallel::for_each_segment(self.threads, layout.count(), || segment_buffer(&layout), work)?;
        self.source.finish().map_err(|error| error.while_sealing(self.name))?;
        let made = collector.finish(sealer)?;
        match expected.filter(|expected| *expected != made.digest) {
            Some(expected) => Err(mismatch(expected, made.digest)),
            None => Ok(made),
        }
    }

    /// The first pass of scope Shard.
    fn hash(
        &self,
        sealer: &Sealer,
        watch: &Watch<'_>,
    ) -> Result<Vec<vram_seal::SegmentHash>, VramError> {
        let layout = *sealer.layout();
        let feed = Feed::new(self.source, layout);
        let hashes = Hashes::new(&layout)?;
        let work = |buffer: &mut Zeroizing<Vec<u8>>, queued| -> Result<(), VramError> {
            watch.go_on()?;
            let (segment, len) =
                feed.fill(queued, buffer).map_err(|error| error.while_sealing(self.name))?;
            let bytes = buffer.get(..len).unwrap_or_default();
            hashes.put(segment, sealer.hash_segment(segment, bytes)?);
            watch.advance(ByteLen::from_usize(len));
            Ok(())
        };
        parallel::for_each_segment(self.threads, layout.count(), || segment_buffer(&layout), work)?;
        Ok(hashes.into_vec())
    }
}
