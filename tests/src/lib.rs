//! Shared parts of this package's suites: a reference model that is a plain map and a sum, a rig of
//! devices that fail on command, and a world that drives both through the same steps.

#![forbid(unsafe_code)]
#![expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "test support: inputs are the suites' own, and a panic is a failed test"
)]

pub mod budget;
pub mod reference;
pub mod repair;
pub mod rig;
pub mod step;
pub mod world;

/// The README's example is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
