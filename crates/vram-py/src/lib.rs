//! `vram._vram`: the native half of the Python package `vram`.
//!
//! Thin over [`vram_residency`]: a class here holds values of the facade, and a method is its call
//! with the interpreter released. What is only here is what Python needs: views that pin leases
//! ([`view`]), their export ([`raw`]), waiting that Ctrl-C can end ([`wait`]), and what happens in a
//! forked child ([`guard`]).

#![deny(unsafe_code)]

mod errors;
mod events;
mod guard;
mod manager;
mod model;
mod options;
#[expect(unsafe_code, reason = "DLPack and the buffer protocol are C structures")]
mod raw;
mod report;
mod resident;
mod tensor;
mod view;
mod wait;

use pyo3::prelude::*;

/// Model weights in device memory: placed, verified, watched. Imported by the package `vram`.
#[pymodule]
fn _vram(module: &Bound<'_, PyModule>) -> PyResult<()> {
    errors::prepare(module.py())?;
    module.add_class::<manager::Manager>()?;
    module.add_class::<model::Model>()?;
    module.add_class::<report::Verdict>()?;
    module.add_class::<events::Event>()?;
    module.add_class::<events::EventIterator>()?;
    module.add_function(wrap_pyfunction!(report::verify_ticket, module)?)?;
    module.add_class::<tensor::TensorBase>()?;
    module.add("Tensor", tensor::class(module.py())?)?;
    module.add_function(wrap_pyfunction!(wait::ending, module)?)?;
    module.add_function(wrap_pyfunction!(manager::room_for, module)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
