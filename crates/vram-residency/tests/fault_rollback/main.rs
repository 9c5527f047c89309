//! Whatever fails, at whatever call: the state is as before, or the error says what is not.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "a test fails by panicking"
)]

mod models;
mod single;
mod streams;
mod sweep;
mod transitions;
