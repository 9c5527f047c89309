//! The kernels of `vram-gpu`, as the PTX that ships, on the simulated driver: beside the reference
//! crates, and with one barrier or check taken out.

#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests are tests"
)]

#[macro_use]
extern crate vram_testkit;

mod blake3;
mod card;
mod chacha;
mod deletions;
mod edges;
mod fingerprint;
mod instructions;
mod rules;
mod wipe;
