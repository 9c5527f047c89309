//! Sealed images: `vram seal` and `unseal`, and what `verify` shares with them.

use std::io::Read as _;
use std::path::Path;
use std::time::Instant;

use vram_residency::{
    ByteLen, CONTEXT_LEN_MAX, CancelToken, ContentDigest, Expected, FileState, ImageOptions,
    KeyRing, Overwrite, Progress, Protection, SealContext, SealError, SealParams, SivScope,
    regular_file, seal_image, seal_image_to, unseal_image, unseal_image_to,
};

use crate::args::{BoundArgs, ExpectArgs, ExpectedMode, Mode, SealArgs, UnsealArgs};
use crate::commands::keys;
use crate::commands::results::Done;
use crate::failure::Failure;
use crate::model::not_the_file;
use crate::output::{Output, digest_line, note};
use crate::progress::Bar;
use crate::{interrupt, streams, table};

/// `vram seal`: a file becomes an image. Prints the file's digest as `b3sum` does.
pub(crate) fn seal(args: &SealArgs, output: &mut Output) -> Result<(), Failure> {
    let keys::Given { key, file: key_file } = keys::load(&args.key, streams::is_dash(&args.file))?;
    let bound = Bound::read(&args.bound)?;

    let mut context = SealContext::new(&args.model_id)
        .map_err(|error| bad_model_id(&error))?
        .shard_index(args.bound.shard_index.unwrap_or_default())
        .revision(args.bound.revision.unwrap_or_default());
    if let Some(text) = &args.bound.context {
        context = context.context(text.as_bytes());
    }
    if let Some(metadata) = &bound.metadata {
        context = context.metadata(metadata);
    }
    let source = streams::source(&args.file)?;

    let started = Instant::now();
    let bar = BytesBar::new("seal");
    let inputs = inputs(&args.file, key_file.as_deref(), &args.bound);
    streams::output_is_none_of(&inputs)?;
    let options = options(&bar, &inputs, args.force, interrupt::token()?);
    let params = params(args);
    let report = if streams::is_dash(&args.output) {
        let sink = streams::output()?;
        seal_image_to(&key, &context, params, &source, sink, options)
    } else {
        seal_image(&key, &context, params, &source, &args.output, options)
    };
    let report = report.map_err(Failure::image)?;
    drop(bar);

    let len = report.fields.plaintext_len();
    if output.is_json() {
        let names = (streams::input_name(&args.file), streams::output_name(&args.output));
        return output.json(&Done::of(&report, names, started.elapsed()));
    }
    note(format!(
        "sealed {} into {}: {} at {:.2} GB/s, key {}",
        streams::input_name(&args.file),
        streams::output_name(&args.output),
        table::size(report.image_len),
        table::gb_per_s(len, started.elapsed()),
        key.id(),
    ));
    tell_digest(&report.digest, &args.file, &args.output, output)
}

/// `vram unseal`: an image becomes the file that it was made from. Prints that file's digest.
pub(crate) fn unseal(args: &UnsealArgs, output: &mut Output) -> Result<(), Failure> {
    let keys::Given { key, file: key_file } = keys::load(&args.key, streams::is_dash(&args.image))?;
    let keys = KeyRing::new(key);
    let bound = Bound::read(&args.expect.bound)?;
    let expected = bound.expected(&args.expect)?;
    let image = streams::Image::at(&args.image)?;

    let started = Instant::now();
    let bar = BytesBar::new("unseal");
    let inputs = inputs(&args.image, key_file.as_deref(), &args.expect.bound);
    streams::output_is_none_of(&inputs)?;
    let options = options(&bar, &inputs, args.force, interrupt::token()?);
    let report = if streams::is_dash(&args.output) {
        let sink = streams::output()?;
        unseal_image_to(&keys, &expected, image.path(), sink, options)
    } else {
        unseal_image(&keys, &expected, image.path(), &args.output, options)
    };
    let report = report.map_err(|error| Failure::image(image.named(error)))?;
    drop(bar);

    let len = report.fields.plaintext_len();
    if output.is_json() {
        let names = (streams::output_name(&args.output), streams::input_name(&args.image));
        return output.json(&Done::of(&report, names, started.elapsed()));
    }
    note(format!(
        "opened {} into {}: {} at {:.2} GB/s",
        streams::input_name(&args.image),
        streams::output_name(&args.output),
        table::size(len),
        table::gb_per_s(len, started.elapsed()),
    ));
    tell_digest(&report.digest, &args.output, &args.output, output)
}

/// The sealing parameters of the command line, without those that an authenticated image does not
/// use.
fn params(args: &SealArgs) -> SealParams {
    let params = SealParams::new().with_protection(args.mode.into()).with_segment(args.segment);
    if args.mode == Mode::Authenticated {
        if args.scope.is_some() || args.suite.is_some() {
            note("--scope and --suite do not apply to --mode authenticated");
        }
        return params;
    }
    // A file may change while it is read, so it is read once by default.
    let params = params.with_scope(args.scope.map_or(SivScope::Segment, Into::into));
    match args.suite {
        Some(suite) => params.with_suite(suite.into()),
        None => params,
    }
}

/// Options that every image command shares.
///
/// # Arguments
///
/// * `inputs`: files that the command reads; the output replaces none.
/// * `force`: whether the output may replace a file that looks like a key.
/// * `token`: cancelled when the user asks to stop; a program has one.
pub(super) fn options<'a>(
    bar: &'a BytesBar,
    inputs: &[&Path],
    force: bool,
    token: CancelToken,
) -> ImageOptions<'a> {
    let overwrite = if force { Overwrite::Replace } else { Overwrite::ReplaceButKeys };
    let options = ImageOptions::new()
        .overwrite(overwrite)
        .progress(|progress| bar.show(progress))
        .cancel(token);
    inputs.iter().copied().fold(options, ImageOptions::input)
}

/// The files that a command reads.
pub(super) fn inputs<'a>(
    read: &'a Path,
    key_file: Option<&'a Path>,
    bound: &'a BoundArgs,
) -> Vec<&'a Path> {
    [Some(streams::input_file(read)), key_file, bound.metadata.as_deref()]
        .into_iter()
        .flatten()
        .collect()
}

/// Prints the digest of `file`: as the result, unless the content itself is the result.
fn tell_digest(
    digest: &ContentDigest,
    file: &Path,
    written: &Path,
    output: &mut Output,
) -> Result<(), Failure> {
    let line = digest_line(digest, file);
    if streams::is_dash(written) {
        note(line);
        return Ok(());
    }
    output.line(line)
}

/// The options that seals are bound to, with the file of `--metadata` already read.
pub(super) struct Bound {
    metadata: Option<Vec<u8>>,
}

impl Bound {
    pub(super) fn read(args: &BoundArgs) -> Result<Self, Failure> {
        check_context(args.context.as_deref())?;
        let metadata = args.metadata.as_deref().map(read_metadata).transpose()?;
        Ok(Self { metadata })
    }

    /// What an image must be, as far as the command line says.
    pub(super) fn expected<'a>(&'a self, args: &'a ExpectArgs) -> Result<Expected<'a>, Failure> {
        let mut expected = match (&args.model_id, &args.bound.context) {
            (Some(model_id), context) => {
                let context = context.as_deref().unwrap_or_default();
                Expected::in_context(model_id, context.as_bytes())
                    .map_err(|error| bad_model_id(&error))?
            }
            (None, Some(_)) => {
                let hint = if args.any_model {
                    "give --model-id instead of --any-model"
                } else {
                    "give --model-id as well"
                };
                return Err(
                    Failure::input("--context is compared together with the model").hint(hint)
                );
            }
            (None, None) if args.any_model => Expected::anything(),
            (None, None) => {
                return Err(Failure::input("which model the image must be of is not given").hint(
                    "give --model-id ID, or --any-model to accept all that the key has sealed",
                ));
            }
        };
        expected = match args.mode {
            ExpectedMode::Encrypted => expected.protection(Protection::Encrypted),
            ExpectedMode::Authenticated => expected.protection(Protection::Authenticated),
            ExpectedMode::Any => expected.any_protection(),
        };
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

fn bad_model_id(error: &SealError) -> Failure {
    Failure::usage(format!("--model-id: {error}")).hint("give a name of 1 to 1024 bytes")
}

pub(super) fn read_metadata(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::file("read the metadata in", path, &error);
    let mut bytes = Vec::new();
    let file = regular_file::open_regular(path).map_err(failed)?;
    let before = FileState::of(&file).map_err(failed)?;
    // One byte more than allowed tells a file that is too long from one that just fits.
    let limit = ByteLen::from_usize(CONTEXT_LEN_MAX).get();
    let read = (&file).take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    let unchanged = before.check(&file, &path.display().to_string());
    unchanged.map_err(|error| not_the_file(&error))?;
    if ByteLen::from_usize(read).get() > limit {
        let max = table::size(ByteLen::new(limit));
        return Err(Failure::input(format!("{} is longer than {max}", path.display()))
            .hint("metadata describes content: give its digest or a summary instead"));
    }
    Ok(bytes)
}

/// Refuses a context that no seal can have.
pub(super) fn check_context(context: Option<&str>) -> Result<(), Failure> {
    if context.is_none_or(|context| context.len() <= CONTEXT_LEN_MAX) {
        return Ok(());
    }
    let max = table::size(ByteLen::from_usize(CONTEXT_LEN_MAX));
    Err(Failure::input(format!("--context is longer than {max}"))
        .hint("a context names something, such as a tenant: give its digest instead"))
}

/// A progress bar whose length is known only once the work has begun.
#[derive(Debug)]
pub(super) struct BytesBar {
    bar: Bar,
}

impl BytesBar {
    pub(super) fn new(phase: &'static str) -> Self {
        Self { bar: Bar::new(phase, ByteLen::ZERO) }
    }

    fn show(&self, progress: Progress) {
        self.bar.set_total(progress.total);
        self.bar.set(progress.done);
    }
}
