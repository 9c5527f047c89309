#![doc = include_str!("../README.md")]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod call;
mod code;
mod control;
mod driver;
mod environment;
mod fault;
#[expect(non_snake_case, reason = "named as the driver's functions are")]
pub mod functions;
mod handle;
mod host;
mod kernel;
mod memory;
mod overhead;
mod ptx;
mod queue;
mod random;
mod report;
mod shape;
mod shared;
mod spec;
mod table;
mod world;

pub use control::{DeviceFaults, Sim};
pub use driver::ipc::IpcMemHandle;
pub use environment::{DEVICES_VARIABLE, INIT_VARIABLE, MISUSE_VARIABLE};
pub use fault::{CallKind, Fault};
pub use functions::resolve;
pub use kernel::{KernelBody, Launch};
pub use memory::Allocation;
pub use report::{LeakReport, Misuse, MisuseKind};
pub use shape::LaunchShape;
pub use spec::{Backing, DeviceSpec, Resets};
