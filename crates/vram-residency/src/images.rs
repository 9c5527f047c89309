//! Sealed images as the facade answers them: the calls of `vram-files`, with its errors.

use std::io::Write;
use std::path::Path;

use vram_core::error::VramError;
use vram_files::{ImageInfo, ImageOptions, ImageReport, ImageVerdict, Source};
use vram_seal::{Expected, KeyRing, SealContext, SealKey, SealParams};

/// Seals the bytes of `source` into a file.
///
/// In scope Shard the source is read twice, and each segment of the second pass is compared with
/// the first before it is encrypted; in scope Segment, and in mode Authenticated, it is read once.
/// The image of an authenticated shard holds plaintext: it is created for its owner alone (mode
/// 0600); others follow the process's mask.
///
/// # Arguments
///
/// * `target`: the file to write. It appears whole, or not at all. Neither the source, if it is a
///   file, nor an [input](ImageOptions::input) is ever replaced, whatever the options say.
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
pub fn seal_image(
    key: &SealKey,
    context: &SealContext<'_>,
    params: SealParams,
    source: &dyn Source,
    target: &Path,
    options: ImageOptions<'_>,
) -> Result<ImageReport, VramError> {
    Ok(vram_files::seal_image(key, context, params, source, target, options)?)
}

/// Seals the bytes of `source` into a writer, such as a pipe.
///
/// An image begins with the tags of all its segments, so nothing is written before the last byte
/// was sealed. Until then the image is a file without a name in the folder for temporary files
/// (`TMPDIR`), for this process alone.
///
/// # Errors
///
/// As [`seal_image`]; [`VramError::Io`] without a path if the sink fails, which then has the
/// beginning of an image that no key opens.
///
/// # Panics
///
/// If the source, the sink or the progress callback panics, with their payload.
pub fn seal_image_to(
    key: &SealKey,
    context: &SealContext<'_>,
    params: SealParams,
    source: &dyn Source,
    sink: impl Write,
    options: ImageOptions<'_>,
) -> Result<ImageReport, VramError> {
    Ok(vram_files::seal_image_to(key, context, params, source, sink, options)?)
}

/// Opens a sealed image into a file of mode 0600 that appears whole, or not at all.
///
/// Every segment is authenticated before a byte of it is written, and at the end the content as a
/// whole is compared with the record.
///
/// # Arguments
///
/// * `keys`: the record names the one it needs.
/// * `expected`: what the image must be. See [`Expected`].
/// * `target`: the file to write. Neither the image nor an [input](ImageOptions::input) is ever
///   replaced, whatever the options say.
///
/// # Errors
///
/// [`VramError::Image`] naming the image and what is wrong with it: no image, another version,
/// another key, another model, altered (and where). [`VramError::DigestMismatch`] if another digest
/// was expected; [`VramError::Io`] for either file; [`VramError::Cancelled`]. Nothing is left
/// behind.
///
/// # Panics
///
/// If the progress callback panics, with its payload; nothing is left behind.
pub fn unseal_image(
    keys: &KeyRing,
    expected: &Expected<'_>,
    image: &Path,
    target: &Path,
    options: ImageOptions<'_>,
) -> Result<ImageReport, VramError> {
    Ok(vram_files::unseal_image(keys, expected, image, target, options)?)
}

/// Opens a sealed image into a writer, such as a pipe, which gets all of it or nothing.
///
/// The image is read twice: every byte is verified before the first one is written, and each
/// segment is authenticated again on the way out. One thread writes, in order.
///
/// # Errors
///
/// As [`unseal_image`], for the image; [`VramError::Io`] without a path if the sink fails, which
/// then has the beginning.
///
/// # Panics
///
/// If the sink or the progress callback panics, with its payload.
pub fn unseal_image_to(
    keys: &KeyRing,
    expected: &Expected<'_>,
    image: &Path,
    sink: impl Write,
    options: ImageOptions<'_>,
) -> Result<ImageReport, VramError> {
    Ok(vram_files::unseal_image_to(keys, expected, image, sink, options)?)
}

/// Verifies every byte of a sealed image, and names the segments that were altered.
///
/// # Returns
///
/// A verdict, sound or not. That the data was altered is an answer, not an error.
///
/// # Errors
///
/// As [`unseal_image`], for what makes verifying impossible: the record, the length, the padding or
/// the table is wrong, or the file cannot be read. [`VramError::DigestMismatch`] if the content is
/// sound, and another was expected.
pub fn verify_image(
    keys: &KeyRing,
    expected: &Expected<'_>,
    image: &Path,
    options: ImageOptions<'_>,
) -> Result<ImageVerdict, VramError> {
    Ok(vram_files::verify_image(keys, expected, image, options)?)
}

/// Reads what an image says of itself, without a key and without believing it.
///
/// # Errors
///
/// [`VramError::Io`] if the file cannot be read, [`VramError::Image`] if it is no sealed image or
/// of another version. A file of the wrong length is not an error here: compare the two lengths.
pub fn inspect_image(image: &Path) -> Result<ImageInfo, VramError> {
    Ok(vram_files::inspect_image(image)?)
}
