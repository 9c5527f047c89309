//! What the driver does where its manual leaves it open, in plain calls without code of this
//! workspace, and the machine on which it does so. The simulated driver has to follow these facts.

mod driver;
mod host;
pub(crate) mod raw;

use core::fmt::Display;

use crate::rows::row;

/// Prints a fact of a device.
fn fact(ordinal: u32, what: &dyn Display, answer: &dyn Display) {
    row("fact", &[&format_args!("cuda:{ordinal}"), what, answer]);
}

/// The devices, by the driver's own numbers.
pub(crate) fn ordinals() -> core::ops::Range<u32> {
    cust::init(cust::CudaFlags::empty()).unwrap();
    0..cust::device::Device::num_devices().unwrap()
}
