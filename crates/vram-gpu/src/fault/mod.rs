//! A device that fails on command: it wraps another device and injects faults by schedule or by
//! seed.
//!
//! Faults are injected behind the public trait, so the tested code is the code that runs in
//! production. Every call is logged, live device bytes can be inspected and altered, and a sticky
//! error makes the wrapper lost, as it would a real device.
//!
//! ```
//! use std::sync::Arc;
//! use vram_alloc::{ByteLen, DeviceRange, GpuIndex};
//! use vram_gpu::fault::{Action, FaultPlan, Op, When};
//! use vram_gpu::{Device, FaultDevice, HostDevice};
//!
//! let host = Arc::new(HostDevice::new(GpuIndex::new(0), ByteLen::MIB)?);
//! let plan = FaultPlan::new(42).rule(Op::Write, When::Nth(2), Action::ShortCopy { keep: 1 })?;
//! let device = FaultDevice::new(host, plan);
//!
//! let memory = device.allocate(ByteLen::new(4))?;
//! let all = DeviceRange::whole(memory.len());
//! memory.write(all, &[1, 1, 1, 1])?;
//! memory.write(all, &[2, 2, 2, 2])?; // the second write lies
//! let mut bytes = [0; 4];
//! memory.read(all, &mut bytes)?;
//! assert_eq!(bytes, [2, 1, 1, 1]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod core;
mod device;
mod kernels;
mod log;
mod memory;
mod plan;

pub use self::device::{FaultDevice, InspectError};
pub use self::log::{Call, Freed};
pub use self::plan::{Action, FaultPlan, Hook, Op, PlanError, When};
