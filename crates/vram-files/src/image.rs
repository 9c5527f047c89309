//! Sealed images: a shard as a file, which every holder of the key can open.
//!
//! ```text
//!   record (256 bytes) | segment table | zeros to a multiple of 4096 | sealed data
//! ```
//!
//! The layout is specified in `docs/seal-format.md`. The calls read and write files segment by
//! segment, on as many threads as allowed, with a few segments of host memory for a file of any
//! size. A written file appears under its name whole, or not at all. No call trusts a statement of
//! a file, or allocates memory for it, before the file's record was authenticated and found within
//! the limits.

mod feed;
mod open;
mod plain;
mod read;
mod seal;

use std::path::{Path, PathBuf};

use vram_alloc::ByteLen;
use vram_seal::{
    ContentDigest, ExpectedDigest, ImageLayout, RecordFields, Scratch, SealRecord, SegmentLayout,
    SegmentSpan, Threads,
};

pub use open::{unseal_image, unseal_image_to, verify_image};
pub use plain::PlainImage;
pub use seal::{seal_image, seal_image_nameless, seal_image_to};

use crate::cancel::CancelToken;
use crate::error::FileError;
use crate::progress::{Progress, Watch, WatchOptions};
use crate::whole_file::Overwrite;
use read::ImageFile;

/// Most host bytes that the segment buffers of one call take, unless one segment is larger.
const BUFFERS_LEN_MAX: u64 = 64 << 20;

/// How a call writes or reads an image.
///
/// ```
/// use vram_files::{ImageOptions, Overwrite};
/// use vram_seal::Threads;
///
/// let options = ImageOptions::new()
///     .overwrite(Overwrite::Replace)
///     .threads(Threads::exactly(2))
///     .progress(|progress| eprintln!("{} of {}", progress.done, progress.total));
/// ```
#[derive(Debug, Default)]
pub struct ImageOptions<'a> {
    threads: Threads,
    overwrite: Overwrite,
    len_max: Option<ByteLen>,
    expected: Option<ExpectedDigest>,
    inputs: Vec<PathBuf>,
    watch: WatchOptions<'a>,
}

impl<'a> ImageOptions<'a> {
    /// All processors, no overwriting, any length, any digest, no progress callback.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the largest number of threads that work for the call.
    #[must_use]
    pub const fn threads(mut self, threads: Threads) -> Self {
        self.threads = threads;
        self
    }

    /// Sets what happens if the target file exists already.
    #[must_use]
    pub const fn overwrite(mut self, overwrite: Overwrite) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Sets the longest accepted content. Default: 2^48 bytes, the format's own limit.
    #[must_use]
    pub const fn len_max(mut self, len: ByteLen) -> Self {
        self.len_max = Some(len);
        self
    }

    /// Demands content of this BLAKE3 digest; the call writes nothing otherwise.
    #[must_use]
    pub const fn expected_digest(self, digest: ContentDigest) -> Self {
        self.expect_digest(ExpectedDigest::blake3(digest))
    }

    /// Demands content of this digest, of whichever kind; the call writes nothing otherwise. Files
    /// are read as often as without it. SHA-256 is computed in order, on one thread at a time, which
    /// bounds the speed of the call.
    ///
    /// Content of this digest is accepted also from a file that was written while it was read: it is
    /// what the caller asked for.
    #[must_use]
    pub const fn expect_digest(mut self, digest: ExpectedDigest) -> Self {
        self.expected = Some(digest);
        self
    }

    /// Names one more file that the caller reads for this call, such as a key file. A target that
    /// is the same file is refused, and so is a call whose input cannot be found. Source and image
    /// are always compared; they need not be named.
    #[must_use]
    pub fn input(mut self, path: impl Into<PathBuf>) -> Self {
        self.inputs.push(path.into());
        self
    }

    /// Sets the callback that receives the progress of the call: from worker threads, one at a
    /// time. If it panics, the call is rolled back and the panic goes on to the caller.
    #[must_use]
    pub fn progress(mut self, callback: impl FnMut(Progress) + Send + 'a) -> Self {
        self.watch.progress = Some(Box::new(callback));
        self
    }

    /// Sets the token with which the caller can end the call early.
    #[must_use]
    pub fn cancel(mut self, token: CancelToken) -> Self {
        self.watch.cancel = Some(token);
        self
    }

    /// Takes out the parts that the loop over segments needs.
    fn watch(&mut self, total: ByteLen) -> Watch<'a> {
        let WatchOptions { progress, cancel } = core::mem::take(&mut self.watch);
        Watch::new(total, progress, cancel)
    }

    /// As many threads as allowed, but no more than have room for a buffer within
    /// `BUFFERS_LEN_MAX`.
    fn threads_for(&self, layout: &SegmentLayout) -> Threads {
        let by_memory = BUFFERS_LEN_MAX.checked_div(buffer_len(layout).get()).unwrap_or(u64::MAX);
        let by_memory = usize::try_from(by_memory).unwrap_or(usize::MAX);
        Threads::exactly(self.threads.for_jobs(layout.count()).min(by_memory))
    }
}

/// Bytes of the longest segment.
fn buffer_len(layout: &SegmentLayout) -> ByteLen {
    layout.plaintext_len().min(layout.segment_size().bytes())
}

/// A buffer for any one segment. It can hold plaintext, so it is wiped when dropped.
fn segment_buffer(layout: &SegmentLayout) -> Result<Scratch, FileError> {
    let wanted = buffer_len(layout);
    let scratch = wanted.to_usize().and_then(Scratch::zeroed);
    scratch.ok_or(FileError::HostMemory { wanted })
}

/// What the call wrote or read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImageReport {
    /// The seal record of the image.
    pub record: SealRecord,
    /// The record's fields, authenticated.
    pub fields: RecordFields,
    /// The plain BLAKE3 digest of the content, as `b3sum` prints it.
    pub digest: ContentDigest,
    /// Bytes of the image file.
    pub image_len: ByteLen,
}

impl ImageReport {
    /// Makes a report, for a caller that writes an image by its own means.
    #[must_use]
    pub const fn new(
        record: SealRecord,
        fields: RecordFields,
        digest: ContentDigest,
        image_len: ByteLen,
    ) -> Self {
        Self { record, fields, digest, image_len }
    }
}

/// What verifying an image found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImageVerdict {
    /// The record's fields, authenticated.
    pub fields: RecordFields,
    /// The segments that are not what was sealed, in ascending order.
    pub altered: Vec<SegmentSpan>,
    /// The plain BLAKE3 digest of the content: present if, and only if, every tag is good (*sound*)
    /// and this is the digest behind the seal (*content*), even against a holder of the key.
    pub digest: Option<ContentDigest>,
}

impl ImageVerdict {
    /// Returns true if every byte is what was sealed.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.digest.is_some()
    }
}

/// What an image states about itself. **None of it is authenticated**: it is for people to look at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImageInfo {
    /// The seal record as it stands in the file.
    pub record: SealRecord,
    /// The record's fields, not authenticated.
    pub fields: RecordFields,
    /// Bytes of the file.
    pub file_len: ByteLen,
    /// Bytes that the file should have, according to the record.
    pub image_len: ByteLen,
}

/// Reads what an image states about itself, without a key and unauthenticated.
///
/// # Errors
///
/// [`FileError::Io`] if the file cannot be read, [`FileError::Image`] if it is no sealed image or
/// has another version, [`FileError::Source`] if it was written meanwhile. A file of the wrong length is not an error here: compare the two lengths.
pub fn inspect_image(image: &Path) -> Result<ImageInfo, FileError> {
    let file = ImageFile::open(image)?;
    let fields = file.record().parse_unauthenticated().map_err(|error| file.refused(error))?;
    let image_len = ByteLen::new(ImageLayout::for_fields(&fields).total_len());
    file.unchanged()?;
    Ok(ImageInfo { record: file.record().clone(), fields, file_len: file.len(), image_len })
}
