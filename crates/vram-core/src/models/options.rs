//! How a call on a whole model waits, and what cancels it.

use core::time::Duration;

use vram_files::CancelToken;

/// How long a call on a whole model waits for other users of it, and what cancels the call.
///
/// ```
/// use std::time::Duration;
///
/// use vram_residency::{CallOptions, CancelToken};
///
/// let stop = CancelToken::new();
/// let options = CallOptions::new().within(Duration::from_secs(5)).cancel(&stop);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct CallOptions<'a> {
    pub(crate) timeout: Option<Duration>,
    pub(crate) cancel: Option<&'a CancelToken>,
}

impl<'a> CallOptions<'a> {
    /// Waits for other calls that are under way, for no lease, and cannot be cancelled.
    pub const fn new() -> Self {
        Self { timeout: None, cancel: None }
    }

    setters! {
        /// Sets how long the call waits for all other calls and leases on the shards to end.
        [const] fn within(timeout: Duration) => timeout = Some(timeout);
        /// Sets the token that cancels the call. It is looked at before each piece, and not while the
        /// call waits for others.
        [const] fn cancel(token: &'a CancelToken) => cancel = Some(token);
    }
}
