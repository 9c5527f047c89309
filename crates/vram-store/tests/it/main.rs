//! A store from outside: pushed to, pulled from, lied to.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is the failure of the test")]
#![expect(clippy::arithmetic_side_effects, reason = "small numbers, checked in test builds")]
#![expect(clippy::indexing_slicing, reason = "an index out of bounds is the failure of the test")]

#[macro_use]
extern crate vram_testkit;

mod cached;
mod collecting;
mod faults;
#[cfg(feature = "cloud")]
mod http;
mod liar;
mod lies;
mod links;
mod manifests;
mod mending;
mod pushing;
mod silent;
mod support;
mod through;
mod upkeep;
