//! Watching: how old what is known about a shard is, and the scrubber that keeps it young.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "a test fails by panicking"
)]

mod ages;
mod hands;
mod scrub;
mod thread;
mod vain;
