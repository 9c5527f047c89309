//! Asking a long call to stop, through one flag that many threads share.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// A request to stop that many threads can share.
///
/// Give a clone to the call and keep one. A cancelled call stops at the next segment, releases
/// everything that it took, and answers [`FileError::Cancelled`](crate::FileError::Cancelled). A
/// token stays cancelled: the next call needs a fresh one.
///
/// ```
/// use vram_files::CancelToken;
///
/// let token = CancelToken::new();
/// let held_by_the_call = token.clone();
/// token.cancel();
/// assert!(held_by_the_call.is_cancelled());
/// ```
#[derive(Clone, Debug, Default)]
pub struct CancelToken {
    cancelled: Arc<AtomicBool>,
}

impl CancelToken {
    /// A token that is not cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks every call that holds a clone to stop. Any thread may call this, any number of times.
    /// (It allocates nothing and takes no lock, so a signal handler's thread may call it.)
    pub fn cancel(&self) {
        // No other data is published through the flag: a thread that sees it late stops one segment
        // later.
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Returns true once any holder of a clone has called [`cancel`](Self::cancel).
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancelling_one_clone_cancels_all_and_no_other_token() {
        let token = CancelToken::new();
        let clone = token.clone();
        let stranger = CancelToken::new();
        assert!(!clone.is_cancelled());
        token.cancel();
        token.cancel();
        assert!(clone.is_cancelled());
        assert!(!stranger.is_cancelled());
    }
}
