//! A request for places for a whole plan.

use core::time::Duration;

use crate::parts::gpus::named;
use crate::parts::{GpuChoice, Terms};

/// A request to hold a place for every piece of a plan.
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
    /// A request for places on these GPUs, for as long as they are held.
    pub fn new(gpus: GpuChoice) -> Self {
        Self { gpus, terms: Terms::default() }
    }

    setters! {
        /// Names who reserves, for listings.
        fn owner(owner: &str) => terms.owner = Some(owner.into());
        /// Says what for, for listings.
        fn purpose(purpose: &str) => terms.purpose = Some(purpose.into());
        /// Sets after how long the places go back by themselves, if they were not used until then.
        fn expires_in(time: Duration) => terms.expires_in = Some(time);
    }
}

/// The one GPU that a request names, if it does.
#[must_use]
pub const fn gpu_of(request: &ReservePlanRequest) -> Option<u32> {
    named(request.gpus)
}
