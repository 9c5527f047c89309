//! Everything that reads bytes of others, as targets for a fuzzer.
//!
//! A target takes any bytes and fails by a panic. It does not only look for panics of the code under
//! test: each states which inputs must be accepted, by a reference of its own, and that a refusal
//! changes nothing. Most targets read their input as a script of edits to a genuine specimen, and
//! sign the result where they are told to, since codes would keep random bytes from getting far.
//!
//! Two programs run them: `fuzz-coverage` under libFuzzer, `fuzz-plain` with random changes alone.
//! `cargo xtask fuzz` builds and runs both; `tests/stress_targets.rs` runs each target for a moment.

#![forbid(unsafe_code)]
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test support: a panic is a finding"
)]

pub mod choices;
pub mod edits;
pub mod mutate;
pub mod seeds;
pub mod specimens;
pub mod targets;

/// One target.
#[derive(Debug)]
pub struct Target {
    /// Its name, and that of the folder of its seeds.
    pub name: &'static str,
    /// What it promises, in one line.
    pub promise: &'static str,
    /// Runs it on one input.
    pub run: fn(&[u8]),
    /// The inputs to start from, by name. The folder `seeds` holds the same as files.
    pub seeds: fn() -> Vec<(&'static str, Vec<u8>)>,
    /// The longest input that makes sense.
    pub len_max: usize,
    /// How many changed inputs the test of this target runs.
    pub cases: u32,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    targets::record::TARGET,
    targets::table::TARGET,
    targets::image::TARGET,
    targets::ranges::TARGET,
    targets::ticket::TARGET,
    targets::model_ticket::TARGET,
    targets::audit::TARGET,
    targets::handle::TARGET,
    targets::key::TARGET,
    targets::model::TARGET,
    targets::gguf::TARGET,
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
