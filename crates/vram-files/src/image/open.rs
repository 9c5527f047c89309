//! Opening and verifying a sealed image.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use vram_alloc::ByteRange;
use vram_seal::{
    ContentDigest, Expected, ExpectedDigest, Hashes, KeyRing, OpenLimits, Scratch, SealError,
    SegmentLayout, SegmentSpan, SivScope, Threads, open_and_hash, parallel,
};

use super::read::{ImageFile, OpenImage, io_failed, sink_failed};
use super::{ImageOptions, ImageReport, ImageVerdict, segment_buffer};
use crate::error::FileError;
use crate::source::HashInOrder;
use crate::sync::{Mutex, lock};
use crate::whole_file::{Inputs, WholeFile};

/// Opens a sealed image into a file of mode 0600 that appears whole, or not at all.
///
/// The call authenticates every segment before it writes a byte of it, and at the end compares the
/// content as a whole with the record.
///
/// # Arguments
///
/// * `keys`: the record names the key that it needs.
/// * `expected`: what the image must be. See [`Expected`].
/// * `target`: the file to write. The call never replaces the image nor an
///   [input](ImageOptions::input), with any options.
///
/// # Errors
///
/// [`FileError::Image`] naming the image and what is wrong with it: no image, another version,
/// another key, another model, altered (and where). [`FileError::DigestMismatch`] if the caller
/// expected another digest; [`FileError::Source`] if the image was written while it was read, and the
/// caller expected no digest; [`FileError::Io`] for either file; [`FileError::Cancelled`]. No file is
/// left behind.
///
/// # Panics
///
/// If the progress callback panics, with its payload; no file is left behind.
#[tracing::instrument(level = "info", skip_all)]
pub fn unseal_image(
    keys: &KeyRing,
    expected: &Expected<'_>,
    image: &Path,
    target: &Path,
    mut options: ImageOptions<'_>,
) -> Result<ImageReport, FileError> {
    let image = open(keys, expected, image, &options)?;
    let file = Inputs::default()
        .with_paths(&options.inputs)
        .and_then(|inputs| inputs.with_file(image.file().as_file()))
        .and_then(|inputs| WholeFile::create(target, 0o600, options.overwrite, inputs))
        .map_err(|error| io_failed("create", target, error))?;
    let opener = image.opener();
    let layout = *opener.layout();
    let hashes = Hashes::new(&layout)?;
    let watch = options.watch(layout.plaintext_len());
    let content = Content::expected(&options, &layout);

    let work = |buffer: &mut Scratch, segment| -> Result<(), FileError> {
        watch.go_on()?;
        let Some(range) = layout.range(segment) else { return Ok(()) };
        let bytes = image.sealed(range, buffer)?;
        let refused = |error| image.file().refused(error);
        hashes.put(segment, open_and_hash(opener, segment, bytes).map_err(refused)?);
        content.take(range, bytes);
        file.file()
            .write_all_at(bytes, range.start().get())
            .map_err(|error| io_failed("write", target, error))?;
        watch.advance(range.len());
        Ok(())
    };
    let threads = content.threads(&options, &layout);
    parallel::for_each_segment(threads, layout.count(), || segment_buffer(&layout), work)?;

    let digest =
        opener.check_digest(&hashes.into_vec()).map_err(|error| image.file().refused(error))?;
    check_expected(&image, &content, digest)?;
    // Before the file has its name: if the callback panics, no file is left behind.
    watch.finish();
    file.publish().map_err(|error| io_failed("finish", target, error))?;
    Ok(ImageReport {
        record: image.file().record().clone(),
        fields: image.fields().clone(),
        digest,
        image_len: image.file().len(),
    })
}

/// Verifies every byte of a sealed image, and names the segments that were altered.
///
/// # Returns
///
/// A verdict, sound or not. Altered segments are a verdict, not an error. Content whose tags are all
/// good, but which is not the content of the record, is one as well in scope Segment, and
/// [`SealError::DigestMismatch`] in scope Shard, which binds only the whole.
///
/// # Errors
///
/// As [`unseal_image`], for what makes verifying impossible: the record, the length, the padding or
/// the table is wrong, or the file cannot be read. [`FileError::DigestMismatch`] if the content is
/// sound, but the caller expected another digest.
#[tracing::instrument(level = "info", skip_all)]
pub fn verify_image(
    keys: &KeyRing,
    expected: &Expected<'_>,
    image: &Path,
    mut options: ImageOptions<'_>,
) -> Result<ImageVerdict, FileError> {
    let image = open(keys, expected, image, &options)?;
    let opener = image.opener();
    let layout = *opener.layout();
    let hashes = Hashes::new(&layout)?;
    let altered = Mutex::new(Vec::new());
    let watch = options.watch(layout.plaintext_len());
    let content = Content::expected(&options, &layout);

    let work = |buffer: &mut Scratch, segment| -> Result<(), FileError> {
        watch.go_on()?;
        let Some(range) = layout.range(segment) else { return Ok(()) };
        let bytes = image.sealed(range, buffer)?;
        let found = open_and_hash(opener, segment, bytes).and_then(|hash| {
            // A second body of the key's holder has a good tag. Where the table binds the content of
            // each segment, it is named like any other alteration.
            if opener.fields().scope() == Some(SivScope::Segment) {
                opener.check_hash(segment, &hash)?;
            }
            Ok(hash)
        });
        match found {
            Ok(hash) => {
                hashes.put(segment, hash);
                content.take(range, bytes);
            }
            Err(SealError::SegmentMismatch { .. }) => {
                lock(&altered).push(SegmentSpan::new(segment, range));
            }
            Err(other) => return Err(image.file().refused(other)),
        }
        watch.advance(range.len());
        Ok(())
    };
    let threads = content.threads(&options, &layout);
    parallel::for_each_segment(threads, layout.count(), || segment_buffer(&layout), work)?;

    let mut altered = altered.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    altered.sort_unstable_by_key(|one| one.segment);
    let digest = if altered.is_empty() {
        let digest =
            opener.check_digest(&hashes.into_vec()).map_err(|error| image.file().refused(error))?;
        check_expected(&image, &content, digest)?;
        Some(digest)
    } else {
        image.file().unchanged()?;
        None
    };
    watch.finish();
    Ok(ImageVerdict { fields: image.fields().clone(), altered, digest })
}

/// Opens a sealed image into a writer, such as a pipe, which receives all of it or nothing.
///
/// The call reads the image twice: it verifies every byte before it writes the first one, and keeps
/// the hash of each segment. On the way out it opens each segment again, and compares its hash: the
/// sink receives only bytes of the content whose digest was checked. One thread writes, in order.
///
/// # Errors
///
/// As [`unseal_image`], for the image; [`FileError::Io`] without a path if the sink fails. If the
/// sink fails, or the file changes after it was verified, the sink has received the beginning of the
/// content, and nothing else.
///
/// # Panics
///
/// If the sink or the progress callback panics, with its payload.
#[tracing::instrument(level = "info", skip_all)]
pub fn unseal_image_to(
    keys: &KeyRing,
    expected: &Expected<'_>,
    image: &Path,
    mut sink: impl Write,
    mut options: ImageOptions<'_>,
) -> Result<ImageReport, FileError> {
    let image = open(keys, expected, image, &options)?;
    let opener = image.opener();
    let layout = *opener.layout();
    let refused = |error| image.file().refused(error);
    let hashes = Hashes::new(&layout)?;
    let len = layout.plaintext_len();
    let watch = options.watch(len.saturating_add(len));
    let content = Content::expected(&options, &layout);

    let work = |buffer: &mut Scratch, segment| -> Result<(), FileError> {
        watch.go_on()?;
        let Some(range) = layout.range(segment) else { return Ok(()) };
        let bytes = image.sealed(range, buffer)?;
        hashes.put(segment, open_and_hash(opener, segment, bytes).map_err(refused)?);
        content.take(range, bytes);
        watch.advance(range.len());
        Ok(())
    };
    let threads = content.threads(&options, &layout);
    parallel::for_each_segment(threads, layout.count(), || segment_buffer(&layout), work)?;
    let hashes = hashes.into_vec();
    let digest = opener.check_digest(&hashes).map_err(refused)?;
    check_expected(&image, &content, digest)?;

    let mut buffer = segment_buffer(&layout)?;
    for (segment, verified) in (0..layout.count()).zip(&hashes) {
        watch.go_on()?;
        let Some(range) = layout.range(segment) else { continue };
        let bytes = image.sealed(range, &mut buffer)?;
        // A good tag is not enough: a holder of the key can put a second body with the same tags in
        // place after the first pass.
        if open_and_hash(opener, segment, bytes).map_err(refused)? != *verified {
            return Err(refused(SealError::SegmentMismatch { segment }));
        }
        sink.write_all(bytes).map_err(sink_failed)?;
        watch.advance(range.len());
    }
    sink.flush().map_err(sink_failed)?;
    watch.finish();
    Ok(ImageReport {
        record: image.file().record().clone(),
        fields: image.fields().clone(),
        digest,
        image_len: image.file().len(),
    })
}

/// The content that the caller expects, by its digest.
struct Content {
    expected: Option<ExpectedDigest>,
    /// For a digest that needs the bytes in order.
    hash: Option<HashInOrder>,
}

impl Content {
    fn expected(options: &ImageOptions<'_>, layout: &SegmentLayout) -> Self {
        let expected = options.expected;
        let hash = HashInOrder::for_expected(expected.as_ref(), layout.plaintext_len().get());
        Self { expected, hash }
    }

    /// One thread opens the segments in order.
    fn threads(&self, options: &ImageOptions<'_>, layout: &SegmentLayout) -> Threads {
        if self.hash.is_some() { Threads::exactly(1) } else { options.threads_for(layout) }
    }

    /// Takes an opened segment.
    fn take(&self, range: ByteRange, bytes: &[u8]) {
        if let Some(hash) = &self.hash {
            hash.take(range.start().get(), bytes);
        }
    }
}

/// Compares the content with the digest that the caller expects. Without one, the file must not have
/// been written since it was opened.
fn check_expected(
    image: &OpenImage,
    content: &Content,
    digest: ContentDigest,
) -> Result<(), FileError> {
    let expected = content.expected.as_ref();
    match HashInOrder::difference(expected, digest, content.hash.as_ref()) {
        None if expected.is_some() => Ok(()),
        None => image.file().unchanged(),
        Some((expected, found)) => {
            image.file().unchanged()?;
            Err(FileError::DigestMismatch {
                model_id: Arc::from(image.file().name().as_str()),
                expected: Box::new(expected),
                found: Box::new(found),
            })
        }
    }
}

fn open(
    keys: &KeyRing,
    expected: &Expected<'_>,
    image: &Path,
    options: &ImageOptions<'_>,
) -> Result<OpenImage, FileError> {
    let mut limits = OpenLimits::default();
    if let Some(max_len) = options.len_max {
        limits.max_len = max_len.min(limits.max_len);
    }
    ImageFile::open(image)?.authenticate(keys, expected, limits)
}
