//! A running queued copy, its page-locked buffer, and how that is returned or kept.

use core::fmt;
use std::sync::Arc;

use super::allocation::Allocation;
use super::context::{Bound, Port};
use super::lane::{Lane, Locked};
use crate::{Completion, GpuError, Staging, StagingBuffer};

/// Returns the buffer if the device certainly does not use it any more. Otherwise its memory is
/// kept until the context is destroyed, and an empty buffer is returned.
pub(super) fn if_safe(bound: &Bound<'_>, error: GpuError, staging: Staging) -> Staging {
    // A sticky error has ended all work of the context. Any other error marks the device as lost
    // only if its work could not be waited for.
    if error.is_sticky() || bound.port().core.lost().is_none() {
        staging
    } else {
        staging.abandon();
        Staging::empty()
    }
}

/// A running copy.
pub(super) struct QueuedCopy {
    pub(super) allocation: Arc<Allocation>,
    pub(super) lane: Arc<Lane>,
    pub(super) number: u64,
    pub(super) staging: Staging,
}

impl Completion for QueuedCopy {
    fn finish(self: Box<Self>) -> (Staging, Result<(), GpuError>) {
        let Self { allocation, lane, number, mut staging } = *self;
        let outcome = match allocation.bind() {
            Ok(bound) => {
                let waited = lane.wait_for(0).or_else(|code| bound.settle(&lane, code));
                bound.put_lane(Arc::clone(&lane));
                if waited.is_ok() {
                    allocation.port.core.answered();
                }
                waited.map_err(|code| {
                    let error = bound.fail(code);
                    let kept = core::mem::replace(&mut staging, Staging::empty());
                    staging = if_safe(&bound, error, kept);
                    error
                })
            }
            // A reset or a sticky error has ended all work of the context, including this copy.
            Err(error) => Err(error),
        };
        allocation.landed(number);
        (staging, outcome)
    }
}

impl fmt::Debug for QueuedCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuedCopy")
            .field("gpu", &self.allocation.port.gpu)
            .field("staging", &self.staging)
            .finish_non_exhaustive()
    }
}

/// A page-locked buffer that is in use.
#[derive(Debug)]
pub(super) struct LockedStaging {
    pub(super) locked: Locked,
    pub(super) port: Port,
    pub(super) epoch: u64,
}

impl StagingBuffer for LockedStaging {
    fn as_slice(&self) -> &[u8] {
        self.locked.as_slice()
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        self.locked.as_mut_slice()
    }

    fn is_page_locked(&self) -> bool {
        self.locked.is_locked()
    }

    fn abandon(mut self: Box<Self>) {
        self.port.core.bury(self.locked.take_pages());
    }
}

impl Drop for LockedStaging {
    /// Never runs while this thread has the device bound: buffers are created and dropped by calls
    /// that have released the context.
    fn drop(&mut self) {
        if !self.locked.is_locked() {
            return;
        }
        match self.port.bind(Some(self.epoch)) {
            Ok(bound) => {
                if let Err(code) = self.locked.unlock() {
                    let error = bound.fail(code);
                    tracing::warn!(%error, "host memory stays page-locked");
                    self.port.core.bury(self.locked.take_pages());
                }
            }
            // The page lock ended with the context; the memory belongs to this process.
            Err(GpuError::StaleAllocation { .. }) => {}
            // Still page-locked by a device that takes no calls.
            Err(_) => self.port.core.bury(self.locked.take_pages()),
        }
    }
}
