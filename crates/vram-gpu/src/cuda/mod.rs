//! NVIDIA GPUs through the CUDA driver. Every `unsafe` block of this crate is in this module.
//!
//! How it keeps the promises of `Device`:
//!
//! - **Contexts.** Each call binds the device's primary context to the calling thread while it
//!   lasts, and restores the thread's own context: calls may come from any thread, and from
//!   programs that use CUDA themselves. One [`Core`](context::Core) stands for a device in the
//!   whole process, since a device has one primary context.
//! - **Copies** go through page-locked memory and a stream of their own; a queued copy ends at its
//!   event. No call uses the default stream or keeps order with it, and no call returns before its
//!   work was waited for.
//! - **Sticky errors** make the device lost: nothing more is sent to it, including frees, until a
//!   reset.
//! - **A reset** waits for running calls, destroys the context and starts an epoch. Handles of an
//!   earlier epoch are refused and never passed to the driver. Host buffers are memory of this
//!   process that is only registered with the driver, so that they outlive any reset.
//! - **Kernels** are loaded by a thread that ends before the device does, and belong to an epoch, as
//!   allocations do: see [`kernels`].
//! - **Locks.** The context is held for reading by each call and for writing only by a reset; no
//!   thread takes it twice. Pools are locked for a push or a pop, never across a driver call.

mod allocation;
mod context;
mod device;
mod driver;
mod kernels;
mod lane;
mod memory;
mod pages;
mod queued;
mod stream;
mod transfer;
mod unavailable;

pub use self::device::{CudaDevice, Sharing};
pub use self::unavailable::CudaUnavailable;
