//! The suites that do not need a process of their own, as one program that is linked once.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::large_stack_arrays,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, on figures of its own"
)]

#[macro_use]
extern crate vram_testkit;

mod documented;
mod panics;
mod stores;
mod stories;
