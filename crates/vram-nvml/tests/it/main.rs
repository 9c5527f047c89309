//! The monitor over the complete path: `nvml-wrapper`, `dlopen`, a simulated library.

#![cfg(all(feature = "library", target_os = "linux"))]
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

#[macro_use]
extern crate vram_testkit;

mod answers;
mod hangs;
mod sim;
mod xids;
