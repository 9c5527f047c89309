//! The tests of this crate that need no process of their own, as one program: it is linked once.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking, on figures of its own"
)]

mod headers;
mod synth;
