#![doc = include_str!("../README.md")]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod abi_types;
#[macro_use]
mod call;
mod codes;
mod error_text;
mod resolver;
#[expect(
    non_snake_case,
    non_camel_case_types,
    reason = "generated: names and argument lists are those of the driver's own header"
)]
mod trampolines;

pub use abi_types::{IpcEventHandle, IpcMemHandle};
pub use codes::{clear_raw_code, code_name, last_raw_code};
pub use resolver::{
    Attempt, DRIVER_VARIABLE, DriverState, InstallError, Resolver, driver, install,
};

/// The type of each driver function, under the function's own name.
///
/// Enums are given as their integers, pointers to structs as `*mut c_void`; the ABI is the same. A
/// crate that implements a driver (a simulated one, say) binds its functions to these types, so
/// that the compiler compares them.
pub mod abi {
    pub use crate::error_text::abi::*;
    pub use crate::trampolines::abi::*;
}
