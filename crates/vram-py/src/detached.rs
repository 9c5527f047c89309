//! Work without the interpreter, which may begin to end meanwhile.

use std::sync::OnceLock;
use std::thread::{self, ThreadId};

use pyo3::prelude::*;

/// The thread that ends the interpreter, once it has begun to.
static ENDER: OnceLock<ThreadId> = OnceLock::new();

/// Does work with the interpreter released, as [`Python::detach`] does.
///
/// A daemon thread that comes back after the interpreter has begun to end stays here until the process
/// ends, as threads of Python 3.14 do. Older versions end such a thread in the middle of its frames, and
/// those of Rust then abort the process.
pub(crate) fn detach<T: Send>(py: Python<'_>, work: impl Send + FnOnce() -> T) -> T {
    py.detach(|| {
        let done = work();
        if ENDER.get().is_some_and(|ender| *ender != thread::current().id()) {
            loop {
                thread::park();
            }
        }
        done
    })
}

/// Called when the interpreter has begun to end: after the threads that it waits for, before it stops the
/// others, and before managers are closed under them.
#[pyfunction]
pub(crate) fn ending() {
    // Once is enough.
    let _earlier = ENDER.set(thread::current().id());
}
