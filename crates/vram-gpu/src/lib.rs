#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

// Defines the driver's functions: without this crate, code that uses `cust` does not link.
#[cfg(feature = "cuda")]
extern crate cuda_shim as _;

pub mod codes;
#[cfg(any(feature = "contract", test))]
pub mod contract;
pub mod fault;

#[cfg(feature = "cuda")]
#[expect(unsafe_code, reason = "the CUDA driver is a C interface; it is called here alone")]
mod cuda;
mod device;
mod dice;
mod error;
mod host;
mod info;
pub mod kernels;
mod memory;
mod pending;
mod share;
mod spec;
mod staging;

#[cfg(feature = "cuda")]
pub use cuda::{CudaDevice, CudaUnavailable, Sharing};
pub use device::Device;
pub use error::GpuError;
#[doc(inline)]
pub use fault::FaultDevice;
pub use host::{HostDevice, HostDeviceBuilder};
pub use info::{DeviceInfo, DeviceKind, DeviceState, MemoryInfo};
pub use memory::{DeviceAddress, DeviceMemory, FreeError};
pub use pending::{Completion, Pending};
pub use share::{SHARE_HANDLE_LEN, SHARE_UNIT, ShareHandle};
pub use spec::{DeviceSpec, ParseDeviceSpecError, PciBusId, UuidPrefix};
pub use staging::{Staging, StagingBuffer};
pub use vram_alloc::{DeviceRange, DeviceUuid};
