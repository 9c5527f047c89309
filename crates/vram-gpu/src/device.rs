//! The trait every device implements: the only door between policy and memory.

use core::any::Any;
use core::fmt;

use vram_alloc::ByteLen;

use crate::{DeviceInfo, DeviceMemory, DeviceState, GpuError, MemoryInfo, Staging};

/// A device that holds memory.
///
/// Every call may come from any thread, at the same time as others, and blocks until it is done. A
/// failed call changes nothing but what its error says. After a sticky error every call answers
/// [`GpuError::Lost`] without touching the driver, until [`reset`](Self::reset).
pub trait Device: Send + Sync + fmt::Debug {
    /// Identity and attributes, read when the device was opened.
    fn info(&self) -> &DeviceInfo;

    /// The driver's figures for the whole device, now.
    ///
    /// # Errors
    ///
    /// [`GpuError::Lost`], or [`GpuError::Driver`] if the driver does not answer.
    fn memory(&self) -> Result<MemoryInfo, GpuError>;

    /// Allocates `len` bytes whose contents are undefined: nobody may rely on zeros.
    ///
    /// # Arguments
    ///
    /// * `len`: bytes, at least 1.
    ///
    /// # Errors
    ///
    /// [`GpuError::ZeroLength`], [`GpuError::OutOfMemory`] with the driver's own free figure,
    /// [`GpuError::HostMemory`], [`GpuError::Lost`] or [`GpuError::Driver`].
    fn allocate(&self, len: ByteLen) -> Result<Box<dyn DeviceMemory>, GpuError>;

    /// A host buffer that this device copies to and from quickly (pinned where it can be). It
    /// starts as zeros and is wiped when dropped; `len` may be zero.
    ///
    /// # Errors
    ///
    /// [`GpuError::HostMemory`] if the host has no room, [`GpuError::Lost`] or [`GpuError::Driver`].
    fn staging(&self, len: ByteLen) -> Result<Staging, GpuError>;

    /// Whether the device takes calls; never touches the driver.
    fn state(&self) -> DeviceState;

    /// Empties the device and makes it usable again after a sticky error. Every allocation made
    /// before answers [`GpuError::StaleAllocation`] from then on.
    ///
    /// # Errors
    ///
    /// [`GpuError::Driver`] if the driver refuses; the device is as it was.
    fn reset(&self) -> Result<(), GpuError>;

    /// Whether memory of this device can receive a direct copy from memory of `other`.
    fn can_copy_from_peer(&self, other: &dyn Device) -> bool;

    /// The device that does the work: itself, or for a wrapper, what it wraps.
    fn backing(&self) -> &dyn Device;

    /// For a backend to recognise its own kind.
    fn as_any(&self) -> &dyn Any;
}
