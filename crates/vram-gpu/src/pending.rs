//! A queued copy: it owns its buffer until a call has waited for it.

use core::fmt;

use crate::{GpuError, Staging};

/// How a backend finishes a copy that it queued.
pub trait Completion: Send + fmt::Debug {
    /// Blocks until the copy has ended. Returns the buffer in every case, and the error of this
    /// copy if it failed.
    fn finish(self: Box<Self>) -> (Staging, Result<(), GpuError>);
}

/// A copy that was queued and not yet waited for.
///
/// The device may read or write the buffer at any time until the wait, so the buffer is inside this
/// value and cannot be accessed. Dropping a `Pending` also waits; an error is then only logged.
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
    /// A copy that has already ended, with its outcome.
    pub const fn over(staging: Staging, outcome: Result<(), GpuError>) -> Self {
        Self { work: Some(Work::Over(staging, outcome)) }
    }

    /// A running copy, which `completion` finishes.
    pub fn queued(completion: Box<dyn Completion>) -> Self {
        Self { work: Some(Work::Queued(completion)) }
    }

    /// Blocks until the copy has ended. Returns the buffer in every case.
    ///
    /// # Errors
    ///
    /// The second part of the result: why this copy failed, also for bad arguments. See
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
