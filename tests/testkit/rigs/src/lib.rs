//! Shared parts of the facade's suites: managers over devices that fail on command, one fault at
//! every call of an operation, and clocks, sources and sinks that tests control.

#![forbid(unsafe_code)]
#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test support: inputs are the suites' own, and a panic is a failed test"
)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod clock;
mod devices;
pub mod oracle;
mod rig;
mod slow;
mod stream;
mod sweep;

pub use clock::{CallingClock, TestClock};
pub use devices::{devices, held_up, with_kernels};
pub use rig::{Rig, SEGMENT};
pub use slow::{SlowReader, begin, in_time};
pub use stream::{ActingReader, ActingSource, ActingWriter, acts_at};
pub use sweep::{After, Fault, Faults, Outcome, Row};
pub use vram_testkit::{Dice, content, for_a_while, setting, weights};
