//! What a writer shows of itself while a manager owns it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::head::AuditHead;

pub(crate) struct Figures(Mutex<Shown>);

pub(crate) struct Shown {
    pub(crate) head: AuditHead,
    pub(crate) failed: u64,
    pub(crate) ended: bool,
}

impl Figures {
    pub(crate) const fn new(head: AuditHead) -> Self {
        Self(Mutex::new(Shown { head, failed: 0, ended: false }))
    }

    /// Takes the lock, also after another holder panicked: each change is one assignment. No other
    /// lock is taken inside it, and no file is touched.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
