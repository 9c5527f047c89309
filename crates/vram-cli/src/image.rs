//! Sealed images: `vram seal`, `unseal` and `verify`.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::time::Instant;

use vram_residency::{
    ByteLen, Expected, FileSource, ImageOptions, KeyRing, Overwrite, Progress, SealContext,
    SealError, SealParams, SivScope, VramError, seal_image, unseal_image, verify_image,
};

use crate::args::{BoundArgs, ExpectArgs, Mode, SealArgs, UnsealArgs, VerifyArgs};
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::progress::Bar;
use crate::{interrupt, keys, table};

/// Longest description that `--metadata` takes: it describes content, and is not content.
const METADATA_LEN_MAX: u64 = 64 << 20;
/// Bytes of the record that an image begins with.
const RECORD_LEN: u64 = 256;

/// `vram seal`: a file becomes an image. Prints the file's digest as `b3sum` does.
pub(crate) fn seal(args: &SealArgs, output: &mut Output) -> Result<(), Failure> {
    let key = keys::load(&args.key_file)?;
    let bound = Bound::read(&args.bound)?;
    refuse_same_file(&args.file, &args.output)?;

    let mut context = SealContext::new(&args.model_id)
        .map_err(|error| Failure::input(format!("--model-id: {error}")))?
        .shard_index(args.bound.shard_index.unwrap_or_default())
        .revision(args.bound.revision.unwrap_or_default());
    if let Some(text) = &args.bound.context {
        context = context.context(text.as_bytes());
    }
    if let Some(metadata) = &bound.metadata {
        context = context.metadata(metadata);
    }
    let source = FileSource::open(&args.file)
        .map_err(|error| Failure::input(error.to_string()).hint("give a file that can be read"))?;

    let started = Instant::now();
    let bar = BytesBar::new("seal");
    let options = options(&bar)?.overwrite(Overwrite::Replace);
    let report =
        seal_image(&key, &context, params(args), &source, &args.output, options).map_err(failed)?;
    drop(bar);

    let len = report.fields.plaintext_len();
    note(format!(
        "sealed {} into {}: {} at {:.2} GB/s, key {}",
        args.file.display(),
        args.output.display(),
        table::size(report.image_len),
        table::gb_per_s(len, started.elapsed()),
        key.id(),
    ));
    output.digest(&report.digest, &args.file)
}

/// `vram unseal`: an image becomes the file it was made of. Prints that file's digest.
pub(crate) fn unseal(args: &UnsealArgs, output: &mut Output) -> Result<(), Failure> {
    let keys = KeyRing::new(keys::load(&args.key_file)?);
    let bound = Bound::read(&args.expect.bound)?;
    let expected = bound.expected(&args.expect)?;
    refuse_same_file(&args.image, &args.output)?;

    let started = Instant::now();
    let bar = BytesBar::new("unseal");
    let options = options(&bar)?.overwrite(Overwrite::Replace);
    let report =
        unseal_image(&keys, &expected, &args.image, &args.output, options).map_err(failed)?;
    drop(bar);

    let len = report.fields.plaintext_len();
    note(format!(
        "opened {} into {}: {} at {:.2} GB/s",
        args.image.display(),
        args.output.display(),
        table::size(len),
        table::gb_per_s(len, started.elapsed()),
    ));
    output.digest(&report.digest, &args.output)
}

/// `vram verify`: says whether every byte of an image is what was sealed, and which are not.
pub(crate) fn verify(args: &VerifyArgs, output: &mut Output) -> Result<(), Failure> {
    /// Altered segments listed; the rest is counted.
    const LISTED_MAX: usize = 16;

    let keys = KeyRing::new(keys::load(&args.key_file)?);
    let bound = Bound::read(&args.expect.bound)?;
    let expected = bound.expected(&args.expect)?;

    let started = Instant::now();
    let bar = BytesBar::new("verify");
    let verdict = verify_image(&keys, &expected, &args.image, options(&bar)?).map_err(failed)?;
    drop(bar);

    let image = args.image.display();
    let len = verdict.fields.plaintext_len();
    if let Some(digest) = verdict.digest {
        note(format!("verified at {:.2} GB/s", table::gb_per_s(len, started.elapsed())));
        return output.line(format!(
            "{image}: sound, {} in {} segments, content BLAKE3 {digest}",
            table::size(len),
            verdict.fields.segment_count(),
        ));
    }
    for one in verdict.altered.iter().take(LISTED_MAX) {
        let (start, end) = (one.start, one.start.saturating_add(one.len));
        output.line(format!(
            "{image}: altered: segment {}, bytes {start}..{end} of the content",
            one.segment
        ))?;
    }
    let (found, all) = (verdict.altered.len(), verdict.fields.segment_count());
    if found > LISTED_MAX {
        let more = found.saturating_sub(LISTED_MAX);
        output.line(format!("{image}: altered: {more} more segments"))?;
    }
    Err(Failure::integrity(format!("{image} was altered: {found} of {all} segments"))
        .hint("fetch the image again, or seal its source anew"))
}

/// What was asked for, less what an authenticated image has no use for.
fn params(args: &SealArgs) -> SealParams {
    let params = SealParams::new().with_protection(args.mode.into()).with_segment(args.segment);
    if args.mode == Mode::Authenticated {
        if args.scope.is_some() || args.suite.is_some() {
            note("--scope and --suite do not apply to --mode authenticated");
        }
        return params;
    }
    // A file may change while it is read, so it is read once unless asked otherwise.
    let params = params.with_scope(args.scope.map_or(SivScope::Segment, Into::into));
    match args.suite {
        Some(suite) => params.with_suite(suite.into()),
        None => params,
    }
}

/// Options that every image command shares.
fn options(bar: &BytesBar) -> Result<ImageOptions<'_>, Failure> {
    Ok(ImageOptions::new().progress(|progress| bar.show(progress)).cancel(interrupt::token()?))
}

/// What of `--metadata` and friends has to be read before it can be used.
struct Bound {
    metadata: Option<Vec<u8>>,
}

impl Bound {
    fn read(args: &BoundArgs) -> Result<Self, Failure> {
        let metadata = args.metadata.as_deref().map(read_metadata).transpose()?;
        Ok(Self { metadata })
    }

    /// What an image has to be, as far as the command line says.
    fn expected<'a>(&'a self, args: &'a ExpectArgs) -> Result<Expected<'a>, Failure> {
        let mut expected = match &args.model_id {
            Some(model_id) => Expected::new(model_id)
                .map_err(|error| Failure::input(format!("--model-id: {error}")))?,
            // The key proves who sealed it; as which model is then taken on trust.
            None if args.bound.context.is_none() => Expected::anything(),
            None => {
                return Err(Failure::input("--context is compared together with the model")
                    .hint("give --model-id as well"));
            }
        };
        if let Some(text) = &args.bound.context {
            expected = expected.context(text.as_bytes());
        }
        if let Some(metadata) = &self.metadata {
            expected = expected.metadata(metadata);
        }
        if let Some(index) = args.bound.shard_index {
            expected = expected.shard_index(index);
        }
        if let Some(revision) = args.bound.revision {
            expected = expected.revision(revision);
        }
        Ok(expected)
    }
}

fn read_metadata(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::file("read the metadata in", path, &error);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    // One byte more than allowed tells a file that is too long from one that just fits.
    let read =
        file.take(METADATA_LEN_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if ByteLen::from_usize(read).get() > METADATA_LEN_MAX {
        let max = table::size(ByteLen::new(METADATA_LEN_MAX));
        return Err(Failure::input(format!("{} is longer than {max}", path.display()))
            .hint("metadata describes content: give its digest or a summary instead"));
    }
    Ok(bytes)
}

/// Refuses to write over what is being read.
fn refuse_same_file(input: &Path, output: &Path) -> Result<(), Failure> {
    let same = match (fs::canonicalize(input), fs::canonicalize(output)) {
        (Ok(input), Ok(output)) => input == output,
        // One of them does not exist, or cannot be asked: opening it will tell.
        _ => false,
    };
    if same {
        return Err(Failure::input(format!("{} would be written over itself", input.display()))
            .hint("give another --output"));
    }
    Ok(())
}

/// A failure of an image command, with what to do about it.
fn failed(error: VramError) -> Failure {
    match &error {
        VramError::Image { source, .. } => match **source {
            // Once the record is proven, it proves how long the file has to be.
            SealError::WrongLength { expected, .. } if expected > RECORD_LEN => {
                Failure::integrity(error.to_string())
                    .hint("it was cut short or added to: fetch it again")
            }
            SealError::RecordMismatch => {
                Failure::from(error).hint("fetch the image again, or check the key file")
            }
            _ => error.into(),
        },
        VramError::Io { .. } => {
            Failure::from(error).hint("check the path, its permissions and the space left")
        }
        _ => error.into(),
    }
}

/// A bar whose length is known once the work has begun.
#[derive(Debug)]
struct BytesBar {
    bar: Bar,
}

impl BytesBar {
    fn new(phase: &'static str) -> Self {
        Self { bar: Bar::new(phase, ByteLen::ZERO) }
    }

    fn show(&self, progress: Progress) {
        self.bar.set_total(progress.total);
        self.bar.set(progress.done);
    }
}
