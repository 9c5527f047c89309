//! The server as its clients see it: over a port of loopback, a Unix socket and TLS.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking"
)]

#[macro_use]
extern crate vram_testkit;

mod access;
mod bad;
mod config;
mod control;
mod crowds;
mod events;
mod evictions;
mod figures;
mod leases;
mod openapi;
mod resets;
mod stop;
mod stores;
mod support;
mod transcript;
