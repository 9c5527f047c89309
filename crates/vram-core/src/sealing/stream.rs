//! Sealing from files and readers, and unsealing to writers, with bounded host memory.
//!
//! Whatever is read is copied into staging, hashed there and encrypted there: what a source says
//! the second time it is asked never meets what it said the first time under one key and nonce.

use std::io;
use std::io::Write;
use std::sync::Arc;

use vram_alloc::{ByteLen, ByteOffset, ByteRange};
use vram_files::{CancelToken, Feed as _, Progress, Source, Watch, WatchOptions};
use vram_seal::ContentDigest;
use vram_space::Space;
use zeroize::Zeroizing;

use crate::error::VramError;
use crate::parts::Core;
use crate::resident::read;
use crate::sealing::{SealRequest, entry, place, seal};
use crate::shard::{Entry, SealedShard};
use crate::transfer::read::zeroed;
use crate::transfer::{SourceFeed, WriteOptions};

/// What `VramManager::seal_from` does besides sealing.
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
    expected_digest: Option<ContentDigest>,
    watch: WatchOptions<'a>,
}

impl<'a> SealOptions<'a> {
    /// Any digest, nobody told, no early end.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Demands content of this BLAKE3 digest: nothing becomes resident otherwise.
        [const] fn expected_digest(digest: ContentDigest) => expected_digest = Some(digest);
        /// Sets who is told how far the call has come: from worker threads, one at a time. If it
        /// panics, the call is rolled back and the panic goes on to the caller.
        fn progress(callback: impl FnMut(Progress) + Send + 'a) =>
            watch.progress = Some(Box::new(callback));
        /// Sets the token that ends the call early.
        fn cancel(token: CancelToken) => watch.cancel = Some(token);
    }
}

/// Seals what a source gives.
pub fn seal_source(
    core: &Core,
    request: &SealRequest,
    source: &dyn Source,
    options: SealOptions<'_>,
) -> Result<SealedShard, VramError> {
    let feed = SourceFeed::new(source, &request.sealed_as.model_id);
    let watch = options.watch.begin(feed.len())?;
    feed.check_scope(request.protection, request.scope)?;
    let (space, counted) = place::place(core, request, feed.len())?;
    let entry = seal_feed(
        core,
        request,
        (space, counted),
        &feed,
        options.expected_digest.as_ref(),
        &watch,
    )?;
    // Before the shard is resident: a callback that panics must not leave one behind.
    watch.finish();
    Ok(entry::publish(core, entry))
}

/// Seals a source into a place that was taken for it. The entry that comes out is complete and
/// not yet resident: dropping it gives everything back.
pub(crate) fn seal_feed(
    core: &Core,
    request: &SealRequest,
    (space, counted): (Space, crate::shard::Counted),
    feed: &SourceFeed<'_>,
    expected_digest: Option<&ContentDigest>,
    watch: &Watch<'_>,
) -> Result<Arc<Entry>, VramError> {
    let told = |done| {
        watch.advance(done);
        Ok(watch.go_on()?)
    };
    let options = WriteOptions { scope: feed.scope(), expected_digest, watch: &told };
    let entry = seal::write_shard(core, request, space, counted, feed, &options)?;
    feed.finish()?;
    Ok(entry)
}

/// Writes the plaintext of a shard to a sink, window by window.
pub fn unseal_to(core: &Core, handle: &SealedShard, sink: &mut dyn Write) -> Result<(), VramError> {
    core.shared(handle, |entry| unseal_entry_to(core, entry, sink))
}

fn unseal_entry_to(core: &Core, entry: &Entry, sink: &mut dyn Write) -> Result<(), VramError> {
    let len = entry.plaintext_len;
    let segment = entry.view()?.seal.opener.layout().segment_size().bytes();
    // Whole segments, so that none is opened twice.
    let chunk = core.limits.segments_at_once(segment).saturating_mul(segment.get());
    let chunk = ByteLen::new(chunk).min(len);
    let mut buffer = Zeroizing::new(zeroed(chunk)?);
    let mut offset = ByteOffset::START;
    loop {
        // Quarantine may have come meanwhile, through another reader.
        entry.not_quarantined()?;
        let rest = len.saturating_sub(ByteLen::new(offset.get()));
        let range = ByteRange::checked(offset, rest.min(chunk), len)
            .map_err(|error| VramError::config(error.to_string()))?;
        let wanted = range.len();
        let bytes = wanted.to_usize().and_then(|count| buffer.get_mut(..count));
        let bytes = bytes.ok_or(VramError::HostMemory { wanted })?;
        read::read_entry(core, entry, range, bytes)?;
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
