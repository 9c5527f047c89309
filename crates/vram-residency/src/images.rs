//! Sealed images at the facade: the calls of `vram-files`, with the facade's errors.

use std::io::Write;
use std::path::Path;

use vram_core::error::VramError;
use vram_files::{ImageInfo, ImageOptions, ImageReport, ImageVerdict, Source};
use vram_seal::{Expected, KeyRing, SealContext, SealKey, SealParams};

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
/// [`VramError::SourceLength`], [`VramError::SourceChanged`] or [`VramError::Io`] for the source;
/// [`VramError::DigestMismatch`] if the caller expected another digest; [`VramError::Config`] for
/// scope Shard with a source that can be read only once; [`VramError::Io`] for the target;
/// [`VramError::Cancelled`]; [`VramError::LimitExceeded`]. No file is left behind.
///
/// # Panics
///
/// If the source or the progress callback panics, with their payload; no file is left behind.
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
/// An image begins with the tags of all its segments, so the call writes nothing before it has
/// sealed the last byte. Until then the image is a file without a name in the folder for temporary
/// files (`TMPDIR`), which only this process can reach.
///
/// # Errors
///
/// As [`seal_image`]; [`VramError::Io`] without a path if the sink fails. The sink has then
/// received the beginning of an image that no key opens.
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
/// [`VramError::Image`] naming the image and what is wrong with it: no image, another version,
/// another key, another model, altered (and where). [`VramError::DigestMismatch`] if the caller
/// expected another digest; [`VramError::Io`] for either file; [`VramError::Cancelled`]. No file is
/// left behind.
///
/// # Panics
///
/// If the progress callback panics, with its payload; no file is left behind.
pub fn unseal_image(
    keys: &KeyRing,
    expected: &Expected<'_>,
    image: &Path,
    target: &Path,
    options: ImageOptions<'_>,
) -> Result<ImageReport, VramError> {
    Ok(vram_files::unseal_image(keys, expected, image, target, options)?)
}

/// Opens a sealed image into a writer, such as a pipe, which receives all of it or nothing.
///
/// The call reads the image twice: it verifies every byte before it writes the first one, and
/// authenticates each segment again on the way out. One thread writes, in order.
///
/// # Errors
///
/// As [`unseal_image`], for the image; [`VramError::Io`] without a path if the sink fails. The sink
/// has then received the beginning of the content.
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
/// A verdict, sound or not. Altered data is a verdict, not an error.
///
/// # Errors
///
/// As [`unseal_image`], for what makes verifying impossible: the record, the length, the padding or
/// the table is wrong, or the file cannot be read. [`VramError::DigestMismatch`] if the content is
/// sound, but the caller expected another digest.
pub fn verify_image(
    keys: &KeyRing,
    expected: &Expected<'_>,
    image: &Path,
    options: ImageOptions<'_>,
) -> Result<ImageVerdict, VramError> {
    Ok(vram_files::verify_image(keys, expected, image, options)?)
}

/// Reads what an image states about itself, without a key and unauthenticated.
///
/// # Errors
///
/// [`VramError::Io`] if the file cannot be read, [`VramError::Image`] if it is no sealed image or
/// has another version. A file of the wrong length is not an error here: compare the two lengths.
pub fn inspect_image(image: &Path) -> Result<ImageInfo, VramError> {
    Ok(vram_files::inspect_image(image)?)
}
