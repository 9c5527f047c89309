//! The tests of this crate that do not need a process of their own, as one program that is linked
//! once.

#![expect(
    clippy::indexing_slicing,
    clippy::similar_names,
    clippy::unwrap_used,
    reason = "a test fails by panicking, on figures of its own"
)]

#[macro_use]
extern crate vram_testkit;

mod adversary;
mod parallel;
mod round_trip;
mod sealing;
mod support;
