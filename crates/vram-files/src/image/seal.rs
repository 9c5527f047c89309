//! Writing a sealed image.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_seal::{
    ContentDigest, ExpectedDigest, Fresh, Hashes, ImageLayout, Protection, Scratch, SealContext,
    SealError, SealKey, SealParams, Sealed, Sealer, SegmentCollector, Threads, image, merge_digest,
    parallel,
};

use super::feed::SegmentFeed;
use super::read::{io_failed, sink_failed};
use super::{ImageOptions, ImageReport, segment_buffer};
use crate::error::FileError;
use crate::progress::Watch;
use crate::source::{Access, HashInOrder, Source};
use crate::whole_file::{Inputs, WholeFile, nameless};

/// Bytes copied to a writer at a time.
const COPY_LEN: usize = 64 << 10;

/// Seals the bytes of `source` into a file.
///
/// In scope Shard the call reads the source twice, and compares each segment of the second pass
/// with the first before it encrypts it. In scope Segment, and in mode Authenticated, it reads the
/// source once. The image of an authenticated shard holds plaintext, so only its owner may read it
/// (mode 0600). Other images follow the process's umask.
///
/// # Arguments
///
/// * `target`: the file to write. It appears whole, or not at all. The call never replaces the
///   source, if it is a file, nor an [input](ImageOptions::input), with any options.
///
/// # Errors
///
/// [`FileError::SourceLength`], [`FileError::SourceChanged`] or [`FileError::Source`] for the source;
/// [`FileError::DigestMismatch`] if the caller expected another digest; [`FileError::Config`] for
/// scope Shard with a source that can be read only once; [`FileError::Io`] for the target;
/// [`FileError::Cancelled`]; [`FileError::LimitExceeded`]. No file is left behind.
///
/// # Panics
///
/// If the source or the progress callback panics, with their payload; no file is left behind.
#[tracing::instrument(level = "info", skip_all, fields(bytes = source.len()))]
pub fn seal_image(
    key: &SealKey,
    context: &SealContext<'_>,
    params: SealParams,
    source: &dyn Source,
    target: &Path,
    mut options: ImageOptions<'_>,
) -> Result<ImageReport, FileError> {
    let fresh = fresh(key, context, params, source, &options)?;
    let permissions = match params.protection() {
        Protection::Authenticated => 0o600,
        _ => 0o666,
    };
    let file = inputs(source, &options)
        .and_then(|inputs| WholeFile::create(target, permissions, options.overwrite, inputs))
        .map_err(|error| io_failed("create the sealed image", target, error))?;
    let name = target.display().to_string();
    let watch = watch(&fresh, &mut options);
    let job = Job::new(source, &fresh, &options, &name, file.file(), target);
    let report = job.image(fresh, &watch)?;
    // Before the file has its name: if the callback panics, no file is left behind.
    watch.finish();
    file.publish().map_err(|error| io_failed("finish the sealed image", target, error))?;
    Ok(report)
}

/// Seals the bytes of `source` into a writer, such as a pipe.
///
/// An image begins with the tags of all its segments, so the call writes nothing before it has
/// sealed the last byte. Until then the image is a file without a name in the folder for temporary
/// files (`TMPDIR`), which only this process can reach.
///
/// # Errors
///
/// As [`seal_image`]; [`FileError::Io`] without a path if the sink fails. The sink has then
/// received the beginning of an image that no key opens.
///
/// # Panics
///
/// If the source, the sink or the progress callback panics, with their payload.
///
/// # Examples
///
/// ```
/// use vram_files::{ImageOptions, SliceSource, seal_image_to};
/// use vram_seal::{SealContext, SealKey, SealParams};
///
/// let key = SealKey::from_bytes(&[7; 32]);
/// let context = SealContext::new("llama-3-8b")?;
/// let source = SliceSource::new(b"weights");
/// let mut image = Vec::new();
/// seal_image_to(&key, &context, SealParams::new(), &source, &mut image, ImageOptions::new())?;
/// assert_eq!(image.len(), 4096 + 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[tracing::instrument(level = "info", skip_all, fields(bytes = source.len()))]
pub fn seal_image_to(
    key: &SealKey,
    context: &SealContext<'_>,
    params: SealParams,
    source: &dyn Source,
    mut sink: impl Write,
    mut options: ImageOptions<'_>,
) -> Result<ImageReport, FileError> {
    let fresh = fresh(key, context, params, source, &options)?;
    let watch = watch(&fresh, &mut options);
    let (file, report) = seal_nameless(source, fresh, &options, &watch)?;
    let folder = std::env::temp_dir();
    let failed = |error| io_failed("write the sealed image in", &folder, error);
    copy_out(&file, report.image_len, &watch, &failed, &mut sink)?;
    sink.flush().map_err(sink_failed)?;
    watch.finish();
    Ok(report)
}

/// Seals the bytes of `source` into a file without a name, in the folder for temporary files
/// (`TMPDIR`): for a caller that sends the image elsewhere. Only this process can reach the file, and
/// a killed process leaves nothing.
///
/// # Errors
///
/// As [`seal_image`].
///
/// # Panics
///
/// If the source or the progress callback panics, with their payload.
#[tracing::instrument(level = "info", skip_all, fields(bytes = source.len()))]
pub fn seal_image_nameless(
    key: &SealKey,
    context: &SealContext<'_>,
    params: SealParams,
    source: &dyn Source,
    mut options: ImageOptions<'_>,
) -> Result<(File, ImageReport), FileError> {
    let fresh = fresh(key, context, params, source, &options)?;
    let watch = watch(&fresh, &mut options);
    let sealed = seal_nameless(source, fresh, &options, &watch)?;
    watch.finish();
    Ok(sealed)
}

fn seal_nameless(
    source: &dyn Source,
    fresh: Sealer<Fresh>,
    options: &ImageOptions<'_>,
    watch: &Watch<'_>,
) -> Result<(File, ImageReport), FileError> {
    let folder = std::env::temp_dir();
    let file =
        nameless().map_err(|error| io_failed("write the sealed image in", &folder, error))?;
    let job = Job::new(source, &fresh, options, "the sealed image", &file, &folder);
    let report = job.image(fresh, watch)?;
    Ok((file, report))
}

/// Copies the first `len` bytes of a file to a writer.
fn copy_out(
    file: &File,
    len: ByteLen,
    watch: &Watch<'_>,
    failed: &dyn Fn(io::Error) -> FileError,
    sink: &mut dyn Write,
) -> Result<(), FileError> {
    // An authenticated image holds plaintext, so the buffer is wiped.
    let wanted = ByteLen::from_usize(COPY_LEN);
    let mut buffer = Scratch::zeroed(COPY_LEN).ok_or(FileError::HostMemory { wanted })?;
    let mut at = 0_u64;
    while at < len.get() {
        watch.go_on()?;
        let left = usize::try_from(len.get().saturating_sub(at)).unwrap_or(usize::MAX);
        let bytes = buffer.get_mut(..left.min(COPY_LEN)).unwrap_or_default();
        file.read_exact_at(bytes, at).map_err(failed)?;
        sink.write_all(bytes).map_err(sink_failed)?;
        at = at.saturating_add(ByteLen::from_usize(bytes.len()).get());
    }
    Ok(())
}

/// Begins to seal, unless the source is too long or cannot be read as often as the parameters need.
fn fresh(
    key: &SealKey,
    context: &SealContext<'_>,
    params: SealParams,
    source: &dyn Source,
    options: &ImageOptions<'_>,
) -> Result<Sealer<Fresh>, FileError> {
    let len = ByteLen::new(source.len());
    if let Some(limit) = options.len_max.filter(|limit| len > *limit) {
        let what = "the length of a sealed image's content, in bytes";
        return Err(FileError::LimitExceeded { what, limit: limit.get(), wanted: len.get() });
    }
    let fresh = Sealer::new(key, context, params, len)?;
    if fresh.needs_digest_first() && source.access() == Access::Sequential {
        return Err(FileError::config(
            "scope Shard reads its source twice, and this one can be read only once: use scope \
             Segment",
        ));
    }
    Ok(fresh)
}

/// The files that the call must not replace.
fn inputs(source: &dyn Source, options: &ImageOptions<'_>) -> io::Result<Inputs> {
    let inputs = Inputs::default().with_paths(&options.inputs)?;
    match (source.file_state(), source.as_file()) {
        (Some(state), _) => Ok(inputs.with_state(&state)),
        (None, Some(file)) => inputs.with_file(file),
        (None, None) => Ok(inputs),
    }
}

/// Makes the [`Watch`] for one or two passes over the source.
fn watch<'a>(fresh: &Sealer<Fresh>, options: &mut ImageOptions<'a>) -> Watch<'a> {
    let len = fresh.layout().plaintext_len();
    options.watch(if fresh.needs_digest_first() { len.saturating_add(len) } else { len })
}

/// The values that both passes over the source need.
struct Job<'a> {
    source: &'a dyn Source,
    threads: Threads,
    expected: Option<ExpectedDigest>,
    /// For an expected digest that needs the bytes in order.
    hash: Option<HashInOrder>,
    /// The name of the content in errors.
    name: &'a str,
    /// The image file.
    file: &'a File,
    /// The name of the image in errors.
    target: &'a Path,
}

impl<'a> Job<'a> {
    fn new(
        source: &'a dyn Source,
        fresh: &Sealer<Fresh>,
        options: &ImageOptions<'_>,
        name: &'a str,
        file: &'a File,
        target: &'a Path,
    ) -> Self {
        let threads = options.threads_for(fresh.layout());
        let expected = options.expected;
        let len = fresh.layout().plaintext_len().get();
        let hash = HashInOrder::for_expected(expected.as_ref(), len);
        Self { source, threads, expected, hash, name, file, target }
    }

    /// Writes the whole image.
    fn image(&self, fresh: Sealer<Fresh>, watch: &Watch<'_>) -> Result<ImageReport, FileError> {
        let made = self.run(fresh, watch)?;
        let head = image::head(&made.record, &made.tags)?;
        self.write(&head, 0)?;
        let fields = made.record.parse_unauthenticated()?;
        let image_len = ByteLen::new(ImageLayout::for_fields(&fields).total_len());
        Ok(ImageReport { record: made.record, fields, digest: made.digest, image_len })
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), FileError> {
        let failed = |error| io_failed("write the sealed image", self.target, error);
        self.file.write_all_at(bytes, at).map_err(failed)
    }

    fn run(&self, fresh: Sealer<Fresh>, watch: &Watch<'_>) -> Result<Sealed, FileError> {
        let two_passes = fresh.needs_digest_first();
        let sealer = fresh.begin(|fresh| {
            let hashes = self.hash(fresh, watch)?;
            // Checked before the first byte is written: a wrong file costs one pass, not two.
            let digest = merge_digest(&hashes, fresh.layout())?;
            self.check_expected(digest)?;
            Ok::<_, FileError>(hashes)
        })?;

        let layout = *sealer.layout();
        let data_offset = ImageLayout::for_fields(sealer.fields()).data_offset();
        let feed = SegmentFeed::new(self.source, layout, self.hash.as_ref());
        let collector = SegmentCollector::new(sealer)?;
        let work = |buffer: &mut Scratch, queued| -> Result<(), FileError> {
            watch.go_on()?;
            let (segment, len) =
                feed.fill(queued, buffer).map_err(|error| error.while_sealing(self.name))?;
            let bytes = buffer.get_mut(..len).unwrap_or_default();
            let outcome = collector.sealer().seal_segment(segment, bytes);
            let done = outcome.map_err(|error| match error {
                SealError::SourceChanged { segment } => {
                    FileError::SourceChanged { model_id: Arc::from(self.name), segment }
                }
                other => other.into(),
            })?;
            let start = layout.range(segment).map_or(0, |range| range.start().get());
            self.write(bytes, data_offset.saturating_add(start))?;
            collector.put(segment, done)?;
            watch.advance(ByteLen::from_usize(len));
            Ok(())
        };
        parallel::for_each_segment(self.threads, layout.count(), || segment_buffer(&layout), work)?;
        let made = collector.finish()?;
        if !two_passes {
            self.check_expected(made.digest)?;
        }
        self.finish(self.expected.is_some())?;
        Ok(made)
    }

    /// Compares what one pass read with the digest that the caller expects.
    fn check_expected(&self, found: ContentDigest) -> Result<(), FileError> {
        let expected = self.expected.as_ref();
        let Some((expected, found)) = HashInOrder::difference(expected, found, self.hash.as_ref())
        else {
            return Ok(());
        };
        // A file that was written meanwhile is told as that.
        self.finish(false)?;
        Err(FileError::DigestMismatch {
            model_id: Arc::from(self.name),
            expected: Box::new(expected),
            found: Box::new(found),
        })
    }

    /// Asks the source whether it is what it was. `proven`: what was read has the expected digest, so
    /// a file that was written meanwhile does no harm.
    fn finish(&self, proven: bool) -> Result<(), FileError> {
        match self.source.finish() {
            Err(error) if proven && error.is_change() => Ok(()),
            answer => answer.map_err(|error| error.while_sealing(self.name)),
        }
    }

    /// The first pass of scope Shard.
    fn hash(
        &self,
        fresh: &Sealer<Fresh>,
        watch: &Watch<'_>,
    ) -> Result<Vec<vram_seal::SegmentHash>, FileError> {
        let layout = *fresh.layout();
        let feed = SegmentFeed::new(self.source, layout, self.hash.as_ref());
        let hashes = Hashes::new(&layout)?;
        let work = |buffer: &mut Scratch, queued| -> Result<(), FileError> {
            watch.go_on()?;
            let (segment, len) =
                feed.fill(queued, buffer).map_err(|error| error.while_sealing(self.name))?;
            let bytes = buffer.get(..len).unwrap_or_default();
            hashes.put(segment, fresh.hash_segment(segment, bytes)?);
            watch.advance(ByteLen::from_usize(len));
            Ok(())
        };
        parallel::for_each_segment(self.threads, layout.count(), || segment_buffer(&layout), work)?;
        Ok(hashes.into_vec())
    }
}
