//! The facade's tests that do not need a process of their own, as one program that is linked once.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::float_cmp,
    clippy::indexing_slicing,
    clippy::large_stack_arrays,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and its inputs are its own"
)]

#[macro_use]
extern crate vram_testkit;

#[cfg(feature = "audit")]
mod audit;
mod close;
mod events;
mod faults;
mod images;
mod kernels;
mod loss;
mod meanwhile;
mod moves;
mod public_names;
mod repair;
mod reports;
mod room;
mod seal;
mod shards;
mod tickets;
mod watch;
