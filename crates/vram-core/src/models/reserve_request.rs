//! The request for placements for a whole plan.

use core::time::Duration;

use crate::parts::gpus::named;
use crate::parts::limits::label;
use crate::parts::{GpuChoice, Terms};

/// A request to reserve a placement for every piece of a plan.
///
/// ```
/// use core::time::Duration;
/// use vram_residency::{GpuChoice, ReservePlanRequest};
///
/// let request = ReservePlanRequest::new(GpuChoice::MostRoomFirst)
///     .owner("pool-1")
///     .expires_in(Duration::from_secs(30));
/// # let _ = request;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ReservePlanRequest {
    pub(crate) gpus: GpuChoice,
    pub(crate) terms: Terms,
}

impl ReservePlanRequest {
    /// A request for placements on these GPUs, until the reservation is dropped.
    pub fn new(gpus: GpuChoice) -> Self {
        Self { gpus, terms: Terms::default() }
    }

    setters! {
        /// Sets the owner of the reservation, for listings: at most 1,024 bytes. An empty text names
        /// no owner.
        fn owner(owner: &str) => terms.owner = label(owner);
        /// Sets the purpose of the reservation, for listings: at most 1,024 bytes. An empty text names
        /// no purpose.
        fn purpose(purpose: &str) => terms.purpose = label(purpose);
        /// Sets the time after which unused placements are returned automatically.
        fn expires_in(time: Duration) => terms.expires_in = Some(time);
    }
}

/// The GPU that a request names, if it names one.
#[must_use]
pub const fn gpu_of(request: &ReservePlanRequest) -> Option<u32> {
    named(request.gpus)
}
