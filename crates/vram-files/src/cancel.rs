//! Asking a long call to stop: one flag, many holders.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// A request to stop that many threads can share.
///
/// Give a clone to the call and keep one. A cancelled call stops at the next segment, gives back
/// everything it took, and answers [`FileError::Cancelled`](crate::FileError::Cancelled). A token
/// stays cancelled: the next call needs a fresh one.
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
    /// A token that nobody has cancelled yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks every call that holds a clone to stop. Safe to call from any thread, any number of
    /// times. (It allocates nothing and takes no lock, so a signal handler's thread may call it.)
    pub fn cancel(&self) {
        // Nothing is published through the flag: whoever sees it late stops one segment later.
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked to stop.
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
