//! A running queued copy, and how its buffer is returned or kept.

use core::fmt;
use std::sync::Arc;

use super::allocation::Allocation;
use super::context::Bound;
use super::lane::Lane;
use crate::{Completion, GpuError, Staging};

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
