//! Seals from files and readers, and unseals to writers, with bounded host memory.
//!
//! Bytes that are read are copied into staging, hashed there and encrypted there. If a source
//! returns other bytes when it is read a second time, the two are never encrypted under one key and
//! nonce.

use std::io;
use std::io::Write;
use std::sync::Arc;

use vram_alloc::{ByteLen, ByteOffset, ByteRange};
use vram_files::{CancelToken, Feed as _, Progress, Source, Watch, WatchOptions};
use vram_seal::{ContentDigest, ExpectedDigest};
use vram_space::Space;
use zeroize::Zeroizing;

use crate::error::VramError;
use crate::parts::Core;
use crate::resident::read;
use crate::sealing::entry::Ready;
use crate::sealing::{SealRequest, entry, place, seal};
use crate::shard::{Entry, SealedShard};
use crate::transfer::read::zeroed;
use crate::transfer::{SourceFeed, WriteOptions};

/// The options of `VramManager::seal_from`.
///
/// ```
/// use vram_residency::{CancelToken, SealOptions};
///
/// let stop = CancelToken::new();
/// let options = SealOptions::new()
///     .progress(|progress| eprintln!("{} of {}", progress.done, progress.total))
///     .cancel(stop.clone());
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct SealOptions<'a> {
    expected: Option<ExpectedDigest>,
    watch: WatchOptions<'a>,
}

impl<'a> SealOptions<'a> {
    /// No expected digest, no progress callback, no cancellation.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Requires content with this BLAKE3 digest; otherwise no shard becomes resident.
        [const] fn expected_digest(digest: ContentDigest) =>
            expected = Some(ExpectedDigest::blake3(digest));
        /// Requires content with this digest, of whichever kind. The source is read as often as
        /// without it. SHA-256 is computed in order, which bounds the speed of the call.
        ///
        /// Content of this digest is accepted also from a file that was written while it was read.
        [const] fn expect_digest(digest: ExpectedDigest) => expected = Some(digest);
        /// Sets a callback that receives the progress: from worker threads, one at a time. If it
        /// panics, the call is rolled back and the panic continues in the caller.
        fn progress(callback: impl FnMut(Progress) + Send + 'a) =>
            watch.progress = Some(Box::new(callback));
        /// Sets the token that cancels the call.
        fn cancel(token: CancelToken) => watch.cancel = Some(token);
    }
}

/// Seals the content of a source.
pub fn seal_source(
    core: &Core,
    request: &SealRequest,
    source: &dyn Source,
    options: SealOptions<'_>,
) -> Result<SealedShard, VramError> {
    let expected = options.expected.as_ref();
    let feed = SourceFeed::of_digest(source, &request.sealed_as.model_id, expected);
    let watch = options.watch.begin(feed.len())?;
    feed.check_scope(request.params(core.defaults))?;
    let (space, counted) = place::place(core, request, feed.len())?;
    let ready = seal_feed(core, request, (space, counted), &feed, expected, &watch)?;
    // Called before the shard is resident: a callback that panics must not leave a shard behind.
    watch.finish();
    entry::publish(core, ready)
}

/// Seals a source into space that was taken for it. The returned shard is complete and not yet
/// resident: dropping it returns everything.
pub(crate) fn seal_feed(
    core: &Core,
    request: &SealRequest,
    (space, counted): (Space, crate::shard::Counted),
    feed: &SourceFeed<'_>,
    expected: Option<&ExpectedDigest>,
    watch: &Watch<'_>,
) -> Result<Ready, VramError> {
    let told = |done| {
        watch.advance(done);
        Ok(watch.go_on()?)
    };
    let check = |found| feed.check_digest(expected, found);
    let options = WriteOptions { check: &check, watch: &told };
    let ready = seal::write_shard(core, request, space, counted, feed, &options)?;
    feed.finish(expected.is_some())?;
    Ok(ready)
}

/// Writes the plaintext of a shard to a sink, window by window.
pub fn unseal_to(core: &Core, handle: &SealedShard, sink: &mut dyn Write) -> Result<(), VramError> {
    core.shared(handle, |entry| unseal_entry_to(core, entry, sink))
}

fn unseal_entry_to(core: &Core, entry: &Entry, sink: &mut dyn Write) -> Result<(), VramError> {
    let len = entry.plaintext_len;
    // Held to the end, also while the sink works: a reset of the GPU waits for it.
    let view = entry.view()?;
    let segment = view.seal.opener.layout().segment_size().bytes();
    // Whole segments, so that no segment is opened twice.
    let chunk = core.limits.segments_at_once(segment).saturating_mul(segment.get());
    let chunk = ByteLen::new(chunk).min(len);
    let mut buffer = Zeroizing::new(zeroed(chunk)?);
    let mut offset = ByteOffset::START;
    loop {
        // Another reader may have put the shard into quarantine in the meantime.
        entry.not_quarantined()?;
        let rest = len.saturating_sub(ByteLen::new(offset.get()));
        let range = ByteRange::checked(offset, rest.min(chunk), len)
            .map_err(|error| VramError::config(error.to_string()))?;
        let wanted = range.len();
        let bytes = wanted.to_usize().and_then(|count| buffer.get_mut(..count));
        let bytes = bytes.ok_or(VramError::HostMemory { wanted })?;
        read::read_there(core, entry, &view, range, bytes)?;
        sink.write_all(bytes).map_err(sink_failed)?;
        offset = range.end();
        if offset.get() >= len.get() {
            return sink.flush().map_err(sink_failed);
        }
    }
}

fn sink_failed(error: io::Error) -> VramError {
    VramError::Io { action: "write unsealed bytes", path: None, source: Arc::new(error) }
}
