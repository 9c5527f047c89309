//! A shard that could not be woken, and why.

use core::fmt;

use crate::error::VramError;
use crate::parts::Coded;
use crate::shard::ParkedShard;

impl Coded for WakeError {
    fn code(&self) -> &'static str {
        self.error().code()
    }
}

/// A parked shard that could not be woken, and why. It is as it was: try again, on another GPU, or
/// drop it.
pub struct WakeError {
    // On the heap: this is the error of a call that mostly succeeds.
    failed: Box<(ParkedShard, VramError)>,
}

impl WakeError {
    pub(crate) fn new(parked: ParkedShard, error: VramError) -> Self {
        Self { failed: Box::new((parked, error)) }
    }

    /// Why it could not be woken.
    #[must_use]
    pub fn error(&self) -> &VramError {
        &self.failed.1
    }

    /// The shard, still parked.
    #[must_use]
    pub fn into_parked(self) -> ParkedShard {
        self.failed.0
    }

    /// Both.
    #[must_use]
    pub fn into_parts(self) -> (ParkedShard, VramError) {
        *self.failed
    }
}

impl fmt::Debug for WakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WakeError")
            .field("parked", &self.failed.0)
            .field("error", &self.failed.1)
            .finish()
    }
}

impl fmt::Display for WakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} stays parked: {}", self.failed.0.shard_id(), self.failed.1)
    }
}

impl core::error::Error for WakeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.failed.1)
    }
}
