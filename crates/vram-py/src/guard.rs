//! What a forked child may do with what its parent made: nothing.
//!
//! A child has one thread and a copy of all locks, some of them held by threads that it does not
//! have; it shares no CUDA context, and its copy of host memory is no longer what the manager counts.
//! So every call answers with an error there, and nothing of the facade is dropped.

use std::mem::ManuallyDrop;
use std::process;
use std::sync::OnceLock;

use pyo3::prelude::*;

use crate::errors;

/// The first process that made a manager. Its children have what its locks left in memory, and none of
/// its threads: not even a manager of their own would work there.
static MAKER: OnceLock<u32> = OnceLock::new();

/// Notes that this process makes a manager.
///
/// # Errors
///
/// `vram.ForkError` in a child of one that did.
pub(crate) fn may_make() -> PyResult<()> {
    let maker = *MAKER.get_or_init(process::id);
    if maker == process::id() { Ok(()) } else { Err(errors::forked(maker)) }
}

/// Ends a forked child that comes back into a call of its parent, from a callback or from a handler of
/// signals: the thread that does the work is not there, and there is no way to leave it behind.
#[expect(
    clippy::print_stderr,
    reason = "the last words of a process that cannot raise an exception"
)]
pub(crate) fn end_if_forked(pid: u32) {
    if pid != process::id() {
        eprintln!("vram: a process that was forked within a call of vram cannot return into it");
        process::abort();
    }
}

/// A value of the process that made it. Dropped there; left alone in a forked child.
#[derive(Debug)]
pub(crate) struct Guarded<T> {
    value: ManuallyDrop<Option<T>>,
    pid: u32,
}

impl<T> Guarded<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: ManuallyDrop::new(Some(value)), pid: process::id() }
    }

    /// The value, in the process that made it; `None` in a forked child.
    pub(crate) fn here(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.pid == process::id())
    }

    /// The value, in the process that made it.
    ///
    /// # Errors
    ///
    /// `vram.ForkError` in a forked child.
    pub(crate) fn get(&self) -> PyResult<&T> {
        self.here().ok_or_else(|| errors::forked(self.pid))
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        if self.pid == process::id() {
            drop(self.value.take());
        }
    }
}
