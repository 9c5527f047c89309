//! The request to wake a model, and the error of one that could not be woken.

use vram_files::CancelToken;

use crate::error::VramError;
use crate::moves::wake_error::wake_error;
use crate::parts::GpuChoice;
use crate::parts::gpus::named;
use crate::shard::ParkedModel;

/// A request to make a parked model resident again.
///
/// ```
/// use vram_residency::{GpuChoice, WakeModelRequest};
///
/// let request = WakeModelRequest::new(GpuChoice::One(0)).evicts(true);
/// # let _ = request;
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct WakeModelRequest<'a> {
    pub(crate) gpus: GpuChoice,
    pub(crate) evicts: bool,
    pub(crate) leased: bool,
    /// The holder of the leases.
    pub(crate) holder: &'a str,
    pub(crate) cancel: Option<&'a CancelToken>,
}

impl<'a> WakeModelRequest<'a> {
    /// A request for these GPUs, that evicts nothing.
    pub const fn new(gpus: GpuChoice) -> Self {
        Self { gpus, evicts: false, leased: false, holder: "", cancel: None }
    }

    setters! {
        /// Sets whether other models and shards may be evicted to make room for this one, if the
        /// manager has an eviction policy. Default: no. What is parked to make room needs host
        /// memory of its own: that of the model is returned only when it is resident.
        fn evicts(evicts: bool) => evicts = evicts;
        /// Sets the name of the holder of the leases that `wake_model_leased` takes: at most 1,024
        /// bytes. An empty text names nobody.
        fn holder(name: &'a str) => holder = name;
        /// Sets the token that cancels the call: it is looked at before each shard is copied. The
        /// model is parked then, as it was.
        fn cancel(token: &'a CancelToken) => cancel = Some(token);
    }
}

/// The GPU that a request names, if it names one.
#[must_use]
pub const fn gpu_of(request: &WakeModelRequest<'_>) -> Option<u32> {
    named(request.gpus)
}

wake_error! {
    /// A parked model that could not be woken, and the reason. All of it is unchanged.
    WakeModelError,
    /// The model, still parked.
    ParkedModel,
    /// The model and the reason.
    |parked| parked.model_id
}
