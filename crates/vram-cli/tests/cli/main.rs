//! The built program, run as a user runs it: every command, every exit code, every kind of bad
//! input.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking"
)]

#[macro_use]
extern crate vram_testkit;

#[cfg(feature = "cuda")]
mod cards;
#[cfg(feature = "cuda")]
mod cuda;
mod demo;
mod expected;
mod files;
mod images;
mod interrupted;
// Loads without `--device`: a build with CUDA takes cards then, or fails (`cuda`).
#[cfg(not(feature = "cuda"))]
mod load;
mod operator;
mod outputs;
mod plan;
mod program;
#[cfg(not(feature = "cuda"))]
mod readme;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod shared;
mod stores;
mod support;
mod usage;
mod words;
