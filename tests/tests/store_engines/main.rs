//! Stores behind a network: a lying HTTP server of our own, S3 in this process, a real S3 server where one runs
//! (`VRAM_STORE_S3`), and how fast both are. `cargo xtask store` starts them.

#![expect(clippy::unwrap_used, reason = "a panic is the failure of the test")]
#![expect(clippy::arithmetic_side_effects, reason = "small numbers, checked in test builds")]
#![expect(clippy::indexing_slicing, reason = "an index out of bounds is the failure of the test")]
#![expect(clippy::as_conversions, reason = "lengths of tests, which fit any integer")]
#![expect(clippy::print_stdout, reason = "figures are read by a person")]

#[macro_use]
extern crate vram_testkit;

mod http;
mod in_process;
mod lies;
mod link;
mod model;
mod s3;
mod speed;
#[path = "../../../crates/vram-store/tests/it/through.rs"]
mod through;
