//! A queued copy: it owns its buffer until somebody waited for it.

use core::fmt;

use crate::{GpuError, Staging};

/// How a backend ends a copy that it queued.
pub trait Completion: Send + fmt::Debug {
    /// Blocks until the copy is over, and gives the buffer back whatever happened. The error is
    /// that of this copy, if it failed.
    fn finish(self: Box<Self>) -> (Staging, Result<(), GpuError>);
}

/// A copy that was queued and not yet waited for.
///
/// The device may read or write the buffer at any time until the wait, so the buffer is inside and
/// out of reach. Dropping a `Pending` waits too; an error that nobody asked for is then logged.
#[must_use = "the copy is not known to have worked until it was waited for"]
pub struct Pending {
    // Empty only after `wait` or during `drop`.
    work: Option<Work>,
}

enum Work {
    Over(Staging, Result<(), GpuError>),
    Queued(Box<dyn Completion>),
}

impl Work {
    fn finish(self) -> (Staging, Result<(), GpuError>) {
        match self {
            Self::Over(staging, outcome) => (staging, outcome),
            Self::Queued(completion) => completion.finish(),
        }
    }
}

impl Pending {
    /// A copy that is already over, one way or the other.
    pub const fn over(staging: Staging, outcome: Result<(), GpuError>) -> Self {
        Self { work: Some(Work::Over(staging, outcome)) }
    }

    /// A copy under way, which `completion` knows how to end.
    pub fn queued(completion: Box<dyn Completion>) -> Self {
        Self { work: Some(Work::Queued(completion)) }
    }

    /// Blocks until the copy is over; the buffer comes back whatever happened.
    ///
    /// # Errors
    ///
    /// The second part: why this copy failed, bad arguments included. See
    /// [`DeviceMemory::write`](crate::DeviceMemory::write).
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "`work` is only empty after this call, which consumes the value"
    )]
    pub fn wait(mut self) -> (Staging, Result<(), GpuError>) {
        self.work.take().expect("a pending copy is waited for once").finish()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(work) = self.work.take()
            && let (_wiped_on_drop, Err(error)) = work.finish()
        {
            tracing::warn!(%error, "a queued copy failed and nobody waited for it");
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.work {
            Some(Work::Over(..)) => "over",
            Some(Work::Queued(_)) => "queued",
            None => "waited for",
        };
        f.debug_struct("Pending").field("state", &state).finish_non_exhaustive()
    }
}
