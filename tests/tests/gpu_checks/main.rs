//! What a real GPU has to show: `cargo xtask gpu` builds this binary, runs it and turns what it
//! prints into a report. It is one program that can be carried to a machine without Rust.
//!
//! Where there is no CUDA device, every check fails: it was asked for. The same checks run over the
//! simulated driver as a shared object (`cargo xtask gpu --simulated`), which shows that they work
//! and nothing of a GPU.
//!
//! `VRAM_GPU_SIZES=256MiB,1GiB` sets the sizes of the measurements, `PROPTEST_CASES` the cases of
//! the guide's properties. The checks take all free memory of a device for moments, and reset it:
//! not beside anybody else's work.

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

mod contract;
mod devices;
mod faults;
mod guide;
mod machine;
mod measure;
mod plain;
mod residency;
mod rows;
mod seals;
mod transfers;
