//! Whether the manager is open, and which thread closes it.

use std::sync::OnceLock;

use vram_seal::KeyId;
use vram_space::on_a_worker;

use crate::sync::{
    AtomicBool, Condvar, Deadline, Mutex, ThreadId, current_thread, lock, wait_until,
};

/// Whether a manager is closed, and which thread is closing it.
#[derive(Debug, Default)]
pub struct Closing {
    pub(crate) closed: AtomicBool,
    /// Whether a closing thread has already claimed the `Closed` event.
    pub(crate) told: AtomicBool,
    pub(crate) last_key: OnceLock<KeyId>,
    closer: Mutex<Option<ThreadId>>,
    ended: Condvar,
}

/// The right to close the manager, until dropped. One thread at a time has it.
pub(crate) struct Turn<'a>(&'a Closing);

impl Closing {
    /// The id of the key that was active last; set when the keys are wiped.
    pub(crate) fn last_key(&self) -> Option<KeyId> {
        self.last_key.get().copied()
    }

    /// Waits for the right to close. `None` if another thread had it until the deadline, or if
    /// waiting would never end: this thread has it already, or is a worker of a call.
    pub(crate) fn turn(&self, deadline: Deadline) -> Option<Turn<'_>> {
        let own = current_thread();
        let mut closer = lock(&self.closer);
        while let Some(other) = *closer {
            if other == own || on_a_worker() {
                return None;
            }
            closer = wait_until(&self.ended, closer, deadline).ok()?;
        }
        *closer = Some(own);
        Some(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.closer) = None;
        self.0.ended.notify_all();
    }
}
