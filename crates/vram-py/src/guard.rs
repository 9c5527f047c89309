//! What a forked child may do with what its parent made: nothing.
//!
//! A child has one thread and a copy of all locks, some of them held by threads that it does not
//! have; it shares no CUDA context, and its copy of host memory is no longer what the manager counts.
//! So every call answers with an error there, and nothing of the facade is dropped.

use std::mem::ManuallyDrop;
use std::process;

use pyo3::prelude::*;

use crate::errors;

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
