//! Counters of all scrubbing of a manager, for metrics.

use core::time::Duration;

use vram_alloc::ByteLen;

use crate::scrub::{GpuScrub, ScrubStatus, ScrubStep};
use crate::sync::{Mutex, lock};

/// The work of all scrubbing since the manager was built: that of the scrubber's thread, and that
/// of callers with a schedule of their own. The counts never go down, even if a scrubber is stopped
/// and another is started.
#[derive(Debug, Default)]
pub struct Totals(Mutex<Counts>);

/// The results of several steps together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) passes: u64,
    pub(crate) bytes: ByteLen,
    pub(crate) verified: u64,
    pub(crate) altered: u64,
    pub(crate) skipped: u64,
    pub(crate) errors: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, step: &ScrubStep) {
        self.bytes = self.bytes.saturating_add(step.bytes);
        let altered = u64::try_from(step.altered.len()).unwrap_or(u64::MAX);
        for (count, more) in [
            (&mut self.passes, u64::from(step.pass_ended)),
            (&mut self.verified, step.verified),
            (&mut self.altered, altered),
            (&mut self.skipped, step.skipped),
            (&mut self.errors, step.errors),
        ] {
            *count = count.saturating_add(more);
        }
    }
}

/// Scrubbing in [`Metrics`](crate::reports::Metrics): the work since the manager was built, and the
/// guarantees of the running scrubber.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct ScrubMetrics {
    pub running: bool,
    pub paused: bool,
    /// The longest time that an alteration can stay undetected, see
    /// [`ScrubStatus::worst_case`](crate::scrub::ScrubStatus::worst_case).
    pub worst_case: Option<Duration>,
    /// Whether that time holds, see [`ScrubStatus::kept`](crate::scrub::ScrubStatus::kept); false
    /// if no scrubber is running.
    pub kept: bool,
    pub passes: u64,
    /// Device bytes that were checked.
    pub bytes: ByteLen,
    /// The number of times that a whole shard was found sound.
    pub verified: u64,
    pub altered: u64,
    /// The number of times that a shard was busy.
    pub skipped: u64,
    /// The number of times that a shard could not be read.
    pub errors: u64,
    /// The threads of the running scrubber, one for each GPU, in order of their index; empty if none
    /// is running.
    pub gpus: Vec<GpuScrub>,
}

impl Totals {
    pub(crate) fn add(&self, step: &ScrubStep) {
        lock(&self.0).add(step);
    }
}

/// `status` is that of the running scrubber, if there is one.
pub(crate) fn scrub_metrics(status: Option<ScrubStatus>, totals: &Totals) -> ScrubMetrics {
    let Counts { passes, bytes, verified, altered, skipped, errors } = *lock(&totals.0);
    ScrubMetrics {
        running: status.is_some(),
        paused: status.as_ref().is_some_and(|status| status.paused),
        worst_case: status.as_ref().and_then(|status| status.worst_case),
        kept: status.as_ref().is_some_and(|status| status.kept),
        passes,
        bytes,
        verified,
        altered,
        skipped,
        errors,
        gpus: status.map(|status| status.gpus).unwrap_or_default(),
    }
}
