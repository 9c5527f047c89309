//! The options of a repair, and its result.

use core::fmt;

use vram_alloc::ByteLen;
use vram_files::{CancelToken, Progress, WatchOptions};
use vram_id::{ShardId, Timestamp};
use vram_seal::AlteredSegments;

/// The options of a repair.
///
/// ```
/// use vram_residency::{CancelToken, RepairOptions};
///
/// let stop = CancelToken::new();
/// let options = RepairOptions::new().relocate().cancel(stop.clone());
/// # let _ = options;
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct RepairOptions<'a> {
    pub(crate) relocate: bool,
    pub(crate) watch: WatchOptions<'a>,
}

impl<'a> RepairOptions<'a> {
    /// Repairs in place, no progress callback, no cancellation.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Writes the whole shard to another placement on its GPU, and takes its old placement out
        /// of use for good: for memory that does not keep what is written. The bytes of the old
        /// placement stay counted, as unreturned.
        fn relocate() => relocate = true;
        /// Sets a callback that receives how much of the source was read: from worker threads, one
        /// at a time. It hears of the end before the last segment is written. If it panics, the shard stays in quarantine, and the panic continues in the
        /// caller.
        fn progress(callback: impl FnMut(Progress) + Send + 'a) =>
            watch.progress = Some(Box::new(callback));
        /// Sets the token that cancels the call.
        fn cancel(token: CancelToken) => watch.cancel = Some(token);
    }
}

/// The result of a repair. Every segment of the shard was found sound at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct RepairReport {
    pub shard_id: ShardId,
    pub gpu: u32,
    /// Whether the shard was in quarantine, or this call put it there. If not, the shard was sound,
    /// and nothing was written.
    pub was_altered: bool,
    /// The segments that differed from what was sealed.
    pub segments: AlteredSegments,
    pub written: ByteLen,
    /// Bytes that were taken out of use for good because the shard was moved off them.
    pub set_aside: ByteLen,
    pub at: Timestamp,
}

impl fmt::Display for RepairReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.was_altered {
            return write!(f, "{}: sound, nothing to repair", self.shard_id);
        }
        let (count, written) = (self.segments.count(), self.written);
        write!(f, "{}: {count} segments repaired, {written} written", self.shard_id)
    }
}
