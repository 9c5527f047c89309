//! The real `cust` on the simulated driver: all operations on memory, and every fault.
//!
//! Each test adds a device of its own, since a process has one driver and tests run in threads.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[macro_use]
extern crate vram_testkit;

mod bench;
mod contexts;
mod devices;
mod faults;
#[cfg(target_os = "linux")]
mod ipc;
mod memory;
mod misuse;
mod streams;
