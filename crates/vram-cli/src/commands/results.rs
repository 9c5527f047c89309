//! The results of the commands on sealed images, as JSON shows them. Lengths are in bytes, times in
//! seconds.

use core::time::Duration;

use serde::Serialize;
use vram_residency::{ImageReport, Protection};

use crate::failure::{ErrorObject, Failure};
use crate::table;

/// `vram seal` and `vram unseal`.
#[derive(Debug, Serialize)]
pub(crate) struct Done {
    /// The file in the clear.
    content: String,
    /// The sealed image.
    image: String,
    mode: &'static str,
    key_id: String,
    shard_index: u64,
    revision: u64,
    content_len: u64,
    image_len: u64,
    /// The digest of the content, as `b3sum` prints it.
    blake3: String,
    seconds: f64,
    gb_per_s: f64,
}

impl Done {
    /// What was sealed or opened.
    pub(crate) fn of(
        report: &ImageReport,
        (content, image): (String, String),
        time: Duration,
    ) -> Self {
        let fields = &report.fields;
        let len = fields.plaintext_len();
        Self {
            content,
            image,
            mode: mode(fields.protection()),
            key_id: fields.key_id().to_string(),
            shard_index: fields.shard_index(),
            revision: fields.revision(),
            content_len: len.get(),
            image_len: report.image_len.get(),
            blake3: report.digest.to_string(),
            seconds: time.as_secs_f64(),
            gb_per_s: table::gb_per_s(len, time),
        }
    }
}

/// `vram verify`.
#[derive(Debug, Serialize)]
pub(crate) struct Checked<'a> {
    /// One for each image that was checked, in the order of the command line.
    pub(crate) images: Vec<ImageVerdict>,
    /// One for each other image.
    pub(crate) not_checked: Vec<NotChecked<'a>>,
}

/// An image that could not be checked.
#[derive(Debug, Serialize)]
pub(crate) struct NotChecked<'a> {
    image: &'a str,
    error: ErrorObject<'a>,
}

impl<'a> NotChecked<'a> {
    pub(crate) fn of(image: &'a str, failure: &'a Failure) -> Self {
        Self { image, error: failure.object() }
    }
}

/// What was found of one image.
#[derive(Debug, Serialize)]
pub(crate) struct ImageVerdict {
    image: String,
    /// Whether every byte is what was sealed.
    sound: bool,
    mode: &'static str,
    key_id: String,
    content_len: u64,
    segment_count: u64,
    /// The digest of the content; none if the image was altered.
    blake3: Option<String>,
    altered_count: usize,
    /// The first altered segments, at most [`LISTED_MAX`].
    altered: Vec<Altered>,
}

/// An altered segment: which bytes of the content it has.
#[derive(Debug, Serialize)]
struct Altered {
    segment: u64,
    start: u64,
    len: u64,
}

/// Altered segments that are listed; the others are counted.
const LISTED_MAX: usize = 1000;

impl ImageVerdict {
    pub(crate) fn of(image: &str, verdict: &vram_residency::ImageVerdict) -> Self {
        let fields = &verdict.fields;
        let altered = verdict.altered.iter().take(LISTED_MAX);
        Self {
            image: image.to_owned(),
            sound: verdict.is_sound(),
            mode: mode(fields.protection()),
            key_id: fields.key_id().to_string(),
            content_len: fields.plaintext_len().get(),
            segment_count: fields.segment_count(),
            blake3: verdict.digest.map(|digest| digest.to_string()),
            altered_count: verdict.altered.len(),
            altered: altered
                .map(|one| Altered { segment: one.segment, start: one.start, len: one.len })
                .collect(),
        }
    }
}

/// The name of a mode on the command line.
pub(crate) fn mode(protection: Protection) -> &'static str {
    match protection {
        Protection::Encrypted => "encrypted",
        Protection::Authenticated => "authenticated",
        _ => "unknown",
    }
}
