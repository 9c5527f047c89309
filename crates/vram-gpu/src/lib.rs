#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

pub mod codes;
#[cfg(any(feature = "contract", test))]
pub mod contract;
pub mod fault;

mod device;
mod dice;
mod error;
mod host;
mod info;
mod memory;
mod pending;
mod spec;
mod staging;

pub use device::Device;
pub use error::{FreeError, GpuError};
#[doc(inline)]
pub use fault::FaultDevice;
pub use host::{HostDevice, HostDeviceBuilder};
pub use info::{DeviceInfo, DeviceKind, DeviceState, DeviceUuid, MemoryInfo};
pub use memory::{DeviceAddress, DeviceMemory};
pub use pending::{Completion, Pending};
pub use spec::{DeviceSpec, ParseDeviceSpecError};
pub use staging::{Staging, StagingBuffer};
