//! Limits that the configuration sets, so that no request can use up all resources.

use core::time::Duration;

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_seal::MODEL_ID_LEN_MAX;

use crate::error::VramError;

/// The limits of one manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Plaintext bytes of one shard. Default: 2^48, the format's own limit.
    pub shard_len_max: ByteLen,
    /// Shards that are resident at the same time, on all GPUs. Default: about a million.
    pub shard_count_max: u64,
    /// Host bytes that one call may hold in staging buffers, and that each GPU keeps for reuse.
    /// Default: 64 MiB. Calls use fewer threads if the limit is too small for all of them.
    pub staging_bytes: ByteLen,
    /// Host bytes that all calls together may hold in staging buffers, on all GPUs, those that are
    /// kept for reuse included. Default: 1 GiB, 16 times `staging_bytes`. A call takes at most a
    /// quarter of what is left, and at least one window: while much is taken, calls work with fewer
    /// buffers and threads. A call for which not one window is left waits, and then fails with
    /// `StagingLimit`.
    pub staging_total: ByteLen,
    /// How long a call waits for staging that other calls hold. Default: ten seconds.
    pub staging_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            shard_len_max: ByteLen::new(1 << 48),
            shard_count_max: 1 << 20,
            staging_bytes: ByteLen::from_mib_saturating(64),
            staging_total: ByteLen::GIB,
            staging_wait: Duration::from_secs(10),
        }
    }
}

/// An owner or a purpose, as a request names it. An empty text names none.
pub(crate) fn label(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}

/// Checks an owner or a purpose: listings, events and the audit repeat it, so it is bounded like a
/// model id.
///
/// # Errors
///
/// [`VramError::LimitExceeded`].
pub(crate) fn check_label(what: &'static str, label: Option<&Arc<str>>) -> Result<(), VramError> {
    let bytes = |len| ByteLen::from_usize(len).get();
    let (limit, wanted) = (bytes(MODEL_ID_LEN_MAX), label.map_or(0, |label| bytes(label.len())));
    if wanted <= limit { Ok(()) } else { Err(VramError::LimitExceeded { what, limit, wanted }) }
}

/// Bytes that are passed to a writer at a time, if limits and segments allow.
const CHUNK_LEN: ByteLen = ByteLen::new(8 << 20);

impl Limits {
    /// The number of whole segments that are passed to a writer at a time: at least one.
    pub(crate) fn segments_at_once(&self, segment: ByteLen) -> u64 {
        let chunk = CHUNK_LEN.min(self.staging_bytes);
        chunk.get().checked_div(segment.get()).unwrap_or(0).max(1)
    }

    setters! {
        /// Sets the length of the longest shard.
        #[must_use]
        [const] fn shard_len_max(len: ByteLen) => shard_len_max = len;
        /// Sets how many shards may be resident.
        #[must_use]
        [const] fn shard_count_max(count: u64) => shard_count_max = count;
        /// Sets how many staging bytes one call may hold.
        #[must_use]
        [const] fn staging_bytes(bytes: ByteLen) => staging_bytes = bytes;
        /// Sets how many staging bytes all calls together may hold.
        #[must_use]
        [const] fn staging_total(bytes: ByteLen) => staging_total = bytes;
        /// Sets how long a call waits for staging that other calls hold.
        #[must_use]
        [const] fn staging_wait(patience: Duration) => staging_wait = patience;
    }
}
