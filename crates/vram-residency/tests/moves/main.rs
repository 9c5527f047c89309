//! Moves: whatever becomes of a shard, its bytes come back equal, or an error says why not and
//! everything is as it was.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "a test fails by panicking"
)]

mod compact;
mod keys;
mod links;
mod models;
mod park;
mod sealed_images;
#[path = "../fault_rollback/sweep.rs"]
mod sweep;
