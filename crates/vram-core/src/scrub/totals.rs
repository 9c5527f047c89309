//! What all scrubbing of a manager has done: counters for whoever watches from outside.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use vram_alloc::ByteLen;

use crate::scrub::{ScrubStatus, ScrubStep};

/// What scrubbing has done since the manager was built: the thread's, and that of callers with a
/// schedule of their own. Never goes down, also where a scrubber is stopped and another is started.
#[derive(Debug, Default)]
pub struct Totals {
    passes: AtomicU64,
    bytes: AtomicU64,
    verified: AtomicU64,
    altered: AtomicU64,
    skipped: AtomicU64,
    errors: AtomicU64,
}

/// Scrubbing in [`Metrics`](crate::reports::Metrics): what was done since the manager was built, and what the
/// scrubber that is running states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ScrubMetrics {
    /// Whether a scrubber is running.
    pub running: bool,
    /// Whether it is paused.
    pub paused: bool,
    /// The longest that an alteration can go unnoticed, as [it states](crate::scrub::ScrubStatus::worst_case).
    pub worst_case: Option<Duration>,
    /// Whether that [is kept](crate::scrub::ScrubStatus::kept); false if no scrubber is running.
    pub kept: bool,
    /// Whole passes.
    pub passes: u64,
    /// Device bytes that were looked at.
    pub bytes: ByteLen,
    /// Times that a whole shard was found sound.
    pub verified: u64,
    /// Shards that were found altered.
    pub altered: u64,
    /// Times that a shard was busy.
    pub skipped: u64,
    /// Times that a shard could not be read.
    pub errors: u64,
}

impl Totals {
    pub(crate) fn add(&self, step: &ScrubStep) {
        let altered = u64::try_from(step.altered.len()).unwrap_or(u64::MAX);
        for (total, more) in [
            (&self.passes, u64::from(step.pass_ended)),
            (&self.bytes, step.bytes.get()),
            (&self.verified, step.verified),
            (&self.altered, altered),
            (&self.skipped, step.skipped),
            (&self.errors, step.errors),
        ] {
            total.fetch_add(more, Ordering::Relaxed);
        }
    }
}

/// `status` is of the scrubber that runs, if one does.
pub(crate) fn scrub_metrics(status: Option<&ScrubStatus>, totals: &Totals) -> ScrubMetrics {
    let read = |total: &AtomicU64| total.load(Ordering::Relaxed);
    ScrubMetrics {
        running: status.is_some(),
        paused: status.is_some_and(|status| status.paused),
        worst_case: status.and_then(|status| status.worst_case),
        kept: status.is_some_and(|status| status.kept),
        passes: read(&totals.passes),
        bytes: ByteLen::new(read(&totals.bytes)),
        verified: read(&totals.verified),
        altered: read(&totals.altered),
        skipped: read(&totals.skipped),
        errors: read(&totals.errors),
    }
}
