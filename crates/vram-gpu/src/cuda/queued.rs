//! A queued copy on its way, and what becomes of its buffer.

use core::fmt;
use std::sync::Arc;

use super::allocation::Allocation;
use super::context::Bound;
use super::lane::Lane;
use crate::{Completion, GpuError, Staging};

/// The buffer, if the device is done with it for certain. Otherwise its memory is kept until the
/// context is gone, and an empty one takes its place.
pub(super) fn if_safe(bound: &Bound<'_>, error: GpuError, staging: Staging) -> Staging {
    // A sticky error has ended all work of the context. Any other that took the device did so
    // because its work could not be waited for.
    if error.is_sticky() || bound.port().core.lost().is_none() {
        staging
    } else {
        staging.abandon();
        Staging::empty()
    }
}

/// A copy on its way.
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
                waited.map_err(|code| {
                    let error = bound.fail(code);
                    let kept = core::mem::replace(&mut staging, Staging::empty());
                    staging = if_safe(&bound, error, kept);
                    error
                })
            }
            // A reset or a sticky error has ended all work of the context, this copy too.
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
