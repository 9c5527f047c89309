//! `vram verify`: whether every byte of sealed images is what was sealed.

use std::path::Path;
use std::time::Instant;

use vram_residency::{CancelToken, Expected, ImageVerdict, KeyRing, verify_image};

use super::image::{Bound, BytesBar, inputs, options};
use crate::args::VerifyArgs;
use crate::commands::keys;
use crate::commands::results::{self, Checked, NotChecked};
use crate::failure::{Failure, Kind};
use crate::output::{Output, note};
use crate::{interrupt, streams, table};

/// Altered segments of an image that are listed; the others are counted.
const LISTED_MAX: usize = 16;
/// Images that a summary names; the others are counted.
const NAMED_MAX: usize = 8;

/// Checks all images, also after one that is not sound. The exit code is that of the worst: an image
/// that was altered, then whatever kept one from being checked.
pub(crate) fn verify(args: &VerifyArgs, output: &mut Output) -> Result<(), Failure> {
    if args.images.iter().filter(|image| streams::is_dash(image)).count() > 1 {
        return Err(Failure::input("standard input is given twice").hint("give `-` once"));
    }
    let stdin_is_read = args.images.iter().any(|image| streams::is_dash(image));
    let keys::Given { key, file: key_file } = keys::load(&args.key, stdin_is_read)?;
    let keys = KeyRing::new(key);
    let bound = Bound::read(&args.expect.bound)?;
    let expected = bound.expected(&args.expect)?;
    for image in &args.images {
        streams::output_is_none_of(&inputs(image, key_file.as_deref(), &args.expect.bound))?;
    }
    let token = interrupt::token()?;
    let (key_file, token) = (key_file.as_deref(), &token);
    let job = Job { args, keys: &keys, key_file, expected: &expected, token };

    let mut failures: Vec<Failed> = Vec::new();
    let mut checked = Checked { images: Vec::new(), not_checked: Vec::new() };
    let alone = args.images.len() == 1;
    for image in &args.images {
        let verdicts = checked.images.len();
        match job.verify(image, &mut checked, output) {
            Ok(()) => {}
            Err(failure) if failure.kind() == Kind::Interrupted => return Err(failure),
            Err(failure) => {
                let name = streams::input_name(image);
                if !alone {
                    let integrity = failure.kind() == Kind::Integrity;
                    let verdict = if integrity { "NOT SOUND" } else { "NOT VERIFIED" };
                    output.line(format!("{name}: {verdict}: {failure}"))?;
                }
                let was_checked = checked.images.len() > verdicts;
                failures.push(Failed { name, failure, was_checked });
            }
        }
    }
    let not_checked = failures.iter().filter(|one| !one.was_checked);
    checked.not_checked.extend(not_checked.map(|one| NotChecked::of(&one.name, &one.failure)));
    let failure = match failures.as_slice() {
        [] => return output.json(&checked),
        [only] if alone => only.failure.clone(),
        several => summary(several, args.images.len()),
    };
    // Of one image that could not be checked the failure says all.
    if !alone || !checked.images.is_empty() {
        output.json_failed(&checked, &failure)?;
    }
    Err(failure)
}

/// An image that is not sound, or could not be checked.
struct Failed {
    name: String,
    failure: Failure,
    was_checked: bool,
}

/// The outcome of several images.
fn summary(failures: &[Failed], all: usize) -> Failure {
    let kinds = failures.iter().map(|one| one.failure.kind());
    let worst = kinds.max_by_key(|kind| rank(*kind)).unwrap_or(Kind::Input);
    let named: Vec<&str> = failures.iter().take(NAMED_MAX).map(|one| one.name.as_str()).collect();
    let rest = failures.len().saturating_sub(named.len());
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    let count = failures.len();
    let what =
        format!("{count} of {all} images are not verified as sound: {}{more}", named.join(", "));
    Failure::new(worst, what).hint("the line of each says what to do")
}

/// How bad a failure of one image is: tampering is the worst.
const fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::Integrity => u8::MAX,
        other => other.code(),
    }
}

/// What the images have in common.
struct Job<'a> {
    args: &'a VerifyArgs,
    keys: &'a KeyRing,
    key_file: Option<&'a Path>,
    expected: &'a Expected<'a>,
    token: &'a CancelToken,
}

impl Job<'_> {
    /// Checks one image, and prints a line if it is sound.
    fn verify(
        &self,
        path: &Path,
        checked: &mut Checked<'_>,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        let bar = BytesBar::new("verify");
        let image = streams::Image::at(path)?;
        let inputs = inputs(path, self.key_file, &self.args.expect.bound);
        let options = options(&bar, &inputs, false, self.token.clone());
        let verdict = verify_image(self.keys, self.expected, image.path(), options);
        let verdict = verdict.map_err(|error| Failure::image(image.named(error)))?;
        drop(bar);

        let image = streams::input_name(path);
        checked.images.push(results::ImageVerdict::of(&image, &verdict));
        let len = verdict.fields.plaintext_len();
        let Some(digest) = verdict.digest else { return Err(altered(&image, &verdict, output)?) };
        note(format!("verified at {:.2} GB/s", table::gb_per_s(len, started.elapsed())));
        output.line(format!(
            "{image}: sound, and the content that was sealed: {} in {}, BLAKE3 {digest}",
            table::size(len),
            table::count(verdict.fields.segment_count(), "segment"),
        ))
    }
}

/// Lists the altered segments of an image.
fn altered(image: &str, verdict: &ImageVerdict, output: &mut Output) -> Result<Failure, Failure> {
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
        output.line(format!("{image}: altered segments not listed: {more}"))?;
    }
    let what = match found {
        0 => "each segment is sound, and the content as a whole is another".to_owned(),
        _ => format!("{found} of {}", table::count(all, "segment")),
    };
    Ok(Failure::integrity(format!("{image} was altered: {what}"))
        .hint("fetch the image again, or seal its source anew")
        .detail(|details| details.file = Some(image.to_owned())))
}
