//! Checks for a real GPU. `cargo xtask gpu` builds this binary, runs its modules one after another,
//! each in a process of its own under a time limit, and turns their output into a report. It is one
//! program that can be copied to a machine without Rust.
//!
//! Without a CUDA device every check fails, since the run was requested. The same checks run over
//! the simulated driver as a shared object (`cargo xtask gpu --simulated`). That shows that the
//! checks work, and says nothing about a GPU.
//!
//! `VRAM_GPU_SIZES=256MiB,1GiB` sets the sizes of the measurements, `VRAM_GPU_KERNEL_BYTES=8GiB` the
//! bytes of those of kernels, `PROPTEST_CASES` the cases of the guide's properties. The checks take all free memory of a device for moments, and reset it:
//! do not run them while other programs use the device.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a check fails by panicking, and its inputs are its own"
)]

#[macro_use]
extern crate vram_testkit;

mod contract;
mod devices;
#[path = "facts/ending.rs"]
mod ending;
mod facts;
mod faults;
mod guide;
mod kernels;
mod machine;
mod measure;
mod plain;
mod residency;
mod rows;
mod seals;
mod transfers;
