//! Sealing from files and readers, and unsealing to writers, with bounded host memory.
//!
//! Whatever is read is copied into staging, hashed there and encrypted there: what a source says
//! the second time it is asked never meets what it said the first time under one key and nonce.

use core::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use vram_alloc::{ByteLen, ByteOffset, ByteRange};
use vram_files::FileError;
use vram_seal::{ContentDigest, Protection, SivScope};
use zeroize::Zeroizing;

use crate::call::Call;
use crate::cancel::CancelToken;
use crate::error::VramError;
use crate::feed::Feed;
use crate::manager::{Core, VramManager};
use crate::progress::{Progress, ProgressFn, Watch};
use crate::read::zeroed;
use crate::registry::Entry;
use crate::request::SealRequest;
use crate::shard::SealedShard;
use crate::source::{Access, Source};
use crate::space::Space;
use crate::sync::Mutex;
use crate::write::WriteOptions;

/// Plaintext that is handed to a writer at a time, where limits and segments allow.
const CHUNK_LEN: u64 = 8 << 20;

/// What [`seal_from`](VramManager::seal_from) does besides sealing.
///
/// ```
/// use vram_residency::{CancelToken, SealOptions};
///
/// let stop = CancelToken::new();
/// let options = SealOptions::new()
///     .progress(|progress| eprintln!("{} of {}", progress.done, progress.total))
///     .cancel(stop.clone());
/// ```
#[derive(Default)]
pub struct SealOptions<'a> {
    expected_digest: Option<ContentDigest>,
    progress: Option<Box<ProgressFn<'a>>>,
    cancel: Option<CancelToken>,
}

impl<'a> SealOptions<'a> {
    /// Any digest, nobody told, no early end.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Demands content of this BLAKE3 digest: nothing becomes resident otherwise.
    #[must_use]
    pub const fn expected_digest(mut self, digest: ContentDigest) -> Self {
        self.expected_digest = Some(digest);
        self
    }

    /// Sets who is told how far the call has come: from worker threads, one at a time. If it
    /// panics, the call is rolled back and the panic goes on to the caller.
    #[must_use]
    pub fn progress(mut self, callback: impl FnMut(Progress) + Send + 'a) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Sets the token that ends the call early.
    #[must_use]
    pub fn cancel(mut self, token: CancelToken) -> Self {
        self.cancel = Some(token);
        self
    }
}

impl fmt::Debug for SealOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealOptions")
            .field("expected_digest", &self.expected_digest)
            .field("progress", &self.progress.is_some())
            .field("cancel", &self.cancel)
            .finish()
    }
}

impl VramManager {
    /// Seals the bytes of a source, and keeps them resident. Host memory stays bounded by the
    /// configured staging, whatever the shard's size.
    ///
    /// The scope is Segment unless the request names one, and the source is read once. In scope
    /// Shard it is read twice, and refused if it changed in between. A
    /// [`SliceSource`](crate::SliceSource) is sealed like the slice itself, in scope Shard.
    ///
    /// # Errors
    ///
    /// As [`seal`](Self::seal); besides, [`VramError::SourceLength`], [`VramError::SourceChanged`]
    /// or [`VramError::Source`]; [`VramError::DigestMismatch`] if another digest was expected;
    /// [`VramError::Cancelled`]; [`VramError::Config`] for scope Shard and a source that can be
    /// read only once. Nothing is resident then, and everything taken was given back.
    ///
    /// # Panics
    ///
    /// If the source or the progress callback panics: with their payload, after everything was
    /// given back. The manager stays usable.
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::{FileSource, SealOptions, SealRequest, VramManager};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("weights");
    /// # std::fs::write(&path, b"weights")?;
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let request = SealRequest::new("llama-3-8b", 0);
    /// let shard = manager.seal_from(request, FileSource::open(&path)?, SealOptions::new())?;
    /// assert_eq!(manager.unseal_model(&shard)?, b"weights");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[tracing::instrument(
        level = "info",
        skip_all,
        fields(gpu = request.gpu, bytes = source.len())
    )]
    #[expect(clippy::needless_pass_by_value, reason = "a request is made for one call")]
    pub fn seal_from(
        &self,
        request: SealRequest,
        source: impl Source,
        options: SealOptions<'_>,
    ) -> Result<SealedShard, VramError> {
        let gpu = Some(request.gpu);
        let work = || self.core.seal_source(&request, &source, options);
        self.core.watched_for(Call::Seal, None, gpu, work, |shard| shard.plaintext_len)
    }

    /// Writes all plaintext of a shard to `sink`, in order. Only authenticated bytes are written;
    /// host memory stays bounded. The shard can be read by others meanwhile, and is not freed or
    /// moved before the sink is done: a slow sink keeps those waiting.
    ///
    /// # Errors
    ///
    /// As [`unseal_model`](Self::unseal_model), and [`VramError::Io`] if the sink fails. The sink
    /// has then had a prefix of the plaintext, authenticated like all of it.
    ///
    /// # Panics
    ///
    /// If the sink panics. The manager stays usable.
    #[tracing::instrument(level = "info", skip_all, fields(shard = %shard.shard_id, bytes = shard.plaintext_len))]
    pub fn unseal_to(&self, shard: &SealedShard, mut sink: impl Write) -> Result<(), VramError> {
        let (core, id) = (&self.core, Some(&shard.shard_id));
        core.watched(Call::Unseal, id, None, shard.plaintext_len, || {
            core.shared(shard, |entry| core.unseal_entry_to(entry, &mut sink))
        })
    }
}

impl Core {
    pub(crate) fn seal_source(
        &self,
        request: &SealRequest,
        source: &dyn Source,
        options: SealOptions<'_>,
    ) -> Result<SealedShard, VramError> {
        let feed = SourceFeed::new(source, &request.sealed_as.model_id);
        let watch = Watch::new(feed.len(), options.progress, options.cancel);
        watch.go_on()?;
        feed.check_scope(request)?;
        let (space, counted) = self.place(request, feed.len())?;
        let entry = self.seal_feed(
            request,
            (space, counted),
            &feed,
            options.expected_digest.as_ref(),
            &watch,
        )?;
        // Before the shard is resident: a callback that panics must not leave one behind.
        watch.finish();
        Ok(self.publish(entry))
    }

    /// Seals a source into a place that was taken for it. The entry that comes out is complete and
    /// not yet resident: dropping it gives everything back.
    pub(crate) fn seal_feed(
        &self,
        request: &SealRequest,
        (space, counted): (Space, crate::registry::Counted),
        feed: &SourceFeed<'_>,
        expected_digest: Option<&ContentDigest>,
        watch: &Watch<'_>,
    ) -> Result<Arc<Entry>, VramError> {
        let told = |done| {
            watch.advance(done);
            Ok(watch.go_on()?)
        };
        let options = WriteOptions { scope: feed.scope(), expected_digest, watch: &told };
        let entry = self.write_shard(request, space, counted, feed, &options)?;
        feed.finish()?;
        Ok(entry)
    }

    fn unseal_entry_to(&self, entry: &Entry, sink: &mut dyn Write) -> Result<(), VramError> {
        let len = entry.plaintext_len;
        let segment = entry.view()?.seal.opener.layout().segment_size().bytes();
        let chunk = ByteLen::new(CHUNK_LEN).min(self.limits.staging_bytes);
        // Whole segments, so that none is opened twice.
        let count = chunk.get().checked_div(segment.get()).unwrap_or(0).max(1);
        let chunk = ByteLen::new(count.saturating_mul(segment.get())).min(len);
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
            self.read_entry(entry, range, bytes)?;
            sink.write_all(bytes).map_err(sink_failed)?;
            offset = range.end();
            if offset.get() >= len.get() {
                return sink.flush().map_err(sink_failed);
            }
        }
    }
}

fn sink_failed(error: io::Error) -> VramError {
    VramError::Io { action: "write unsealed bytes", path: None, source: Arc::new(error) }
}

/// A source as the sealing pass takes it.
pub(crate) struct SourceFeed<'s> {
    source: &'s dyn Source,
    // Asked once each: a source that answers differently the next time is not asked again.
    len: ByteLen,
    slice: Option<&'s [u8]>,
    /// The next window of a source that can only be read in order.
    turn: Option<Mutex<u64>>,
    model_id: &'s str,
}

impl<'s> SourceFeed<'s> {
    pub(crate) fn new(source: &'s dyn Source, model_id: &'s str) -> Self {
        let len = ByteLen::new(source.len());
        let slice =
            source.as_slice().filter(|slice| ByteLen::from_usize(<[u8]>::len(slice)) == len);
        let turn = match source.access() {
            Access::Sequential if slice.is_none() => Some(Mutex::new(0)),
            _ => None,
        };
        Self { source, len, slice, turn, model_id }
    }

    /// The scope where the request names none.
    pub(crate) const fn scope(&self) -> SivScope {
        if self.slice.is_some() { SivScope::Shard } else { SivScope::Segment }
    }

    /// # Errors
    ///
    /// [`VramError::Config`] for two passes over something that can be read once.
    pub(crate) fn check_scope(&self, request: &SealRequest) -> Result<(), VramError> {
        let two_passes = request.protection != Protection::Authenticated
            && request.scope.unwrap_or(self.scope()) == SivScope::Shard;
        if two_passes && self.turn.is_some() {
            return Err(VramError::config(
                "scope Shard reads its source twice, and this one can be read only once: use \
                 scope Segment",
            ));
        }
        Ok(())
    }

    /// Called after the last byte was read.
    pub(crate) fn finish(&self) -> Result<(), VramError> {
        Ok(self.source.finish().map_err(|error| error.while_sealing(self.model_id))?)
    }
}

impl Feed for SourceFeed<'_> {
    fn len(&self) -> ByteLen {
        self.len
    }

    fn fill(&self, range: ByteRange, target: &mut [u8]) -> Result<(), FileError> {
        match self.slice {
            Some(slice) => slice.fill(range, target),
            // The one empty window of an empty shard: there is nothing to ask for.
            None if target.is_empty() => Ok(()),
            None => self
                .source
                .read_at(range.start().get(), target)
                .map_err(|error| error.while_sealing(self.model_id)),
        }
    }

    fn slice(&self) -> Option<&[u8]> {
        self.slice
    }

    fn turn(&self) -> Option<&Mutex<u64>> {
        self.turn.as_ref()
    }
}
