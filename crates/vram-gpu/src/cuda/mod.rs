//! NVIDIA GPUs through the CUDA driver. Every `unsafe` block of this crate is in this module.
//!
//! How it keeps its word:
//!
//! - **Contexts.** Each call binds the device's primary context to the calling thread for as long
//!   as it lasts, and leaves the thread's own context as it was: calls may come from any thread,
//!   and from programs that use CUDA themselves. One [`Core`](context::Core) stands for a device
//!   in the whole process, since its primary context is one.
//! - **Copies** go through page-locked memory and a stream of their own; a queued copy ends at its
//!   event. Nothing uses the default stream, and nothing returns before its work was waited for.
//! - **Sticky errors** take the device: nothing more is sent to it, frees included, until a reset.
//! - **A reset** waits for calls under way, destroys the context and starts an epoch. Handles of an
//!   earlier one are refused and never passed to the driver. Host buffers are this process's own,
//!   merely registered with the driver, so that they outlive any reset.
//! - **Locks.** The context is held for reading by each call and for writing by a reset alone; no
//!   thread takes it twice. Pools are locked for a push or a pop, never across a driver call.

mod allocation;
mod context;
mod device;
mod driver;
mod lane;
mod memory;
mod pages;
mod queued;
mod transfer;
mod unavailable;

pub use self::device::CudaDevice;
pub use self::unavailable::CudaUnavailable;
