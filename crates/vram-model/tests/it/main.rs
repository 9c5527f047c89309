//! The tests of this crate that do not need a process of their own, as one program that is linked
//! once.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, on figures of its own"
)]

#[macro_use]
extern crate vram_testkit;

mod gguf;
mod headers;
mod lookalikes;
mod sets;
mod synth;
